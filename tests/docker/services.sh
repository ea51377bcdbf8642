#!/bin/bash
# Services that work together over Docker's networks, and the tools people look at them with, between
# containers. network.sh has the networks one by one.
. "$(dirname "$0")/lib.sh.inc"
. "$(dirname "$0")/net.sh.inc"
WORK=$(mktemp -d /tmp/sallet-services.XXXXXX)
trap 'end; rm -rf "$WORK"' EXIT

cat >"$WORK/app.py" <<'END_OF_APP'
"""Counts in Redis and tells by HTTP: /hits, /echo (POST), /who (the peer's address)."""
import hashlib, http.server, os, socket
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, text):
        body = (text + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/hits":
            with socket.create_connection(("store", 6379), 10) as store:
                store.sendall(b"INCR hits\r\n")
                self.answer("hits " + store.makefile().readline().strip()[1:])
        elif self.path == "/who":
            self.answer(self.client_address[0])
        else:
            self.answer("app of " + os.uname().nodename)
    def do_POST(self):
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        while left:
            block = self.rfile.read(min(left, 65536))
            digest.update(block)
            left -= len(block)
        self.answer(digest.hexdigest())
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", 8000), Handler).serve_forever()
END_OF_APP
cat >"$WORK/echo.py" <<'END_OF_ECHO'
"""Sends back lines with `got ` before them: TCP and UDP, both families, port 7000."""
import selectors, socket
wait = selectors.DefaultSelector()
tcp = socket.create_server(("", 7000), family=socket.AF_INET6, dualstack_ipv6=True, backlog=100)
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
udp.bind(("", 7000))
for s in (tcp, udp): wait.register(s, selectors.EVENT_READ)
while True:
    for key, _ in wait.select():
        s = key.fileobj
        if s is tcp:
            wait.register(tcp.accept()[0], selectors.EVENT_READ)
        elif s is udp:
            data, sender = udp.recvfrom(65536)
            udp.sendto(b"got " + data, sender)
        else:
            try: data = s.recv(65536)
            except OSError: data = b""
            if data: s.sendall(b"got " + data)
            else:
                wait.unregister(s)
                s.close()
END_OF_ECHO
cat >"$WORK/ask.py" <<'END_OF_ASK'
"""ask.py tcp|udp HOST PORT [BYTES]: asks once, prints the answer, or how many bytes came."""
import socket, sys
kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[sys.argv[1]]
family, _, _, _, name = socket.getaddrinfo(sys.argv[2], sys.argv[3], type=kind)[0]
s = socket.socket(family, kind)
s.settimeout(10)
s.connect(name)
size = int(sys.argv[4]) if len(sys.argv) > 4 else 0
s.sendall(b"x" * size or b"hello")
data = s.recv(65536)
print(len(data) if size else data.decode())
END_OF_ASK
# Files that containers run, in any image.
MOUNT="-v $WORK:/work:ro"

# Three services: nginx before an application before Redis; each found by its name.
compose_three() {
    command -v docker-compose >/dev/null || { echo "no docker-compose"; exit 1; }
    cat >"$WORK/nginx.conf" <<'END_OF_CONF'
events {}
http {
    access_log off;
    client_max_body_size 0;
    resolver 127.0.0.11 valid=1s;
    server {
        listen 80;
        location / { set $app app; proxy_pass http://$app:8000; }
    }
}
END_OF_CONF
    cat >"$WORK/docker-compose.yml" <<END_OF_COMPOSE
version: "2.4"
services:
  front:
    image: $NET
    runtime: $NAME
    command: nginx -c /work/nginx.conf -g "daemon off;"
    volumes: ["$WORK:/work:ro"]
    ports: ["127.0.0.1::80"]
    networks: [outside, middle]
    depends_on: [app]
  app:
    image: $NET
    runtime: $NAME
    command: python3 /work/app.py
    volumes: ["$WORK:/work:ro"]
    networks: [middle, inside]
    depends_on: [store]
  store:
    image: $NET
    runtime: $NAME
    command: redis-server --save "" --protected-mode no
    networks: [inside]
networks:
  outside: {}
  middle: {internal: true}
  inside: {internal: true}
END_OF_COMPOSE
    compose() { timeout 120 docker-compose -p "$PREFIX" -f "$WORK/docker-compose.yml" "$@"; }
    compose up -d 2>&1 || { compose down -t 1; exit 1; }
    trap 'compose down -t 1 >/dev/null 2>&1' EXIT
    local front port
    front=$(compose ps -q front)
    port=$(host_port "$front" 80/tcp)
    eventually 30 curl -sf --max-time 5 "http://127.0.0.1:$port/hits"
    local one
    one=$(curl -sf "http://127.0.0.1:$port/hits" | cut -d' ' -f2)
    equal "hits $((one + 1))" "$(curl -sf "http://127.0.0.1:$port/hits")"
    # 8 MB through nginx to the application.
    head -c 8000000 /dev/urandom >"$WORK/upload"
    equal "$(sha256sum <"$WORK/upload" | cut -d' ' -f1)" \
        "$(curl -sf -H 'Expect:' --max-time 30 --data-binary "@$WORK/upload" "http://127.0.0.1:$port/" 2>&1 || echo "upload: $?")"
    # Who has no network in common finds no name.
    exits 2 compose exec -T front getent hosts store
    # A service that starts again is found again; two of them are both found.
    compose restart -t 1 app 2>/dev/null
    eventually 30 curl -sf --max-time 5 "http://127.0.0.1:$port/hits"
    compose up -d --no-recreate --scale app=2 2>/dev/null
    eventually 30 two_names
    # The others go on without the third, and with it when it comes again, empty.
    compose kill store 2>/dev/null
    contains "$(curl -sf --max-time 10 "http://127.0.0.1:$port/who")" .
    compose start store 2>/dev/null
    eventually 30 curl -sf --max-time 5 "http://127.0.0.1:$port/hits"
    compose down -t 1 2>/dev/null
    equal "" "$(docker ps -aq --filter "label=com.docker.compose.project=$PREFIX")"
    equal "" "$(docker network ls -q --filter "name=^${PREFIX}_")"
}
two_names() {
    local seen
    seen=$(for _ in $(seq 20); do curl -sf --max-time 5 "http://127.0.0.1:$port/"; sleep 0.1; done | sort -u | grep -c "app of")
    [ "$seen" = 2 ] && [ "$(compose exec -T front getent ahostsv4 app | cut -d' ' -f1 | sort -u | wc -l)" = 2 ]
}

# A server that runs is put on a second network, and taken from it while somebody speaks to it there.
connect_while_running() {
    local one two server near far
    one=$(network live1) && two=$(network live2) || exit 1
    server=$(dstart $MOUNT --network "$one" --network-alias served $NET python3 /work/echo.py)
    near=$(dstart $MOUNT --network "$one" $NET sleep 120)
    far=$(dstart $MOUNT --network "$two" $NET sleep 120)
    eventually 20 dexec "$near" python3 /work/ask.py tcp served 7000
    exits 2 dexec "$far" getent hosts served
    # One line a step, on a connection that stays.
    talk() {
        timeout 60 docker exec -i "$1" python3 -c '
import socket, sys
s = socket.create_connection(("served", 7000), 5)
for line in sys.stdin:
    s.sendall(line.encode())
    try: print(s.recv(100).decode().strip(), flush=True)
    except OSError as error: print(type(error).__name__, flush=True)'
    }
    local answer
    { coproc NEAR { talk "$near"; }; } 2>/dev/null
    echo one >&"${NEAR[1]}"
    read -r -t 20 answer <&"${NEAR[0]}"
    equal "got one" "$answer"
    docker network connect --alias served "$two" "$server"
    eventually 10 dexec "$far" python3 /work/ask.py tcp served 7000
    equal "got hello" "$(dexec "$far" python3 /work/ask.py udp served 7000)"
    # The server sees the new interface, and reaches out over it.
    contains "$(dexec "$server" ip -o -4 address)" "$(address "$server" "$two")"
    contains "$(dexec "$server" ping -c1 -w5 "$(address "$far")")" "1 received"
    docker exec -d "$far" nc -l 7005
    eventually 10 dexec "$server" nc -z "$(address "$far")" 7005
    # Nobody answers what was said when the network is gone.
    echo | talk "$far" >/dev/null
    docker network disconnect "$two" "$server"
    eventually 10 sh -c "! docker exec $far getent hosts served"
    equal 1 "$(dexec "$server" ip -o -4 address show scope global | wc -l)"
    echo two >&"${NEAR[1]}"
    read -r -t 20 answer <&"${NEAR[0]}"
    equal "got two" "$answer"
    # And put there again.
    docker network connect --alias served "$two" "$server"
    eventually 10 dexec "$far" python3 /work/ask.py tcp served 7000
    kill "$NEAR_PID" 2>/dev/null
    docker rm -f "$server" "$near" "$far" >/dev/null
}

cat >"$WORK/dns.py" <<'END_OF_DNS'
"""A name server: some.test has an address for 7 s, big.test 60 of them (by TCP alone), bad.test fails."""
import socket, struct, threading
def answer(query, big):
    end = 12
    labels = []
    while query[end]:
        labels.append(query[end + 1 : end + 1 + query[end]].decode().lower())
        end += query[end] + 1
    kind = struct.unpack("!H", query[end + 1 : end + 3])[0]
    question, name = query[12 : end + 5], ".".join(labels)
    records, code, flags = [], 0, 0x8580
    if name in ("some.test", "host.second.test"): records = [bytes([192, 0, 2, 7])] if kind == 1 else []
    elif name == "big.test": records = [bytes([192, 0, 2, n]) for n in range(60)] if kind == 1 else []
    elif name == "bad.test": code = 2
    else: code = 3
    if len(records) > 20 and not big: records, flags = [], flags | 0x200
    head = query[:2] + struct.pack("!5H", flags | code, 1, len(records), 0, 0)
    return head + question + b"".join(b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 7, 4) + r for r in records)
def tcp():
    listener = socket.create_server(("", 53))
    while True:
        c = listener.accept()[0]
        with c, c.makefile("rb") as f:
            size = f.read(2)
            if len(size) == 2:
                out = answer(f.read(struct.unpack("!H", size)[0]), True)
                c.sendall(struct.pack("!H", len(out)) + out)
threading.Thread(target=tcp, daemon=True).start()
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 53))
while True:
    query, sender = s.recvfrom(4096)
    s.sendto(answer(query, False), sender)
