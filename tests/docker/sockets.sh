#!/bin/bash
# Unix sockets and FIFOs of the host in containers: the flag --host-uds. runc joins them all, always.
. "$(dirname "$0")/lib.sh.inc"
WORK=$(mktemp -d /tmp/sallet-sockets.XXXXXX)
PIDS=
end() {
    [ -z "$PIDS" ] || kill $PIDS 2>/dev/null
    cleanup
    rm -rf "$WORK"
}
trap end EXIT
chmod 755 "$WORK"
mkdir -m 777 "$WORK/dir"

cat >"$WORK/serve.py" <<'END'
"""serve.py FOLDER: sockets stream, packets and datagrams, each for everybody. A stream gets back what it sends, once it has
ended its half, after a line with who it is; packets come back one by one, then once more with a descriptor; datagrams go
to the file `heard`. `slow` takes one connection a second, and lets one more wait."""
import array, os, socket, struct, sys, threading, time
os.chdir(sys.argv[1])
os.umask(0)
def bound(name, kind):
    s = socket.socket(socket.AF_UNIX, kind)
    if os.path.lexists(name): os.unlink(name)
    s.bind(name)
    return s
def serve(name, kind, answer, backlog=64, pause=0):
    s = bound(name, kind)
    s.listen(backlog)
    while True:
        time.sleep(pause)
        threading.Thread(target=answer, args=(s.accept()[0],), daemon=True).start()
def stream(c):
    pid, uid, gid = struct.unpack("iII", c.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    data = b""
    while block := c.recv(65536): data += block
    try: c.sendall(data)
    except BrokenPipeError: pass
    c.close()
def packets(c):
    while data := c.recv(65536): c.send(data)
    c.sendmsg([b"file"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1]))])
    c.close()
def files(c):
    data, control, flags, _ = c.recvmsg(16, 1024)
    c.send(b"%d" % len(control))
    c.close()
def datagrams():
    s = bound("datagrams", socket.SOCK_DGRAM)
    while True:
        data = s.recv(65536)
        with open("heard", "ab") as f: f.write(data + b"\n")
threading.Thread(target=datagrams, daemon=True).start()
for arguments in [("stream", 1, stream), ("packets", 5, packets), ("files", 1, files), ("slow", 1, stream, 0, 1)]:
    threading.Thread(target=serve, args=arguments, daemon=True).start()
while not all(map(os.path.exists, ["stream", "packets", "files", "slow", "datagrams"])): time.sleep(0.01)
open("ready", "w").close()
time.sleep(3600)
END
cat >"$WORK/ask.py" <<'END'
import array, errno, hashlib, os, select, socket, struct, sys, threading, time
U, L = socket.AF_UNIX, socket.SOL_SOCKET
def connected(path, kind=1):
    s = socket.socket(U, kind)
    s.connect(path)
    return s
def stream(path):
    s = connected(path)
    data = os.urandom(3 << 20)
    def send():
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
    sender = threading.Thread(target=send)
    sender.start()
    wait, got = select.epoll(), b""
    wait.register(s, select.EPOLLIN | select.EPOLLET)
    while True:
        assert wait.poll(20), "nothing comes"
        try:
            while block := s.recv(100000, socket.MSG_DONTWAIT): got += block
            break
        except BlockingIOError: pass
    sender.join()
    pid, uid, gid = struct.unpack("iII", s.getsockopt(L, socket.SO_PEERCRED, 12))
    wait.close()
    print(got == data, s.getpeername(), repr(s.getsockname()), pid, uid, gid, s.getsockopt(L, socket.SO_ERROR))
    try: s.connect(path)
    except OSError as e: print(errno.errorcode[e.errno])
def packets(path):
    s = connected(path, socket.SOCK_SEQPACKET)
    for data in [b"one", b"two" * 1000, b"x"]:
        s.send(data)
        assert s.recv(65536) == data
    s.send(b"long")
    data, _, flags, _ = s.recvmsg(2)
    assert data == b"lo" and flags & socket.MSG_TRUNC
    s.shutdown(socket.SHUT_WR)
    data, control, flags, _ = s.recvmsg(16, 1024)
    print(data.decode(), len(control), bool(flags & socket.MSG_CTRUNC), len(s.recv(1)), len(os.listdir("/proc/self/fd")))
