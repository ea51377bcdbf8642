#!/bin/bash
# Very many connections: idle, active, short, slow, from outside; what they leave behind. LONG=1 takes minutes.
. "$(dirname "$0")/lib.sh.inc"
image net || { skip all "no image"; exit 0; }
NET=sallet-test:net
if [ "${LONG:-0}" = 1 ]; then IDLE=10000 ACTIVE=1000 SECONDS_OF_STORM=60; else IDLE=2000 ACTIVE=200 SECONDS_OF_STORM=5; fi
STORM=$(realpath "$(dirname "$0")")/storm.py.inc

# runc gives no more than the engine itself has.
FILES=$(ulimit -Hn)
case $FILES in unlimited) FILES=65536 ;; esac
[ "$FILES" -gt 65536 ] && FILES=65536

# sleeper: a container that waits for `docker exec`.
sleeper() {
    dstart --ulimit "nofile=$FILES:$FILES" -v "$STORM:/storm.py:ro" "$@" $NET sleep 1000
}
inside() {
    local id=$1
    shift
    timeout 200 docker exec "$id" python3 /storm.py "$@"
}
# The pid of the container's first process: the kernel process under Sallet.
pid_of() { docker inspect -f '{{.State.Pid}}' "$1"; }
descriptors() { ls "/proc/$1/fd" | wc -l; }
kilobytes() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }
# ticks ID: CPU time of all of the container's processes on the host, in 1/100 s.
ticks() {
    local pid
    for pid in $(docker top "$1" -eo pid | tail -n +2) $(pid_of "$1"); do
        [ -r "/proc/$pid/stat" ] && sed 's/.*) //' "/proc/$pid/stat"
    done | awk '{ n += $12 + $13 } END { print n + 0 }'
}
# no_more_descriptors PID DESCRIPTORS: no more than a few beyond, soon.
no_more_descriptors() { [ "$(descriptors "$1")" -le $(($2 + 8)) ]; }

idle_connections() {
    local id pid before memory start end
    id=$(sleeper)
    pid=$(pid_of "$id")
    inside "$id" idle 50 5 0 >/dev/null || { echo "the small round failed"; exit 1; }
    before=$(descriptors "$pid")
    memory=$(kilobytes "$pid")
    exec 3< <(inside "$id" idle $IDLE $ACTIVE 8 2>&1)
    local line
    read -r -t 120 line <&3
    equal talked "$line"
    sleep 2
    start=$(ticks "$id")
    sleep 3
    end=$(ticks "$id")
    [ "$NAME" = runc ] || [ $((end - start)) -le 3 ] || { echo "$((end - start)) ticks in three idle seconds"; exit 1; }
    read -r -t 60 line <&3
    equal "ends $((IDLE + ACTIVE))" "$line"
    eventually 10 no_more_descriptors "$pid" "$before"
    local grown=$(($(kilobytes "$pid") - memory))
    [ $grown -lt 100000 ] || { echo "$grown KB more than before"; exit 1; }
    inside "$id" idle 50 5 0 >/dev/null || { echo "the round after it failed"; exit 1; }
}
connection_storm() {
    local id pid before memory line
    id=$(sleeper)
    pid=$(pid_of "$id")
    inside "$id" storm 1 4 >/dev/null
    before=$(descriptors "$pid")
    memory=$(kilobytes "$pid")
    line=$(inside "$id" storm $SECONDS_OF_STORM 4 2>&1)
    contains "$line" "per second"
    [ "${line##* }" -gt 200 ] || { echo "$line"; exit 1; }
    [ "${LONG:-0}" = 1 ] && echo "$NAME: $line" >&3
    eventually 10 no_more_descriptors "$pid" "$before"
    local grown=$(($(kilobytes "$pid") - memory))
    [ $grown -lt 50000 ] || { echo "$grown KB more than before"; exit 1; }
}
slow_readers() {
    local id pid memory
    id=$(sleeper)
    pid=$(pid_of "$id")
    memory=$(kilobytes "$pid")
    equal "slow full True" "$(inside "$id" slow 100 40 2>&1)"
    local grown=$(($(kilobytes "$pid") - memory))
    [ $grown -lt 200000 ] || { echo "$grown KB more than before"; exit 1; }
}
no_descriptor_left() {
    local id
    id=$(sleeper)
    # EMFILE.
    equal "client 24 server 24 again True True" "$(inside "$id" exhausted 2>&1 | xargs)"
}
# From another network namespace: connections of the host's stack.
from_outside() {
    local id pid before ip count=$((ACTIVE * 2))
    id=$(sleeper)
    pid=$(pid_of "$id")
    ip=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$id")
    docker exec -d "$id" python3 /storm.py listen 7000
    eventually 20 env SERVER="$ip" PORT=7000 python3 "$STORM" connect 1
    before=$(descriptors "$pid")
    equal "answers $count" "$(SERVER=$ip PORT=7000 timeout 100 python3 "$STORM" connect $count 2>&1)"
    eventually 10 no_more_descriptors "$pid" "$before"
    equal "answers $count" "$(SERVER=$ip PORT=7000 timeout 100 python3 "$STORM" connect $count 2>&1)"
}

exec 3>&1
for t in idle_connections connection_storm slow_readers no_descriptor_left from_outside; do
    run_test $t
done