END_OF_DNS
# By Docker's own name server and, on the default bridge, without it.
dns() {
    local net names server client
    net=$(network dns) || exit 1
    server=$(dstart $MOUNT --network "$net" $NET python3 /work/dns.py)
    docker network connect bridge "$server"
    names=$(address "$server" "$net")
    # Docker's own answers last 600 s.
    dstart --network "$net" --network-alias web $NET sleep 60 >/dev/null
    client=$(dstart --network "$net" --dns "$names" --dns-search first.test --dns-search second.test $NET sleep 60)
    local direct
    names=$(address "$server" bridge)
    direct=$(dstart --dns "$names" --dns-search first.test --dns-search second.test $NET sleep 60)
    contains "$(dexec "$client" cat /etc/resolv.conf)" "nameserver 127.0.0.11"
    contains "$(dexec "$direct" cat /etc/resolv.conf)" "nameserver $names"
    equal 600 "$(dexec "$client" dig +noall +answer web | awk '{ print $2 }')"
    equal 600 "$(dexec "$client" dig +tcp +noall +answer web | awk '{ print $2 }')"
    equal "$PREFIX" "$(dexec "$client" dig +short -x "$(dexec "$client" dig +short web)" | grep -o "$PREFIX" | head -1)"
    local who
    for who in "$client" "$direct"; do
        eventually 10 dexec "$who" dig +time=1 some.test
        equal "7 192.0.2.7" "$(dexec "$who" dig +noall +answer some.test | awk '{ print $2, $5 }')"
        equal "7 192.0.2.7" "$(dexec "$who" dig +tcp +noall +answer some.test | awk '{ print $2, $5 }')"
        equal "" "$(dexec "$who" dig +short some.test AAAA)"
        contains "$(dexec "$who" dig none.test)" NXDOMAIN
        # Too long for a datagram: asked again by TCP.
        equal 60 "$(dexec "$who" dig +short big.test | wc -l)"
        equal 60 "$(dexec "$who" getent ahostsv4 big.test | grep -c STREAM)"
        # The second search domain has it.
        contains "$(dexec "$who" getent hosts host)" "192.0.2.7"
        exits 2 dexec "$who" getent hosts nowhere
        # Many at once.
        equal 200 "$(dexec "$who" sh -c 'for i in $(seq 200); do echo some.test; done | xargs -P 20 -n 1 dig +short | grep -c 192.0.2.7')"
    done
    docker rm -f "$server" "$client" "$direct" >/dev/null
}

