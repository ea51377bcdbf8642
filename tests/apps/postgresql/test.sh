# PostgreSQL 15: initdb, pgbench, SIGKILL under load and recovery of every committed row, dump and restore.
. "$(dirname "$0")/../lib.sh"

SCALE=$([ "$QUICK" = 1 ] && echo 1 || echo 10)
BIN=/usr/lib/postgresql/15/bin

server() {
    start "$1" --user postgres --shm-size 256m --stop-signal SIGINT -e PGDATA=/data/pg -v /data "${@:2}" "$IMAGE"
    ready "$1"
}
ready() {
    serves "$1" 5432 60
    PG="-h $(address "$1") -U postgres"
    eventually 60 client psql $PG -c 'select 1'
}
sql() { client psql $PG -qAtX -v ON_ERROR_STOP=1 -c "$1" "${@:2}"; }

works_and_restarts() {
    server plain
    must client createdb $PG bench
    must client pgbench $PG -q -i -s "$SCALE" bench >/dev/null 2>&1
    must client pgbench $PG -c 8 -j 2 -T 5 bench >"$WORK/pgbench"
    contains "$(cat "$WORK/pgbench")" 'number of failed transactions: 0'
    sum=$(sql 'select sum(abalance) from pgbench_accounts' bench)
    equal "$sum" "$(sql 'select sum(delta) from pgbench_history' bench)"
    # Parallel workers share memory of their own in /dev/shm.
    plan=$(sql 'set max_parallel_workers_per_gather=2; set parallel_setup_cost=0; set min_parallel_table_scan_size=0;
        explain (analyze) select count(*) from pgbench_accounts' bench)
    contains "$plan" 'Workers Launched: 2'
    # LISTEN and NOTIFY, a statement that its time-out ends, and one that another session ends.
    contains "$(client psql $PG -c 'listen a' -c "notify a, 'x'" 2>&1)" 'notification "a"'
    contains "$(client psql $PG -c "set statement_timeout='500ms'" -c 'select pg_sleep(10)' 2>&1)" 'statement timeout'
    (sql 'select pg_sleep(30)' >"$WORK/cancelled" 2>&1) &
    eventually 10 sql "select 1/count(*) from pg_stat_activity where query like '%pg_sleep(30)' and pid<>pg_backend_pid()"
    sql "select pg_cancel_backend(pid) from pg_stat_activity where query like '%pg_sleep(30)' and pid<>pg_backend_pid()" >/dev/null
    wait
    contains "$(cat "$WORK/cancelled")" 'user request'
    must client sh -c "pg_dump $PG -Fc bench >/tmp/dump && createdb $PG copy && pg_restore $PG -d copy /tmp/dump"
    equal "$sum" "$(sql 'select sum(abalance) from pgbench_accounts' copy)"
    stops plain 0
    again plain
    ready plain
    equal "$sum" "$(sql 'select sum(abalance) from pgbench_accounts' bench)"
    case $(docker logs "$TAG-plain" 2>&1) in *PANIC*|*"interrupted"*|*"not properly shut down"*) echo "recovery after a clean stop"; exit 1 ;; esac
    stops plain 0
}

# A second server on the same data is refused: the first one's shared memory segment says so.
guards_its_data() {
    server guard
    must inside guard rm /data/pg/postmaster.pid >/dev/null
    output=$(inside guard $BIN/postgres -D /data/pg -p 5433 2>&1) && { echo "a second server started"; exit 1; }
    contains "$output" 'pre-existing shared memory block'
    docker rm -f -v "$TAG-guard" >/dev/null
}

recovers() {
    server crash
    sql 'create table kept (n int primary key)' >/dev/null
    for round in 1 2; do
        (client sh -c "i=\$(psql $PG -qAtX -c 'select coalesce(max(n),0) from kept'); while i=\$((i+1)); psql $PG -qX -c \"insert into kept values (\$i)\" 2>/dev/null; do echo \$i; done" >"$WORK/kept.$round") &
        (client pgbench $PG -i -s 5 postgres >/dev/null 2>&1) &
        sleep 4
        killed crash
        wait
        again crash
        ready crash
        last=$(tail -1 "$WORK/kept.$round")
        at_least 10 "$last"
        count=$(sql 'select count(*) from kept')
        at_least "$last" "$count"
        equal "$count" "$(sql 'select max(n) from kept')"
    done
    contains "$(docker logs "$TAG-crash" 2>&1)" 'redo done'
    stops crash 0
}

case $1 in
    check)
        run_test works_and_restarts
        run_test guards_its_data
        run_test recovers
        ;;
    measure)
        server speed
        must client pgbench $PG -q -i -s 10 postgres >/dev/null 2>&1
        rate() { client pgbench $PG -T 6 "$@" postgres 2>/dev/null | awk '/^tps/ { print $3 }'; }
        measure read-write "$(rate -c 8 -j 2 -N)" transactions/s
        measure read-only "$(rate -c 8 -j 2 -S)" transactions/s
        measure connections "$(rate -c 2 -C -S)" transactions/s
        ;;
esac
