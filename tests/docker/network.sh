#!/bin/bash
# Networks: bridge, names, ports, sharing, IPv6, and the tools that look at them.
. "$(dirname "$0")/lib.sh.inc"
image net || { skip all "no image"; exit 0; }
NET=sallet-test:net

networks=""
# network NAME ARGUMENTS...: a network that goes at the end.
network() {
    local name="$PREFIX$1"
    shift
    docker network create "$@" "$name" >/dev/null && networks="$networks $name" && echo "$name"
}
end() {
    cleanup
    local name
    for name in $(docker network ls -q --filter "name=^$PREFIX"); do
        docker network rm "$name" >/dev/null 2>&1
    done
}
trap end EXIT

address() { docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$1" | cut -d' ' -f1; }
ECHO='import socketserver,sys
class H(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile: self.wfile.write(b"got " + line)
class S(socketserver.ThreadingTCPServer): allow_reuse_address = True
S(("", int(sys.argv[1])), H).serve_forever()'
UDP_ECHO='import socket,sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", int(sys.argv[1])))
while True:
    data, sender = s.recvfrom(2000)
    s.sendto(b"got " + data, sender)'
ASK='import socket,sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
s.sendall(b"hello\n")
print(s.makefile().readline().strip())'
UDP_ASK='import socket,sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.sendto(b"hello", (sys.argv[1], int(sys.argv[2])))
print(s.recv(100).decode())'

loopback() {
    equal "got hello" "$(drun $NET bash -c "python3 -c '$ECHO' 7000 & for i in \$(seq 50); do python3 -c '$ASK' 127.0.0.1 7000 2>/dev/null && break; sleep 0.1; done")"
}
own_address() {
    equal "got hello" "$(drun $NET bash -c "python3 -c '$ECHO' 7000 & ip=\$(hostname -i); for i in \$(seq 50); do python3 -c '$ASK' \$ip 7000 2>/dev/null && break; sleep 0.1; done")"
}
between_containers() {
    local server
    server=$(dstart $NET python3 -c "$ECHO" 7000)
    local ip
    ip=$(address "$server")
    equal "got hello" "$(drun $NET bash -c "for i in \$(seq 50); do python3 -c '$ASK' $ip 7000 2>/dev/null && break; sleep 0.1; done")"
}
published_tcp() {
    local server port
    server=$(dstart -p 127.0.0.1::7000 $NET python3 -c "$ECHO" 7000)
    port=$(docker port "$server" 7000/tcp | head -1 | cut -d: -f2)
    waits python3 -c "$ASK" 127.0.0.1 "$port"
    equal "got hello" "$(python3 -c "$ASK" 127.0.0.1 "$port")"
}
published_udp() {
    local server port
    server=$(dstart -p 127.0.0.1::7000/udp $NET python3 -c "$UDP_ECHO" 7000)
    port=$(docker port "$server" 7000/udp | head -1 | cut -d: -f2)
    waits python3 -c "$UDP_ASK" 127.0.0.1 "$port"
    equal "got hello" "$(python3 -c "$UDP_ASK" 127.0.0.1 "$port")"
}
names() {
    local net
    net=$(network names) || return
    dstart --network "$net" --name "$PREFIX-web" --network-alias web $NET python3 -c "$ECHO" 7000 >/dev/null
    equal "got hello" "$(drun --network "$net" $NET bash -c "for i in \$(seq 50); do python3 -c '$ASK' web 7000 2>/dev/null && break; sleep 0.1; done")"
    contains "$(drun --network "$net" $NET dig +short "$PREFIX-web")" "."
    contains "$(drun --network "$net" $NET dig +short web)" "."
    # A server of the sandbox on every address does not hide Docker's.
    contains "$(drun --network "$net" $NET bash -c "python3 -c '$ECHO' 53 & python3 -c '$UDP_ECHO' 53 & sleep 0.5; dig +short web; dig +tcp +short web" | sort | uniq -c)" "2 "
}
search_domains() {
    local net
    net=$(network search) || return
    dstart --network "$net" --network-alias web.corp.test $NET sleep 60 >/dev/null
    local run="drun --network $net --dns-search corp.test --dns-opt ndots:2 $NET"
    contains "$($run cat /etc/resolv.conf)" "search corp.test"
    contains "$($run cat /etc/resolv.conf)" "ndots:2"
    contains "$($run getent hosts web)" "web.corp.test"
    contains "$($run python3 -c 'import socket; print(socket.gethostbyname("web"))')" "."
    exits 2 $run getent hosts nobody
}
network_changes() {
    # What a container may not: the answers of ip(8) are the kernel's.
    local what
    for what in "address add 192.0.2.7/24 dev lo" "route add 192.0.2.0/24 via 127.0.0.1" "link set lo down"; do
        contains "$(drun $NET ip $what 2>&1)" "RTNETLINK answers: Operation not permitted"
    done
    contains "$(drun $NET ip -o link show lo)" "LOOPBACK,UP"
}
two_networks() {
    local one two id
    one=$(network one) && two=$(network two) || return
    id=$(dstart --network "$one" $NET sleep 60)
    docker network connect "$two" "$id"
    equal "2" "$(dexec "$id" ip -4 -o addr show scope global | wc -l)"
    equal "2" "$(dexec "$id" bash -c 'ls /sys/class/net | grep -c eth')"
    dstart --network "$two" --network-alias far $NET python3 -c "$ECHO" 7000 >/dev/null
    equal "got hello" "$(dexec "$id" bash -c "for i in \$(seq 50); do python3 -c '$ASK' far 7000 2>/dev/null && break; sleep 0.1; done")"
    # The new address is the sandbox's own at once.
    equal "got hello" "$(dexec "$id" bash -c "python3 -c '$ECHO' 7001 & ip=\$(ip -4 -o addr show dev eth1 | grep -o 'inet [0-9.]*' | cut -d' ' -f2); for i in \$(seq 50); do python3 -c '$ASK' \$ip 7001 2>/dev/null && break; sleep 0.1; done; kill %1")"
    docker network disconnect "$two" "$id"
    equal "1" "$(dexec "$id" ip -4 -o addr show scope global | wc -l)"
}
shared_namespace() {
    local server
    server=$(dstart $NET python3 -c "$ECHO" 7000)
    equal "got hello" "$(drun --network "container:$server" $NET bash -c "for i in \$(seq 50); do python3 -c '$ASK' 127.0.0.1 7000 2>/dev/null && break; sleep 0.1; done")"
    # A port that the other one has is taken.
    contains "$(drun --network "container:$server" $NET python3 -c "import socket; socket.socket().bind(('', 7000))" 2>&1)" "Address already in use"
    # And the other way round: from a container of runc into the sandbox.
    [ "$NAME" = runc ] || equal "got hello" "$(timeout 60 docker run --rm --network "container:$server" $NET python3 -c "$ASK" 127.0.0.1 7000)"
}
low_ports() {
    local bind='import socket; s = socket.socket(); s.bind(("0.0.0.0", 80)); print("bound")' server
    equal bound "$(drun --user 1000 $NET python3 -c "$bind")"
    # Also in a namespace of another container.
    server=$(docker run -d --runtime "$NAME" $NET sleep 60)
    equal bound "$(drun --network "container:$server" $NET python3 -c "$bind")"
    docker rm -f "$server" >/dev/null
    # Where only the capability lets one: of a container of runc as of our own, which stays as it was.
    local runtime
    for runtime in runc "$NAME"; do
        server=$(docker run -d --runtime "$runtime" --label "sallet-test=$PREFIX" \
            --sysctl net.ipv4.ip_unprivileged_port_start=1024 $NET sleep 60)
        equal bound "$(drun --network "container:$server" $NET python3 -c "$bind")"
        contains "$(drun --network "container:$server" --user 1000 $NET python3 -c "$bind" 2>&1)" "Permission denied"
        equal 1024 "$(nsenter -t "$(docker inspect -f '{{.State.Pid}}' "$server")" -n cat /proc/sys/net/ipv4/ip_unprivileged_port_start)"
        docker rm -f "$server" >/dev/null
    done
}
low_ports_of_the_host() {
    local id cap pid port="import socket, sys
for family, kind in (2, 1), (2, 2), (10, 1), (10, 2):
    s = socket.socket(family, kind)
    s.bind(('127.0.0.1' if family == 2 else '::1', int(sys.argv[1])))
print('bound')"
    # Root and its capability, as ever; not without.
    equal bound "$(drun --network host $NET python3 -c "$port" 811)"
    contains "$(drun --network host --cap-drop NET_BIND_SERVICE $NET python3 -c "$port" 811 2>&1)" "Permission denied"
    contains "$(drun --network host --user 1000 $NET python3 -c "$port" 811 2>&1)" "Permission denied"
    # What else bind(2) says; a server that answers the host.
    id=$(dstart --network host $NET python3 -c "$ECHO" 812)
    waits python3 -c "$ASK" 127.0.0.1 812
    equal "got hello" "$(python3 -c "$ASK" 127.0.0.1 812)"
    contains "$(dexec "$id" python3 -c "$port" 812 2>&1)" "Address already in use"
    contains "$(dexec "$id" python3 -c "import socket; socket.socket().bind(('192.0.2.1', 813))" 2>&1)" "Cannot assign"
    contains "$(dexec "$id" setpriv --reuid 1000 --clear-groups python3 -c "$port" 813 2>&1)" "Permission denied"
    [ "$NAME" = runc ] && return
    # Who binds for it: nobody who could do more.
    pid=$(docker top "$id" -o pid,args | sed -n 's/^ *\([0-9]*\) *sallet-binder .*/\1/p')
    for cap in "Uid:.65532.65532.65532.65532" "CapPrm:.0000000000000400" "CapBnd:.0000000000000400" "NoNewPrivs:.1" "Seccomp:.2"; do
        grep -q "^$cap$" "/proc/$pid/status" || { echo "the binder lacks $cap: $(cat "/proc/$pid/status")"; exit 1; }
    done
    equal "" "$(ls -A "/proc/$pid/root/")"
    docker rm -f "$id" >/dev/null
    waits sh -c "! grep -q '^State:.[^ZX]' /proc/$pid/status"
}
host_network() {
    local port pid
    python3 -c "$ECHO" 17391 &
    pid=$!
    waits python3 -c "$ASK" 127.0.0.1 17391
    equal "got hello" "$(drun --network host $NET python3 -c "$ASK" 127.0.0.1 17391)"
    kill $pid
    wait $pid 2>/dev/null
    # And from the host to a server in the sandbox, which its own clients reach too.
    local server
    server=$(dstart --network host $NET python3 -c "$ECHO" 17392)
    waits python3 -c "$ASK" 127.0.0.1 17392
    equal "got hello" "$(python3 -c "$ASK" 127.0.0.1 17392)"
    equal "got hello" "$(dexec "$server" python3 -c "$ASK" 127.0.0.1 17392)"
    contains "$(dexec "$server" python3 -c "import socket; socket.socket().bind(('', 17392))" 2>&1)" "Address already in use"
}
no_network() {
    equal "lo" "$(drun --network none $NET ls /sys/class/net)"
    equal "got hello" "$(drun --network none $NET bash -c "python3 -c '$ECHO' 7000 & for i in \$(seq 50); do python3 -c '$ASK' 127.0.0.1 7000 2>/dev/null && break; sleep 0.1; done")"
    contains "$(drun --network none $NET python3 -c "$ASK" 192.0.2.1 80 2>&1)" "Network is unreachable"
}
ipv6() {
    local net server ip
    net=$(network six --ipv6 --subnet fd00:5a11:$((RANDOM % 9000 + 1000))::/64) || { skip ipv6 "no IPv6"; return; }
    server=$(dstart --network "$net" --network-alias six $NET python3 -c 'import socket
s = socket.create_server(("::", 7000), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    c, _ = s.accept()
    c.sendall(b"got " + c.recv(100))
    c.close()')
    ip=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}' "$server")
    equal "got hello" "$(drun --network "$net" $NET bash -c "for i in \$(seq 50); do python3 -c '$ASK' $ip 7000 2>/dev/null && break; sleep 0.1; done")"
    for to in ::1 127.0.0.1 "$ip"; do
        equal "got hello" "$(dexec "$server" python3 -c "$ASK" "$to" 7000)"
    done
    contains "$(dexec "$server" ping -6 -c1 -w5 ::1)" "1 received"
}
http() {
    local server
    server=$(dstart -p 127.0.0.1::80 $NET nginx -g 'daemon off;')
    waits dexec "$server" curl -sf http://127.0.0.1/
    contains "$(dexec "$server" curl -s http://localhost/)" "nginx"
    local port
    port=$(docker port "$server" 80/tcp | head -1 | cut -d: -f2)
    contains "$(curl -s "http://127.0.0.1:$port/")" "nginx"
}
pings() {
    contains "$(drun $NET ping -c2 -i0.2 -w5 127.0.0.1)" "2 received"
    local other
    other=$(dstart $NET sleep 60)
    contains "$(drun $NET ping -c1 -w5 "$(address "$other")")" "1 received"
}
netcat() {
    equal "through nc" "$(drun $NET bash -c 'nc -l 7000 & sleep 0.3; echo through nc | nc -N 127.0.0.1 7000; wait')"
    equal "through udp" "$(drun $NET bash -c 'timeout 3 nc -u -l 7000 -W1 & sleep 0.3; echo through udp | nc -u -w1 127.0.0.1 7000; wait')"
}
ssh_between() {
    local server
    server=$(dstart $NET bash -c 'mkdir -p /run/sshd /root/.ssh; ssh-keygen -q -t ed25519 -N "" -f /root/.ssh/id_ed25519; cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys; exec /usr/sbin/sshd -D -e')
    local ssh="ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    waits dexec "$server" $ssh 127.0.0.1 true
    equal "over there" "$(dexec "$server" $ssh 127.0.0.1 echo over there)"
    local client
    client=$(dstart $NET sleep 60)
    docker cp -q "$server:/root/.ssh/id_ed25519" - | docker cp -q - "$client:/root/"
    equal "over there" "$(dexec "$client" $ssh -i /root/id_ed25519 "root@$(address "$server")" echo over there)"
    equal "1000000" "$(dexec "$client" bash -c "head -c 1000000 /dev/zero | $ssh -i /root/id_ed25519 root@$(address "$server") wc -c")"
}
# Groups, broadcasts and control messages: what runc shows, with a network and without.
datagrams() {
    local script net wanted
    script=$(cat "$(dirname "$0")/datagrams.py.inc")
    for net in none bridge; do
        wanted=$(timeout 60 docker run --rm --network $net $NET python3 -c "$script")
        contains "$wanted" "b'hi', '127.0.0.1'"
        equal "$wanted" "$(drun --network $net $NET python3 -c "$script")"
    done
}
ip_shows() {
    contains "$(drun $NET ip address)" "127.0.0.1/8"
    contains "$(drun $NET ip link)" "LOOPBACK,UP"
    contains "$(drun $NET ip route)" "default via"
    contains "$(drun $NET ip rule)" "lookup main"
    exits 0 drun $NET ip neighbour
}
ss_shows() {
    local out
    out=$(drun $NET bash -c "python3 -c '$ECHO' 7000 & python3 -c '$UDP_ECHO' 7001 & sleep 0.5; exec 3<>/dev/tcp/127.0.0.1/7000; ss -tlnp; ss -ulnp; ss -tnp; ss -xl; ss -s")
    contains "$out" "0.0.0.0:7000"
    contains "$out" 'users:(("python3"'
    contains "$out" "0.0.0.0:7001"
    contains "$out" "127.0.0.1:7000"
    # Listeners show how many may wait, and sockets whose they are.
    equal "LISTEN 0 7 [::]:7001 [::]:* LISTEN 1 5 0.0.0.0:7000 0.0.0.0:* 00000000:1B58 0A 00000000:00000001 33 \
00000000000000000000000000000000:1B59 0A 00000000:00000000 33" "$(echo $(drun --user 33 $NET python3 -c '
import socket, subprocess
listener = socket.create_server(("0.0.0.0", 7000), backlog=5)
six = socket.create_server(("::", 7001), family=socket.AF_INET6, backlog=7)
client = socket.create_connection(("127.0.0.1", 7000))
print(subprocess.getoutput("ss -Hltn | sort"))
for table in "tcp", "tcp6":
    rows = [line.split() for line in open("/proc/net/" + table)]
    print(*[row[at] for row in rows if row[3] == "0A" for at in (1, 3, 4, 7)])'))"
}
proc_net() {
    local out
    out=$(drun $NET bash -c "python3 -c '$ECHO' 7000 & sleep 0.5; exec 3<>/dev/tcp/127.0.0.1/7000; cat /proc/net/tcp /proc/net/dev /proc/net/route")
    contains "$out" "00000000:1B58 00000000:0000 0A"
    contains "$out" "0100007F:1B58"
    contains "$out" "eth0"
    contains "$(drun $NET cat /proc/net/if_inet6 /proc/net/sockstat /proc/net/snmp)" "TCP: inuse"
    contains "$(drun $NET cat /sys/class/net/eth0/operstate)" "up"
    equal "65536" "$(drun $NET cat /sys/class/net/lo/mtu)"
    contains "$(drun $NET cat /sys/class/net/eth0/address)" ":"
}
redis() {
    equal "5000" "$(drun $NET bash -c 'redis-server --save "" >/dev/null & for i in $(seq 50); do redis-cli ping >/dev/null 2>&1 && break; sleep 0.1; done; redis-benchmark -q -n 5000 -t set >/dev/null; seq 5000 | xargs -n1 -P1 echo SET k | sed "s/k/k /" | redis-cli --pipe 2>&1 | grep -o "replies: [0-9]*" | cut -d" " -f2')"
}

for t in loopback own_address between_containers published_tcp published_udp names search_domains network_changes two_networks shared_namespace low_ports low_ports_of_the_host host_network \
    no_network ipv6 http pings netcat ssh_between datagrams ip_shows ss_shows proc_net redis; do
    run_test $t
done