# Datagrams between containers: connected, long, to nobody.
udp() {
    local net server client
    net=$(network udp) || exit 1
    server=$(dstart $MOUNT --network "$net" --network-alias udp $NET python3 /work/echo.py)
    client=$(dstart $MOUNT --network "$net" $NET sleep 60)
    eventually 20 dexec "$client" python3 /work/ask.py udp udp 7000
    equal 1404 "$(dexec "$client" python3 /work/ask.py udp udp 7000 1400)"
    # In fragments.
    equal 60004 "$(dexec "$client" python3 /work/ask.py udp udp 7000 60000)"
    contains "$(dexec "$client" python3 /work/ask.py udp udp 7001 2>&1)" "Connection refused"
    equal "got by netcat" "$(dexec "$client" bash -c 'echo -n by netcat | nc -u -w1 udp 7000')"
    docker rm -f "$server" "$client" >/dev/null
}

# Several ports of one container, both protocols, IPv6 too; gone with it, there again after a restart.
published() {
    local server
    server=$(dstart $MOUNT -p 127.0.0.1::7000 -p 127.0.0.1::7000/udp -p 127.0.0.1::8000 $NET \
        bash -c 'python3 /work/app.py & exec python3 /work/echo.py')
    eventually 20 python3 "$WORK/ask.py" tcp 127.0.0.1 "$(host_port "$server" 7000/tcp)"
    equal "got hello" "$(python3 "$WORK/ask.py" udp 127.0.0.1 "$(host_port "$server" 7000/udp)")"
    eventually 20 curl -sf "http://127.0.0.1:$(host_port "$server" 8000/tcp)/who"
    # Many at once, each complete. Each into a file of its own: a line may be two writes, and in one pipe they mix.
    local port answers
    port=$(host_port "$server" 7000/tcp)
    answers=$(mktemp -d -p "$WORK")
    seq 100 | ask="$WORK/ask.py" answers=$answers port=$port xargs -P 20 -I{} sh -c \
        'python3 "$ask" tcp 127.0.0.1 "$port" >"$answers/{}" 2>&1'
    equal "100 got hello" "$(cat "$answers"/* | sort | uniq -c | xargs)"
    docker restart -t 1 "$server" >/dev/null
    eventually 20 python3 "$WORK/ask.py" tcp 127.0.0.1 "$(host_port "$server" 7000/tcp)"
    port=$(host_port "$server" 7000/tcp)
    docker stop -t 1 "$server" >/dev/null
    contains "$(python3 "$WORK/ask.py" tcp 127.0.0.1 "$port" 2>&1)" "refused"
    docker rm -f "$server" >/dev/null
    # Published on the host's IPv6 loopback.
    server=$(dstart $MOUNT -p '[::1]::7000' $NET python3 /work/echo.py) || exit 1
    port=$(host_port "$server" 7000/tcp)
    eventually 20 python3 "$WORK/ask.py" tcp ::1 "$port"
    equal "got hello" "$(python3 "$WORK/ask.py" tcp ::1 "$port")"
    docker rm -f "$server" >/dev/null
}

