# Redis 7: data of every kind, snapshots and the append-only file under load, SIGKILL, restart.
. "$(dirname "$0")/../lib.sh"

# Of 1000 bytes each: a gigabyte, where there is time.
KEYS=$([ "$QUICK" = 1 ] && echo 20000 || echo 1000000)

server() {
    start "$1" -v /data -w /data "$IMAGE" redis-server --protected-mode no --enable-debug-command yes --dir /data "${@:2}"
    serves "$1" 6379
    R="redis-cli -e -h $(address "$1")"
}

serves_and_restarts() {
    server plain --appendonly yes --appendfsync everysec --save ''
    equal PONG "$(client $R ping)"
    must client $R set greeting hello >/dev/null
    must client $R rpush list a b c >/dev/null
    must client $R zadd scores 1 x 2 y >/dev/null
    must client $R xadd stream '*' field value
    equal 6 "$(client $R eval 'return redis.call("incrby", KEYS[1], 6)' 1 counter)"
    equal 1 "$(client $R eval 'return redis.call("llen", "list") == 3' 0)"
    must client redis-benchmark -h "$(address plain)" -q -n 20000 -r 1000 -t set,incr,lpush,hset
    stops plain 0
    again plain
    serves plain 6379
    R="redis-cli -e -h $(address plain)"
    equal hello "$(client $R get greeting)"
    equal 3 "$(client $R llen list)"
    equal 1 "$(client $R xlen stream)"
    stops plain 0
}

saves_under_load() {
    server saving --save ''
    must client $R debug populate $KEYS key 1000 >/dev/null
    [ "$QUICK" = 1 ] || at_least 1000000000 "$(client $R info memory | sed -n 's/^used_memory:\([0-9]*\).*/\1/p')"
    # Writers change what is being saved, for as long as it takes.
    (client sh -c "while redis-cli -h $(address saving) -e exists saved | grep -q 0; do
        redis-benchmark -h $(address saving) -q -n 20000 -r $KEYS -d 1000 set key:__rand_int__ x; done" >"$WORK/writers" 2>&1) &
    for kind in bgsave bgrewriteaof; do
        must client $R $kind >/dev/null
        eventually 240 done_saving
    done
    must client $R set saved 1 >/dev/null
    info=$(client $R info persistence)
    contains "$info" rdb_last_bgsave_status:ok
    contains "$info" aof_last_bgrewrite_status:ok
    wait
    case $(cat "$WORK/writers") in *rror*) cat "$WORK/writers"; exit 1 ;; esac
    contains "$(cat "$WORK/writers")" 'requests per second'
    must inside saving redis-check-rdb /data/dump.rdb >/dev/null
    size=$(client $R dbsize)
    at_least "$KEYS" "$size"
    must client $R bgsave >/dev/null
    eventually 240 done_saving
    killed saving
    again saving
    serves saving 6379
    R="redis-cli -e -h $(address saving)"
    eventually 120 loaded
    equal "$size" "$(client $R dbsize)"
    stops saving 0
}
done_saving() {
    local info
    info=$(client $R info persistence)
    grep -q rdb_bgsave_in_progress:0 <<<"$info" && grep -q aof_rewrite_in_progress:0 <<<"$info" &&
        grep -q aof_rewrite_scheduled:0 <<<"$info"
}
loaded() { client $R info persistence | grep -q ^loading:0; }

# Acknowledged with appendfsync always: there after SIGKILL.
keeps_what_it_acknowledged() {
    server always --appendonly yes --appendfsync always --save ''
    (client sh -c "i=0; while redis-cli -h $(address always) -e set k\$i \$i >/dev/null 2>&1; do i=\$((i+1)); echo \$i; done" >"$WORK/acknowledged") &
    sleep 3
    killed always
    wait
    count=$(tail -1 "$WORK/acknowledged")
    at_least 50 "$count"
    again always
    serves always 6379
    R="redis-cli -e -h $(address always)"
    eventually 30 loaded
    equal "$((count - 1))" "$(client $R get k$((count - 1)))"
    at_least "$count" "$(client $R dbsize)"
    stops always 0
}

replicates() {
    server leader
    server follower --replicaof "$(address leader)" 6379
    must client redis-cli -h "$(address leader)" set a 1 >/dev/null
    eventually 20 replicated
    equal 1 "$(client redis-cli -h "$(address follower)" get a)"
    contains "$(client redis-cli -h "$(address follower)" info replication)" master_link_status:up
    stops follower 0
    stops leader 0
}

replicated() { [ "$(client redis-cli -h "$(address leader)" wait 1 1000)" = 1 ]; }

case $1 in
    check)
        run_test serves_and_restarts
        run_test saves_under_load
        run_test keeps_what_it_acknowledged
        run_test replicates
        ;;
    measure)
        server speed --save ''
        host=$(address speed)
        rate() { client redis-benchmark -h "$host" -q --csv "$@" | awk -F'"' 'END { print $4 }'; }
        measure SET "$(rate -c 50 -n 60000 -t set)" requests/s
        measure GET "$(rate -c 50 -n 60000 -t get)" requests/s
        measure "GET-pipelined" "$(rate -c 50 -n 500000 -P 16 -t get)" requests/s
        if [ "$QUICK" != 1 ]; then
            R="redis-cli -e -h $host"
            must client $R flushall >/dev/null
            must client $R debug populate 1000000 key 1000 >/dev/null
            for kind in bgsave bgrewriteaof; do
                (client sh -c "while redis-cli -h $host -e exists $kind | grep -q 0; do redis-benchmark -h $host -q -c 4 -n 5000 -r 1000000 -d 100 -t set; done" >/dev/null 2>&1) &
                save() { client $R $kind && eventually 240 done_saving; }
                measure $kind-1-GB "$(seconds save)" s
                must client $R set $kind 1 >/dev/null
                wait
            done
            must client $R flushall >/dev/null
        fi
        measure "loopback-SET" "$(inside speed redis-benchmark -q --csv -c 50 -n 60000 -t set | awk -F'"' 'END { print $4 }')" requests/s
        ;;
esac
