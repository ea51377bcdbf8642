# What every application test uses. tests/apps/NAME/test.sh sources it and is called as
#
#   test.sh check      prints `ok TEST`, `FAIL TEST: reason` or `skip TEST: reason` per test, and `note TEXT`
#   test.sh measure    prints `measure WHAT NUMBER UNIT` per figure; more is better unless the unit is a time
#
# with $RUNTIME, the name that Docker knows the runtime under, and $QUICK, 1 where time is short. The
# application runs under $RUNTIME in the image sallet-app:NAME; clients run under runc beside it.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

HERE=$(cd "$(dirname "$0")" && pwd)
APP=$(basename "$HERE")
IMAGE=sallet-app:$APP
RUNTIME=${RUNTIME:-runc}
QUICK=${QUICK:-0}
TAG=${TAG:-sa$$}
WORK=$(mktemp -d "/tmp/sallet-app-$APP.XXXXXX")

cleanup() {
    local ids
    ids=$(docker ps -aq --filter "label=sallet-app=$TAG")
    [ -n "$ids" ] && docker rm -f -v $ids >/dev/null 2>&1
    rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 143' TERM INT

# start NAME ARGUMENTS...: a container of the application in the background.
start() {
    local name=$1
    shift
    docker run -d --runtime "$RUNTIME" --label "sallet-app=$TAG" --name "$TAG-$name" "$@" >/dev/null
}

# once ARGUMENTS...: a container of the application, in the foreground, gone afterwards.
once() { docker run --rm --runtime "$RUNTIME" --label "sallet-app=$TAG" "$@"; }

# inside NAME COMMAND...: a command in the running container NAME.
inside() {
    local name=$1
    shift
    docker exec "$TAG-$name" "$@"
}

# client COMMAND...: a command of sallet-app:client under runc, on the same network.
client() {
    docker inspect "$TAG-client" >/dev/null 2>&1 ||
        docker run -d --runtime runc --label "sallet-app=$TAG" --name "$TAG-client" -v "$HERE:/test:ro" \
            sallet-app:client sleep infinity >/dev/null
    docker exec -i "$TAG-client" "$@"
}

# address NAME
address() { docker inspect -f '{{.NetworkSettings.IPAddress}}' "$TAG-$1"; }

# serves NAME PORT [SECONDS]: waits until the port of a container accepts.
serves() {
    local end=$(($(date +%s) + ${3:-30})) ip
    until ip=$(address "$1") && [ -n "$ip" ] && (exec 3<>"/dev/tcp/$ip/$2") 2>/dev/null; do
        [ "$(date +%s)" -lt "$end" ] || { echo "$1 does not serve port $2: $(docker logs --tail 5 "$TAG-$1" 2>&1)"; exit 1; }
        sleep 0.1
    done
}

# stops NAME STATUS [SECONDS]: `docker stop` ends it within the time (5) and with that exit status.
stops() {
    local start end status
    start=$(date +%s%N)
    docker stop -t 30 "$TAG-$1" >/dev/null || { echo "docker stop $1 failed"; exit 1; }
    end=$(date +%s%N)
    status=$(docker inspect -f '{{.State.ExitCode}}' "$TAG-$1")
    [ "$status" = "$2" ] || { echo "$1 ended with $status, not $2: $(docker logs --tail 5 "$TAG-$1" 2>&1)"; exit 1; }
    [ $(((end - start) / 1000000000)) -lt $((${3:-5} * $(crowded))) ] || { echo "$1 took $(((end - start) / 1000000)) ms to stop"; exit 1; }
}

again() { docker start "$TAG-$1" >/dev/null || { echo "$1 does not start again"; exit 1; }; }
killed() { docker kill "$TAG-$1" >/dev/null && docker wait "$TAG-$1" >/dev/null; }
away() { docker rm -f -v "$TAG-$1" >/dev/null 2>&1; }

# must COMMAND...: a failure ends the test with the command's output.
must() {
    local output
    output=$("$@" 2>&1) || { echo "$*: status $?: $(tail -c 400 <<<"$output")" >&2; exit 1; }
    [ -z "$output" ] || printf '%s\n' "$output"
}

# at_least NUMBER GOT
at_least() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(b + 0 >= a + 0) }' || { echo "wanted at least $1, got '$2'"; exit 1; }; }

# crowded: how many times longer than on an idle machine a moment's work takes now, at least 1.
crowded() {
    local TIMEFORMAT='%R %U %S'
    { time for _ in {1..200000}; do :; done; } 2>&1 | awk '{ n = int($1 / ($2 + $3 + 0.001) + 0.5); print (n > 1 ? n : 1) }'
}

# serves_at_least NUMBER URL [SECONDS] [CONNECTIONS]: wrk_rate is at least that, by what others leave of the machine;
# where they leave little, after a few tries (a virtual machine has to compile first). An error ends it at once.
serves_at_least() {
    local others tries=1 rate
    while :; do
        others=$(crowded)
        rate=$(wrk_rate "$2" "${3:-5}" "${4:-32}" $((2 * others * tries))) || exit 1
        [ "$(crowded)" = 1 ] && [ "$others" = 1 ] && break
        awk -v a="$1" -v b="$rate" -v n="$others" 'BEGIN { exit !(b + 0 >= a / n) }' && return
        [ "$tries" -lt 6 ] || break
        tries=$((tries + 1))
    done
    at_least "$1" "$rate"
}

measure() { [ -n "$2" ] && echo "measure $1 $2 $3"; }

# seconds COMMAND...: runs it and prints how long it took; fails with it.
seconds() {
    local begin=$EPOCHREALTIME
    "$@" >"$WORK/seconds.log" 2>&1 || { tail -5 "$WORK/seconds.log" >&2; return 1; }
    awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f\n", b - a }'
}

# wrk_rate URL [SECONDS] [CONNECTIONS] [LATE]: requests per second; fails if any reply is not 2xx, comes after so many
# seconds (2), or an error occurs.
wrk_rate() {
    local output
    output=$(client wrk -t2 -c"${3:-32}" -d"${2:-5}s" --timeout "${4:-2}s" "$1") || { echo "$output" >&2; return 1; }
    if grep -qE 'Non-2xx|Socket errors' <<<"$output"; then echo "$output" >&2; return 1; fi
    awk '/Requests\/sec/ { print $2 }' <<<"$output"
}
