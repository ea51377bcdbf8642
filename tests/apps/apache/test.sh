# Apache 2.4: prefork, worker and event with PHP inside and by FPM, files by sendfile and mmap, CGI, every kind of
# lock, graceful restarts under load that lose no request.
. "$(dirname "$0")/../lib.sh"

# server NAME MODEL PHP [ARGUMENTS...]
server() {
    start "$1" -v /data -e MODEL="$2" -e PHP="$3" "${@:4}" "$IMAGE"
    address_of "$1"
}
address_of() {
    serves "$1" 80
    URL=http://$(address "$1")
}
get() { client curl -sf "$@"; }
digest() { client sh -c "curl -sf $1 | sha256sum | cut -d' ' -f1"; }

serves_and_restarts() {
    for kind in 'prefork mod' 'worker fpm' 'event fpm'; do
        server web $kind
        equal hello "$(get "$URL/small.txt")"
        equal hello "$(get "$URL:8080/small.txt")"
        equal 404 "$(client curl -s -o /dev/null -w '%{http_code}' "$URL/none")"
        whole=$(inside web sha256sum /srv/big.bin | cut -d' ' -f1)
        equal "$whole" "$(digest "$URL/big.bin")"
        equal "$whole" "$(digest "$URL/mapped/big.bin")"
        equal "$(inside web sh -c 'tail -c +501 /srv/big.bin | head -c 1000 | sha256sum')" "$(client sh -c "curl -sf -r 500-1499 $URL/big.bin | sha256sum")"
        equal "hello from ${kind#* }" "$(get "$URL/")"
        equal 'cgi POST text' "$(get -d text "$URL/cgi/echo")"
        contains "$(get "$URL/status?auto")" 'Scoreboard: '
        equal '1 1 1' "$(get -c /tmp/jar -b /tmp/none "$URL/count.php")"
        equal '2 2 2' "$(get -c /tmp/jar -b /tmp/jar "$URL/count.php")"
        must client ab -q -c 8 -n 200 "$URL/count.php" >"$WORK/ab"
        contains "$(cat "$WORK/ab")" 'Complete requests:      200'
        equal '203 203 3' "$(get -b /tmp/jar "$URL/count.php")"
        contains "$(inside web cat /run/apache2/access.log)" 'GET /small.txt HTTP/1.1 200 6'
        stops web 0
        again web
        address_of web
        equal '204 204 1' "$(get "$URL/count.php")"
        stops web 0
        away web
    done
}

loses_no_request() {
    for kind in 'prefork mod' 'worker fpm' 'event fpm'; do
        server graceful $kind
        client ab -q -c 16 -t $([ "$QUICK" = 1 ] && echo 3 || echo 8) -n 10000000 "$URL/small.txt" >"$WORK/ab" 2>&1 &
        for _ in $(seq $([ "$QUICK" = 1 ] && echo 2 || echo 6)); do
            sleep 1
            must inside graceful sh -c 'kill -USR1 1'
        done
        wait
        contains "$(grep -v '^Completed' "$WORK/ab")" 'Failed requests:        0'
        at_least 500 "$(awk '/Complete requests/ { print $3 }' "$WORK/ab")"
        contains "$(docker logs "$TAG-graceful" 2>&1)" 'raceful restart'
        equal "hello from ${kind#* }" "$(get "$URL/")"
        stops graceful 0
        away graceful
    done
}

# The lock of those that wait for connections.
locks() {
    for model in prefork worker; do
        for mutex in sysvsem posixsem pthread fcntl flock; do
            server lock $model fpm -e MUTEX=$mutex
            at_least 50 "$(wrk_rate "$URL/small.txt" 1)"
            # A child that dies does not keep the lock, but a POSIX semaphore.
            [ $mutex = posixsem ] || inside lock sh -c 'kill -KILL $(pgrep -P 1 apache2)'
            eventually 10 get "$URL/small.txt"
            must client ab -q -c 8 -n 300 "$URL/small.txt" >"$WORK/ab"
            contains "$(cat "$WORK/ab")" 'Failed requests:        0'
            stops lock 0
            away lock
            if [ "$QUICK" = 1 ] && [ $mutex = pthread ]; then break; fi
        done
    done
}

# FPM: reload, a request that is too slow is looked at (by ptrace) and ended; time limits inside of PHP.
fpm() {
    server fpm event fpm --cap-add SYS_PTRACE
    equal slept "$(get "$URL/slow.php?seconds=2")"
    contains "$(inside fpm cat /run/php/slow.log)" 'dawdle() /srv/slow.php'
    equal 503 "$(client curl -s -o /dev/null -w '%{http_code}' "$URL/slow.php?seconds=20")"
    contains "$(client curl -s -o /dev/null -w '%{http_code}' "$URL/slow.php?spin=1")" 500
    inside fpm pkill -o -USR2 php-fpm8.2
    eventually 10 get "$URL/"
    equal "$(inside fpm php-fpm8.2 -i | grep -c 'opcache.jit => tracing')" 1
    sum=$(get "$URL/work.php")
    for _ in 1 2 3 4 5; do equal "$sum" "$(get "$URL/work.php")"; done
    at_least 20 "$(wrk_rate "$URL/work.php" 2 8)"
    stops fpm 0
}

case $1 in
    check)
        run_test serves_and_restarts
        run_test loses_no_request
        run_test locks
        run_test fpm
        ;;
    measure)
        server speed event fpm -e RECYCLE=0
        wrk_rate "$URL/small.txt" 2 >/dev/null
        measure small "$(wrk_rate "$URL/small.txt" 4)" requests/s
        measure 100-KB "$(wrk_rate "$URL/medium.bin" 4)" requests/s
        measure PHP-by-FPM "$(wrk_rate "$URL/index.php" 4 8)" requests/s
        away speed
        server speed prefork mod -e RECYCLE=0
        wrk_rate "$URL/small.txt" 2 8 >/dev/null
        measure prefork-small "$(wrk_rate "$URL/small.txt" 4 8)" requests/s
        measure PHP-inside "$(wrk_rate "$URL/index.php" 4 8)" requests/s
        measure PHP-work "$(wrk_rate "$URL/work.php" 4 8)" requests/s
        ;;
esac
