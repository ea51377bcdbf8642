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

    /** Null checks of compiled code in many threads at once, while collections stop them. */
    static void nullsOfThreads() throws Exception {
        Thread[] threads = new Thread[8];
        ConcurrentLinkedQueue<Integer> counts = new ConcurrentLinkedQueue<>();
        for (int t = 0; t < threads.length; t++) {
            threads[t] = new Thread(() -> {
                int caught = 0;
                for (int i = 0; i < 40_000; i++) {
                    Object[] holder = new Object[] {null, new byte[100]};
                    try {
                        sink += holder[i & 1].hashCode();
                    } catch (NullPointerException expected) {
                        caught++;
                    }
                }
                counts.add(caught);
            });
            threads[t].start();
        }
        for (Thread thread : threads) thread.join();
        for (int caught : counts) check(caught == 20_000, "caught " + caught);
        check(counts.size() == 8, "threads " + counts.size());
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
            // More than there is memory: pages come as they are touched; read-only and private maps of the same file.
            MappedByteBuffer sparse = file.map(FileChannel.MapMode.READ_WRITE, 1L << 32, Integer.MAX_VALUE);
            for (int at = 0; at < sparse.capacity() - 4 && at >= 0; at += 1 << 24) sparse.putInt(at, at);
            MappedByteBuffer same = file.map(FileChannel.MapMode.READ_ONLY, 1L << 32, 1 << 26);
            MappedByteBuffer own = file.map(FileChannel.MapMode.PRIVATE, 1L << 32, 1 << 26);
            own.putInt(1 << 24, 7);
            check(same.getInt(1 << 24) == 1 << 24 && own.getInt(1 << 25) == 1 << 25 && own.getInt(1 << 24) == 7, "maps differ");
            file.truncate(4096);
            file.write(ByteBuffer.wrap(new byte[100]), 0);
            try (FileChannel to = FileChannel.open(Paths.get("/tmp/copy"), StandardOpenOption.CREATE, StandardOpenOption.WRITE)) {
                check(file.transferTo(0, 4096, to) == 4096, "transferTo");
            }
        }
    }

    /** Direct memory has a limit of its own (-XX:MaxDirectMemorySize), and is given back. */
    static void directLimit() throws Exception {
        List<ByteBuffer> all = new ArrayList<>();
        try {
            for (int i = 0; i < 100; i++) all.add(ByteBuffer.allocateDirect(2 << 20));
            check(false, "no end of direct memory");
        } catch (OutOfMemoryError expected) {
            // Channels keep a little for themselves.
            check(all.size() >= 30 && all.size() <= 32, "buffers " + all.size());
        }
        all.clear();
        for (int i = 0; i < 30; i++) ByteBuffer.allocateDirect(2 << 20).put(0, (byte) 1);
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
        try {
            Runtime.getRuntime().exec("/no/such/program");
            check(false, "no error");
        } catch (IOException expected) {
            check(expected.getMessage().contains("error=2"), expected.getMessage());
        }
        // What is big goes both ways; folder and variables are the child's own.
        ProcessBuilder builder = new ProcessBuilder("sh", "-c", "pwd; echo $MARK; cat; ls /proc/self/fd | wc -l >&2");
        builder.directory(new File("/usr")).environment().put("MARK", "here");
        builder.redirectError(new File("/tmp/errors"));
        Process big = builder.start();
        Thread writer = new Thread(() -> {
            try (OutputStream out = big.getOutputStream()) {
                for (int i = 0; i < 300; i++) out.write(new byte[10_000]);
            } catch (IOException failed) {
                failed.printStackTrace();
            }
        });
        writer.start();
        DataInputStream in = new DataInputStream(big.getInputStream());
        byte[] head = new byte[10];
        in.readFully(head);
        check(new String(head).equals("/usr\nhere\n"), new String(head));
        in.readFully(new byte[3_000_000]);
        check(in.read() == -1 && big.waitFor() == 0, "big");
        // Nothing of the parent's is left open: 0, 1, 2 and the folder itself.
        check(new String(Files.readAllBytes(Paths.get("/tmp/errors"))).trim().equals("4"), "descriptors");
        pool.shutdown();
    }

    static void watch() throws Exception {
        Path folder = Files.createTempDirectory("watched");
        WatchService service = FileSystems.getDefault().newWatchService();
        folder.register(service, StandardWatchEventKinds.ENTRY_CREATE, StandardWatchEventKinds.ENTRY_MODIFY);
        Files.write(folder.resolve("a"), "x".getBytes());
        WatchKey key = service.poll(10, TimeUnit.SECONDS);
        check(key != null && key.pollEvents().get(0).context().toString().equals("a"), "no event");
        key.reset();
        folder.register(service, StandardWatchEventKinds.ENTRY_CREATE, StandardWatchEventKinds.ENTRY_DELETE);
        Set<String> seen = new TreeSet<>(), wanted = new TreeSet<>();
        for (int i = 0; i < 100; i++) {
            Files.move(Files.write(folder.resolve("new" + i), new byte[i]), folder.resolve("file" + i));
            wanted.add("ENTRY_CREATE file" + i);
        }
        for (int i = 0; i < 100; i += 2) {
            Files.delete(folder.resolve("file" + i));
            wanted.add("ENTRY_DELETE file" + i);
        }
        while (!seen.containsAll(wanted)) {
            key = service.poll(10, TimeUnit.SECONDS);
            check(key != null, "only " + seen);
            for (WatchEvent<?> event : key.pollEvents()) seen.add(event.kind() + " " + event.context());
            key.reset();
        }
        for (int i = 1; i < 100; i += 2) Files.delete(folder.resolve("file" + i));
        Files.delete(folder.resolve("a"));
        Files.delete(folder);
        do {
            key = service.poll(10, TimeUnit.SECONDS);
            check(key != null, "the folder's end is not told");
            key.pollEvents();
        } while (key.reset());
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
