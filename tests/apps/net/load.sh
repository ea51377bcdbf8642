#!/bin/bash
# load.sh ROW HOST PORT SECONDS RATE: works for about so many seconds and prints `UNITS SECONDS`, the units of
# work that were done; ends with another status than 0 if anything went wrong. RATE is what is expected a
# second: redis-benchmark takes a number of requests and no time.
row=$1 host=$2 port=$3 seconds=$4 rate=$5
failed() { echo "$*" >&2; exit 1; }

redis() {
    local test=$1 clients=$2 pipeline=$3 count output
    count=$(awk -v s="$seconds" -v r="$rate" -v c="$clients" 'BEGIN { n = int(s * r); print n < 2 * c ? 2 * c : n }')
    output=$(redis-benchmark -h "$host" -p "$port" -c "$clients" -P "$pipeline" -n "$count" -t "$test" -d 3 --csv 2>&1) ||
        failed "$output"
    grep -qi error <<<"$output" && failed "$output"
    # The head comes first, then "SET","12345.67",...
    tail -1 <<<"$output" | awk -F'"' -v n="$count" '$4 > 0 { print n, n / $4; good = 1 } END { exit !good }' || failed "$output"
}
http() {
    local output
    output=$(wrk -t2 -c50 -d"${seconds}s" "http://$host:$port/$1") || failed "$output"
    grep -qE 'Non-2xx|Socket errors' <<<"$output" && failed "$output"
    awk '/ requests in / { sub("s,", "", $4); print $1, $4; good = 1 } END { exit !good }' <<<"$output" || failed "$output"
}
postgres() {
    local output
    output=$(pgbench -n -c 8 -j 2 -T "$seconds" -U postgres -h "$1" -p "$2" "${@:3}" postgres 2>&1) || failed "$output"
    grep -q 'failed transactions: 0 ' <<<"$output" || failed "$output"
    awk '/actually processed/ { n = $NF } /^tps/ { t = n / $3 } END { if (n > 0) print n, t; else exit 1 }' <<<"$output" ||
        failed "$output"
}
# MB that arrived.
stream() {
    local output
    output=$(iperf3 -c "$host" -p "$port" -t "$seconds" -f K "$@" 2>&1) || failed "$output"
    # The amount comes in whatever unit fits, the rate in KBytes/sec.
    awk '/ receiver/ { split($3, t, "-"); print $7 * t[2] / 1024, t[2]; good = $7 > 0 } END { exit !good }' <<<"$output" ||
        failed "$output"
}

case $row in
    SET-* | GET-*)
        IFS=- read -r test clients pipeline <<<"$row"
        pipeline=${pipeline:-P1}
        redis "${test,,}" "$clients" "${pipeline#P}"
        ;;
    nginx-*) http "${row#nginx-}" ;;
    pgbench-tcp) postgres "$host" "$port" -S ;;
    pgbench-unix) postgres /run/postgresql 5432 -S ;;
    pgbench-write) postgres "$host" "$port" ;;
    iperf3) stream ;;
    iperf3-reverse) stream -R ;;
    TCP_RR) echo-net rr "$host" "$port" "$seconds" 1 ;;
    TCP_RR-32) echo-net rr "$host" "$port" "$seconds" 32 ;;
    TCP_CRR) echo-net crr "$host" "$port" "$seconds" 4 ;;
    *) failed "no row $row" ;;
esac