# A network with IPv6, by name and by every tool.
ipv6_tools() {
    local net server client ip
    net=$(network six --ipv6 --subnet "fd00:5a12:$((RANDOM % 9000 + 1000))::/64") || { echo "no IPv6"; exit 1; }
    server=$(dstart $MOUNT --network "$net" --network-alias six $NET bash -c 'python3 /work/app.py & exec python3 /work/echo.py')
    client=$(dstart $MOUNT --network "$net" $NET sleep 60)
    ip=$(address6 "$server")
    eventually 20 dexec "$client" python3 /work/ask.py tcp "$ip" 7000
    equal "$ip" "$(dexec "$client" dig +short six AAAA)"
    contains "$(dexec "$client" getent ahostsv6 six)" "$ip"
    contains "$(dexec "$client" ip -6 -o address show scope global)" "$(address6 "$client")"
    contains "$(dexec "$client" ip -6 route)" "default via"
    contains "$(dexec "$client" ping -6 -c2 -i0.2 -w5 six)" "2 received"
    contains "$(dexec "$client" ping -c1 -w5 -s 4000 "$ip")" "1 received"
    eventually 10 dexec "$client" curl -sf "http://[$ip]:8000/"
    equal "$(address6 "$client")" "$(dexec "$client" curl -sf -6 http://six:8000/who)"
    equal "::ffff:$(address "$client")" "$(dexec "$client" curl -sf -4 http://six:8000/who)"
    equal "got hello" "$(dexec "$client" python3 /work/ask.py udp "$ip" 7000)"
    equal 20004 "$(dexec "$client" python3 /work/ask.py udp "$ip" 7000 20000)"
    contains "$(dexec "$client" python3 /work/ask.py udp "$ip" 7001 2>&1)" "Connection refused"
    equal "got netcat" "$(dexec "$client" bash -c 'echo -n netcat | nc -6 -N -w5 six 7000')"
    contains "$(dexec "$server" ss -6tlnp)" '*:7000'
    docker rm -f "$server" "$client" >/dev/null
}

