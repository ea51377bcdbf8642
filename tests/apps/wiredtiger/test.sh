# WiredTiger, MongoDB's storage engine, used as MongoDB uses it (engine.c): hundreds of files, checkpoints and a hot
# backup under load, a journal that keeps what was acknowledged over SIGKILL, verify and salvage.
. "$(dirname "$0")/../lib.sh"

TABLES=$([ "$QUICK" = 1 ] && echo 40 || echo 400)
REQUESTS=$([ "$QUICK" = 1 ] && echo 5000 || echo 50000)

server() {
    start "$1" -v /data "$IMAGE" engine /data "${@:2}"
    connect "$1"
}
connect() {
    serves "$1" 27017
    HOST=$(address "$1")
}
ask() { client redis-cli -e -h "$HOST" -p 27017 "$@"; }
bench() { client redis-benchmark -h "$HOST" -p 27017 -q "$@"; }
# offline NAME COMMAND...: the tool `wt` on the folder of a server that does not run.
offline() { once --volumes-from "$TAG-$1" "$IMAGE" wt -h /data -R -C 'log=(enabled=true,path=journal,compressor=snappy)' "${@:2}"; }

serves_and_restarts() {
    server plain
    equal PONG "$(ask PING)"
    equal OK "$(ask SET name value)"
    equal value "$(ask GET name)"
    equal 1 "$(ask DEL name)"
    equal 0 "$(ask DEL name)"
    must client sh -c "for n in \$(seq $TABLES); do echo SELECT \$n; echo FAST table \$n; echo FAST $(seq -s x 300) \$n; done |
        redis-cli -e -h $HOST -p 27017" >/dev/null
    equal 2 "$(ask -n $TABLES DBSIZE)"
    # Another server on the same data is turned away.
    exits 100 inside plain engine /data
    stops plain 0
    contains "$(docker logs "$TAG-plain" 2>&1)" 'ended by Terminated'
    again plain
    connect plain
    for n in 1 7 $TABLES; do equal $n "$(ask -n $n GET table)"; done
    case $(docker logs "$TAG-plain" 2>&1) in *'did not end cleanly'*) echo 'it says that it did not end cleanly'; exit 1 ;; esac
    stops plain 0
    contains "$(offline plain list)" "table:t$TABLES"
    must offline plain verify "table:t$TABLES" >/dev/null
}

# Writers, readers and checkpoints at once, more data than fit into the cache; a backup meanwhile.
works() {
    server load "$@"
    equal PONG "$(ask PING)"
    (bench -c 16 -n "$REQUESTS" -r 100000 SET key:__rand_int__ "$(head -c 1000 /dev/zero | tr '\0' v)" >"$WORK/set") &
    (bench -c 50 -n $((REQUESTS * 4)) -P 8 -r 100000 FAST key:__rand_int__ "$(head -c 3000 /dev/urandom | base64 -w 0)" >"$WORK/fast") &
    (bench -c 16 -n "$REQUESTS" -r 100000 -t get >"$WORK/get") &
    sleep 1
    for n in 1 2 3; do equal OK "$(ask CHECKPOINT)"; done
    equal OK "$(ask BACKUP /data/backup)"
    wait
    for log in set fast get; do contains "$(cat "$WORK/$log")" 'requests per second'; done
    rows=$(ask DBSIZE)
    at_least 1000 "$rows"
    equal OK "$(ask VERIFY)"
    stops load 0 20
    must once --volumes-from "$TAG-load" "$IMAGE" wt -h /data/backup -R -C 'log=(enabled=true,path=journal,compressor=snappy)' \
        verify table:t0 >/dev/null
    again load
    connect load
    equal "$rows" "$(ask DBSIZE)"
    equal OK "$(ask VERIFY)"
    stops load 0 20
    away load
}
# Files read and written through maps, and made longer before they are written.
works_by_maps() { works mmap_all=true,file_extend=\(data=16MB,log=8MB\); }

# has_told NUMBER FILE
has_told() { [ "$(tail -1 "$2")" -ge "$1" ]; }

