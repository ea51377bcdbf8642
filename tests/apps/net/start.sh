#!/bin/bash
# All servers; says `ready` when each accepts.
mkdir -p /run/postgresql
chown postgres /run/postgresql
sh /postgres.sh serve &
redis-server --save '' --protected-mode no --bind '* -::*' >/dev/null &
nginx -g 'daemon off;' &
iperf3 -s >/dev/null &
echo-net serve 7001 7002 &
for port in 5432 6379 80 5201 7001 7002; do
    for _ in $(seq 300); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && continue 2
        sleep 0.1
    done
    echo "port $port does not accept"
    exit 1
done
until psql -qU postgres -h /run/postgresql -c 'select 1' postgres >/dev/null 2>&1; do sleep 0.1; done
echo ready
trap 'exit 0' TERM
wait