def files(path):
    s = connected(path)
    try: s.sendmsg([b"x"], [(L, socket.SCM_RIGHTS, array.array("i", [0]))])
    except OSError as e:
        print(errno.errorcode[e.errno])
        s.send(b"x")
    print(s.recv(16).decode())
def datagrams(path):
    s = connected(path, socket.SOCK_DGRAM)
    s.send(b"sent")
    for word in [b"first", b"second"]: socket.socket(U, socket.SOCK_DGRAM).sendto(word, path)
    t = socket.socket(U, socket.SOCK_DGRAM)
    for n in range(300): t.sendto(b"%d" % n, path)
    s.connect(path)
    s.send(b"last")
    try: connected(path)
    except OSError as e: print(errno.errorcode[e.errno])
def slow(path):
    "Connections beyond the backlog: without waiting, and with."
    held, refused = [], None
    for _ in range(8):
        s = socket.socket(U)
        s.setblocking(False)
        try: s.connect(path)
        except OSError as e:
            refused = errno.errorcode[e.errno]
            break
        held.append(s)
    s.setblocking(True)
    begin = time.time()
    s.connect(path)
    s.shutdown(socket.SHUT_WR)
    print(refused, s.recv(1), 0.01 < time.time() - begin < 20)
def refused(path):
    for kind in [1, 5, 2]:
        try: connected(path, kind)
        except OSError as e: print(errno.errorcode[e.errno], end=" ")
globals()[sys.argv[1]](sys.argv[2])
END

serve() { python3 "$WORK/serve.py" "$1" & PIDS="$PIDS $!"; eventually 20 test -e "$1/ready"; }
serve "$WORK/dir"
# ask WHAT [FLAGS...]: with the socket of that name mounted by itself.
ask() {
    local what=$1
    shift
    drun -v "$WORK/ask.py:/ask.py:ro" -v "$WORK/dir/$what:/run/$what" "$@" $FULL python3 /ask.py "$what" "/run/$what"
}
mine() { [ "$RUNTIME" != runc ]; }

