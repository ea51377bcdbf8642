#!/bin/bash
# What changes behind a sandbox's back is seen: by a program that has looked before, within moments.
. "$(dirname "$0")/lib.sh.inc"
image base || { skip all "no image"; exit 0; }

# watcher ARGUMENTS...: a container whose program prints what it sees of $F whenever that changes.
watcher() {
    dstart "$@" $BASE bash -c '
        last=
        while :; do
            if [ -e "$F" ]; then
                now="$(stat -c "%a %s" "$F") $(cat "$F") $(ls "${F%/*}" | grep -c "^${F##*/}$")"
            else
                now="none $(ls "${F%/*}" | grep -c "^${F##*/}$")"
            fi
            [ "$now" = "$last" ] || echo "$now"
            last=$now
            sleep 0.02
        done'
}
# told ID LINE: the program has printed this as its last line.
told() {
    local _
    for _ in $(seq 50); do
        [ "$(docker logs --tail 1 "$1" 2>&1)" = "$2" ] && return
        sleep 0.1
    done
    echo "wanted '$2' last, got: $(docker logs --tail 5 "$1" 2>&1)"
    exit 1
}
changes() {
    local id=$1 file=$2
    told "$id" "none 0"
    printf one >"$file" && chmod 644 "$file"
    told "$id" "644 3 one 1"
    printf three >"$file.new" && chmod 640 "$file.new" && mv "$file.new" "$file"
    told "$id" "640 5 three 1"
    printf ', four' >>"$file"
    told "$id" "640 11 three, four 1"
    chmod 600 "$file"
    told "$id" "600 11 three, four 1"
    mv "$file" "$file.away"
    told "$id" "none 0"
    mv "$file.away" "$file"
    told "$id" "600 11 three, four 1"
    rm "$file"
    told "$id" "none 0"
}
root_changed_by_the_host() {
    local id root
    id=$(watcher -e F=/srv/file) || exit 1
    root=$(docker inspect -f '{{.GraphDriver.Data.MergedDir}}' "$id")
    changes "$id" "$root/srv/file"
    docker rm -f "$id"
}
volume_changed_by_the_host() {
    local id dir
    dir=$(mktemp -d)
    id=$(watcher -v "$dir:/data" -e F=/data/file) || exit 1
    changes "$id" "$dir/file"
    docker rm -f "$id"
    rmdir "$dir"
}
docker_cp_over_a_known_file() {
    local id name="/tmp/$PREFIX.watched"
    id=$(watcher -e F=/srv/file) || exit 1
    told "$id" "none 0"
    printf first >"$name" && chmod 644 "$name"
    docker cp -q "$name" "$id:/srv/file"
    told "$id" "644 5 first 1"
    printf second >"$name"
    docker cp -q "$name" "$id:/srv/file"
    told "$id" "644 6 second 1"
    rm "$name"
    docker rm -f "$id"
}
next_exec_sees_at_once() {
    local id root i
    id=$(dstart $BASE sleep 60) || exit 1
    root=$(docker inspect -f '{{.GraphDriver.Data.MergedDir}}' "$id")
    for i in $(seq 10); do
        equal "$((i - 1))" "$(dexec "$id" sh -c 'cat /srv/n 2>/dev/null || echo 0')"
        echo "$i" >"$root/srv/n"
    done
    docker rm -f "$id"
}

for t in root_changed_by_the_host volume_changed_by_the_host docker_cp_over_a_known_file next_exec_sees_at_once; do
    run_test $t
done
