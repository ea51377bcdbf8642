import com.sun.net.httpserver.HttpServer;
import java.io.*;
import java.net.InetSocketAddress;
import java.nio.*;
import java.nio.channels.FileChannel;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;

/** A threaded server: / is small, /work allocates, /count counts over restarts. */
public class Server {
    static final AtomicLong count = new AtomicLong();

    static void reply(com.sun.net.httpserver.HttpExchange exchange, String text) throws IOException {
        byte[] bytes = text.getBytes("UTF-8");
        exchange.sendResponseHeaders(200, bytes.length);
        try (OutputStream out = exchange.getResponseBody()) {
            out.write(bytes);
        }
    }

    public static void main(String[] arguments) throws Exception {
        Path state = Paths.get("/data/count");
        if (Files.exists(state)) {
            count.set(Long.parseLong(new String(Files.readAllBytes(state)).trim()));
        }
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                Path fresh = Paths.get("/data/count.new");
                Files.write(fresh, (count.get() + "\n").getBytes());
                Files.move(fresh, state, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
                System.out.println("saved " + count.get());
            } catch (IOException failed) {
                failed.printStackTrace();
            }
        }));
        HttpServer server = HttpServer.create(new InetSocketAddress(8080), 512);
        server.setExecutor(Executors.newFixedThreadPool(16));
        server.createContext("/", exchange -> reply(exchange, "hello\n"));
        server.createContext("/count", exchange -> reply(exchange, count.incrementAndGet() + "\n"));
        server.createContext("/work", exchange -> {
            List<byte[]> garbage = new ArrayList<>();
            for (int i = 0; i < 200; i++) {
                garbage.add(new byte[10_000]);
            }
            Map<String, Integer> words = new TreeMap<>();
            for (int i = 0; i < 1000; i++) {
                words.merge("word" + i % 97, garbage.size(), Integer::sum);
            }
            reply(exchange, words.get("word1") + "\n");
        });
        server.start();
        System.out.println("serving with " + Runtime.getRuntime().availableProcessors() + " processors and "
                + (Runtime.getRuntime().maxMemory() >> 20) + " MB");
    }
}
