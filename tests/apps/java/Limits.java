/** What the libraries say of the container's limits. */
public class Limits {
    public static void main(String[] arguments) {
        com.sun.management.OperatingSystemMXBean system =
                (com.sun.management.OperatingSystemMXBean) java.lang.management.ManagementFactory.getOperatingSystemMXBean();
        Runtime runtime = Runtime.getRuntime();
        System.out.println("seen " + runtime.availableProcessors() + " processors, a heap of " + (runtime.maxMemory() >> 20)
                + " MB, memory of " + (system.getTotalPhysicalMemorySize() >> 20) + " MB, a pool of "
                + java.util.concurrent.ForkJoinPool.commonPool().getParallelism());
    }
}
