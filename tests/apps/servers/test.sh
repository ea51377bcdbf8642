# Servers in Go (net/http), Ruby (Puma) and Perl (Starman), each with threads, processes or both of its own kind.
. "$(dirname "$0")/../lib.sh"

command_of() {
    case $1 in
        go) echo ./server ;;
        ruby) echo puma -b tcp://0.0.0.0:8000 -w 2 -t 4:4 --quiet config.ru ;;
        perl) echo starman --listen 0.0.0.0:8000 --workers 4 --preload-app app.psgi ;;
    esac
}
server() {
    start "$1" -v /data "$IMAGE" $(command_of "$1")
    ready "$1"
}
ready() {
    eventually 30 client curl -sf "http://$(address "$1"):8000/"
    URL=http://$(address "$1"):8000
}

answers() {
    local language=$1
    server "$language"
    equal hello "$(client curl -sf "$URL/")"
    for n in 1 2 3; do equal $n "$(client curl -sf "$URL/count")"; done
    equal "$(head -c 5000000 /dev/zero | sha256sum | cut -d' ' -f1)" \
        "$(client sh -c "head -c 5000000 /dev/zero | curl -sf --data-binary @- $URL/digest")"
    equal "$(inside "$language" sha256sum /app/server | cut -d' ' -f1)" "$(client sh -c "curl -sf $URL/file | sha256sum | cut -d' ' -f1")"
    equal 'from a child' "$(client curl -sf "$URL/child")"
    serves_at_least 20 "$URL/work" 2 16
    must client ab -q -c 4 -n 50 "$URL/child" >"$WORK/ab"
    contains "$(cat "$WORK/ab")" 'Failed requests:        0'
    must client ab -q -c 8 -n 100 "$URL/count" >/dev/null
    equal 104 "$(client curl -sf "$URL/count")"
    if [ "$language" != go ]; then
        # A process that dies is replaced.
        inside "$language" sh -c 'kill -KILL $(pgrep -P 1 | head -1)'
        eventually 20 client curl -sf "$URL/"
    fi
    # Puma raises an exception for SIGTERM, which as the first process it cannot die of.
    local status=$([ "$language" = ruby ] && echo 1 || echo 0)
    stops "$language" "$status" 8
    again "$language"
    ready "$language"
    equal 105 "$(client curl -sf "$URL/count")"
    stops "$language" "$status" 8
}
go() { answers go; }
ruby() { answers ruby; }
perl() { answers perl; }

case $1 in
    check)
        run_test go
        run_test ruby
        run_test perl
        ;;
    measure)
        for language in go ruby perl; do
            server $language
            wrk_rate "$URL/" 1 16 >/dev/null
            measure $language-small "$(wrk_rate "$URL/" 3 16)" requests/s
            measure $language-work "$(wrk_rate "$URL/work" 3 16)" requests/s
            away $language
        done
        ;;
esac
