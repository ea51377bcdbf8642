#!/bin/bash
# What systemd or its bus refuses: the container is not made, the message is systemd's, nothing stays behind.
. "$(dirname "$0")/../lib.sh"
[ -d /run/systemd/system ] || { skip all "no systemd"; exit 0; }
[ "$(id -u)" = 0 ] || { skip all "not root"; exit 0; }
[ -e /sys/fs/cgroup/cgroup.controllers ] || { skip all "no cgroup v2"; exit 0; }
[ "$RUNTIME" = runc ] && { skip all "the words are Sallet's"; exit 0; }

WORK=$(mktemp -d /tmp/sallet-refusals.XXXXXX)
trap 'sallet delete -f first >/dev/null 2>&1; rm -rf "$WORK"' EXIT
chmod 755 "$WORK"
sallet() { timeout 100 "$SALLET" --root "$WORK/state" --systemd-cgroup "$@"; }
# bundle CGROUPS_PATH: whose program sleeps.
bundle() {
    rm -rf "$WORK/bundle"
    mkdir -p "$WORK/bundle/rootfs/bin" "$WORK/bundle/rootfs/proc" "$WORK/bundle/rootfs/dev" "$WORK/bundle/rootfs/sys"
    cp "$(command -v busybox)" "$WORK/bundle/rootfs/bin/"
    ln -s busybox "$WORK/bundle/rootfs/bin/sleep"
    (cd "$WORK/bundle" && "$SALLET" spec)
    jq --arg path "$1" '.process.terminal = false | .process.args = ["sleep", "100"] | .linux.cgroupsPath = $path' \
        "$WORK/bundle/config.json" >"$WORK/new" || exit 1
    mv "$WORK/new" "$WORK/bundle/config.json"
}
# refused WORDS ENVIRONMENT...: `run` says these words; nothing of the container is left.
refused() {
    local words=$1 before output
    shift
    before=$(pgrep -fc "boot second" || true)
    output=$(env "$@" timeout 100 "$SALLET" --root "$WORK/state" --systemd-cgroup run -d --bundle "$WORK/bundle" second \
        2>&1 </dev/null) && { echo "it ran"; exit 1; }
    contains "$output" "$words"
    [ ! -e "$WORK/state/second" ] || { echo "a record is left"; exit 1; }
    equal "$before" "$(pgrep -fc "boot second" || true)"
    equal "" "$(systemctl list-units --all --plain --no-legend '*second*')"
}

invalid_name() {
    bundle "system.slice:sallet:second one"
    refused "Invalid unit name" A=1
    bundle "no-slice:sallet:second"
    refused "slice" A=1
}
scope_of_another() {
    bundle "system.slice:refusals:one"
    sallet run -d --bundle "$WORK/bundle" first </dev/null >/dev/null
    local pid
    pid=$(sallet state first | jq .pid)
    refused "not empty" A=1
    equal running "$(sallet state first | jq -r .status)"
    equal active "$(systemctl show -p ActiveState --value refusals-one.scope)"
    grep -qx "$pid" /sys/fs/cgroup/system.slice/refusals-one.scope/cgroup.procs || { echo "it left its group"; exit 1; }
    sallet delete -f first
    eventually 10 test ! -e /sys/fs/cgroup/system.slice/refusals-one.scope
}
no_bus() {
    bundle "system.slice:sallet:second"
    refused "connect to the bus unix:path=/nowhere" DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere
    refused "only unix:" DBUS_SYSTEM_BUS_ADDRESS=tcp:host=127.0.0.1
}
# One that hangs up, one that answers with something else, one that never answers.
broken_bus() {
    local way words
    bundle "system.slice:sallet:second"
    for way in hangs_up babbles silent; do
        python3 - "$WORK/$way" $way <<'END_OF_BUS' &
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
listener.settimeout(90)
connection, _ = listener.accept()
if sys.argv[2] == "babbles":
    connection.recv(100)
    connection.sendall(b"OK 1234\r\n" + b"\xff" * 4096)
    time.sleep(1)
if sys.argv[2] == "silent":
    time.sleep(60)
END_OF_BUS
        local server=$!
        eventually 30 test -S "$WORK/$way"
        case $way in
            hangs_up) words="bus" ;;
            babbles) words="the bus" ;;
            silent) words="read from the bus" ;;
        esac
        refused "$words" DBUS_SYSTEM_BUS_ADDRESS="unix:path=$WORK/$way"
        kill $server 2>/dev/null
        wait $server 2>/dev/null
    done
}
# An ordinary user whose bus is root's: polkit or the bus says no.
not_allowed() {
    local user=rf$$ output
    useradd -m $user
    bundle "user.slice:sallet:second"
    chown -R $user: "$WORK/bundle"
    as_user() { (cd "$WORK/bundle" && timeout 100 setpriv --reuid $user --regid $user --init-groups env HOME=/home/$user "$@"); }
    rm "$WORK/bundle/config.json"
    as_user "$SALLET" spec --rootless
    sed -i 's/"terminal": true/"terminal": false/' "$WORK/bundle/config.json"
    output=$(as_user DBUS_SESSION_BUS_ADDRESS=unix:path=/run/dbus/system_bus_socket "$SALLET" --root /home/$user/state \
        --systemd-cgroup run -d --bundle "$WORK/bundle" second 2>&1 </dev/null) && { echo "it ran"; userdel -rf $user; exit 1; }
    local left
    left=$(ls -A /home/$user/state 2>/dev/null)
    pkill -u $user
    userdel -rf $user 2>/dev/null
    contains "$output" "StartTransientUnit"
    equal "" "$left"
}
for test in invalid_name scope_of_another no_bus broken_bus not_allowed; do
    run_test $test
done
