#!/bin/bash
# `sallet do` by an ordinary user, one id of the host and no privilege.
. "$(dirname "$0")/../lib.sh"
[ -n "$SALLET" ] || { skip all "no yardstick"; exit 0; }
[ "$(id -u)" = 0 ] || { skip all "becomes another user as root"; exit 0; }
USER_ID=61234
WORK=$(mktemp -d /tmp/sallet-user.XXXXXX)
trap 'rm -rf "$WORK"' EXIT
cp "$SALLET" "$WORK/sallet"
chown -R $USER_ID:$USER_ID "$WORK"
cd "$WORK" || exit 1
user() { timeout 60 setpriv --reuid=$USER_ID --regid=$USER_ID --clear-groups env HOME=/nonexistent "$@"; }
sandbox() { user ./sallet do -- "$@"; }

ids() { equal "$USER_ID:$USER_ID" "$(sandbox sh -c 'echo $(id -u):$(id -g)')"; }
pipeline() { equal 100 "$(sandbox sh -c 'seq 1000 | grep 0 | sort -n | head -100 | wc -l')"; }
# A pipe is its maker's.
pipes_by_name() {
    equal "a b c" "$(echo $(sandbox bash -c 'cat <(echo a) <(echo b); echo c | cat /dev/stdin' 2>&1))"
    equal "d e" "$(echo $(echo d | sandbox bash -c 'cat /dev/stdin; echo e >/dev/stdout' 2>&1))"
}
threads() {
    equal 45 "$(sandbox python3 -c '
import threading
total = []
threads = [threading.Thread(target=lambda n=n: total.append(n)) for n in range(10)]
[t.start() for t in threads]
[t.join() for t in threads]
print(sum(total))')"
}
own_files() {
    echo mine >file
    chown $USER_ID file
    equal "$USER_ID mine" "$(sandbox sh -c 'stat -c %u file | tr "\n" " "; cat file')"
    exits 0 user ./sallet do --rw "$WORK" -- sh -c 'echo new >made; chmod 640 made'
    equal "$USER_ID 640 new" "$(stat -c '%u %a' made) $(cat made)"
}
# The program gets the caller's limits. The sandbox does not, but for hard ones that only root could raise.
callers_limits() {
    local output
    output=$(ulimit -Sn 64 && ulimit -Sf 100 && ulimit -Sv 2000000 && sandbox bash -c 'ulimit -n; ulimit -f; ulimit -v')
    equal "64 100 2000000" "$(echo $output)"
    (ulimit -Sf 100; exits 153 sandbox sh -c 'head -c 1000000 /dev/zero >/tmp/big') || exit 1
    (ulimit -Sv 500000; exits 1 sandbox python3 -c 'bytearray(1 << 30)') || exit 1
    output=$(ulimit -v 2000000; sandbox true 2>&1)
    equal 1 $?
    contains "$output" "hard limit of ulimit -v"
}
# A folder of PATH that the user may not search, such as another one's ~/bin, says nothing of what is in it.
closed_folder_in_path() {
    local output
    output=$(PATH=/root/bin:$PATH sandbox no-such-program 2>&1)
    equal 127 $?
    contains "$output" "not found"
}
# Where the host denies the memory of guest processes, each call costs a signal.
calls_are_patched() {
    exits 0 user ./sallet --debug --debug-log "$WORK/log" do -- sh -c 'for i in 1 2 3 4 5 6; do read line </proc/uptime; done'
    [ -e log ] || { echo "no log"; exit 1; }
    equal "" "$(grep "are not patched" log)"
}
# Guest processes own nothing, not even in the namespace that makes their memory ours.
stubs_are_powerless() {
    local pids pid
    sandbox sleep 3.125 &
    for _ in $(seq 50); do
        pids=$(pgrep -u $USER_ID -f '^(sallet-stub|sleep 3.125)')
        [ "$(wc -w <<<"$pids")" -ge 2 ] && break
        sleep 0.1
    done
    [ "$(wc -w <<<"$pids")" -ge 2 ] || { echo "no stubs: $pids"; exit 1; }
    for pid in $pids; do
        equal "0000000000000000" "$(awk '/^Cap(Inh|Prm|Eff|Bnd|Amb)/ {print $2}' /proc/$pid/status | sort -u)"
        equal 1 "$(awk '/^NoNewPrivs/ {print $2}' /proc/$pid/status)"
    done
    wait
}

for t in ids pipeline pipes_by_name threads own_files callers_limits closed_folder_in_path calls_are_patched stubs_are_powerless; do
    run_test $t
done
