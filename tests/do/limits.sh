#!/bin/bash
# `sallet do --memory --cpus --pids --timeout`.
. "$(dirname "$0")/../lib.sh"
[ -n "$SALLET" ] || { skip all "no yardstick"; exit 0; }
WORK=$(mktemp -d /tmp/sallet-limits.XXXXXX)
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1
USER_ID=61234
as_root() { [ "$(id -u)" = 0 ] || { skip "$1" "root makes the groups"; return 1; }; }
limited() { timeout 60 "$SALLET" do "$@"; }

# seconds COMMAND...: how many tenths of a second it takes.
tenths() {
    local begin end
    begin=$(date +%s%N)
    "$@" >/dev/null 2>&1
    end=$(date +%s%N)
    echo $(((end - begin) / 100000000))
}
says() {
    local wanted=$1 part=$2 output status
    shift 2
    output=$("$@" 2>&1)
    status=$?
    equal "$wanted" "$status"
    contains "$output" "$part"
}

niceness_is_told() {
    equal "10 15" "$(echo $(nice -n 10 timeout 60 "$SALLET" do -- sh -c 'nice; nice -n 5 nice'))"
}
time_is_up() {
    local took
    exits 124 limited --timeout 500ms -- sleep 30
    took=$(tenths limited --timeout 0.5 -- sleep 30)
    [ "$took" -ge 5 ] && [ "$took" -lt $((20 * SLOW)) ] || { echo "$took tenths of a second"; exit 1; }
    # Who has something to say says it; the status is the same.
    output=$(limited --timeout 0.5s -- sh -c 'trap "echo told; exit 3" TERM; sleep 30 & wait')
    equal "124 told" "$? $output"
}
time_is_up_for_all() {
    local took
    # Neither who hears nothing nor what the first process leaves behind goes on.
    took=$(tenths limited --timeout 0.5 -- sh -c 'trap "" TERM; setsid sleep 98.7 & sleep 98.7')
    [ "$took" -ge 14 ] && [ "$took" -lt $((60 * SLOW)) ] || { echo "$took tenths of a second"; exit 1; }
    equal "" "$(pgrep -f 'sleep 98[.]7')"
    exits 124 limited --timeout 0.5 -- sh -c 'trap "" TERM; while :; do :; done'
    exits 124 limited --timeout 0.5 -- sh -c 'kill -STOP $$'
}
time_is_enough() {
    exits 7 limited --timeout 1m30s -- sh -c 'exit 7'
    exits 143 limited --timeout 1m -- sh -c 'kill $$'
    exits 0 limited --timeout 0 -- true
}
memory() {
    as_root memory || return 0
    says 137 "killed: more memory" limited --memory 64m -- python3 -c 'x = bytearray(200 << 20)'
    equal "" "$(limited --memory 64m -- sh -c 'kill -9 $$' 2>&1)"
    exits 0 limited --memory 128m -- python3 -c 'x = bytearray(20 << 20)'
    # The first process lives on when another takes too much; files in memory are memory.
    equal "137" "$(limited --memory 64m -- sh -c 'python3 -c "x = bytearray(200 << 20)"; echo $?')"
    exits 137 limited --memory 64m -- sh -c 'head -c 200000000 /dev/zero >/tmp/x; exit $?'
    equal "67108864 50000 100000 30" "$(limited --memory 64m --cpus 0.5 --pids 30 -- sh -c '
        cd /sys/fs/cgroup && echo $(cat memory.max cpu.max pids.max)')"
    contains "$(limited --memory 64m -- sh -c 'python3 -c "x = bytearray(200 << 20)"; cat /sys/fs/cgroup/memory.events')" "oom_kill 1"
    equal "65536" "$(limited --memory 64m -- awk '/MemTotal/ { print $2 }' /proc/meminfo)"
    equal "98304" "$(limited --memory 0.09375GiB -- awk '/MemTotal/ { print $2 }' /proc/meminfo)"
}
cpus() {
    as_root cpus || return 0
    local spent
    spent=$(limited --cpus 0.5 -- python3 -c '
import os, time
end = time.time() + 2
while time.time() < end: pass
print(int(sum(os.times()[:2]) * 10))')
    [ "$spent" -le 14 ] || { echo "$spent tenths of a CPU second in two seconds"; exit 1; }
}
pids() {
    as_root pids || return 0
    equal "20" "$(limited --pids 20 -- python3 -c '
import os, time
made = 1
try:
    for _ in range(100):
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        made += 1
except OSError:
    pass
print(made)')"
}
nothing_remains() {
    as_root nothing_remains || return 0
    local pids=() pid
    "$SALLET" do --memory 64m --cpus 1 --pids 50 --timeout 20 -- true &
    pids+=($!)
    "$SALLET" do --memory 64m --timeout 0.3 -- sleep 30 &
    pids+=($!)
    for pid in "${pids[@]}"; do
        wait "$pid"
        equal "" "$(find /sys/fs/cgroup -name "do-$pid" -type d 2>/dev/null)"
    done
}
# An ordinary user hears why not, unless a group was handed to it.
refused() {
    as_root refused || return 0
    cp "$SALLET" "$WORK/sallet"
    chmod 755 "$WORK" "$WORK/sallet"
    local user="setpriv --reuid=$USER_ID --regid=$USER_ID --clear-groups env HOME=/nonexistent ./sallet"
    for flags in "--memory 64m" "--cpus 1" "--pids 20"; do
        says 1 "need a control group" $user do $flags -- true
        equal 1 "$($user do $flags -- true 2>&1 | wc -l)"
    done
    exits 124 $user do --timeout 0.3 -- sleep 30
}
nonsense() {
    says 1 "--memory" limited --memory much -- true
    says 1 "such as 512m" limited --memory 1.5x -- true
    # The flag before the command is another.
    says 1 "sallet do --memory 1g" "$SALLET" --memory 1g do -- true
    says 1 "16m" limited --memory 1k -- true
    says 1 "such as 0.5" limited --cpus 0 -- true
    says 1 "--pids" limited --pids none -- true
    says 1 "such as 30" limited --timeout soon -- true
}

for t in niceness_is_told time_is_up time_is_up_for_all time_is_enough memory cpus pids nothing_remains refused nonsense; do
    run_test $t
done
