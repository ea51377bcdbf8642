#!/bin/bash
# The life of a container: exec, logs, stop, kill, pause, top, stats, cp, commit, diff, restart policy.
. "$(dirname "$0")/lib.sh.inc"
image base || { skip all "no image"; exit 0; }

state() { docker inspect -f '{{.State.Status}}' "$1"; }
exit_code() { docker inspect -f '{{.State.ExitCode}}' "$1"; }

exec_runs() {
    local id
    id=$(dstart $BASE sleep 60) || exit 1
    equal "inside" "$(dexec "$id" echo inside)"
    exits 9 dexec "$id" sh -c 'exit 9'
    case $(dexec "$id" /no/such >/dev/null 2>&1; echo $?) in 126 | 127) ;; *) echo "a missing program"; exit 1 ;; esac
    equal "root|/tmp|v" "$(dexec -w /tmp -e X=v "$id" sh -c 'echo $(id -un)\|$(pwd)\|$X')"
    equal "33" "$(dexec -u www-data "$id" id -u)"
    equal "abc" "$(echo abc | dexec -i "$id" cat)"
    contains "$(dexec "$id" sh -c 'cat /proc/1/cmdline | tr "\0" " "')" "sleep 60"
    docker rm -f "$id"
}
exec_at_once() {
    local id i
    id=$(dstart $BASE sleep 60) || exit 1
    for i in 1 2 3; do dexec "$id" sh -c "sleep 1; echo $i" >"/tmp/$PREFIX.$i" & done
    wait
    equal "1 2 3 " "$(cat /tmp/$PREFIX.? | tr '\n' ' ')"
    rm -f /tmp/$PREFIX.?
    docker rm -f "$id"
}
exec_detached_killed() {
    local id pid
    id=$(dstart $BASE sleep 60) || exit 1
    docker exec -d "$id" sleep 77
    eventually 5 sh -c "docker top $id | grep -q 'sleep 77'"
    pid=$(docker top "$id" -eo pid,args | awk '/sleep 77/ { print $1 }')
    kill -TERM "$pid"
    eventually 5 sh -c "! docker top $id | grep -q 'sleep 77'"
    equal running "$(state "$id")"
    docker rm -f "$id"
}
# Whoever waits for a program of `docker exec` hears of its end, too, when the container ends.
exec_ends_with_it() {
    local how id got
    for how in "kill" "stop -t 5" "rm -f" "exit"; do
        id=$(dstart $BASE sh -c 'trap "exit 3" TERM USR1; while :; do sleep 0.1; done')
        timeout 20 docker exec "$id" sleep 66 &
        eventually 5 sh -c "docker top $id | grep -q 'sleep 66'"
        case $how in
            exit) docker kill -s USR1 "$id" ;;
            *) docker $how "$id" ;;
        esac
        wait $!
        got=$?
        equal "$how 137" "$how $got"
        docker rm -f "$id"
    done
}
logs() {
    local id
    id=$(dstart $BASE sh -c 'echo one; echo two >&2; sleep 60') || exit 1
    eventually 5 sh -c "docker logs $id 2>&1 | grep -q two"
    equal "one" "$(docker logs "$id" 2>/dev/null)"
    docker rm -f "$id"
}
stop_terminates() {
    local id start=$SECONDS
    id=$(dstart $BASE sh -c 'trap "exit 5" TERM; while :; do sleep 0.1; done') || exit 1
    sleep 0.5
    docker stop -t 20 "$id"
    equal 5 "$(exit_code "$id")"
    [ $((SECONDS - start)) -lt 10 ] || { echo "stop was slow"; exit 1; }
    docker rm -f "$id"
}
stop_kills() {
    local id
    id=$(dstart $BASE sh -c 'trap "" TERM; while :; do sleep 0.1; done') || exit 1
    docker stop -t 1 "$id"
    equal 137 "$(exit_code "$id")"
    docker rm -f "$id"
}
kill_signal() {
    local id
    id=$(dstart $BASE sh -c 'trap "exit 6" USR1; while :; do sleep 0.1; done') || exit 1
    sleep 0.5
    docker kill -s USR1 "$id"
    eventually 5 test "$(docker wait "$id")" = 6
    docker rm -f "$id"
}
pause_holds() {
    local id before after
    id=$(dstart $BASE sh -c 'while :; do date +%N; sleep 0.05; done') || exit 1
    sleep 0.5
    docker pause "$id"
    equal paused "$(state "$id")"
    sleep 0.3
    before=$(docker logs "$id" | wc -l)
    sleep 1
    after=$(docker logs "$id" | wc -l)
    equal "$before" "$after"
    docker unpause "$id"
    sleep 0.7
    [ "$(docker logs "$id" | wc -l)" -gt "$after" ] || { echo "did not go on"; exit 1; }
    docker rm -f "$id"
}
top_lists() {
    local id
    id=$(dstart $BASE sh -c 'sleep 63 & sleep 64') || exit 1
    eventually 5 sh -c "docker top $id | grep -q 'sleep 63'"
    contains "$(docker top "$id")" "sleep 64"
    docker rm -f "$id"
}
stats_count() {
    local id text
    id=$(dstart $BASE sleep 60) || exit 1
    text=$(docker stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' "$id")
    case $text in 0B*) echo "$text"; exit 1 ;; esac
    docker rm -f "$id"
}
cp_both_ways() {
    local id
    id=$(dstart $BASE sh -c 'ls /new >/dev/null 2>&1; sleep 60') || exit 1
    exits 2 dexec "$id" ls /new
    echo from-outside >"/tmp/$PREFIX.f"
    docker cp "/tmp/$PREFIX.f" "$id:/new"
    equal "from-outside" "$(dexec "$id" cat /new)"
    echo changed >"/tmp/$PREFIX.f"
    docker cp "/tmp/$PREFIX.f" "$id:/new"
    equal "changed" "$(dexec "$id" cat /new)"
    dexec "$id" sh -c 'echo inside >/made'
    docker cp "$id:/made" "/tmp/$PREFIX.g"
    equal "inside" "$(cat "/tmp/$PREFIX.g")"
    rm -f "/tmp/$PREFIX".?
    docker rm -f "$id"
}
diff_and_commit() {
    local id
    id=$(dstart $BASE sh -c 'echo x >/srv/new; rm /etc/issue; sleep 60') || exit 1
    sleep 0.5
    contains "$(docker diff "$id")" "A /srv/new"
    contains "$(docker diff "$id")" "D /etc/issue"
    docker commit "$id" "sallet-test:$PREFIX"
    docker rm -f "$id"
    equal "x" "$(drun "sallet-test:$PREFIX" cat /srv/new)"
    docker rmi "sallet-test:$PREFIX"
}
restart_policy() {
    local id
    id=$(docker run -d --runtime "$NAME" --label "sallet-test=$PREFIX" --restart on-failure:2 $BASE sh -c 'echo x; exit 3')
    eventually 20 sh -c "test \$(docker logs $id | wc -l) = 3"
    docker rm -f "$id"
}
start_again() {
    local id
    id=$(docker run -d --runtime "$NAME" --label "sallet-test=$PREFIX" $BASE sh -c 'echo x >>/count; wc -l </count')
    docker wait "$id"
    docker start -a "$id"
    equal "1 2 " "$(docker logs "$id" | tr '\n' ' ')"
    docker rm -f "$id"
}
removed_while_running() {
    local id pid
    id=$(dstart $BASE sleep 60) || exit 1
    pid=$(docker inspect -f '{{.State.Pid}}' "$id")
    docker rm -f "$id"
    eventually 2 test ! -e "/proc/$pid"
}

for t in exec_runs exec_at_once exec_detached_killed exec_ends_with_it logs stop_terminates stop_kills kill_signal pause_holds top_lists \
    stats_count cp_both_ways diff_and_commit restart_policy start_again removed_while_running; do
    run_test $t
done
