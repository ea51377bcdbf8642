#!/bin/bash
# `sallet do` within containers of another runtime that get no privilege: what agents and builds run in.
. "$(dirname "$0")/lib.sh.inc"
image full || { skip all "no image"; exit 0; }
[ "$RUNTIME" != runc ] || { skip all "no yardstick"; exit 0; }

# bare FLAGS... -- COMMAND...: within a container of runc.
bare() {
    local flags=()
    while [ "$1" != -- ]; do flags+=("$1"); shift; done
    shift
    timeout 120 docker run --rm --runtime runc --name "$PREFIX-bare" "${flags[@]}" -v "$SALLET:/usr/bin/sallet:ro" $FULL "$@"
}
OPEN=(--security-opt seccomp=unconfined)

# The host lets nobody mount a new /proc there: the container's own must do.
runs() {
    local user
    for user in 0 1234:1234; do
        equal "$user 5050" "$user $(bare "${OPEN[@]}" -u $user -- sallet do -- python3 -c '
import subprocess, threading, os
total = []
threads = [threading.Thread(target=lambda n=n: total.append(n)) for n in range(101)]
[t.start() for t in threads]
[t.join() for t in threads]
for _ in range(30):
    assert subprocess.run(["true"]).returncode == 0
names = sorted(name for name in os.listdir("/proc") if name.isdigit())
assert names == ["1"], names
assert "[stack]" in open("/proc/self/maps").read()
assert int(open("/proc/self/stat").read().split()[22]) > 1 << 20
print(sum(total))')" || exit 1
    done
}
shell() { equal "3" "$(bare "${OPEN[@]}" -- sallet do -- sh -c 'seq 1000 | grep 0 | sort -n | head -3 | wc -l')"; }
# Ids of the container's are nothing inside, nor what else its /proc shows.
container_is_hidden() {
    equal "no no" "$(bare "${OPEN[@]}" -- sh -c 'sleep 77.7 & sleep 0.2; sallet do -- sh -c "
        if grep -qs 7[7][.]7 /proc/*/cmdline; then echo yes; else echo no; fi; if kill -0 7 2>/dev/null; then echo yes; else echo no; fi"' | tr '\n' ' ' | sed 's/ $//')"
}
two_at_once() {
    equal "3 3" "$(bare "${OPEN[@]}" -- sh -c 'for i in 1 2; do sallet do -- sh -c "sleep 1; (sleep 0.2; :) & wait; ls -d /proc/[0-9]* | wc -l" & done; wait' | tr '\n' ' ' | sed 's/ $//')"
}
calls_are_patched() {
    local log
    log=$(bare "${OPEN[@]}" -- sh -c 'sallet --debug --debug-log /log do -- sh -c "for i in 1 2 3 4 5 6; do read line </proc/uptime; done" >/dev/null 2>&1; cat /log')
    contains "$log" "the container's /proc"
    case $log in *"are not patched"*) echo "$log"; exit 1 ;; esac
}
# One sentence where the host forbids namespaces.
refused() {
    local output
    output=$(bare -- sallet do -- true 2>&1)
    equal 1 $?
    contains "$output" "seccomp=unconfined"
    equal 1 "$(wc -l <<<"$output")"
}
limits_refused() {
    local output
    output=$(bare "${OPEN[@]}" -- sallet do --memory 64m -- true 2>&1)
    equal 1 $?
    contains "$output" "control group"
    contains "$output" "limit that container itself"
    exits 124 bare "${OPEN[@]}" -- sallet do --timeout 0.3 -- sleep 20
}
# Who may do less hears what lacks.
less_is_told() {
    local output
    output=$(bare "${OPEN[@]}" --cap-drop ALL -- sallet do -- true 2>&1)
    equal 1 $?
    contains "$output" "--cap-add SETFCAP"
    exits 0 bare "${OPEN[@]}" --cap-drop ALL --cap-add SETFCAP -- sallet do -- true
    exits 0 bare "${OPEN[@]}" --cap-drop ALL -u 1234 -- sallet do -- true
    output=$(bare "${OPEN[@]}" --read-only -- sallet do -- true 2>&1)
    equal 1 $?
    contains "$output" "sallet --root DIR"
    exits 0 bare "${OPEN[@]}" --read-only --tmpfs /tmp -- sallet --root /tmp/state do -- true
}

for t in runs shell container_is_hidden two_at_once calls_are_patched refused limits_refused less_is_told; do
    run_test $t
done
