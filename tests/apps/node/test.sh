# Node.js 20: npm, a cluster of four workers with express under load, threads, children, watches, crypto, starts.
. "$(dirname "$0")/../lib.sh"

server() {
    start "$1" -v /data "${@:2}" "$IMAGE"
    eventually 30 served "$1"
    URL=http://$(address "$1"):3000
}
served() { client curl -sf "http://$(address "$1"):3000/"; }

# The sockets of the workers: handed over by the first process in turn, or shared by all.
serves_and_restarts() {
    for policy in rr none; do
        server web -e NODE_CLUSTER_SCHED_POLICY=$policy
        equal hello "$(client curl -sf "$URL/")"
        for n in 1 2 3; do equal kept "$(client curl -sf -d "note $n
" "$URL/notes")"; done
        equal "$(inside web sha256sum /usr/bin/node | cut -d' ' -f1)" "$(client sh -c "curl -sf $URL/file | sha256sum | cut -d' ' -f1")"
        at_least 50 "$(wrk_rate "$URL/work" 3)"
        # A worker that dies is replaced.
        inside web sh -c 'kill -KILL $(pgrep -P 1 | head -1)'
        eventually 10 four_workers
        at_least 50 "$(wrk_rate "$URL/" 2)"
        stops web 0
        contains "$(docker logs "$TAG-web")" stopped
        again web
        eventually 30 served web
        URL=http://$(address web):3000
        equal 3 "$(client curl -sf "$URL/notes" | grep -c note)"
        stops web 0
        away web
    done
}
four_workers() { [ "$(inside web pgrep -P 1 | wc -l)" = 4 ]; }

# npm unpacks its packages anew; what it built runs.
installs() {
    output=$(once "$IMAGE" sh -c 'rm -rf node_modules && npm install --offline --no-audit --no-fund &&
        npm ls --all --parseable | wc -l && npm run --silent build && node built/shapes.js && node built/bundle.js')
    contains "$output" 'added '
    at_least 60 "$(grep -xE '[0-9]+' <<<"$output")"
    equal 2 "$(grep -cx 'square circle 22' <<<"$output")"
}

stress() { must once "$IMAGE" timeout 240 node stress.js threads children watch ciphers files sockets wasm system; }

# No start may fail: programs that compile at run time are hard on a kernel.
starts() {
    local count=200
    [ "$QUICK" = 1 ] && count=20
    must once "$IMAGE" sh -ec "i=0; while [ \$i -lt $count ]; do
        test \"\$(node -e 'console.log([1, 2, 3].map((x) => x * 2).join())')\" = 2,4,6; i=\$((i + 1)); done"
}

case $1 in
    check)
        run_test serves_and_restarts
        run_test installs
        run_test stress
        run_test starts
        ;;
    measure)
        server speed
        wrk_rate "$URL/" 2 >/dev/null
        measure small "$(wrk_rate "$URL/" 4)" requests/s
        measure JSON-and-SHA "$(wrk_rate "$URL/work" 4)" requests/s
        away speed
        start shell "$IMAGE" sleep 1000
        install() { inside shell sh -c 'rm -rf node_modules && npm install --offline --no-audit --no-fund'; }
        install >/dev/null 2>&1
        measure npm-install "$(seconds install)" s
        build() { inside shell npm run --silent build; }
        measure npm-run-build "$(seconds build)" s
        begin() { inside shell sh -c 'for i in 1 2 3 4 5 6 7 8 9 10; do node -e 0; done'; }
        measure start-10-times "$(seconds begin)" s
        ;;
esac
