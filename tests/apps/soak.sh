# One application of `cargo xtask soak`, as
#
#   soak.sh NAME begin    starts its container, makes its data, and prints `container ID`
#   soak.sh NAME round    some seconds of load; prints `work NUMBER UNIT`; fails with any error a client sees
#   soak.sh NAME verify   looks whether the data are what the rounds made of them
#
# with $RUNTIME and $TAG as in lib.sh. The containers stay until who called this takes them away.
NAME=$1
. "$(dirname "$0")/lib.sh"
trap 'rm -rf "$WORK"' EXIT
IMAGE=sallet-app:$NAME

# served PATH PORT: waits until the page is there; sets URL.
served() {
    eventually 120 reply "$1" "$2"
    URL=http://$(address "$NAME"):$2
}
reply() { client curl -sf -m 20 "http://$(address "$NAME"):$2$1"; }
at() { URL=http://$(address "$NAME"):$1; }
# pages URL: DONE becomes the number of requests that wrk made in five seconds. A busy machine may let one wait for long.
pages() {
    local output
    output=$(client wrk -t1 -c4 -d5s --timeout 60s "$1" 2>&1) || { echo "$output"; exit 1; }
    if grep -qE 'Non-2xx|Socket errors' <<<"$output"; then echo "$output"; exit 1; fi
    DONE=$(awk '/requests in/ { print $1 }' <<<"$output")
}
psql_() { client psql -h "$(address postgresql)" -U postgres "$@"; }
sql() { client mariadb -h "$(address mariadb)" -u tester -psecret -N -B work -e "$1"; }
ask() { client redis-cli -e -h "$(address redis)" "$@"; }
sysbench_() {
    client sysbench "$1" --db-driver=mysql --mysql-host="$(address mariadb)" --mysql-user=tester --mysql-password=secret \
        --mysql-db=work --tables=2 --table-size=10000 "${@:2}"
}

no_old_worker() { ! inside nginx grep -qs 'worker process is shutting down' $(inside nginx sh -c 'echo /proc/[0-9]*/cmdline'); }
begin_nginx() { start nginx "$IMAGE"; served /small.txt 80; }
round_nginx() {
    at 80
    pages "$URL/proxy/small.txt"
    must inside nginx nginx -s reload >/dev/null
    # Old workers close what is kept alive, which wrk takes for an error.
    eventually 60 no_old_worker
    pages "$URL/medium.bin"
    echo "work $DONE requests"
}
verify_nginx() { at 80; equal "$(inside nginx sha256sum /srv/big.bin | cut -d' ' -f1)" "$(client sh -c "curl -sf $URL/big.bin | sha256sum | cut -d' ' -f1")"; }

begin_apache() { start apache -v /data -e MODEL=event -e PHP=fpm -e RECYCLE=0 "$IMAGE"; served /small.txt 80; }
round_apache() {
    at 80
    pages "$URL/small.txt"
    pages "$URL/index.php"
    echo "work $DONE requests"
}
verify_apache() { at 80; equal hello "$(client curl -sf "$URL/small.txt")"; }

begin_redis() {
    start redis -v /data -w /data "$IMAGE" redis-server --protected-mode no --enable-debug-command yes --dir /data --appendonly yes --save ''
    eventually 60 ask ping
    must ask debug populate 50000 key 1000 >/dev/null
    must ask set rounds 0 >/dev/null
}
round_redis() {
    local output
    output=$(client redis-benchmark -h "$(address redis)" -q -n 40000 -r 10000 -d 100 -t set,get,lpush,hset) || { echo "$output"; exit 1; }
    case $output in *rror*) echo "$output"; exit 1 ;; esac
    must ask del mylist >/dev/null
    must ask "$([ $((RANDOM % 2)) = 0 ] && echo bgsave || echo bgrewriteaof)" >/dev/null
    eventually 120 saved
    contains "$(ask info persistence)" rdb_last_bgsave_status:ok
    contains "$(ask info persistence)" aof_last_bgrewrite_status:ok
    must ask incr rounds >/dev/null
    echo 'work 160000 requests'
}
saved() { ! ask info persistence | grep -qE '(rdb_bgsave_in_progress|aof_rewrite_in_progress|aof_rewrite_scheduled):1'; }
verify_redis() { at_least 1 "$(ask get rounds)"; must inside redis sh -c 'redis-check-aof /data/appendonlydir/*.manifest' >/dev/null; }

