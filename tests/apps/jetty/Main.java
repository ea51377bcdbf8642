import java.io.File;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.webapp.WebAppContext;

/** Unpacks the web application into /data/war and serves it. */
public class Main {
    public static void main(String[] arguments) throws Exception {
        long began = System.nanoTime();
        Server server = new Server(8080);
        WebAppContext application = new WebAppContext("/app/controller.war", "/");
        application.setTempDirectory(new File("/data/war"));
        application.setPersistTempDirectory(true);
        application.setThrowUnavailableOnStartupException(true);
        server.setHandler(application);
        server.setStopAtShutdown(true);
        server.start();
        System.out.println("ready after " + (System.nanoTime() - began) / 1_000_000 + " ms");
        server.join();
    }
}
