import java.io.*;
import java.net.*;
import java.nio.channels.*;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.jar.*;
import java.util.stream.*;
import javax.servlet.ServletException;
import javax.servlet.http.*;

/**
 * Keeps jobs and their builds as files below /data, as Jenkins does. POST /job/NAME with a script makes a job,
 * POST /job/NAME/build runs it, POST /job/NAME/NUMBER/stop ends it; GET /job/NAME/NUMBER, /job/NAME/NUMBER/log, /status.
 */
public class Controller extends HttpServlet {
    static final Path HOME = Paths.get("/data"), JOBS = HOME.resolve("jobs");
    final Map<String, String> scripts = new ConcurrentHashMap<>();
    final Map<String, Build> builds = new ConcurrentHashMap<>();
    final Map<String, Integer> last = new ConcurrentHashMap<>();
    final ExecutorService executors = Executors.newFixedThreadPool(6);
    final List<String> plugins = new ArrayList<>();
    FileChannel owner;

    @Override
    public void init() throws ServletException {
        try {
            owner = FileChannel.open(HOME.resolve(".owner"), StandardOpenOption.CREATE, StandardOpenOption.WRITE);
            if (owner.tryLock() == null) {
                System.out.println("/data is in use");
                Runtime.getRuntime().halt(5);
            }
            try (DirectoryStream<Path> archives = Files.newDirectoryStream(Paths.get("/app/plugins"), "*.jar")) {
                for (Path archive : archives) plugins.add(load(archive));
            }
            Files.createDirectories(JOBS);
            try (DirectoryStream<Path> jobs = Files.newDirectoryStream(JOBS)) {
                for (Path job : jobs) restore(job);
            }
            System.out.println(plugins.size() + " plugins, " + scripts.size() + " jobs, " + builds.size() + " builds");
        } catch (Exception failed) {
            throw new ServletException(failed);
        }
    }

    /** Unpacks a plugin once, and loads it from where it was unpacked and from its archive. */
    static String load(Path archive) throws Exception {
        String name = archive.getFileName().toString().replace(".jar", "");
        Path folder = HOME.resolve("plugins").resolve(name);
        if (!Files.exists(folder.resolve(".unpacked"))) {
            try (JarInputStream jar = new JarInputStream(new BufferedInputStream(Files.newInputStream(archive)))) {
                for (JarEntry entry; (entry = jar.getNextJarEntry()) != null;) {
                    Path target = folder.resolve(entry.getName());
                    if (entry.isDirectory()) {
                        Files.createDirectories(target);
                    } else {
                        Files.createDirectories(target.getParent());
                        Files.copy(jar, target, StandardCopyOption.REPLACE_EXISTING);
                        Files.setLastModifiedTime(target, entry.getLastModifiedTime());
                    }
                }
            }
            Files.createFile(folder.resolve(".unpacked"));
        }
        URLClassLoader loader = new URLClassLoader(new URL[] {folder.toUri().toURL(), archive.toUri().toURL()});
        Class<?> type = loader.loadClass(name.replace("plugin", "Plugin"));
        Properties messages = new Properties();
        for (int n = 1; n <= 100; n++) messages.load(loader.getResourceAsStream("resources/" + n + ".properties"));
        if (messages.size() != 100) throw new IOException(name + " has " + messages.size() + " messages");
        return ((java.util.function.Supplier<?>) type.getDeclaredConstructor().newInstance()).get().toString();
    }

    void restore(Path job) throws Exception {
        String name = job.getFileName().toString();
        scripts.put(name, Xml.read(job.resolve("config.xml")).get("script"));
        if (!Files.exists(job.resolve("builds"))) return;
        try (DirectoryStream<Path> all = Files.newDirectoryStream(job.resolve("builds"), "[0-9]*")) {
            for (Path folder : all) {
                if (!Files.exists(folder.resolve("build.xml"))) continue;
                Map<String, String> values = Xml.read(folder.resolve("build.xml"));
                Build build = new Build(job, Integer.parseInt(values.get("number")), scripts.get(name));
                build.result = values.get("result");
                if (build.result.equals("RUNNING")) build.become("INTERRUPTED");
                builds.put(build.cookie, build);
                last.merge(name, build.number, Math::max);
            }
        }
    }

    @Override
    protected void doPost(HttpServletRequest request, HttpServletResponse response) throws IOException {
        String[] path = request.getPathInfo().split("/");
        String answer;
        try {
            if (path.length == 3) {
                Path job = Files.createDirectories(JOBS.resolve(path[2]));
                String script = request.getReader().lines().collect(Collectors.joining("\n"));
                Xml.write(job.resolve("config.xml"), Map.of("script", script));
                scripts.put(path[2], script);
                answer = "made";
            } else if (path[3].equals("build")) {
                int number = last.merge(path[2], 1, Integer::sum);
                Build build = new Build(JOBS.resolve(path[2]), number, scripts.get(path[2]));
                builds.put(build.cookie, build);
                executors.execute(build);
                answer = "" + number;
            } else {
                answer = "ended " + builds.get(path[2] + "-" + path[3]).stop();
            }
        } catch (Exception failed) {
            response.setStatus(500);
            answer = failed.toString();
        }
        response.getWriter().println(answer);
    }

    @Override
    protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
        String[] path = request.getPathInfo().split("/");
        if (path.length >= 4 && path[1].equals("job")) {
            Build build = builds.get(path[2] + "-" + path[3]);
            if (path.length == 4) response.getWriter().println(build == null ? "NONE" : build.result);
            else response.getOutputStream().write(Files.readAllBytes(build.folder.resolve("log")));
            return;
        }
        Map<String, Long> counts = builds.values().stream()
                .collect(Collectors.groupingBy(b -> b.result, TreeMap::new, Collectors.counting()));
        response.getWriter().println(scripts.size() + " jobs " + counts);
    }

    /** At the end of the server: running builds are ended with all that they started. */
    @Override
    public void destroy() {
        executors.shutdownNow();
        for (Build build : builds.values()) {
            try {
                if (build.result.equals("RUNNING")) {
                    build.stop();
                    build.become("INTERRUPTED");
                }
            } catch (Exception failed) {
                failed.printStackTrace();
            }
        }
        System.out.println("saved " + builds.size() + " builds");
    }
}
