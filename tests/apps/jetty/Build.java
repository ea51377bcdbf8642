import java.io.*;
import java.nio.file.*;
import java.util.*;

/** One run of a job: a checkout by git, then its script, which would outlive this program. */
class Build implements Runnable {
    static final String COOKIE = "CONTROLLER_COOKIE";
    final Path job, folder;
    final String name, script, cookie;
    final int number;
    volatile String result = "QUEUED";
    volatile boolean aborted;

    Build(Path job, int number, String script) {
        this.job = job;
        this.number = number;
        this.script = script;
        name = job.getFileName().toString();
        folder = job.resolve("builds").resolve("" + number);
        cookie = name + "-" + number;
    }

    void become(String result) throws IOException {
        this.result = result;
        Map<String, String> values = new LinkedHashMap<>();
        values.put("number", "" + number);
        values.put("result", result);
        values.put("time", "" + System.currentTimeMillis());
        Xml.write(folder.resolve("build.xml"), values);
    }

    public void run() {
        try {
            Files.createDirectories(folder);
            become("RUNNING");
            boolean good = perform(Files.createDirectories(job.resolve("workspace")));
            become(aborted ? "ABORTED" : good ? "SUCCESS" : "FAILURE");
            Path link = job.resolve("builds/last.tmp" + number);
            Files.createSymbolicLink(link, Paths.get("" + number));
            Files.move(link, job.resolve("builds/last"), StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        } catch (Exception failed) {
            failed.printStackTrace();
            result = "ERROR " + failed;
        }
    }

    ProcessBuilder command(Path where, String... words) {
        ProcessBuilder builder = new ProcessBuilder(words).directory(where.toFile()).redirectErrorStream(true);
        builder.environment().put(COOKIE, cookie);
        builder.environment().put("BUILD_NUMBER", "" + number);
        return builder;
    }

    /** What a command prints, without the last line's end; an exception where it fails. */
    String output(Path where, String... words) throws Exception {
        Process process = command(where, words).start();
        process.getOutputStream().close();
        String text = new String(process.getInputStream().readAllBytes());
        if (process.waitFor() != 0) throw new IOException(String.join(" ", words) + ": " + process.exitValue() + ": " + text);
        return text.trim();
    }

    boolean perform(Path workspace) throws Exception {
        if (!Files.exists(workspace.resolve(".git"))) output(workspace, "git", "init", "-q", ".");
        output(workspace, "git", "fetch", "-q", "--no-tags", "file:///repository", "+refs/heads/*:refs/remotes/origin/*");
        String revision = output(workspace, "git", "rev-parse", "refs/remotes/origin/main^{commit}");
        output(workspace, "git", "checkout", "-q", "-f", revision);
        output(workspace, "git", "clean", "-q", "-fdx");
        Path control = Files.createDirectories(job.resolve("workspace@tmp/durable-" + number));
        Path file = Files.write(control.resolve("script.sh"), ("#!/bin/sh -xe\n" + script).getBytes());
        file.toFile().setExecutable(true);
        // The log is touched while the script runs; the result appears by a rename.
        String wrapper = "(while [ -d '" + control + "' ] && [ ! -f '" + control + "/result' ]; do touch '" + control + "/log'; sleep 1; done) & "
                + "'" + file + "' >'" + control + "/log' 2>&1 </dev/null; echo $? >'" + control + "/result.tmp'; "
                + "mv '" + control + "/result.tmp' '" + control + "/result'; wait";
        ProcessBuilder builder = command(workspace, "nohup", "setsid", "sh", "-c", wrapper);
        builder.redirectOutput(ProcessBuilder.Redirect.DISCARD);
        builder.start();
        Path status = control.resolve("result");
        for (int pause = 5; !Files.exists(status) && !aborted; pause = Math.min(pause * 2, 100)) Thread.sleep(pause);
        String code = aborted ? "aborted" : new String(Files.readAllBytes(status)).trim();
        Files.write(folder.resolve("log"), ("Checked out " + revision + "\n").getBytes());
        Files.write(folder.resolve("log"), Files.readAllBytes(control.resolve("log")), StandardOpenOption.APPEND);
        Files.write(folder.resolve("log"), ("Finished: " + code + "\n").getBytes(), StandardOpenOption.APPEND);
        remove(control);
        return code.equals("0");
    }

    /** Removes a folder; the loop of the wrapper may touch the log once more. */
    static void remove(Path folder) throws Exception {
        for (int round = 0;; round++) {
            for (File file : folder.toFile().listFiles()) Files.deleteIfExists(file.toPath());
            try {
                Files.delete(folder);
                return;
            } catch (DirectoryNotEmptyException touched) {
                if (round == 10) throw touched;
            }
        }
    }

    /** Ends every process that carries the build's mark in its environment; how many there were. */
    int stop() throws Exception {
        aborted = true;
        Set<Long> seen = new TreeSet<>();
        for (int round = 0; round < 100; round++) {
            Set<Long> left = processes();
            seen.addAll(left);
            if (left.isEmpty()) return seen.size();
            for (long pid : left) {
                Optional<ProcessHandle> process = ProcessHandle.of(pid);
                if (round < 20) process.ifPresent(ProcessHandle::destroy); else process.ifPresent(ProcessHandle::destroyForcibly);
            }
            Thread.sleep(50);
        }
        throw new IOException("still there: " + processes());
    }

    Set<Long> processes() throws IOException {
        Set<Long> found = new TreeSet<>();
        String mark = COOKIE + "=" + cookie + "\0";
        try (DirectoryStream<Path> all = Files.newDirectoryStream(Paths.get("/proc"), "[0-9]*")) {
            for (Path process : all) {
                try {
                    String status = new String(Files.readAllBytes(process.resolve("status")));
                    String environment = new String(Files.readAllBytes(process.resolve("environ")), "ISO-8859-1");
                    if (environment.contains(mark) && !status.contains("\nState:\tZ")) found.add(Long.parseLong(process.getFileName().toString()));
                } catch (IOException gone) {
                    // It ended meanwhile.
                }
            }
        }
        return found;
    }
}
