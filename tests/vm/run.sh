#!/bin/bash
# Runs tests in a virtual machine with Debian 12's own kernel (6.1), cgroup v2 and systemd:
#
#     bash tests/vm/run.sh [--sallet PATH] [SERIES...]
#
# A series is one of those of inside.sh; the default is the short ones. The machine is emulated, so all of it is slow;
# `reboot` must be alone: it starts the machine twice. VM_ACCEL=kvm makes it fast where there is KVM. The last line is `N passed, N failed, N skipped`.
set -u
HERE=$(cd "$(dirname "$0")" && pwd)
REPOSITORY=$(cd "$HERE/../.." && pwd)
SALLET=$REPOSITORY/target/release/sallet
LIMIT=${LIMIT:-5400}
[ "${1:-}" = --sallet ] && { SALLET=$2; shift 2; }
[ $# = 0 ] && set -- do-users guest systemd
[ -x "$SALLET" ] || { echo "$SALLET is not there: cargo build --release"; exit 2; }
[ "$(id -u)" = 0 ] || { echo "run this as root: it makes a root file system"; exit 2; }
if ! command -v qemu-system-x86_64 >/dev/null; then
    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends qemu-system-x86 seabios ||
        exit 2
fi
. "$HERE/image.sh"
vm_image || exit 1
(cd "$REPOSITORY" && cargo build --quiet --package xtask --package guest-tests) || exit 1

SHARE=$(mktemp -d)
trap 'rm -rf "$SHARE"' EXIT
TARGET=${CARGO_TARGET_DIR:-$REPOSITORY/target}
cp "$SALLET" "$SHARE/sallet"
cp "$TARGET/debug/xtask" "$TARGET/debug/guest-tests" "$SHARE/"
# xtask knows the repository by the path it was built at.
cat >"$SHARE/command" <<END
echo >>/share/starts
[ "\$(wc -l </share/starts)" -le 2 ] || systemctl poweroff
mkdir -p '$REPOSITORY'
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro repository '$REPOSITORY'
cd '$REPOSITORY' && bash tests/vm/inside.sh $* >>/share/log 2>&1
sync
systemctl poweroff
END
touch "$SHARE/log"
tail -f "$SHARE/log" &
SHOWER=$!
timeout "$LIMIT" bash -c ". '$HERE/image.sh'"'; vm_boot "$@"' vm "$SHARE" \
    -drive "file=$VM/disk,if=virtio,format=raw,snapshot=on,cache=unsafe" \
    -action reboot=reset -virtfs "local,path=$REPOSITORY,mount_tag=repository,security_model=none,readonly=on" </dev/null
ENDED=$?
sleep 1
kill $SHOWER
grep -q '^all series ran$' "$SHARE/log" || {
    echo "the machine did not finish (exit status $ENDED); its console:"
    tail -n 20 "$SHARE/console"
    echo "0 passed, 1 failed, 0 skipped" >>"$SHARE/log"
}
awk '/^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { p += $1; f += $3; s += $5 }
    END { print p + 0 " passed, " f + 0 " failed, " s + 0 " skipped"; exit f != 0 }' "$SHARE/log"
