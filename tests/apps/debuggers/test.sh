# strace and gdb inside a container: the calls that strace counts, breakpoints, stepping, threads, an attached program.
. "$(dirname "$0")/../lib.sh"

# run LINE: a line of shell in a container that may trace.
run() { once --init --cap-add SYS_PTRACE "$IMAGE" timeout 60 sh -c "$1" 2>&1; }

strace_counts() {
    output=$(run 'strace -c -o /tmp/count ls / >/dev/null && cat /tmp/count')
    contains "$output" 'total'
    at_least 1 "$(awk '$NF == "getdents64" { print $4 }' <<<"$output")"
    output=$(run 'strace -f -o /tmp/calls /debuggee && cat /tmp/calls')
    contains "$output" 'write(1, "20 13\n", 6)'
    contains "$output" '+++ exited with 0 +++'
}

gdb_runs() {
    output=$(run 'gdb -batch -ex "break twice if n==3" -ex run -ex bt -ex "print *p" -ex finish -ex stepi -ex "break worker" -ex c -ex "info threads" -ex "set can-use-hw-watchpoints 0" -ex "watch counter" -ex c -ex kill /debuggee')
    contains "$output" 'Breakpoint 1, twice (p='
    contains "$output" 'in main (argc=1'
    contains "$output" '$1 = {x = 4, y = 2}'
    contains "$output" 'Value returned is $2 = 6'
    contains "$output" 'hit Breakpoint 2, worker'
    contains "$output" 'Old value = 10'
    case $output in *'opening /proc/'*) echo "$output"; exit 1 ;; esac
}

gdb_attaches() {
    output=$(run '/debuggee on >/dev/null & sleep 0.5
        gdb -batch -p $! -ex "break twice" -ex c -ex "set var p->x=7777" -ex "print p->x" -ex finish -ex "call (int)getpid()" -ex detach; grep State /proc/$!/status; kill $!')
    contains "$output" 'Breakpoint 1, twice (p='
    contains "$output" '$1 = 7777'
    contains "$output" 'detached]'
    case $output in *'State:	t '* | *'State:	T '*) echo "$output"; exit 1 ;; esac
}

case $1 in
    check)
        run_test strace_counts
        run_test gdb_runs
        run_test gdb_attaches
        ;;
    measure)
        start speed --cap-add SYS_PTRACE "$IMAGE" sleep 1000
        trace() { inside speed sh -c 'strace -f -o /dev/null find /usr -name "*.so*"'; }
        step() { inside speed gdb -batch -ex 'break main' -ex run -ex 'stepi 3000' -ex kill /debuggee; }
        trace >/dev/null 2>&1
        measure strace-of-find "$(seconds trace)" s
        measure gdb-steps "$(seconds step)" s
        ;;
esac
