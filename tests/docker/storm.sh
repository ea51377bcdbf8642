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
# quiet_again ID: no CPU time is used while nothing is to be done.
quiet_again() {
    local start
    [ "$NAME" != runc ] || return 0
    start=$(ticks "$1")
    sleep 3
    [ $(($(ticks "$1") - start)) -le 3 ] || { echo "$(($(ticks "$1") - start)) ticks in three idle seconds afterwards"; exit 1; }
}
# nothing_kept ID PID DESCRIPTORS KILOBYTES ALLOWED: what the kernel process holds afterwards.
nothing_kept() {
    eventually 10 no_more_descriptors "$2" "$3"
    local grown=$(($(kilobytes "$2") - $4))
    [ $grown -lt "$5" ] || { echo "$grown KB more than before"; exit 1; }
    quiet_again "$1"
    [ "${LONG:-0}" != 1 ] || echo "# ${FUNCNAME[1]}, $NAME: descriptors $3 before, $(descriptors "$2") after; KB $4 before, $grown more after" >&5
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
    nothing_kept "$id" "$pid" "$before" "$memory" 100000
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
    [ "${LONG:-0}" = 1 ] && echo "# $NAME: $line" >&5
    nothing_kept "$id" "$pid" "$before" "$memory" 50000
}
slow_readers() {
    local id pid before memory
    id=$(sleeper)
    pid=$(pid_of "$id")
    inside "$id" slow 2 1 >/dev/null
    before=$(descriptors "$pid")
    memory=$(kilobytes "$pid")
    equal "slow full True" "$(inside "$id" slow 100 40 2>&1)"
    nothing_kept "$id" "$pid" "$before" "$memory" 200000
}
no_descriptor_left() {
    local id pid before memory _
    id=$(sleeper)
    pid=$(pid_of "$id")
    # EMFILE.
    equal "client 24 server 24 again True True" "$(inside "$id" exhausted 2>&1 | xargs)"
    before=$(descriptors "$pid")
    memory=$(kilobytes "$pid")
    for _ in 1 2 3; do
        equal "client 24 server 24 again True True" "$(inside "$id" exhausted 2>&1 | xargs)"
    done
    nothing_kept "$id" "$pid" "$before" "$memory" 20000
}
# listener PORT: a container that answers there; sets id, pid and ip.
listener() {
    id=$(sleeper)
    pid=$(pid_of "$id")
    ip=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$id")
    docker exec -d "$id" python3 /storm.py listen "$1"
    eventually 20 env SERVER="$ip" PORT="$1" python3 "$STORM" connect 1
}
# outside WHAT ARGUMENTS...: the same program on the host.
outside() { SERVER=$ip PORT=7000 timeout 100 python3 "$STORM" "$@" 2>&1; }
# From another network namespace: connections of the host's stack.
from_outside() {
    local id pid ip before memory count=$((ACTIVE * 2)) line start
    [ "${LONG:-0}" != 1 ] || count=4000
    listener 7000
    # What the first ones leave is kept for those that follow.
    equal "answers $count" "$(outside connect $count)"
    sleep 1
    before=$(descriptors "$pid")
    memory=$(kilobytes "$pid")
    equal "answers $count" "$(outside connect $count)"
    # As many that stay cost nothing while they do.
    coproc HELD { outside hold $count; }
    read -r -t 100 line <&"${HELD[0]}"
    equal "held $count" "$line"
    quiet_again "$id"
    exec {HELD[1]}>&-
    wait "$HELD_PID"
    equal "answers $count" "$(outside connect $count)"
    nothing_kept "$id" "$pid" "$before" "$memory" 50000
}
# Threads that wait for readers outside.
slow_outside() {
    local id pid ip before memory count=$((ACTIVE / 4))
    id=$(sleeper)
    pid=$(pid_of "$id")
    ip=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$id")
    docker exec -d "$id" python3 /storm.py pour 7000 6
    eventually 20 outside sip 1 6
    equal "whole $count" "$(outside sip $count 6)"
    sleep 1
    before=$(descriptors "$pid")
    memory=$(kilobytes "$pid")
    equal "whole $count" "$(outside sip $count 6)"
    nothing_kept "$id" "$pid" "$before" "$memory" 50000
}
# Peers whose network is gone: nobody says so but time.
peer_vanishes() {
    local id pid before memory net count=$((ACTIVE / 2)) peer line
    net="$PREFIX-vanish"
    docker network create "$net" >/dev/null || exit 1
    trap "cleanup; docker network rm '$net' >/dev/null 2>&1" EXIT
    id=$(sleeper --network "$net" --network-alias server)
    pid=$(pid_of "$id")
    # Files that Python opens stay known.
    inside "$id" vanish 7001 0 >/dev/null
    before=$(descriptors "$pid")
    memory=$(kilobytes "$pid")
    peer=$(NAME=runc sleeper --network "$net" -e SERVER=server -e PORT=7000)
    coproc VANISH { timeout 120 docker exec -i "$id" python3 /storm.py vanish 7000 $count 2>&1; }
    read -r -t 30 line <&"${VANISH[0]}"
    equal listens "$line"
    # That there are two is no mistake.
    { coproc PEER { timeout 120 docker exec -i "$peer" python3 /storm.py hold $count 2>&1; }; } 2>/dev/null
    read -r -t 60 line <&"${PEER[0]}"
    equal "held $count" "$line"
    docker network disconnect "$net" "$peer"
    echo gone >&"${VANISH[1]}"
    read -r -t 90 line <&"${VANISH[0]}"
    equal "told [('timed out', $count)] left 0" "$line"
    wait "$VANISH_PID"
    docker rm -f "$peer" >/dev/null
    nothing_kept "$id" "$pid" "$before" "$memory" 50000
}
# More sockets to the outside than a sandbox may have: an error that a program knows, and no harm after it.
none_left_outside() {
    local id pid ip before memory server
    [ "${LONG:-0}" = 1 ] || FILES=3000
    # The host's own side is a container of runc.
    server=$(NAME=runc sleeper)
    ip=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$server")
    docker exec -d "$server" python3 /storm.py listen 7000
    id=$(sleeper -e "SERVER=$ip" -e PORT=7000)
    pid=$(pid_of "$id")
    eventually 20 inside "$id" connect 1
    equal "taken True True again True" "$(inside "$id" taken 12000 2>&1)"
    before=$(descriptors "$pid")
    memory=$(kilobytes "$pid")
    equal "taken True True again True" "$(inside "$id" taken 12000 2>&1)"
    nothing_kept "$id" "$pid" "$before" "$memory" 50000
    docker rm -f "$server" >/dev/null
}
# Connections a second that a program in C makes and closes, RATE of them or as many as can be: crr SECONDS [RATE]
crr() { timeout 150 docker exec "$id" echo-net crr 127.0.0.1 7002 "$1" 4 ${2:-}; }
# At the rate that runc holds in the same run. Without LONG at a tenth of it: nothing is timed then.
storm_like_runc() {
    local id pid before memory rate done wanted
    docker image inspect sallet-app:net >/dev/null 2>&1 || docker build -q -t sallet-app:net ../apps/net >/dev/null ||
        { echo "no image"; exit 1; }
    start_echo() { timeout 60 docker run -d --runtime "$1" --label "sallet-test=$PREFIX" sallet-app:net echo-net serve 7001 7002; }
    id=$(start_echo runc)
    eventually 10 crr 1
    rate=$(crr $((SECONDS_OF_STORM / 5)) | awk '{ printf "%d", $1 / $2 }')
    docker rm -f "$id" >/dev/null
    id=$(start_echo "$NAME")
    pid=$(pid_of "$id")
    eventually 10 crr 1
    before=$(descriptors "$pid")
    memory=$(kilobytes "$pid")
    wanted=$rate
    [ "${LONG:-0}" = 1 ] || wanted=$((rate / 10))
    done=$(crr "$SECONDS_OF_STORM" "$wanted") || { echo "it fails: $done"; exit 1; }
    done=$(awk '{ printf "%d", $1 / $2 }' <<<"$done")
    [ "${LONG:-0}" != 1 ] || echo "# $NAME: $done connections a second for $SECONDS_OF_STORM s; runc made $rate" >&5
    [ "${LONG:-0}" != 1 ] || [ "$done" -ge $((wanted * 95 / 100)) ] || { echo "$done a second and not $wanted"; exit 1; }
    nothing_kept "$id" "$pid" "$before" "$memory" 50000
}

exec 5>&1
for t in idle_connections connection_storm storm_like_runc slow_readers no_descriptor_left from_outside slow_outside peer_vanishes \
    none_left_outside; do
    run_test $t
done