# What a person types to look around, between two containers with names.
tools_between() {
    local net server client
    net=$(network tools) || exit 1
    server=$(dstart $MOUNT --network "$net" --name "$PREFIX-server" --hostname served $NET \
        bash -c 'python3 /work/app.py & exec python3 /work/echo.py')
    client=$(dstart $MOUNT --network "$net" $NET sleep 120)
    local name=$PREFIX-server ip
    ip=$(address "$server")
    # curl: by name, both ways, many bytes.
    eventually 20 dexec "$client" curl -sf "http://$name:8000/"
    equal "app of served" "$(dexec "$client" curl -sf "http://$name:8000/")"
    head -c 5000000 /dev/urandom >"$WORK/upload"
    equal "$(sha256sum <"$WORK/upload" | cut -d' ' -f1)" \
        "$(dexec "$client" curl -sf -H 'Expect:' --data-binary @/work/upload "http://$name:8000/")"
    exits 7 dexec "$client" curl -sf "http://$name:8001/"
    exits 6 dexec "$client" curl -sf http://nobody.invalid/
    # ping and dig.
    contains "$(dexec "$client" ping -c3 -i0.2 -w5 "$name")" "3 received"
    contains "$(dexec "$client" ping -c1 -w5 -s 1472 -M do "$ip")" "1 received"
    contains "$(dexec "$client" ping -c1 -w5 "${ip%.*}.250")" "Destination Host Unreachable"
    equal "$ip" "$(dexec "$client" dig +short "$name")"
    # ip: the addresses are those that Docker gave.
    contains "$(dexec "$server" ip address)" "inet $ip/"
    contains "$(dexec "$server" ip -br link)" "$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}' "$server")"
    contains "$(dexec "$server" ip -j route)" '"dst":"default"'
    # ss: who listens, who is connected from outside.
    contains "$(dexec "$server" ss -tlnp)" 'users:(("python3"'
    contains "$(dexec "$server" ss -ulnp)" ':7000'
    docker exec -d "$client" bash -c "exec 3<>/dev/tcp/$name/7000; sleep 20"
    eventually 10 sh -c "docker exec $server ss -tnp state established | grep '$(address "$client")' | grep python3"
    contains "$(dexec "$client" ss -tn state established)" "$ip:7000"
    # nc: a file there and another one back.
    docker exec -d "$server" bash -c 'nc -lN 7003 </work/app.py >/tmp/received'
    eventually 10 sh -c "docker exec $server ss -tln | grep 7003"
    equal "$(sha256sum <"$WORK/app.py")" "$(dexec "$client" sh -c "nc -N -w10 $name 7003 </work/upload | sha256sum")"
    eventually 10 sh -c "docker exec $server sha256sum /tmp/received | grep $(sha256sum <"$WORK/upload" | cut -d' ' -f1)"
    exits 1 dexec "$client" nc -z -w2 "$name" 7004
    docker rm -f "$server" "$client" >/dev/null
}

