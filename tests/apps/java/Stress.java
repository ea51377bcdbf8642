import java.io.*;
import java.nio.*;
import java.nio.channels.FileChannel;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;

/** What leans on signals, memory and processes. Prints `NAME ok` for each part named by the arguments. */
public class Stress {
    static int[] nothing;
    static volatile int sink;

    static void nulls() {
        int caught = 0;
        for (int i = 0; i < 300_000; i++) {
            try {
                sink += nothing.length;
            } catch (NullPointerException expected) {
                caught++;
            }
        }
        check(caught == 300_000, "caught " + caught);
    }

    static void arithmetic() {
        int caught = 0, zero = sink == -1 ? 1 : 0;
        for (int i = 0; i < 200_000; i++) {
            try {
                sink += i / zero;
            } catch (ArithmeticException expected) {
                caught++;
            }
        }
        check(caught == 200_000, "caught " + caught);
    }

    static int deep(int n) {
        return deep(n + 1) + 1;
    }

    static void recursion() throws Exception {
        Thread[] threads = new Thread[4];
        ConcurrentLinkedQueue<Integer> overflows = new ConcurrentLinkedQueue<>();
        for (int t = 0; t < threads.length; t++) {
            threads[t] = new Thread(() -> {
                for (int i = 0; i < 50; i++) {
                    try {
                        deep(0);
                    } catch (StackOverflowError expected) {
                        overflows.add(i);
                    }
                }
            });
            threads[t].start();
        }
        for (Thread thread : threads) thread.join();
        check(overflows.size() == 200, "overflows " + overflows.size());
        try {
            deep(0);
            check(false, "no overflow of the first thread");
        } catch (StackOverflowError expected) {
        }
    }

    static void buffers() throws Exception {
        for (int i = 0; i < 50; i++) {
            ByteBuffer direct = ByteBuffer.allocateDirect(4 << 20);
            for (int at = 0; at < direct.capacity(); at += 4096) direct.put(at, (byte) at);
        }
        Path path = Files.createTempFile("mapped", "");
        try (FileChannel file = FileChannel.open(path, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            MappedByteBuffer map = file.map(FileChannel.MapMode.READ_WRITE, 0, 16 << 20);
            for (int at = 0; at < map.capacity(); at += 512) map.putInt(at, at);
            map.force();
            ByteBuffer read = ByteBuffer.allocate(4);
            file.read(read, 5120);
            check(read.getInt(0) == 5120, "mapped and read differ");
            // What is cut off below a map answers with an InternalError (SIGBUS), not with a crash.
            file.truncate(4096);
            try {
                sink = map.get(8 << 20);
                check(false, "no error beyond the end");
            } catch (InternalError expected) {
            }
            file.write(ByteBuffer.wrap(new byte[100]), 0);
            try (FileChannel to = FileChannel.open(Paths.get("/tmp/copy"), StandardOpenOption.CREATE, StandardOpenOption.WRITE)) {
                check(file.transferTo(0, 4096, to) == 4096, "transferTo");
            }
        }
    }

    static void exec() throws Exception {
        byte[][] heap = new byte[100][];
        for (int i = 0; i < heap.length; i++) heap[i] = new byte[1 << 20];
        ExecutorService pool = Executors.newFixedThreadPool(8);
        List<Future<String>> results = new ArrayList<>();
        for (int i = 0; i < 60; i++) {
            final int n = i;
            results.add(pool.submit(() -> {
                Process child = Runtime.getRuntime().exec(new String[] {"sh", "-c", "cat; echo " + n + "; exit 3"});
                child.getOutputStream().write("in ".getBytes());
                child.getOutputStream().close();
                String line = new BufferedReader(new InputStreamReader(child.getInputStream())).readLine();
                return line + " " + child.waitFor();
            }));
        }
        for (int i = 0; i < results.size(); i++) {
            check(results.get(i).get(30, TimeUnit.SECONDS).equals("in " + i + " 3"), results.get(i).get());
        }
        Process sleeper = new ProcessBuilder("sleep", "100").start();
        sleeper.destroy();
        check(sleeper.waitFor() == 143, "destroyed");
        pool.shutdown();
    }

    static void watch() throws Exception {
        Path folder = Files.createTempDirectory("watched");
        WatchService service = FileSystems.getDefault().newWatchService();
        folder.register(service, StandardWatchEventKinds.ENTRY_CREATE, StandardWatchEventKinds.ENTRY_MODIFY);
        Files.write(folder.resolve("a"), "x".getBytes());
        WatchKey key = service.poll(10, TimeUnit.SECONDS);
        check(key != null && key.pollEvents().get(0).context().toString().equals("a"), "no event");
    }

    static void garbage() throws Exception {
        Thread[] threads = new Thread[8];
        for (int t = 0; t < threads.length; t++) {
            threads[t] = new Thread(() -> {
                Map<Integer, byte[]> live = new HashMap<>();
                for (int i = 0; i < 40_000; i++) live.put(i % 500, new byte[2000 + i % 1000]);
            });
            threads[t].start();
        }
        for (Thread thread : threads) thread.join();
        System.gc();
    }

    static void threads() throws Exception {
        CountDownLatch done = new CountDownLatch(1000);
        SynchronousQueue<Integer> queue = new SynchronousQueue<>();
        for (int i = 0; i < 1000; i++) {
            new Thread(() -> {
                try {
                    Thread.sleep(20);
                } catch (InterruptedException ignored) {
                }
                done.countDown();
            }).start();
        }
        check(done.await(60, TimeUnit.SECONDS), "threads");
        Thread taker = new Thread(() -> {
            try {
                for (int i = 0; i < 2000; i++) sink += queue.take();
            } catch (InterruptedException ignored) {
            }
        });
        taker.start();
        for (int i = 0; i < 2000; i++) queue.put(i);
        taker.join();
        long began = System.nanoTime();
        ScheduledExecutorService timer = Executors.newScheduledThreadPool(2);
        timer.schedule(() -> sink++, 50, TimeUnit.MILLISECONDS).get();
        check(System.nanoTime() - began >= 50_000_000, "timer came early");
        timer.shutdown();
    }

    static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }

    public static void main(String[] parts) throws Exception {
        for (String part : parts) {
            Stress.class.getDeclaredMethod(part).invoke(null);
            System.out.println(part + " ok");
        }
    }
}
