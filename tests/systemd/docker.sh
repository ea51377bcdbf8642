#!/bin/bash
# Docker with the systemd cgroup driver: each container is a scope of systemd's.
. "$(dirname "$0")/../docker/lib.sh.inc"

[ "$(docker info -f '{{.CgroupDriver}}')" = systemd ] || { skip all "Docker does not use systemd's control groups"; exit 0; }
V2=no
[ -e /sys/fs/cgroup/cgroup.controllers ] && V2=yes

property() { systemctl show "docker-$1.scope" -p "$2" --value; }
gone() { [ "$(property "$1" LoadState)" = not-found ]; }
# of ID FILE: a file of the container's version 2 group.
of() { cat "/sys/fs/cgroup/system.slice/docker-$1.scope/$2"; }

is_a_scope() {
    local id
    id=$(dstart $BASE sleep 100)
    equal active "$(property $id ActiveState)"
    equal yes "$(property $id Delegate)"
    equal system.slice "$(property $id Slice)"
    contains "$(systemctl status --no-pager "docker-$id.scope")" sallet
    local pid
    pid=$(docker inspect -f '{{.State.Pid}}' $id)
    contains "$(cat /proc/$pid/cgroup)" "/system.slice/docker-$id.scope"
    docker rm -f $id
    eventually 10 gone $id
}
limits_survive_a_reload() {
    local id
    id=$(dstart --memory 96m --cpus 0.5 --pids-limit 50 --cpu-shares 512 $BASE sleep 100)
    equal $((96 << 20)) "$(property $id MemoryMax)"
    equal 500ms "$(property $id CPUQuotaPerSecUSec)"
    systemctl daemon-reload
    if [ $V2 = yes ]; then
        equal $((96 << 20)) "$(of $id memory.max)"
        equal "50000 100000" "$(of $id cpu.max)"
        equal 20 "$(of $id cpu.weight)"
        equal "$(property $id TasksMax)" "$(of $id pids.max)"
    fi
    docker update --memory 128m --memory-swap 256m --cpus 1 $id
    equal $((128 << 20)) "$(property $id MemoryMax)"
    systemctl daemon-reload
    [ $V2 = no ] || equal $((128 << 20)) "$(of $id memory.max)"
    docker rm -f $id
}
pauses() {
    local id
    id=$(dstart $BASE sh -c 'while :; do date +%N >/tmp/now; done')
    docker pause $id
    equal paused "$(docker inspect -f '{{.State.Status}}' $id)"
    docker unpause $id
    contains "$(dexec $id echo still here)" "still here"
    docker rm -f $id
}
runs_out_of_memory() {
    local id
    id=$(dstart --memory 64m --memory-swap 64m $BASE perl -e '$x = "x" x (200 << 20); sleep 50')
    equal 137 "$(timeout 60 docker wait $id)"
    equal true "$(docker inspect -f '{{.State.OOMKilled}}' $id)"
    docker rm $id
    eventually 10 gone $id
}
restarts() {
    local id
    id=$(dstart $BASE sh -c 'trap "exit 5" TERM; while :; do sleep 0.1; done')
    timeout 60 docker restart $id
    equal active "$(property $id ActiveState)"
    timeout 60 docker stop $id
    equal 5 "$(docker inspect -f '{{.State.ExitCode}}' $id)"
    eventually 10 gone $id
    docker start $id
    equal active "$(property $id ActiveState)"
    docker kill $id
    equal 137 "$(docker wait $id)"
    docker rm $id
    eventually 10 gone $id
}
shows_stats() {
    local id
    id=$(dstart --memory 100m $BASE sleep 100)
    contains "$(timeout 30 docker stats --no-stream --format '{{.MemUsage}}' $id)" "/ 100MiB"
    contains "$(timeout 30 docker top $id)" sallet
    docker rm -f $id
}
of_a_slice() {
    local id
    id=$(dstart --cgroup-parent st-a.slice $BASE sleep 100)
    equal st-a.slice "$(property $id Slice)"
    test -d "/sys/fs/cgroup/st.slice/st-a.slice/docker-$id.scope" || [ $V2 = no ] || exit 1
    docker rm -f $id
    eventually 10 gone $id
    contains "$(drun --cgroup-parent /nowhere $BASE true 2>&1)" slice
}
for test in is_a_scope limits_survive_a_reload pauses runs_out_of_memory restarts shows_stats of_a_slice; do
    run_test $test
done