engine() {
    contains "$(drun -v /var/run/docker.sock:/var/run/docker.sock $FULL curl -s --unix-socket /var/run/docker.sock http://x/version)" '"ApiVersion"'
    contains "$(drun -v /var/run/docker.sock:/docker.sock:ro $FULL curl -s --unix-socket /docker.sock "http://x/containers/json?all=1")" '"Id"'
}
# Ordinary users need the file's permission.
permission() {
    equal "EACCES EACCES EACCES " "$(drun -u 1234 -v "$WORK/ask.py:/ask.py:ro" -v /var/run/docker.sock:/docker.sock $FULL python3 /ask.py refused /docker.sock)"
}
stream() { equal "True stream '' 0 0 0 0 EISCONN" "$(ask stream | tr '\n' ' ' | sed 's/ $//')"; }
as_others() { contains "$(ask stream -u 1234)" "True stream"; }
packets() {
    local out
    out=$(ask packets)
    if mine; then equal "file 0 True 0 5" "$out"; else equal "file 1 False 0 7" "$out"; fi
}
files() {
    if mine; then equal "EPERM 0" "$(ask files | tr '\n' ' ' | sed 's/ $//')"; else equal 1 "$(ask files)"; fi
}
datagrams() {
    rm -f "$WORK/dir/heard"
    equal EPROTOTYPE "$(ask datagrams)"
    eventually 20 grep -q last "$WORK/dir/heard"
    equal "$(echo sent; echo first; echo second; seq 0 299; echo last)" "$(cat "$WORK/dir/heard")"
}
full_backlog() { equal "EAGAIN b'' True" "$(ask slow)"; }
nobody_serves() {
    python3 -c 'import socket, sys; socket.socket(1, 1).bind(sys.argv[1])' "$WORK/dir/dead" && chmod 777 "$WORK/dir/dead"
    equal "ECONNREFUSED ECONNREFUSED ECONNREFUSED " "$(drun -v "$WORK/ask.py:/ask.py:ro" -v "$WORK/dir/dead:/dead" $FULL python3 /ask.py refused /dead)"
}
fifo_to_the_host() {
    mkfifo -m 666 "$WORK/up"
    local id
    id=$(dstart -v "$WORK/up:/up" $FULL sh -c 'echo began; seq 100000 >/up; exit 7')
    eventually 30 sh -c "docker logs $id | grep -q began"
    equal "$(seq 100000 | sha256sum)" "$(timeout 30 cat "$WORK/up" | sha256sum)"
    equal 7 "$(timeout 30 docker wait "$id")"
}
fifo_from_the_host() {
    mkfifo -m 666 "$WORK/down"
    local id
    id=$(dstart -v "$WORK/down:/down" $FULL sh -c 'echo began; sha256sum </down; exit 7')
    eventually 30 sh -c "docker logs $id | grep -q began"
    sleep 0.3
    equal true "$(docker inspect -f '{{.State.Running}}' "$id")"
    seq 100000 | timeout 30 tee "$WORK/down" >/dev/null
    equal 7 "$(timeout 30 docker wait "$id")"
    contains "$(docker logs "$id")" "$(seq 100000 | sha256sum)"
    # Somebody who writes nothing is an end of the wait, too; a signal is one.
    equal "|124 124" "$(drun -v "$WORK/down:/down" $FULL sh -c 'sleep 3 & timeout 1 cat /down; a=$?; timeout 1 sh -c "echo >/down"; echo "|$a $?"')"
    id=$(dstart -v "$WORK/down:/down" $FULL sh -c 'echo began; cat /down; exit 9')
    eventually 30 sh -c "docker logs $id | grep -q began"
    timeout 30 sh -c ": >$WORK/down"
    equal 9 "$(timeout 30 docker wait "$id")"
}
fifo_between_containers() {
    mkfifo -m 666 "$WORK/across"
    local id
    id=$(dstart -v "$WORK/across:/a" $FULL sh -c 'seq 5000 >/a')
    equal "$(seq 5000 | sha256sum)" "$(drun -v "$WORK/across:/b" $FULL sha256sum /b | sed 's,/b,-,')"
    # Without waiting: no reader is ENXIO, no writer the end of the file.
    equal "6 b''" "$(drun -v "$WORK/across:/a" $FULL python3 -c 'import os
try: os.open("/a", os.O_WRONLY | os.O_NONBLOCK)
except OSError as e: print(e.errno, end=" ")
print(os.read(os.open("/a", os.O_RDONLY | os.O_NONBLOCK), 9))')"
    docker wait "$id" >/dev/null
}

