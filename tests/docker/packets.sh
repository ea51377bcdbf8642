#!/bin/bash
# Raw and packet sockets, and what uses them: with CAP_NET_RAW, which Docker grants, and without.
. "$(dirname "$0")/lib.sh.inc"
image packets || { skip all "no image"; exit 0; }
IMAGE=sallet-test:packets
# The other end of the bridge.
GATEWAY=$(drun $IMAGE ip route show default | cut -d' ' -f3)
OPEN='import socket, sys
for family, kind, protocol in [(2, 3, 1), (2, 3, 6), (10, 3, 58), (17, 3, 0x300), (17, 2, 0x8)]:
    try: socket.socket(family, kind, protocol).close(); print("opened", end=" ")
    except OSError as e: print(e.errno, end=" ")
print()'

# Nobody may send echo requests without raw sockets here.
raw_ping() {
    contains "$(drun --sysctl "net.ipv4.ping_group_range=1 0" $IMAGE ping -c2 -i0.2 -w5 "$GATEWAY")" "2 received"
    contains "$(drun --sysctl "net.ipv4.ping_group_range=1 0" --cap-drop NET_RAW $IMAGE ping -c1 -w5 127.0.0.1 2>&1)" "not permitted"
}
record_route() { contains "$(drun $IMAGE ping -R -c1 -w5 127.0.0.1)" "RR:"; }
traces() {
    local how
    for how in -I "" -T; do
        contains "$(drun $IMAGE traceroute $how -n -m 3 -w 2 -q 1 "$GATEWAY")" " 1  $GATEWAY "
    done
}
asks_for_addresses() { contains "$(drun $IMAGE arping -c 2 -I eth0 "$GATEWAY")" "Received 2 response(s)"; }
captures() {
    local out
    out=$(drun $IMAGE bash -c "timeout 20 tcpdump -n -i eth0 -c 3 icmp 2>&1 & sleep 1; ping -q -c 6 -i 0.3 $GATEWAY >/dev/null; wait")
    contains "$out" "3 packets captured"
    contains "$out" "> $GATEWAY: ICMP echo request"
    contains "$out" "$GATEWAY > "
    # All interfaces at once, into a file and back.
    out=$(drun $IMAGE bash -c "timeout 20 tcpdump --immediate-mode -n -i any -c 2 -w /tmp/p icmp 2>&1 & sleep 1; ping -q -c 6 -i 0.3 $GATEWAY >/dev/null; wait; tcpdump -n -r /tmp/p")
    contains "$out" "2 packets captured"
    contains "$out" "ICMP echo request"
}
# What the container's own programs say to each other.
captures_lo() {
    local out
    out=$(drun $IMAGE bash -c 'timeout 20 tcpdump -n -A -i lo -c 6 tcp port 7000 2>&1 & sleep 1; (echo spoken | nc -N -l 7000 & sleep 0.3; nc 127.0.0.1 7000 </dev/null); wait')
    contains "$out" "6 packets captured"
    contains "$out" "Flags [S.]"
    contains "$out" "spoken"
}
scans() {
    contains "$(drun $IMAGE nmap -sS -n -Pn -p 1 "$GATEWAY")" "1/tcp closed"
    contains "$(drun $IMAGE bash -c 'nc -l -k 7000 & sleep 0.5; nmap -sS -n -p 7000 127.0.0.1')" "7000/tcp open"
}
# A socket as DHCP clients have it: frames with a filter, sent and received.
asks_for_an_address() {
    equal "answered" "$(drun $IMAGE python3 -c 'import ctypes, fcntl, socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
s.bind(("eth0", 0x0806))
ours = s.getsockname()[4]
# Answers to ARP questions alone.
code = b"".join(struct.pack("HBBI", *i) for i in [(0x28, 0, 0, 20), (0x15, 0, 1, 2), (6, 0, 0, 0xffffffff), (6, 0, 0, 0)])
text = ctypes.create_string_buffer(code)
s.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HxxxxxxQ", 4, ctypes.addressof(text)))
own = fcntl.ioctl(s, 0x8915, struct.pack("40s", b"eth0"))[20:24]
gateway = socket.inet_aton(sys.argv[1])
question = struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + ours + own + bytes(6) + gateway
s.settimeout(10)
s.send(b"\xff" * 6 + ours + b"\x08\x06" + question)
while True:
    frame = s.recv(2000)
    if frame[28:32] == gateway and frame[:6] == ours: break
print("answered")' "$GATEWAY")"
}
without_the_right() {
    equal "1 1 1 1 1 " "$(drun --cap-drop NET_RAW $IMAGE python3 -c "$OPEN")"
    equal "1 1 1 1 1 " "$(drun --user 1000 $IMAGE python3 -c "$OPEN")"
    contains "$(drun --cap-drop NET_RAW $IMAGE tcpdump -i eth0 -c 1 2>&1)" "Operation not permitted"
    contains "$(drun --cap-drop NET_RAW $IMAGE arping -c 1 "$GATEWAY" 2>&1)" "Operation not permitted"
}
with_the_right() { equal "opened opened opened opened opened " "$(drun --network none $IMAGE python3 -c "$OPEN")"; }
# The network of another container, as all containers of a pod have it: a helper opens the sockets, which then are as any.
joins_networks() {
    local owner other runtime
    for runtime in $([ "$NAME" = runc ] || echo runc) "$NAME"; do
        owner=$(timeout 60 docker run -d --runtime "$runtime" --label "sallet-test=$PREFIX" \
            --sysctl "net.ipv4.ping_group_range=1 0" $IMAGE sleep 120)
        other=(--network "container:$owner")
        equal "opened opened opened opened opened " "$(drun "${other[@]}" $IMAGE python3 -c "$OPEN")"
        equal "opened opened opened opened opened " "$(drun "${other[@]}" --cap-drop ALL --cap-add NET_RAW $IMAGE python3 -c "$OPEN")"
        equal "1 1 1 1 1 " "$(drun "${other[@]}" --cap-drop NET_RAW $IMAGE python3 -c "$OPEN")"
        equal "1 1 1 1 1 " "$(drun "${other[@]}" --user 1000 $IMAGE python3 -c "$OPEN")"
        contains "$(drun "${other[@]}" $IMAGE ping -c2 -i0.2 -w5 "$GATEWAY")" "2 received"
        contains "$(drun "${other[@]}" --cap-drop NET_RAW $IMAGE ping -c1 -w5 127.0.0.1 2>&1)" "not permitted"
        contains "$(drun "${other[@]}" $IMAGE arping -c 2 -I eth0 "$GATEWAY")" "Received 2 response(s)"
        contains "$(drun "${other[@]}" $IMAGE traceroute -T -n -m 3 -w 2 -q 1 "$GATEWAY")" " 1  $GATEWAY "
        # One container hears what another of the same network says to others.
        other=$(dstart "${other[@]}" $IMAGE timeout 20 tcpdump --immediate-mode -n -i eth0 -c 2 icmp)
        waits bash -c "docker logs $other 2>&1 | grep -q listening"
        contains "$(dexec "$owner" python3 -c "
import socket, sys
s = socket.socket(2, 3, 1)
s.settimeout(5)
s.sendto(bytes.fromhex('0800f7ff00000000'), (sys.argv[1], 0))
print('answered', s.recv(100)[20])" "$GATEWAY")" "answered 0"
        waits bash -c "docker logs $other 2>&1 | grep -q captured"
        contains "$(docker logs "$other" 2>&1)" "2 packets captured"
        docker rm -f "$owner" "$other" >/dev/null
    done
}
# Who opens them: nobody who could do more, of that network alone, and gone with the container.
joins_with_a_helper() {
    [ "$NAME" = runc ] && exit 0
    local owner other pid cap
    owner=$(dstart $IMAGE sleep 60)
    other=$(dstart --network "container:$owner" --cap-drop ALL --cap-add NET_RAW $IMAGE sleep 60)
    pid=$(docker top "$other" -o pid,args | sed -n 's/^ *\([0-9]*\) *sallet-binder .*/\1/p')
    for cap in "Uid:.65532.65532.65532.65532" "CapPrm:.0000000000002000" "CapBnd:.0000000000002000" "NoNewPrivs:.1" "Seccomp:.2"; do
        grep -q "^$cap$" "/proc/$pid/status" || { echo "the helper lacks $cap: $(cat "/proc/$pid/status")"; exit 1; }
    done
    equal "$(readlink "/proc/$(docker inspect -f '{{.State.Pid}}' "$owner")/ns/net")" "$(readlink "/proc/$pid/ns/net")"
    # Without it there are none, and all else goes on.
    kill -9 "$pid"
    equal "1 1 1 1 1 " "$(dexec "$other" python3 -c "$OPEN")"
    equal 0 "$(dexec "$other" sh -c 'echo $?')"
    docker rm -f "$other" >/dev/null
    other=$(dstart --network "container:$owner" --cap-drop NET_RAW --cap-drop NET_BIND_SERVICE $IMAGE sleep 60)
    equal "" "$(docker top "$other" -o args | grep sallet-binder)"
}
# The host's network, by whichever name: nobody hears what all the machine says.
on_the_hosts_network() {
    [ "$NAME" = runc ] && exit 0
    equal "1 1 1 1 1 " "$(drun --network host $IMAGE python3 -c "$OPEN")"
    equal "1 1 1 1 1 " "$(drun --privileged --network host $IMAGE python3 -c "$OPEN")"
    local other
    other=$(dstart --network host $IMAGE sleep 60)
    equal "1 1 1 1 1 " "$(drun --network "container:$other" $IMAGE python3 -c "$OPEN")"
    equal "1 1 1 1 1 " "$(drun --privileged --network "container:$other" $IMAGE python3 -c "$OPEN")"
}

for t in raw_ping record_route traces asks_for_addresses captures captures_lo scans asks_for_an_address without_the_right with_the_right \
    joins_networks joins_with_a_helper on_the_hosts_network; do
    run_test $t
done