begin_postgresql() {
    start postgresql --user postgres --shm-size 256m --stop-signal SIGINT -e PGDATA=/data/pg -v /data "$IMAGE"
    eventually 120 psql_ -c 'select 1'
    must psql_ -qc 'create database bench' >/dev/null
    must client pgbench -h "$(address postgresql)" -U postgres -q -i -s 2 bench >/dev/null 2>&1
}
round_postgresql() {
    local output
    output=$(client pgbench -h "$(address postgresql)" -U postgres -n -c 4 -j 1 -T 5 bench 2>&1) || { echo "$output"; exit 1; }
    contains "$output" 'number of failed transactions: 0'
    client pgbench -h "$(address postgresql)" -U postgres -n -c 2 -C -S -T 3 bench >"$WORK/connections" 2>&1 || { cat "$WORK/connections"; exit 1; }
    must psql_ -qAtc 'vacuum analyze' bench >/dev/null
    echo "work $(awk '/actually processed/ { print $NF }' <<<"$output") transactions"
}
verify_postgresql() {
    equal "$(psql_ -qAtc 'select sum(delta) from pgbench_history' bench)" "$(psql_ -qAtc 'select sum(abalance) from pgbench_accounts' bench)"
    case $(docker logs "$TAG-postgresql" 2>&1) in *PANIC* | *'terminated by signal'*) echo 'a process of it died'; exit 1 ;; esac
}

begin_mariadb() {
    start mariadb -v /var/lib/mysql "$IMAGE"
    eventually 180 sql 'SELECT 1'
    must sysbench_ oltp_read_write prepare >/dev/null
}
round_mariadb() {
    local output
    output=$(sysbench_ oltp_read_write --time=8 --threads=4 --mysql-ignore-errors=1213,1020,1205 run 2>&1) || { tail -5 <<<"$output"; exit 1; }
    echo "work $(awk '/transactions:/ { print $2 }' <<<"$output") transactions"
}
verify_mariadb() {
    for table in sbtest1 sbtest2; do contains "$(sql "CHECK TABLE $table EXTENDED")" OK; done
    case $(docker logs "$TAG-mariadb" 2>&1) in *'[ERROR] InnoDB'* | *'got signal'*) echo 'it tells of errors'; docker logs --tail 5 "$TAG-mariadb" 2>&1; exit 1 ;; esac
}

begin_node() { start node -v /data "$IMAGE"; served / 3000; }
round_node() {
    at 3000
    pages "$URL/"
    must inside node node -e 0
    pages "$URL/work"
    echo "work $DONE requests"
}
verify_node() { at 3000; equal hello "$(client curl -sf "$URL/")"; }

begin_python() {
    start python -v /data -w /app "$IMAGE" gunicorn -b 0.0.0.0:8000 -w 2 --threads 4 app:app
    served / 8000
}
round_python() {
    at 8000
    pages "$URL/work"
    must inside python python3 -c 'import subprocess; [subprocess.check_call(["true"]) for _ in range(20)]' >/dev/null
    equal hello "$(client curl -sf "$URL/")"
    must client curl -sf -d text "$URL/notes" >/dev/null
    pages "$URL/"
    echo "work $DONE requests"
}
verify_python() { at 8000; at_least 1 "$(client curl -sf "$URL/notes/count")"; }

begin_java() { start java -v /data "$IMAGE" java -Xmx192m -XX:+UseG1GC -cp /app Server; served / 8080; }
round_java() {
    at 8080
    pages "$URL/work"
    contains "$(inside java jcmd 1 VM.version)" 'JDK 17'
    pages "$URL/"
    echo "work $DONE requests"
}
verify_java() { at 8080; equal hello "$(client curl -sf "$URL/")"; }

case $2 in
    begin)
        client true
        "begin_$NAME" || exit
        echo "container $(docker inspect -f '{{.Id}}' "$TAG-$NAME")"
        ;;
    round | verify) "$2_$NAME" ;;
esac
