#!/bin/bash
# Limits, volumes, networks.
. "$(dirname "$0")/lib.sh.inc"
image base && image full || { skip all "no image"; exit 0; }

oom() { docker inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}}' "$1"; }
eat='x = []
while True: x.append(bytearray(1 << 20))'

memory_first_process() {
    local id
    id=$(dstart --memory 64m --memory-swap 64m $FULL python3 -c "$eat") || exit 1
    timeout 40 docker wait "$id"
    equal "137 true" "$(oom "$id")"
    docker rm -f "$id"
}
memory_child() {
    local id
    # The first process lives on: only the one that ate is killed.
    id=$(dstart --memory 64m --memory-swap 64m $FULL sh -c "sleep 100 & python3 -c '$eat'; kill \$! && exit 77") || exit 1
    timeout 40 docker wait "$id"
    equal "77 true" "$(oom "$id")"
    docker rm -f "$id"
}
# The container is told of it, as by version 2 of control groups on any host.
memory_events() {
    [ "$RUNTIME" != runc ] || skip memory_events "runc shows the host's control groups"
    local out
    out=$(drun --memory 64m --memory-swap 64m $FULL sh -c "cd /sys/fs/cgroup
        cat memory.events; python3 -c '$eat'; cat memory.events; echo peak \$((\$(cat memory.peak) >> 20))") || exit 1
    contains "$(echo $out)" "oom 0 oom_kill 0 oom_group_kill 0 low 0 high 0 max"
    contains "$(echo $out)" "oom_kill 1 oom_group_kill 0"
    [ "${out##*peak }" -ge 60 ] && [ "${out##*peak }" -le 64 ] || { echo "$out"; exit 1; }
}
memory_child_status() {
    local id
    id=$(dstart --memory 64m --memory-swap 64m $FULL sh -c "python3 -c '$eat'; exit \$?") || exit 1
    timeout 40 docker wait "$id"
    equal "137 true" "$(oom "$id")"
    docker rm -f "$id"
}
memory_tmpfs() {
    local id
    id=$(dstart --memory 64m --memory-swap 64m --tmpfs /scratch $FULL sh -c 'cat /dev/zero >/scratch/x; exit $?') || exit 1
    timeout 40 docker wait "$id"
    equal "137 true" "$(oom "$id")"
    docker rm -f "$id"
}
memory_enough() { exits 0 drun --memory 128m $FULL python3 -c 'x = bytearray(20 << 20)'; }
cpus() {
    local seconds
    # Two busy loops for 2 s under half a CPU use at most about one CPU second.
    seconds=$(drun --cpus 0.5 $FULL python3 -c '
import os, time
kids = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        end = time.time() + 2
        while time.time() < end: pass
        os._exit(0)
    kids.append(pid)
for pid in kids: os.waitpid(pid, 0)
t = os.times()
print(int((t.children_user + t.children_system) * 10))')
    [ "$seconds" -le 15 ] || { echo "used $seconds tenths of a CPU second"; exit 1; }
}
pids_limit() {
    local id
    id=$(dstart --pids-limit 50 $BASE sh -c 'i=0; while [ $i -lt 200 ]; do sleep 30 & i=$((i+1)); done; sleep 30') || exit 1
    sleep 3
    docker info >/dev/null
    [ "$(docker top "$id" | wc -l)" -le 52 ] || { echo "more than 50 processes"; exit 1; }
    docker rm -f "$id"
}
fork_bomb() {
    local id most=0 now i
    id=$(dstart --pids-limit 60 --memory 256m $FULL python3 -c '
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.05)') || exit 1
    for i in 1 2 3 4 5 6; do
        now=$(docker top "$id" | wc -l)
        [ "$now" -gt "$most" ] && most=$now
        sleep 0.3
    done
    # Its header, and the sandbox's own two.
    [ "$most" -le 63 ] && [ "$most" -gt 20 ] || { echo "$most processes"; exit 1; }
    equal "still here" "$(timeout 20 docker run --rm --runtime "$NAME" $BASE echo still here)"
    timeout 20 docker rm -f "$id"
}
update_running() {
    local id
    id=$(dstart --memory 256m --memory-swap 256m --cpus 1 $BASE sleep 60) || exit 1
    docker update --memory 128m --memory-swap 128m --cpus 0.5 --pids-limit 44 "$id"
    # Whatever version of control groups is inside.
    equal "$((128 << 20)) 44" "$(dexec "$id" sh -c 'cd /sys/fs/cgroup; echo $(cat memory.max memory/memory.limit_in_bytes
        cat pids.max || head -n1 pids/pids.max) 2>/dev/null')"
    [ "$RUNTIME" = runc ] || contains "$(dexec "$id" cat /sys/fs/cgroup/cpu.max)" "50000 100000"
    [ "$RUNTIME" = runc ] || equal "$((128 << 10))" "$(dexec "$id" awk '/MemTotal/ { print $2 }' /proc/meminfo)"
    docker rm -f "$id"
}
# What programs size themselves by is what they can get: of the machine, or of what a limit leaves.
memory_shown() {
    [ "$RUNTIME" != runc ] || skip memory_shown "runc shows the machine's"
    drun --memory 256m --memory-swap 256m $FULL python3 -c '
import os
def read():
    rows = (line.split() for line in open("/proc/meminfo"))
    return {row[0][:-1]: int(row[1]) // 1024 for row in rows}
before = read()
assert before["MemTotal"] == 256, before
assert 150 < before["MemFree"] <= before["MemAvailable"] < 256, before
assert os.sysconf("SC_PHYS_PAGES") * 4096 == 256 << 20
hold = bytearray(b"x") * (100 << 20)
used = read()
assert 90 < before["MemAvailable"] - used["MemAvailable"] < 130, (before, used)
assert 90 < before["MemFree"] - used["MemFree"] < 130, (before, used)
assert os.sysconf("SC_AVPHYS_PAGES") * 4096 >> 20 < before["MemFree"] - 90
assert int(open("/sys/fs/cgroup/memory.current").read()) > 100 << 20
del hold
with open("/file", "wb") as file:
    for _ in range(64):
        file.write(b"y" * (1 << 20))
    file.flush()
    os.fsync(file.fileno())
cached = read()
# The page cache is taken back when it is wanted.
assert cached["Cached"] > 50 and cached["MemFree"] < before["MemFree"] - 40, (before, cached)
assert cached["MemAvailable"] > before["MemAvailable"] - 40, (before, cached)
' || exit 1
    local host inside
    host=$(awk '/MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
    inside=$(drun $BASE awk '/MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
    [ $((host - inside)) -lt 1000 ] && [ $((inside - host)) -lt 1000 ] || { echo "$inside of $host"; exit 1; }
}
volume_both_ways() {
    local dir id
    dir=$(mktemp -d)
    echo outside >"$dir/a"
    id=$(dstart -v "$dir:/data" $BASE sleep 60) || exit 1
    equal outside "$(dexec "$id" cat /data/a)"
    dexec "$id" sh -c 'echo inside >/data/b'
    equal inside "$(cat "$dir/b")"
    echo later >"$dir/a"
    equal later "$(dexec "$id" cat /data/a)"
    rm "$dir/a"
    eventually 2 docker exec "$id" test ! -e /data/a
    docker rm -f "$id"
    rm -r "$dir"
}
volume_read_only() {
    local dir
    dir=$(mktemp -d)
    exits 0 drun -v "$dir:/data:ro" $BASE sh -c '! touch /data/x 2>/dev/null'
    rmdir "$dir"
}
volume_named() {
    docker volume create "$PREFIX"
    drun -v "$PREFIX:/data" $BASE sh -c 'echo kept >/data/x'
    equal kept "$(drun -v "$PREFIX:/data" $BASE cat /data/x)"
    docker volume rm "$PREFIX"
}
published_port() {
    local id port
    id=$(dstart -p 127.0.0.1::8000 $FULL sh -c 'mkdir /w; echo served >/w/index.html; cd /w; exec python3 -m http.server 8000') || exit 1
    port=$(docker port "$id" 8000 | sed 's/.*://')
    eventually 10 curl -sf --max-time 2 "http://127.0.0.1:$port/"
    equal served "$(curl -sf --max-time 5 "http://127.0.0.1:$port/")"
    docker rm -f "$id"
}
names_on_a_network() {
    local id
    docker network create "$PREFIX"
    id=$(dstart --network "$PREFIX" --name "$PREFIX-server" $FULL python3 -m http.server 8000) || exit 1
    sleep 1
    contains "$(drun --network "$PREFIX" $FULL curl -s --max-time 10 "http://$PREFIX-server:8000/etc/hostname")" "${id:0:12}"
    docker rm -f "$id"
    docker network rm "$PREFIX"
}
no_network() { exits 0 drun --network none $BASE sh -c 'test "$(ls /sys/class/net | tr -d "\n")" = lo'; }
network_of_other() {
    local id
    id=$(dstart $FULL python3 -m http.server 8000) || exit 1
    sleep 1
    contains "$(drun --network "container:$id" $FULL curl -s --max-time 10 http://127.0.0.1:8000/)" "Directory listing"
    docker rm -f "$id"
}
loopback() {
    equal pong "$(drun $FULL python3 -c '
import socket, threading
s = socket.create_server(("127.0.0.1", 0))
def serve():
    c, _ = s.accept()
    c.sendall(b"pong" if c.recv(10) == b"ping" else b"no")
    c.close()
threading.Thread(target=serve).start()
c = socket.create_connection(s.getsockname())
c.sendall(b"ping")
print(c.recv(10).decode())')"
}
apt_install() {
    exits 0 timeout 200 docker run --rm --runtime "$NAME" --label "sallet-test=$PREFIX" $BASE sh -c \
        'apt-get update -q && apt-get install -qy --no-install-recommends jq && echo "{}" | jq .'
}

for t in memory_first_process memory_child memory_events memory_child_status memory_tmpfs memory_enough memory_shown cpus pids_limit fork_bomb \
    update_running \
    volume_both_ways volume_read_only \
    volume_named published_port names_on_a_network no_network network_of_other loopback; do
    run_test $t
done
if [ -n "$(ip route show default)" ]; then run_test apt_install; else skip apt_install "the machine has no network"; fi