# A folder is no grant of the sockets in it, but with --host-uds=open.
in_folders() {
    drun -v "$WORK:/w" $FULL python3 /w/ask.py "$1" "/w/dir/${2:-$1}" 2>&1 | tail -1
}
folder_by_default() {
    mine || return 0
    contains "$(in_folders stream)" "Connection refused"
    equal "ECONNREFUSED ECONNREFUSED ECONNREFUSED " "$(in_folders refused stream)"
    [ -e "$WORK/shut" ] || mkfifo -m 666 "$WORK/shut"
    (timeout 20 sh -c "echo from outside >$WORK/shut" &)
    equal "from inside" "$(drun -v "$WORK:/w" $FULL sh -c 'echo from inside >/w/shut & cat /w/shut')"
    timeout 5 cat "$WORK/shut" >/dev/null
}
nothing_is_granted() {
    mine || return 0
    with_flag --host-uds=none
    contains "$(ask stream 2>&1)" "Connection refused"
    contains "$(drun -v /var/run/docker.sock:/docker.sock $FULL curl -sS --unix-socket /docker.sock http://x/version 2>&1)" "onnect"
    [ -e "$WORK/shut" ] || mkfifo -m 666 "$WORK/shut"
    equal 124 "$(drun -v "$WORK/shut:/f" $FULL sh -c 'timeout 1 sh -c ": >/f"; echo $?')"
}
open_folders() {
    with_flag --host-uds=open
    contains "$(in_folders stream)" EISCONN
    rm -f "$WORK/dir/heard"
    contains "$(in_folders datagrams)" EPROTOTYPE
    eventually 20 grep -q last "$WORK/dir/heard"
    # Links lead where they lead in the container.
    ln -sf /var/run/docker.sock "$WORK/dir/link"
    contains "$(in_folders stream link)" "No such file"
    ln -sf stream "$WORK/dir/link"
    contains "$(in_folders stream link)" EISCONN
    # What is mounted read-only can be looked at.
    if mine; then
        contains "$(drun -v "$WORK:/w:ro" $FULL python3 /w/ask.py stream /w/dir/stream 2>&1)" "Connection refused"
    fi
    # Programs of the container meet as ever.
    equal hello "$(drun -v "$WORK/dir:/w" $FULL python3 -c '
import os, socket
s = socket.socket(1); s.bind("/w/own"); s.listen()
if os.fork() == 0:
    c = socket.socket(1); c.connect("/w/own"); c.send(b"hello"); os._exit(0)
print(s.accept()[0].recv(9).decode())')"
    # A server that is begun anew has another file of the same name.
    local id
    id=$(dstart -v "$WORK:/w" $FULL sh -c 'while sleep 0.2; do python3 /w/ask.py refused /w/dir/again/stream; done')
    mkdir -p "$WORK/dir/again"
    for _ in 1 2; do
        rm -f "$WORK/dir/again/ready"
        python3 "$WORK/serve.py" "$WORK/dir/again" &
        eventually 20 test -e "$WORK/dir/again/ready"
        equal "EPROTOTYPE EPROTOTYPE " "$(dexec "$id" python3 /w/ask.py refused /w/dir/again/stream)"
        kill $!
    done
}

# Servers in one container, programs of the host and of another container.
bound_for_all() {
    with_flag --host-uds=all
    local id
    mkdir -m 777 "$WORK/all"
    id=$(dstart -v "$WORK:/w" $FULL python3 /w/serve.py /w/all)
    eventually 30 test -e "$WORK/all/ready"
    equal "socket 777 0 0" "$(stat -c '%F %a %u %g' "$WORK/all/stream")"
    # From outside.
    contains "$(cd "$WORK/all" && python3 "$WORK/ask.py" stream stream)" "EISCONN"
    contains "$(cd "$WORK/all" && python3 "$WORK/ask.py" datagrams datagrams)" EPROTOTYPE
    eventually 20 grep -q last "$WORK/all/heard"
    equal "$(echo sent; echo first; echo second; seq 0 299; echo last)" "$(cat "$WORK/all/heard")"
    contains "$(cd "$WORK/all" && python3 "$WORK/ask.py" slow slow)" "b'' True"
    # From another container, of either runtime, from this one, and by who may not.
    contains "$(drun -v "$WORK:/w" $FULL python3 /w/ask.py stream /w/all/stream)" "EISCONN"
    contains "$(timeout 60 docker run --rm --runtime runc -v "$WORK:/w" $FULL python3 /w/ask.py stream /w/all/stream)" "EISCONN"
    contains "$(dexec "$id" python3 /w/ask.py stream /w/all/stream)" "EISCONN"
    chmod 700 "$WORK/all/stream"
    contains "$(drun -u 1234 -v "$WORK:/w" $FULL python3 /w/ask.py refused /w/all/stream)" "EACCES"
    # The name is taken; its owner and permissions are those of who binds.
    equal "98 socket 755 1234 77" "$(drun -u 1234:77 -v "$WORK/all:/w" $FULL sh -c 'umask 022; python3 -c "
import socket
try: socket.socket(1).bind(\"/w/stream\")
except OSError as e: print(e.errno, end=chr(32))
socket.socket(1, 2).bind(\"/w/other\")"; stat -c "%F %a %u %g" /w/other')"
    docker kill "$id" >/dev/null
    equal "ECONNREFUSED ECONNREFUSED ECONNREFUSED " "$(python3 "$WORK/ask.py" refused "$WORK/all/stream")"
}

for test in engine permission stream as_others packets files datagrams full_backlog nobody_serves fifo_to_the_host \
    fifo_from_the_host fifo_between_containers folder_by_default nothing_is_granted open_folders bound_for_all; do
    run_test $test
done
