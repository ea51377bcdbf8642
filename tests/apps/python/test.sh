# Python 3.11: gunicorn with Flask under load, multiprocessing, asyncio, numpy, and parts of CPython's own tests.
. "$(dirname "$0")/../lib.sh"

server() {
    start "$1" -v /data -w /app "$IMAGE" gunicorn -b 0.0.0.0:8000 -w 2 --threads 4 "${@:2}" app:app
    serves "$1" 8000
    URL=http://$(address "$1"):8000
}

serves_and_restarts() {
    server web
    equal hello "$(client curl -sf "$URL/")"
    for n in 1 2 3; do equal $n "$(client curl -sf -d text "$URL/notes")"; done
    equal "$(head -c 5000000 /dev/zero | sha256sum | cut -d' ' -f1)" \
        "$(client sh -c "head -c 5000000 /dev/zero | curl -sf --data-binary @- $URL/digest")"
    serves_at_least 50 "$URL/work" 2
    # A worker that dies is replaced; a reload keeps serving.
    inside web python3 -c 'import os, signal
workers = open("/proc/1/task/1/children").read().split()
assert len(workers) == 2, workers
os.kill(int(workers[0]), signal.SIGKILL)' || exit 1
    eventually 10 client curl -sf "$URL/"
    must docker kill -s HUP "$TAG-web" >/dev/null
    eventually 10 client curl -sf "$URL/"
    stops web 0
    again web
    serves web 8000
    URL=http://$(address web):8000
    equal 3 "$(client curl -sf "$URL/notes/count")"
    stops web 0
}

parallel() { must once -w /app --shm-size 256m "$IMAGE" timeout 120 python3 parallel.py methods children threads arrays; }

# CPython's own tests of what leans on the kernel: none may fail that passes under runc.
MODULES="test_posix test_mmap test_fcntl test_selectors test_pty test_tempfile"
[ "$QUICK" = 1 ] || MODULES="$MODULES test_os test_subprocess test_signal test_threading test_socket test_select
    test_epoll test_shutil test_tty test_time test_fork1 test_wait3 test_wait4 test_eintr test_faulthandler test_pathlib
    test_glob test_io test_fileio test_file test_largefile test_resource test_sqlite3"
# Why each of these differs is in docs/applications.md.
EXPECTED='test_fcntl_64_bit'
# Some look at each number that a descriptor may have: not at a million, where the host allows so many.
own_tests() {
    local runtime
    for runtime in runc "$RUNTIME"; do
        docker run --rm --runtime "$runtime" --label "sallet-app=$TAG" --user 1000 --ulimit nofile=4096:8192 -e HOME=/tmp -w /tmp "$IMAGE" \
            timeout 1000 python3 -m test -v --timeout 500 $MODULES >"$WORK/$runtime.log" 2>&1
        grep -E '^(FAIL|ERROR): ' "$WORK/$runtime.log" | sort -u >"$WORK/$runtime.failed"
        grep -q 'Total duration' "$WORK/$runtime.log" || { echo "no end under $runtime: $(tail -c 1200 "$WORK/$runtime.log")"; exit 1; }
    done
    # The machine may be too busy for what failed once: again, alone.
    again=$(comm -13 "$WORK/runc.failed" "$WORK/$RUNTIME.failed" | grep -vE "$EXPECTED" | sed 's/^[A-Z]*: \([^ ]*\).*/\1/' | sort -u)
    [ -z "$again" ] && return
    modules=$(comm -13 "$WORK/runc.failed" "$WORK/$RUNTIME.failed" | sed -n 's/.*(test\.\([a-z0-9_]*\).*/\1/p' | sort -u)
    # shellcheck disable=SC2046
    must once --user 1000 --ulimit nofile=4096:8192 -e HOME=/tmp -w /tmp "$IMAGE" timeout 200 python3 -m test -v $(printf -- '-m %s ' $again) $modules
}

case $1 in
    check)
        run_test serves_and_restarts
        run_test parallel
        run_test own_tests
        ;;
    measure)
        server speed
        measure gunicorn "$(wrk_rate "$URL/" 4)" requests/s
        away speed
        start shell "$IMAGE" sleep 1000
        begin() { inside shell sh -c 'i=0; while [ $i -lt 20 ]; do python3 -c "import json, argparse, asyncio, http.server"; i=$((i+1)); done'; }
        measure start-and-import "$(begin; seconds begin)" s
        compute() { inside shell python3 -c 'sum(i * i for i in range(20000000))'; }
        measure compute "$(seconds compute)" s
        ;;
esac
