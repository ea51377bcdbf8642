#!/bin/bash
# Other engines than the docker client: docker-compose, containerd's ctr, podman.
. "$(dirname "$0")/lib.sh.inc"
image base && image full || { skip all "no image"; exit 0; }
BINARY=$([ "$RUNTIME" = runc ] && command -v runc || echo "$CACHE/bin/$NAME")
WORK=$(mktemp -d /tmp/sallet-engines.XXXXXX)

# Two services that find each other by name, one with a volume and a limit.
compose() {
    command -v docker-compose >/dev/null || { echo "no docker-compose"; exit 1; }
    mkdir -p "$WORK/web"
    echo "from the volume" >"$WORK/web/index.html"
    cat >"$WORK/docker-compose.yml" <<END
version: "2.4"
services:
  web:
    image: $FULL
    runtime: $NAME
    working_dir: /web
    command: python3 -m http.server 8000
    volumes: ["$WORK/web:/web:ro"]
    mem_limit: 256m
  client:
    image: $FULL
    runtime: $NAME
    depends_on: [web]
    command: sh -c 'for i in 1 2 3 4 5 6 7 8 9; do curl -sf --max-time 3 http://web:8000/ && exit 7; sleep 1; done'
END
    compose() { timeout 90 docker-compose -p "$PREFIX" -f "$WORK/docker-compose.yml" "$@"; }
    compose up -d || { compose down -t 1; exit 1; }
    local client output
    client=$(compose ps -q client)
    equal 7 "$(timeout 40 docker wait "$client")"
    output=$(compose logs --no-color client)
    contains "$output" "from the volume"
    contains "$(compose exec -T web sh -c 'echo inside; cat /sys/fs/cgroup/memory.max')" "inside"
    compose stop -t 1
    compose down -t 1
    equal "" "$(docker ps -aq --filter "label=com.docker.compose.project=$PREFIX")"
}

# Of busybox alone.
small_image() {
    mkdir -p "$WORK/small/bin" "$WORK/small/tmp"
    cp "$(command -v busybox)" "$WORK/small/bin/busybox" || return 1
    local name
    for name in sh echo sleep; do ln -sf busybox "$WORK/small/bin/$name"; done
    tar -C "$WORK/small" -c . | docker import - "sallet-test:$PREFIX" >/dev/null
}
# containerd's own client, with the runc.v2 shim and another binary.
containerd() {
    local socket address
    for socket in /run/docker/containerd/containerd.sock /run/containerd/containerd.sock; do
        [ -S "$socket" ] && address=$socket
    done
    [ -n "${address:-}" ] || { echo "no containerd answers"; exit 1; }
    ctr() { timeout 60 /usr/bin/ctr --address "$address" -n "$PREFIX" "$@"; }
    # A small one: it is unpacked again.
    small_image || { echo "no small image"; exit 1; }
    docker save "sallet-test:$PREFIX" | ctr image import - >/dev/null
    docker rmi "sallet-test:$PREFIX" >/dev/null
    local image=docker.io/library/sallet-test:$PREFIX run="run --runtime io.containerd.runc.v2 --runc-binary $BINARY"
    exits 3 ctr $run --rm "$image" one sh -c 'exit 3'
    equal "hello" "$(ctr $run --rm "$image" two echo hello)"
    ctr $run -d "$image" three sleep 60
    equal "in" "$(ctr task exec --exec-id e1 three echo in)"
    exits 5 ctr task exec --exec-id e2 three sh -c 'exit 5'
    ctr task pause three
    contains "$(ctr task ls)" PAUSED
    ctr task resume three
    [ "$(ctr task ps three | wc -l)" -ge 2 ] || { echo "no process is listed"; exit 1; }
    ctr task metrics three >/dev/null || { echo "no metrics"; exit 1; }
    ctr task kill -s KILL three
    eventually 5 sh -c "/usr/bin/ctr --address $address -n $PREFIX task ls | grep -q STOPPED"
    ctr task rm three
    ctr container rm three
    ctr image rm --sync "$image" >/dev/null
    eventually 10 /usr/bin/ctr --address "$address" namespace rm "$PREFIX"
}

podman() {
    command -v podman >/dev/null || { echo "no podman"; exit 1; }
    local root id
    root=$(rootfs base)
    # The defaults are more than some machines allow.
    local options="--network none --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 --rootfs $root"
    podman() {
        timeout 60 /usr/bin/podman --root "$WORK/store" --runroot "$WORK/run" --storage-driver vfs \
            --cgroup-manager cgroupfs --events-backend none --runtime "$BINARY" "$@"
    }
    equal "hello" "$(podman run --rm $options echo hello)"
    exits 4 podman run --rm $options sh -c 'exit 4'
    id=$(podman run -d $options sh -c 'trap "exit 6" TERM; while :; do sleep 0.1; done')
    equal "in" "$(podman exec "$id" echo in)"
    exits 5 podman exec "$id" sh -c 'exit 5'
    podman pause "$id"
    equal paused "$(podman inspect -f '{{.State.Status}}' "$id")"
    podman unpause "$id"
    podman stop -t 10 "$id"
    equal 6 "$(podman inspect -f '{{.State.ExitCode}}' "$id")"
    podman rm "$id"
    # With options of ps(1) it is the container's own.
    id=$(podman run -d ${options/"$root"/$(rootfs full)} sleep 99)
    contains "$(podman top "$id" -eo pid,args)" "1 sleep 99"
    podman rm -f -t 0 "$id"
}

for t in compose containerd podman; do
    run_test $t
done
rm -rf "$WORK"
