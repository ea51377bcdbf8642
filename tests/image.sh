# Test images, made once and kept in /var/cache/sallet-tests. Source it, then `rootfs base` prints the
# folder of a root and `image base` makes sure that Docker has `sallet-test:base`.
#
#   base  Debian bookworm, minimal
#   full  the same with python3, gcc, git, perl, jq, curl, strace, iproute2, procps
#   packets  net with what looks at packets and makes them: tcpdump, traceroute, arping, nmap
#   net   base with clients and servers: curl, ping, dig, nc, ssh, ss, ip, redis, nginx, python3

CACHE=/var/cache/sallet-tests
FULL_PACKAGES="python3 gcc libc6-dev git perl jq curl ca-certificates procps iproute2 xz-utils sqlite3 libsqlite3-0"
PACKETS_PACKAGES="tcpdump traceroute iputils-arping nmap net-tools"
NET_PACKAGES="python3 iproute2 curl iputils-ping dnsutils netcat-openbsd openssh-server openssh-client redis-server nginx-light procps"

rootfs() {
    local name=$1
    (
        flock 9
        if [ ! -e "$CACHE/$name.done" ]; then
            rm -rf --one-file-system "${CACHE:?}/$name"
            case $name in
                base) debootstrap --variant=minbase bookworm "$CACHE/base" ;;
                full)
                    cp -a "$(rootfs base 8>&-)" "$CACHE/full" &&
                        chroot "$CACHE/full" apt-get update &&
                        DEBIAN_FRONTEND=noninteractive chroot "$CACHE/full" \
                            apt-get install -y --no-install-recommends $FULL_PACKAGES
                    ;;
                packets)
                    cp -a "$(rootfs net 8>&-)" "$CACHE/packets" &&
                        chroot "$CACHE/packets" apt-get update &&
                        DEBIAN_FRONTEND=noninteractive chroot "$CACHE/packets" \
                            apt-get install -y --no-install-recommends $PACKETS_PACKAGES
                    ;;
                net)
                    cp -a "$(rootfs base 8>&-)" "$CACHE/net" &&
                        chroot "$CACHE/net" apt-get update &&
                        DEBIAN_FRONTEND=noninteractive chroot "$CACHE/net" \
                            apt-get install -y --no-install-recommends $NET_PACKAGES
                    ;;
            esac >"$CACHE/$name.log" 2>&1 || exit 1
            rm -rf "$CACHE/$name"/var/cache/apt/archives/*.deb
            touch "$CACHE/$name.done"
        fi
    ) 9>"$CACHE/$name.lock" || { echo "cannot make the root $name, see $CACHE/$name.log" >&2; return 1; }
    echo "$CACHE/$name"
}

image() {
    local root
    root=$(rootfs "$1") || return 1
    docker image inspect "sallet-test:$1" >/dev/null 2>&1 ||
        tar -C "$root" -c . | docker import - "sallet-test:$1" >/dev/null
}
mkdir -p "$CACHE"
