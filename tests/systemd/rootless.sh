#!/bin/bash
# An ordinary user with a systemd of its own: scopes in its slice, subordinate ids, podman. $RUNTIME is `runc` (the
# yardstick) or `sallet`.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../image.sh"
[ -d /run/systemd/system ] || { skip all "no systemd"; exit 0; }
[ "$(id -u)" = 0 ] || { skip all "not root"; exit 0; }
[ -e /sys/fs/cgroup/cgroup.controllers ] || { skip all "no cgroup v2"; exit 0; }
[ "$RUNTIME" = runc ] && SALLET=$(command -v runc)

NAME=st$$
useradd -m -s /bin/bash $NAME || { skip all "no user can be made"; exit 0; }
ID=$(id -u $NAME)
loginctl enable-linger $NAME
cleanup() {
    as_user podman rm -af >/dev/null 2>&1
    loginctl terminate-user $NAME
    loginctl disable-linger $NAME
    sleep 1
    userdel -rf $NAME 2>/dev/null
}
trap cleanup EXIT
cp "$SALLET" /home/$NAME/runtime
# as_user COMMAND...: in its home, with its systemd.
as_user() {
    (cd /home/$NAME && timeout 120 setpriv --reuid $NAME --regid $NAME --init-groups env -i HOME=/home/$NAME USER=$NAME \
        PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin XDG_RUNTIME_DIR=/run/user/$ID \
        DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$ID/bus "$@")
}
eventually 30 test -S /run/user/$ID/bus
# bundle FILTER: a bundle with busybox whose config.json jq changes.
bundle() {
    local folder=/home/$NAME/bundle
    rm -rf $folder
    mkdir -p $folder/rootfs/bin $folder/rootfs/proc $folder/rootfs/sys $folder/rootfs/dev $folder/rootfs/tmp
    cp "$(command -v busybox)" $folder/rootfs/bin/
    for name in sh id chown stat sleep echo cat; do ln -s busybox $folder/rootfs/bin/$name; done
    chown -R $NAME:$NAME $folder
    as_user sh -c 'cd bundle && ../runtime spec --rootless'
    jq ".process.terminal = false | .root.readonly = false | $1" $folder/config.json >$folder/new || exit 1
    mv $folder/new $folder/config.json
    chown $NAME:$NAME $folder/config.json
}
# What newuidmap lets the user have, as config.json says it.
mapped() {
    local uid_start gid_start
    uid_start=$(grep "^$NAME:" /etc/subuid | cut -d: -f2)
    gid_start=$(grep "^$NAME:" /etc/subgid | cut -d: -f2)
    echo ".linux.uidMappings = [{containerID: 0, hostID: $ID, size: 1}, {containerID: 1, hostID: $uid_start, size: 65536}]
        | .linux.gidMappings = [{containerID: 0, hostID: $ID, size: 1}, {containerID: 1, hostID: $gid_start, size: 65536}]"
}

in_its_slice() {
    bundle '.linux.cgroupsPath = "user.slice:st:one" | .process.args = ["sleep", "60"]
        | .linux.resources = {memory: {limit: 100000000}, pids: {limit: 40}}'
    as_user ./runtime --systemd-cgroup run -d --bundle bundle one </dev/null >/dev/null 2>/home/$NAME/out || cat /home/$NAME/out
    local group=/sys/fs/cgroup/user.slice/user-$ID.slice/user@$ID.service/user.slice/st-one.scope
    equal 99999744 "$(cat $group/memory.max)"
    contains "$(as_user systemctl --user show st-one.scope -p ActiveState -p Delegate)" "ActiveState=active"
    local pid
    pid=$(as_user ./runtime --systemd-cgroup state one | jq .pid)
    grep -qx "$pid" $group/cgroup.procs || { echo "$pid is not in the scope"; exit 1; }
    as_user ./runtime --systemd-cgroup pause one
    equal paused "$(as_user ./runtime --systemd-cgroup state one | jq -r .status)"
    as_user ./runtime --systemd-cgroup resume one
    as_user ./runtime --systemd-cgroup delete -f one
    [ ! -e $group ] || { echo "the scope stays"; exit 1; }
}
subordinate_ids() {
    bundle "$(mapped) | (.process.capabilities[] |= . + [\"CAP_CHOWN\"]) | .process.args = [\"sh\", \"-c\", \"echo >/tmp/f && chown 5:7 /tmp/f && stat -c %u:%g /tmp/f && id -u\"]"
    equal "5:7 0" "$(as_user ./runtime run --bundle bundle two 2>&1 | tr '\n' ' ' | sed 's/ $//')"
    local uid_start
    uid_start=$(grep "^$NAME:" /etc/subuid | cut -d: -f2)
    equal $((uid_start + 4)) "$(stat -c %u /home/$NAME/bundle/rootfs/tmp/f)"
}
another_ones_ids() {
    bundle "$(mapped | sed "s/hostID: [0-9]*, size: 65536/hostID: 1, size: 65536/")"
    local output
    output=$(as_user ./runtime run --bundle bundle three 2>&1) && { echo "it ran"; exit 1; }
    contains "$output" newuidmap
}
podman_image() {
    as_user podman image exists localhost/box && return
    bundle .
    tar -C /home/$NAME/bundle/rootfs --owner 0 --group 0 -c . | as_user podman import - localhost/box
}
podman() {
    as_user podman --runtime /home/$NAME/runtime "$@"
}
podman_runs() {
    podman_image >/dev/null
    equal "0" "$(podman run --rm localhost/box id -u)"
    equal "33" "$(podman run --rm localhost/box sh -c 'chown 33 /tmp && stat -c %u /tmp')"
    exits 9 podman run --rm --network none localhost/box sh -c 'exit 9'
}
podman_limits() {
    podman_image >/dev/null
    podman run -d --name box --network none --memory 100m --pids-limit 60 localhost/box sleep 100 >/dev/null
    local id
    id=$(podman inspect -f '{{.Id}}' box)
    contains "$(as_user systemctl --user show "libpod-$id.scope" -p MemoryMax)" "=$((100 << 20))"
    equal hello "$(podman exec box echo hello)"
    contains "$(podman stats --no-stream --format '{{.MemUsage}}' box)" 104.9MB
    podman pause box >/dev/null
    podman unpause box >/dev/null
    podman kill box >/dev/null
    podman rm -f box >/dev/null
}
podman_without_systemd() {
    podman_image >/dev/null
    equal "ok" "$(podman --cgroup-manager cgroupfs run --rm --network none localhost/box echo ok)"
}
for test in in_its_slice subordinate_ids another_ones_ids podman_runs podman_limits podman_without_systemd; do
    run_test $test
done
