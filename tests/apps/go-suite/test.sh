# Go's own tests of `os`, `os/exec`, `syscall`, `net` and `runtime`, under runc and inside, compared test by test.
# `differences` tells which may differ, and why.
. "$(dirname "$0")/../lib.sh"

# tests RUNTIME PACKAGE OPTIONS...: runs the package's tests as `go test` does, in the package's folder.
tests() {
    local runtime=$1 package=$2
    shift 2
    docker run --rm --init --runtime "$runtime" --label "sallet-app=$TAG" -w "/usr/lib/go/src/$package" "$IMAGE" \
        "/tests/${package//\//-}.test" -test.v -test.timeout 15m "$@" 2>&1
}
# results LOG: `TEST RESULT` of each test and subtest. What a test prints may stand before, in the same line.
results() { sed -nE 's/^.*--- (PASS|FAIL|SKIP): ([^ ]+) \([0-9.]+s\)$/\2 \1/p' "$1" | LC_ALL=C sort -u; }

# compare PACKAGE OPTIONS...: no test may end otherwise than under runc, but for those that `differences` tells of.
# What fails under runc may pass inside.
compare() {
    local package=$1 name=${1//\//-} runtime test
    for runtime in runc "$RUNTIME"; do
        tests "$runtime" "$@" >"$WORK/$runtime.$name"
        results "$WORK/$runtime.$name" >"$WORK/$runtime.$name.results"
    done
    at_least 10 "$(wc -l <"$WORK/runc.$name.results")"
    echo "note $package: $(wc -l <"$WORK/runc.$name.results") tests under runc, $(wc -l <"$WORK/$RUNTIME.$name.results") under $RUNTIME" >&3
    local different
    different=$(LC_ALL=C comm -23 "$WORK/runc.$name.results" "$WORK/$RUNTIME.$name.results" | grep -v ' FAIL$' | cut -d' ' -f1)
    local wrong=''
    for test in $different; do
        if awk -v p="$package" -v t="$test" '$1 == p && $2 == t { found = 1 } END { exit !found }' "$HERE/differences"; then
            echo "$package $test" >>"$WORK/told"
            continue
        fi
        # The machine may be too busy for what failed once: again, alone. A part goes with its whole.
        alone "$package" "$test" "${@:2}" || wrong="$wrong $test"
    done
    [ -z "$wrong" ] || {
        for test in $wrong; do
            echo "$package $test: $(grep -F -- ": $test (" "$WORK/runc.$name" | head -1) under runc, inside: $(
                grep -F -A8 -- "--- FAIL: $test (" "$WORK/$RUNTIME.$name" | head -12
                tail -2 "$WORK/$RUNTIME.$name")"
        done
        exit 1
    }
    # What is told of and no longer differs must leave the list.
    awk -v p="$package" '!/^#/ && $1 == p && $3 != "sometimes" { print $1, $2 }' "$HERE/differences" | while read -r told; do
        test=${told#* }
        grep -qE "^$(sed 's/[][\.*^$/+?(){}|]/\\&/g' <<<"$test") " "$WORK/runc.$name.results" || continue
        grep -qxF "$told" "$WORK/told" 2>/dev/null || { echo "$told is no difference any more: remove it from differences"; exit 1; }
    done
}
alone() {
    local package=$1 test=$2
    shift 2
    tests "$RUNTIME" "$package" "$@" -test.run "^${test%%/*}\$" >"$WORK/again"
    results "$WORK/again" >"$WORK/again.results"
    grep -qxF "$(grep -F -- "$test " "$WORK/runc.${package//\//-}.results" | head -1)" "$WORK/again.results"
}

os() { compare os $([ "$QUICK" = 1 ] && echo -test.short); }
os_exec() { compare os/exec; }
system_calls() { compare syscall; }
net() { compare net -test.short; }
runtime() { compare runtime -test.short $([ "$QUICK" = 1 ] && echo -test.run '^Test(Signal|Futex|Lock|Stop|Goroutine|Chan|Select|Stack|Mem|Timer|Sched|Vdso|VDSO|Panic|Crash).*'); }

case $1 in
    check)
        if [ "$RUNTIME" = runc ]; then
            skip all 'runc is what the other is compared with'
            exit
        fi
        exec 3>&1
        for test in os os_exec system_calls net runtime; do run_test $test; done
        ;;
    measure)
        start shell "$IMAGE" sleep 1000
        build() { inside shell sh -ec 'rm -rf /tmp/go-cache; go build -o /dev/null os/exec net'; }
        [ "$QUICK" = 1 ] || measure build-net "$(seconds build)" s
        stack() { inside shell sh -ec 'cd /usr/lib/go/src/runtime; /tests/runtime.test -test.short -test.run "^Test(Stack|Chan|Select|Mem).*"'; }
        measure runtime-tests "$(seconds stack)" s
        ;;
esac
