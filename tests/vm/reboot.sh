#!/bin/bash
# The machine is shut down while containers run, and comes up again. Called twice: before and after.
RUNTIME=sallet
. "$(dirname "$0")/../docker/lib.sh.inc"
trap - EXIT
KEPT=/var/containers

start() {
    mkdir -p /var/log/journal
    systemctl restart systemd-journald
    journalctl --flush
    image base
    {
        dstart --name plain $BASE sh -c 'trap "" TERM; sleep 4321; sleep 4321'
        dstart --name again --restart always --memory 200m -p 127.0.0.1:8080:80 $BASE sh -c 'echo up; sleep 4321'
        dstart --name paused $BASE sleep 4321
    } >$KEPT
    docker pause paused
    [ "$(wc -l <$KEPT)" = 3 ]
}
went_down_in_time() {
    local asked down
    asked=$(cat /var/asked)
    down=$(journalctl -b -1 -n 1 -o short-unix --no-pager | cut -d. -f1)
    # Docker gives each ten seconds; systemd would give it ninety.
    [ $((down - asked)) -lt 80 ] || { echo "$((down - asked)) s"; exit 1; }
    equal "" "$(journalctl -b -1 -o cat --no-pager | grep -E 'timed out|Killing process|Failed to (unmount|kill)|Failed unmounting')"
}
one_comes_again() {
    eventually 120 sh -c "docker inspect -f '{{.State.Status}}' again | grep -qx running"
    equal "up up" "$(docker logs again | xargs)"
    equal "exited exited" "$(docker inspect -f '{{.State.Status}}' plain paused | xargs)"
    docker start plain paused
    equal "running running" "$(docker inspect -f '{{.State.Status}}' plain paused | xargs)"
}
nothing_else_is_left() {
    docker rm -f plain again paused
    eventually 20 sh -c '! pgrep -f "sleep 4321"'
    equal "" "$(ls "/run/docker/runtime-$NAME/moby")"
    equal "" "$(systemctl list-units --all --plain --no-legend 'docker-*.scope')"
}
if [ -e /var/asked ]; then
    touch /var/rebooted
    for test in went_down_in_time one_comes_again nothing_else_is_left; do
        run_test $test
    done
else
    run_test start
    date +%s >/var/asked
fi
