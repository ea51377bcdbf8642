# Java 8: what Java 17 is asked for (../java/test.sh), with the collectors of its time. Its debugger cannot tell threads
# apart without the symbols of another package.
COLLECTORS="Parallel G1 Serial ConcMarkSweep"
DEBUGGER="jstack -F"
DEBUGGER_FINDS="JVM version is 25."
. "$(dirname "$0")/../java/test.sh"
