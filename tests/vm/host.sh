#!/bin/bash
# What the machine's administrator gets to see: what is left when Docker stops or dies, what the logs say. Stops Docker.
. "$(dirname "$0")/../docker/lib.sh.inc"
image base || { skip all "no image"; exit 0; }

# left ID...: what is left of these containers on the machine.
left() {
    local id
    for id; do
        [ ! -e "/run/docker/runtime-$NAME/moby/$id" ] || echo "a record of $id"
        [ ! -e "/sys/fs/cgroup/system.slice/docker-$id.scope" ] || echo "the group of $id"
        systemctl list-units --all --plain --no-legend "docker-$id.scope"
        pgrep -fa "$id"
        grep "$id" /proc/mounts
    done
    pgrep -fa "$CACHE/bin/$NAME"
    pgrep -f "sleep 4321"
}
nothing_left() { [ -z "$(left "$@")" ]; }
three() {
    ONE=$(dstart --memory 200m $BASE sleep 4321)
    TWO=$(dstart --restart always -p 127.0.0.1::80 $BASE sh -c 'trap "" TERM; sleep 4321; sleep 4321')
    THREE=$(dstart $BASE sh -c 'while :; do echo line; sleep 1; done')
    dexec -d "$ONE" sleep 4321
    docker pause "$THREE" >/dev/null
}
docker_stops() {
    three
    timeout 120 systemctl stop docker.socket docker.service
    nothing_left $ONE $TWO $THREE || { left $ONE $TWO $THREE; exit 1; }
    timeout 120 systemctl start docker.service
    equal exited "$(docker inspect -f '{{.State.Status}}' $ONE)"
    eventually 60 sh -c "docker inspect -f '{{.State.Status}}' $TWO | grep -qx running"
    equal exited "$(docker inspect -f '{{.State.Status}}' $THREE)"
    docker rm -f $ONE $TWO $THREE
}
docker_is_killed() {
    three
    systemctl kill -s KILL docker.service
    # systemd starts it anew, and it ends what it finds.
    eventually 120 docker info
    eventually 60 sh -c "docker inspect -f '{{.State.Status}}' $ONE | grep -qx exited"
    docker rm -f $ONE $TWO $THREE
    eventually 30 nothing_left $ONE $TWO $THREE
}
# A program that is killed for a forbidden call, a fault, a core, and memory that ends are the container's own affair.
logs_are_quiet() {
    local since id
    since=$(date '+%F %T')
    drun $BASE perl -e 'kill "SEGV", $$'
    drun $BASE perl -e 'unpack "p", pack "Q", 4096'
    drun $BASE sh -c 'kill -ABRT $$'
    drun --security-opt no-new-privileges $BASE perl -e 'syscall(425, 1, 0); syscall(101, 0, 0, 0, 0); syscall(272, 0x10000000)'
    id=$(dstart $BASE sh -c 'echo hello; sleep 30')
    dexec $id ls /
    docker pause $id && docker unpause $id
    docker stop -t 1 $id
    docker rm $id
    sleep 1
    # Network devices come and go with each container, and the emulated machine's timer is late.
    equal "" "$(journalctl -k --since "$since" -o cat --no-pager | grep -vE 'veth|docker0|eth0|hrtimer: interrupt took')"
    # containerd's own words for a container that has ended are the same with runc.
    local lines
    lines=$(journalctl --since "$since" -o cat --no-pager | grep -vE 'cleaning up after shim|cleanup warnings' |
        grep -iE 'seccomp|audit|segfault|general protection|dumped core|failed to|level=error|scope: (Failed|Couldn|Killing)')
    equal "" "$lines"
}
for test in docker_stops docker_is_killed logs_are_quiet; do
    run_test $test
done
