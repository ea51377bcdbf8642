# Redis 7: data of every kind, snapshots and the append-only file under load, SIGKILL, restart.
. "$(dirname "$0")/../lib.sh"

KEYS=$([ "$QUICK" = 1 ] && echo 20000 || echo 300000)

server() {
    start "$1" -v /data -w /data "$IMAGE" redis-server --protected-mode no --dir /data "${@:2}"
    serves "$1" 6379
    R="redis-cli -h $(address "$1")"
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
    R="redis-cli -h $(address plain)"
    equal hello "$(client $R get greeting)"
    equal 3 "$(client $R llen list)"
    equal 1 "$(client $R xlen stream)"
    stops plain 0
}

saves_under_load() {
    server saving --save ''
    must client $R debug populate $KEYS key 1000 >/dev/null
    (client redis-benchmark -h "$(address saving)" -q -n 200000 -r 100000 -d 100 -t set >/dev/null) &
    for kind in bgsave bgrewriteaof; do
        must client $R $kind >/dev/null
        eventually 60 done_saving
    done
    info=$(client $R info persistence)
    contains "$info" rdb_last_bgsave_status:ok
    contains "$info" aof_last_bgrewrite_status:ok
    wait
    must inside saving redis-check-rdb /data/dump.rdb >/dev/null
    size=$(client $R dbsize)
    must client $R bgsave >/dev/null
    eventually 60 done_saving
    killed saving
    again saving
    serves saving 6379
    R="redis-cli -h $(address saving)"
    eventually 30 loaded
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
    R="redis-cli -h $(address always)"
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
        measure "loopback-SET" "$(inside speed redis-benchmark -q --csv -c 50 -n 60000 -t set | awk -F'"' 'END { print $4 }')" requests/s
        ;;
esac