# ssh: a command, a copy, a forwarded port, by name.
ssh_by_name() {
    local net server client
    net=$(network ssh) || exit 1
    mkdir -p "$WORK/ssh"
    ssh-keygen -q -t ed25519 -N "" -f "$WORK/ssh/key" 2>/dev/null ||
        drun -v "$WORK/ssh:/keys" $NET ssh-keygen -q -t ed25519 -N "" -f /keys/key
    server=$(dstart $MOUNT --network "$net" --network-alias host $NET bash -c 'mkdir -p /run/sshd /root/.ssh
        cp /work/ssh/key.pub /root/.ssh/authorized_keys; python3 /work/echo.py & exec /usr/sbin/sshd -D -e')
    client=$(dstart $MOUNT --network "$net" $NET bash -c 'mkdir -p /root/.ssh; cp /work/ssh/key /root/.ssh/id_ed25519
        chmod 600 /root/.ssh/id_ed25519; printf "StrictHostKeyChecking no\nLogLevel ERROR\nBatchMode yes\n" >/root/.ssh/config; exec sleep 120')
    eventually 20 dexec "$client" ssh host true
    equal "over there" "$(dexec "$client" ssh host echo over there)"
    exits 5 dexec "$client" ssh host exit 5
    head -c 5000000 /dev/urandom >"$WORK/upload"
    dexec "$client" scp -q /work/upload host:/tmp/copy || { echo "scp fails"; exit 1; }
    equal "$(sha256sum <"$WORK/upload" | cut -d' ' -f1)" "$(dexec "$client" ssh host sha256sum /tmp/copy | cut -d' ' -f1)"
    docker exec -d "$client" ssh -N -L 7007:localhost:7000 host
    eventually 10 dexec "$client" python3 /work/ask.py tcp 127.0.0.1 7007
    equal "got hello" "$(dexec "$client" python3 /work/ask.py tcp 127.0.0.1 7007)"
    docker rm -f "$server" "$client" >/dev/null
}

# On the host's network the tools show the host; without one there is lo.
host_and_none() {
    equal "$(ip -br link | grep -vE '^(veth|br-)' | awk '{ print $1 }' | sort | xargs)" \
        "$(drun --network host $NET ip -br link | grep -vE '^(veth|br-)' | awk '{ print $1 }' | sort | xargs)"
    contains "$(drun --network host $NET ip route)" "$(ip route | grep docker0)"
    equal "lo" "$(drun --network none $NET ip -br address | awk '{ print $1 }' | xargs)"
    contains "$(drun --network none $NET ping -c1 -w5 localhost)" "1 received"
    contains "$(drun --network none $NET ping -c1 -w5 192.0.2.1 2>&1)" "Network is unreachable"
    exits 7 drun --network none $NET curl -s http://192.0.2.1/
    equal "" "$(drun --network none $NET ip route)"
}
# What listens on the host is seen by a container on the host's network.
host_sockets() {
    python3 "$WORK/echo.py" &
    local pid=$!
    eventually 10 python3 "$WORK/ask.py" tcp 127.0.0.1 7000
    local seen
    seen=$(drun --network host $NET ss -tln)
    kill $pid
    wait $pid 2>/dev/null
    contains "$seen" ":7000"
}

# An internal network has no way out; addresses and names that the caller chose.
chosen() {
    local inner outer client
    inner=$(network inner --internal --subnet 10.123.77.0/24) || exit 1
    dstart $MOUNT --network "$inner" --ip 10.123.77.9 --name "$PREFIX-chosen" $NET python3 /work/echo.py >/dev/null
    client=$(dstart $MOUNT --network "$inner" --hostname me --domainname here.test --add-host other:10.123.77.9 $NET sleep 60)
    eventually 20 dexec "$client" python3 /work/ask.py tcp other 7000
    equal "me.here.test" "$(dexec "$client" hostname -f)"
    contains "$(dexec "$client" ip neighbour)" "10.123.77.9 dev eth0 lladdr"
    contains "$(dexec "$client" ping -c1 -w2 192.0.2.1 || echo unanswered)" unanswered
    # `--link` of old gives a name on the default bridge.
    outer=$(dstart $MOUNT --name "$PREFIX-linked" $NET python3 /work/echo.py)
    equal "got hello" "$(drun $MOUNT --link "$PREFIX-linked:old" $NET bash -c 'for i in $(seq 50); do python3 /work/ask.py tcp old 7000 2>/dev/null && break; sleep 0.1; done')"
    docker rm -f "$outer" "$client" "$PREFIX-chosen" >/dev/null
}

for t in compose_three connect_while_running dns udp published ipv6_tools tools_between ssh_by_name host_and_none host_sockets chosen; do
    run_test $t
done
