# A controller of builds in Jetty, with the habits of Jenkins: archives unpacked at the first start, small files renamed
# into place, git and shells started from a large heap, trees of processes ended by what their environment says.
. "$(dirname "$0")/../lib.sh"

JOBS=$([ "$QUICK" = 1 ] && echo 20 || echo 200)

server() {
    start "$1" --init -v /data "$IMAGE"
    serves "$1" 8080 90
    URL=http://$(address "$1"):8080
    eventually 90 client curl -sf "$URL/status"
}
post() { client curl -sf --data-binary "${2:-}" "$URL$1"; }
get() { client curl -sf "$URL$1"; }
result_is() { [ "$(get "/job/$1")" = "$2" ]; }
# all_are COUNT RESULT
all_are() { [[ "$(get /status)" == *"{$2=$1}"* ]]; }

# Neither a process of a build nor one that has ended and that nobody waits for.
nothing_runs() { ! inside web ps -e -o stat=,args= | grep -qE '^Z|sleep'; }

# Makes so many jobs and runs each once.
run_jobs() {
    client bash -c "for n in \$(seq $1); do
        curl -sf -o /dev/null --data-binary \"\$(printf 'test -d .git\nwc -l module1/file1.txt\nfor i in 1 2 3; do echo part \$i of '\$n'; sleep 0.05; done | sort >out.txt\ncat out.txt\nenv | grep BUILD_NUMBER')\" $URL/job/job\$n &&
        curl -sf -o /dev/null -d '' $URL/job/job\$n/build || exit 1; done"
}

builds_and_restarts() {
    server web
    contains "$(docker logs "$TAG-web" 2>&1)" '30 plugins, 0 jobs, 0 builds'
    must run_jobs "$JOBS"
    eventually 240 all_are "$JOBS" SUCCESS
    for n in 1 $JOBS; do
        log=$(get "/job/job$n/1/log")
        contains "$log" "$(inside web git --git-dir=/repository rev-parse main)"
        contains "$log" "3 module1/file1.txt"
        contains "$log" "part 3 of $n"
        contains "$log" 'BUILD_NUMBER=1'
        contains "$log" 'Finished: 0'
    done
    # One fails by its script, one has a tree of processes, some of which turn a deaf ear.
    must post /job/fails 'exit 3' >/dev/null
    must post /job/fails/build >/dev/null
    eventually 30 result_is fails/1 FAILURE
    contains "$(get /job/fails/1/log)" 'Finished: 3'
    must post /job/tree 'trap "" HUP
        (sh -c "trap \"\" TERM; while :; do sleep 1; done" & sleep 1000 & setsid sleep 2000) & nohup sh -c "sleep 3000; :" &
        touch started; wait' >/dev/null
    must post /job/tree/build >/dev/null
    eventually 30 inside web test -e /data/jobs/tree/workspace/started
    before=$(inside web ps -e -o args= | grep -c '^sleep [123]000')
    equal 3 "$before"
    contains "$(post /job/tree/1/stop)" ended
    eventually 10 result_is tree/1 ABORTED
    eventually 5 nothing_runs
    # Another controller on the same data is turned away.
    exits 5 inside web java -cp '/app:/app/lib/*' Main
    status=$(get /status)
    stops web 143 20
    contains "$(docker logs "$TAG-web" 2>&1)" "saved $((JOBS + 2)) builds"
    again web
    serves web 8080 90
    URL=http://$(address web):8080
    eventually 60 client curl -sf "$URL/status"
    equal "$status" "$(get /status)"
    contains "$(get "/job/job$JOBS/1/log")" 'Finished: 0'
    must post /job/job1/build >/dev/null
    eventually 30 result_is job1/2 SUCCESS
    equal 2 "$(inside web readlink /data/jobs/job1/builds/last)"
    stops web 143 20
}

# Killed while it builds, it has whole files, and knows what did not end.
survives_sigkill() {
    server dies
    must run_jobs 12
    must post /job/long 'sleep 100' >/dev/null
    sleep 2
    must post /job/long/build >/dev/null
    eventually 60 result_is long/1 RUNNING
    killed dies
    again dies
    serves dies 8080 90
    URL=http://$(address dies):8080
    eventually 60 client curl -sf "$URL/status"
    contains "$(get /status)" '13 jobs'
    result_is long/1 INTERRUPTED || { echo "long/1 is $(get /job/long/1)"; exit 1; }
    must post /job/job1/build >/dev/null
    eventually 60 result_is job1/2 SUCCESS
    stops dies 143 20
}

ready_once() { docker logs "$TAG-speed" | grep -q 'ready after'; }
ready_twice() { [ "$(docker logs "$TAG-speed" | grep -c 'ready after')" = 2 ]; }

case $1 in
    check)
        run_test builds_and_restarts
        run_test survives_sigkill
        ;;
    measure)
        start speed --init -v /data "$IMAGE"
        eventually 240 ready_once
        first=$(docker logs "$TAG-speed" | sed -n 's/ready after \([0-9]*\) ms/\1/p')
        measure first-start "$(awk "BEGIN { print $first / 1000 }")" s
        URL=http://$(address speed):8080
        jobs() { run_jobs 40 && eventually 240 all_are 40 SUCCESS; }
        measure 40-builds "$(seconds jobs)" s
        post /job/quick true >/dev/null
        fast() { for n in 1 2 3 4 5 6; do post /job/quick/build; eventually 30 result_is "quick/$n" SUCCESS; done; }
        measure 6-builds-in-turn "$(seconds fast)" s
        docker stop "$TAG-speed" >/dev/null
        docker start "$TAG-speed" >/dev/null
        eventually 240 ready_twice
        measure second-start "$(docker logs "$TAG-speed" | sed -n 's/ready after \([0-9]*\) ms/\1/p' | awk 'END { print $1 / 1000 }')" s
        ;;
esac
