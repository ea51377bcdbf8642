# nginx: static files by sendfile and by a thread pool, a proxy over TCP and over a unix socket, a cache,
# and reloads under load that lose no request.
. "$(dirname "$0")/../lib.sh"

server() {
    start "$1" "$IMAGE" "${@:2}"
    serves "$1" 80
    URL=http://$(address "$1")
}

serves_files() {
    server files
    equal hello "$(client curl -sf "$URL/small.txt")"
    equal 404 "$(client curl -s -o /dev/null -w '%{http_code}' "$URL/none")"
    for path in big.bin proxy/big.bin unix/big.bin cached/big.bin cached/big.bin; do
        equal "$(inside files sha256sum /srv/big.bin | cut -d' ' -f1)" \
            "$(client sh -c "curl -sf $URL/$path | sha256sum | cut -d' ' -f1")"
    done
    equal "$(inside files sh -c 'tail -c +501 /srv/big.bin | head -c 1000 | sha256sum')" \
        "$(client sh -c "curl -sf -r 500-1499 $URL/big.bin | sha256sum")"
    codes=$(client curl -s -o /dev/null -w '%{http_code} ' "$URL/limited/small.txt?[1-20]")
    contains "$codes" 503
    stops files 0
    again files
    serves files 80
    URL=http://$(address files)
    equal hello "$(client curl -sf "$URL/small.txt")"
    stops files 0
}

reloads_under_load() {
    server reload
    client ab -q -c 16 -t 8 -n 10000000 "$URL/small.txt" >"$WORK/ab" 2>&1 &
    for _ in 1 2 3 4 5; do
        sleep 1
        must inside reload nginx -s reload >/dev/null
    done
    wait
    contains "$(grep -v '^Completed' "$WORK/ab")" 'Failed requests:        0'
    eventually 10 test "$(inside reload sh -c 'grep -l nginx /proc/[0-9]*/comm' | wc -l)" -le 5
    stops reload 0
}

# The old master hands its listening sockets to a new program.
upgrades_its_binary() {
    server upgrade sh -c '/usr/sbin/nginx && sleep infinity'
    must inside upgrade sh -c 'kill -USR2 $(cat /run/nginx.pid)'
    eventually 10 inside upgrade test -e /run/nginx.pid.oldbin
    equal hello "$(client curl -sf "$URL/small.txt")"
    must inside upgrade sh -c 'kill -QUIT $(cat /run/nginx.pid)'
    eventually 10 inside upgrade test ! -e /run/nginx.pid.oldbin
    equal hello "$(client curl -sf "$URL/small.txt")"
    must inside upgrade nginx -s quit 2>/dev/null
    eventually 10 inside upgrade test ! -e /run/nginx.pid
    away upgrade
}

case $1 in
    check)
        run_test serves_files
        run_test reloads_under_load
        run_test upgrades_its_binary
        ;;
    measure)
        server speed
        measure small "$(wrk_rate "$URL/small.txt" 4)" requests/s
        measure 100-KB "$(wrk_rate "$URL/medium.bin" 4)" requests/s
        measure proxy "$(wrk_rate "$URL/proxy/small.txt" 4)" requests/s
        ;;
esac
