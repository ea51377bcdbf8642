# Java 17 (and 8, by ../java8): a threaded server under load with several collectors, jstack and attach, signals of
# the machine as exceptions, children from a large heap, limits of the container.
. "$(dirname "$0")/../lib.sh"

COLLECTORS=${COLLECTORS:-G1 Serial Parallel Z Shenandoah}
# The tool that reads another Java process by ptrace(2), and what it must find there.
DEBUGGER=${DEBUGGER:-jhsdb jstack --pid}
DEBUGGER_FINDS=${DEBUGGER_FINDS:-sun.net.httpserver.ServerImpl}

server() {
    start "$1" -v /data $2 "$IMAGE" java -Xmx256m ${*:3} -cp /app Server
    serves "$1" 8080
    URL=http://$(address "$1"):8080
}

collectors() {
    for collector in $(if [ "$QUICK" = 1 ]; then echo "${COLLECTORS%% *}"; else echo "$COLLECTORS"; fi); do
        server gc '' -XX:+Use${collector}GC
        contains "$(inside gc jcmd 1 VM.flags)" "Use${collector}GC"
        equal hello "$(client curl -sf "$URL/")"
        serves_at_least 20 "$URL/work" 4 16
        stops gc 143
        away gc
    done
}

restarts() {
    server web '' -XX:+UseG1GC
    for n in 1 2 3; do equal $n "$(client curl -sf "$URL/count")"; done
    stops web 143
    contains "$(docker logs "$TAG-web")" 'saved 3'
    again web
    serves web 8080
    URL=http://$(address web):8080
    equal 4 "$(client curl -sf "$URL/count")"
    # SIGQUIT prints the threads, attach finds the machine by its socket.
    must docker kill -s QUIT "$TAG-web" >/dev/null
    eventually 10 dumped
    contains "$(inside web jstack 1)" sun.net.httpserver.ServerImpl
    contains "$(inside web jcmd 1 VM.flags)" UseG1GC
    contains "$(inside web jmap -histo 1 | head -20)" java.lang.String
    contains "$(inside web jps)" Server
    stops web 143
    away web
}
# Tools look at a server that works: all threads' stacks, the heap as a file that can be read, and the same without
# the server's help.
attached() {
    server seen '--cap-add SYS_PTRACE' -XX:+UseParallelGC
    # A debugger stops the process for seconds.
    wrk_rate "$URL/work" 8 16 60 >"$WORK/rate" 2>&1 &
    local load=$!
    for n in 1 2 3 4 5; do
        contains "$(inside seen jstack -l 1)" sun.net.httpserver.ServerImpl
        contains "$(inside seen jmap -histo:live 1)" '[B'
    done
    must inside seen jmap -dump:format=b,file=/tmp/heap 1 >/dev/null
    contains "$(inside seen head -c 12 /tmp/heap)" 'JAVA PROFILE'
    contains "$(inside seen jstat -gcutil 1)" FGC
    contains "$(inside seen jcmd 1 Thread.print)" sun.net.httpserver.ServerImpl
    contains "$(inside seen $DEBUGGER 1 2>&1)" "$DEBUGGER_FINDS"
    wait "$load" || { cat "$WORK/rate"; exit 1; }
    (at_least $((10 / $(crowded))) "$(cat "$WORK/rate")") >/dev/null || serves_at_least 10 "$URL/work" 8 16
    equal hello "$(client curl -sf "$URL/")"
    stops seen 143
}
dumped() { docker logs "$TAG-web" 2>&1 | grep -q 'Full thread dump'; }

# What the virtual machine chooses by the container's limits is what it chooses under runc.
limits_seen() {
    local limit
    start limited --cpus 1 --memory 400m "$IMAGE" java -XX:MaxRAMPercentage=50.0 -cp /app Server
    eventually 20 limits_printed
    stops limited 143
    while read -r limit; do
        equal "$limit: $(chosen runc $limit)" "$limit: $(chosen "$RUNTIME" $limit)"
    done <<END
--cpus 0.5
--cpus 1.5 --memory 3g
--cpuset-cpus 0
--cpu-shares 512 --memory 256m
--cpu-shares 4096
--memory 300m --memory-swap 600m
--pids-limit 200
END
}
chosen() {
    docker run --rm --runtime "$1" --label "sallet-app=$TAG" "${@:2}" "$IMAGE" java -XX:+PrintFlagsFinal -cp /app Limits |
        awk '$2 ~ /^(MaxHeapSize|InitialHeapSize|ParallelGCThreads|ConcGCThreads|CICompilerCount|Use(G1|Serial|Parallel)GC)$/ || /seen/ { $1 = $1; print }'
}
limits_printed() { docker logs "$TAG-limited" 2>&1 | grep -qE 'with 1 processors and (1[89][0-9]|200) MB'; }

stress() {
    must once "$IMAGE" timeout 240 java -Xmx400m -XX:MaxDirectMemorySize=64m -cp /app Stress nulls nullsOfThreads arithmetic recursion buffers \
        directLimit exec watch garbage threads
}
# The same without a compiler, and with compiled code from the start.
stress_modes() {
    must once "$IMAGE" timeout 240 java -Xint -Xmx400m -cp /app Stress nulls recursion buffers exec
    must once "$IMAGE" timeout 240 java -Xcomp -XX:TieredStopAtLevel=1 -Xmx400m -cp /app Stress nulls nullsOfThreads arithmetic recursion exec
}
# A crash of native code is reported as such.
crashes() {
    output=$(once "$IMAGE" sh -c 'java -cp /app Server & sleep 3; kill -SEGV $!; wait $!; echo status $?' 2>&1)
    contains "$output" 'SIGSEGV'
    contains "$output" 'status 134'
}

case $1 in
    check)
        run_test restarts
        run_test attached
        run_test collectors
        run_test limits_seen
        run_test stress
        [ "$QUICK" = 1 ] || run_test stress_modes
        run_test crashes
        ;;
    measure)
        server speed '' -XX:+UseG1GC
        wrk_rate "$URL/" 3 >/dev/null
        measure small "$(wrk_rate "$URL/" 4)" requests/s
        measure allocating "$(wrk_rate "$URL/work" 4)" requests/s
        away speed
        start shell "$IMAGE" sleep 1000
        begin() { inside shell sh -c 'for i in 1 2 3 4 5; do java -version; done'; }
        begin >/dev/null 2>&1
        measure start-5-times "$(seconds begin)" s
        ;;
esac
