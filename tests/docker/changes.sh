#!/bin/bash
# Changes of a container's own network: with CAP_NET_ADMIN, and without.
. "$(dirname "$0")/lib.sh.inc"
image packets || { skip all "no image"; exit 0; }
IMAGE=sallet-test:packets
admin() { drun --cap-add NET_ADMIN $IMAGE bash -c "$1" 2>&1; }

links() {
    contains "$(admin 'ip link set lo mtu 9000 && ip -o link show lo')" "mtu 9000"
    contains "$(admin 'ip link set eth0 txqueuelen 77 && ip -o link show eth0')" "qlen 77"
    contains "$(admin 'ip link set lo down && ip -o link show lo')" "state DOWN"
    contains "$(admin 'ip link set eth0 down && ip link set eth0 name wan && ip link set wan up && ip -o link show wan')" "wan"
    contains "$(admin 'ip link set eth0 address 02:00:00:00:00:99 && cat /sys/class/net/eth0/address')" "02:00:00:00:00:99"
    contains "$(admin 'ip link set lo mtu 7 && ip link set nothing up')" "Cannot find device"
}
# A new address is one of the sandbox's own, for its servers too.
addresses() {
    contains "$(admin 'ip addr add 192.0.2.7/24 dev eth0 && ip -o -4 addr show eth0')" "192.0.2.7/24"
    contains "$(admin 'ip addr add 192.0.2.7/32 dev lo && ip addr add 192.0.2.7/32 dev lo')" "already assigned"
    contains "$(admin 'ip addr add 192.0.2.7/32 dev lo && ip addr del 192.0.2.7/32 dev lo && ip addr del 192.0.2.7/32 dev lo')" "Address not found"
    contains "$(drun --cap-add NET_ADMIN --sysctl net.ipv6.conf.lo.disable_ipv6=0 $IMAGE bash -c 'ip -6 addr add fd00::7/64 dev lo nodad && ip -6 -o addr show lo')" "fd00::7/64"
    equal "from there" "$(admin 'ip addr add 192.0.2.7/32 dev lo; (echo from there | nc -N -l 192.0.2.7 7000) & for i in $(seq 50); do nc 192.0.2.7 7000 </dev/null && break; sleep 0.1; done')"
    contains "$(admin 'ip addr add 192.0.2.7/32 dev lo; ping -c1 -w5 192.0.2.7')" "1 received"
}
routes() {
    contains "$(admin 'ip route add 198.51.100.0/24 via $(ip route show default | cut -d" " -f3) && ip route')" "198.51.100.0/24 via"
    contains "$(admin 'ip route add blackhole 198.51.100.0/24 && ip route del blackhole 198.51.100.0/24 && ip route get 198.51.100.1')" "via"
    contains "$(admin 'ip route add 198.51.100.0/24 via 203.0.113.1')" "invalid gateway"
    contains "$(admin 'ip route del default && ping -c1 -w5 198.51.100.1')" "unreachable"
    contains "$(admin 'ip route replace default dev eth0 mtu 1200 && ip route get 198.51.100.1')" "mtu 1200"
    contains "$(admin 'ip rule add from 192.0.2.7 lookup 100 priority 50 && ip rule')" "from 192.0.2.7 lookup 100"
    contains "$(admin 'ip neigh add 172.31.255.9 lladdr 02:00:00:00:00:01 dev eth0 && ip neigh')" "172.31.255.9"
}
# By the ioctls of netdevice(7).
old_tools() {
    contains "$(admin 'ifconfig lo mtu 9000 && ifconfig lo')" "mtu 9000"
    contains "$(admin 'ifconfig eth0:1 192.0.2.9 netmask 255.255.255.0 && ifconfig')" "192.0.2.9"
    contains "$(admin 'route add -net 198.51.100.0 netmask 255.255.255.0 dev eth0 && route -n && route del -net 198.51.100.0 netmask 255.255.255.0')" "198.51.100.0"
    contains "$(admin 'ifconfig lo down && ifconfig')" "eth0"
}
without_the_right() {
    local what
    for what in "ip link set lo mtu 9000" "ip addr add 192.0.2.7/32 dev lo" "ip route add 198.51.100.0/24 dev eth0" \
        "ip rule add from 192.0.2.7 lookup 100" "ip neigh add 172.31.255.9 lladdr 02:00:00:00:00:01 dev eth0"; do
        contains "$(drun $IMAGE $what 2>&1)" "Operation not permitted"
        contains "$(drun --cap-add NET_ADMIN --user 1000 $IMAGE $what 2>&1)" "Operation not permitted"
    done
    contains "$(drun $IMAGE ifconfig lo mtu 9000 2>&1)" "Operation not permitted"
    contains "$(drun $IMAGE route add default dev eth0 2>&1)" "Operation not permitted"
}
# What would have the host load code stays refused; so do networks that are not the sandbox's own.
refused_here() {
    [ "$NAME" = runc ] && exit 0
    local what
    for what in "ip link add x0 type dummy" "ip link add link eth0 x0 type vlan id 7" "tc qdisc add dev eth0 root fq" \
        "ip link set eth0 netns 1" "ip route add 198.51.100.0/24 dev eth0 congctl bbr"; do
        contains "$(admin "$what")" "not supported"
    done
    contains "$(drun --privileged --network host $IMAGE ip link set lo mtu 65535 2>&1)" "Operation not permitted"
    contains "$(drun --privileged --network host $IMAGE ifconfig lo mtu 65535 2>&1)" "Operation not permitted"
}

for t in links addresses routes old_tools without_the_right refused_here; do
    run_test $t
done