# Every acknowledged row is there after SIGKILL under load, and of two rows of one transaction both or none.
keeps_what_it_acknowledged() {
    server killed
    for round in $([ "$QUICK" = 1 ] && echo 1 || echo 1 2 3); do
        (bench -c 20 -n 10000000 -r 50000 FAST key:__rand_int__ "$(seq -s ' ' 300)" >/dev/null 2>&1) &
        for stream in 1 2; do
            (client sh -c "i=0; while redis-cli -e -h $HOST -p 27017 SET r$round.$stream.\$i \$i >/dev/null 2>&1; do
                i=\$((i+1)); echo \$i; done" >"$WORK/$round.$stream") &
        done
        (client sh -c "i=0; while redis-cli -e -h $HOST -p 27017 PAIR left right $round.\$i >/dev/null 2>&1; do
                i=\$((i+1)); echo $round.\$i; done" >"$WORK/pairs") &
        sleep 4
        # On a busy machine a client takes its time to start.
        for stream in 1 2; do eventually 60 has_told 20 "$WORK/$round.$stream"; done
        killed killed
        wait
        again killed
        connect killed
        contains "$(docker logs "$TAG-killed" 2>&1)" 'did not end cleanly'
        for stream in 1 2; do
            count=$(tail -1 "$WORK/$round.$stream")
            at_least 20 "$count"
            for n in $(seq 0 $((count / 10 + 1)) $((count - 1))) $((count - 1)); do equal "$n" "$(ask GET "r$round.$stream.$n")"; done
        done
        pair=$(ask GET left)
        equal "$pair" "$(ask GET right)"
        # The last that was told, or the one that was on its way.
        at_least "$(($(tail -1 "$WORK/pairs" | cut -d. -f2) - 1))" "${pair#*.}"
        equal OK "$(ask VERIFY)"
    done
    stops killed 0 20
    must offline killed verify table:t0 >/dev/null
}

# A file with pages of noise fails to verify, and is salvaged but for those (or with what they held before); so is one that was cut off.
salvages() {
    server broken
    must client sh -c "awk 'BEGIN { for (n = 1; n <= 20000; n++) { value = n; for (i = 0; i < 20; i++) value = value rand(); print \"FAST key\" n, value } }' |
        redis-cli -h $HOST -p 27017" >/dev/null
    equal 20000 "$(ask DBSIZE)"
    must ask -n 1 SET a b >/dev/null
    stops broken 0
    must offline broken verify table:t0 >/dev/null
    must once --volumes-from "$TAG-broken" "$IMAGE" sh -c 'f=/data/t0.wt; pages=$(($(stat -c %s $f) / 4096))
        for n in 1 2 3 4 5 6 7 8 9; do dd if=/dev/urandom of=$f bs=4096 count=1 seek=$((pages * n / 10)) conv=notrunc status=none; done'
    if offline broken verify table:t0 >/dev/null 2>&1; then echo 'what is broken verifies'; exit 1; fi
    must offline broken salvage table:t0 >/dev/null
    must offline broken verify table:t0 >/dev/null
    again broken
    connect broken
    at_least 5000 "$(ask DBSIZE)"
    equal b "$(ask -n 1 GET a)"
    equal OK "$(ask SET key1 again)"
    stops broken 0
    must once --volumes-from "$TAG-broken" "$IMAGE" truncate -s -20480 /data/t0.wt
    must offline broken salvage table:t0 >/dev/null
    must offline broken verify table:t0 >/dev/null
}

# What MongoDB reads at its start and every second is there where it is under runc.
probes() {
    local runtime
    for runtime in runc "$RUNTIME"; do
        docker run --rm --runtime "$runtime" --label "sallet-app=$TAG" "$IMAGE" sh -c 'for file in /proc/cpuinfo /proc/meminfo /proc/stat \
            /proc/vmstat /proc/diskstats /proc/mounts /proc/loadavg /proc/uptime /proc/net/netstat /proc/net/snmp /proc/net/sockstat \
            /proc/self/stat /proc/self/status /proc/self/numa_maps /proc/self/cgroup /proc/self/mountinfo /proc/self/smaps_rollup \
            /proc/sys/vm/max_map_count /proc/sys/vm/swappiness /proc/sys/vm/zone_reclaim_mode /proc/sys/vm/overcommit_memory \
            /proc/sys/kernel/pid_max /proc/sys/kernel/threads-max /proc/sys/kernel/random/boot_id /proc/sys/net/core/somaxconn \
            /proc/sys/net/ipv4/tcp_fastopen /proc/sys/net/ipv4/tcp_keepalive_time /sys/devices/system/node/node0/meminfo /sys/devices/system/node/online \
            /sys/kernel/mm/transparent_hugepage/enabled /sys/kernel/mm/transparent_hugepage/defrag \
            /sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none /sys/devices/system/cpu/online; do
                cat $file >/dev/null 2>&1 && echo $file; done' >"$WORK/$runtime.files"
    done
    missing=$(comm -23 <(sort "$WORK/runc.files") <(sort "$WORK/$RUNTIME.files"))
    equal '' "$missing"
}

case $1 in
    check)
        run_test serves_and_restarts
        run_test works
        [ "$QUICK" = 1 ] || run_test works_by_maps
        run_test keeps_what_it_acknowledged
        run_test salvages
        run_test probes
        ;;
    measure)
        server speed
        rate() { bench --csv "$@" | awk -F'"' 'END { print $4 }'; }
        measure journaled-writes "$(rate -c 16 -n 6000 -r 100000 SET key:__rand_int__ "$(seq -s ' ' 200)")" requests/s
        measure writes "$(rate -c 32 -n 60000 -r 100000 FAST key:__rand_int__ "$(seq -s ' ' 200)")" requests/s
        measure reads "$(rate -c 32 -n 60000 -r 100000 -t get)" requests/s
        measure pipelined-reads "$(rate -c 32 -n 200000 -P 16 -r 100000 -t get)" requests/s
        ;;
esac
