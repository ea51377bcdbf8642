#!/usr/bin/env python3
"""Which calls wait for an answer, by `events --stats`, where most need not."""
import json, os, subprocess, sys

SALLET = os.environ.get("SALLET")
if not SALLET:
    print("skip all: on the host all calls are native")
    sys.exit(0)

# Much is sent, read in small pieces, and asked after each how much waits.
ROUNDS, PIECES = 300, 12
SCRIPT = f"""
import array, fcntl, os, select, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
sender = socket.create_connection(listener.getsockname())
reader = listener.accept()[0]
if os.fork() == 0:
    for _ in range({ROUNDS}):
        sender.sendall(bytes({PIECES} * 8192))
        sender.recv(10)
    os._exit(0)
epoll = select.epoll()
epoll.register(reader, select.EPOLLIN)
for _ in range({ROUNDS}):
    left = {PIECES} * 8192
    while left > 0:
        epoll.poll()
        while True:
            left -= len(reader.recv(8192))
            waiting = array.array("i", [0])
            fcntl.ioctl(reader, 0x541b, waiting)
            if waiting[0] == 0:
                break
    reader.send(b"next")
os.wait()
print("done", flush=True)
sys.stdin.read()
"""


def asked():
    """How many of the questions were answered by the kernel process."""
    command = [SALLET, "do", "--", "/usr/bin/python3", "-c", SCRIPT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sandbox:
        try:
            assert sandbox.stdout.readline() == "done\n"
            stats = subprocess.run([SALLET, "events", "--stats", f"do-{sandbox.pid}"], capture_output=True, text=True, check=True)
            return json.loads(stats.stdout)["kernel"]["calls"].get("ioctl", 0)
        finally:
            sandbox.stdin.close()


# Posting rests where it does not pay, which others on the machine may cause.
counts = []
while len(counts) < 5 and min(counts, default=ROUNDS * PIECES) > ROUNDS * PIECES // 6:
    counts.append(asked())
good = counts[-1] <= ROUNDS * PIECES // 6
print("ok what_waits_is_told" if good else f"FAIL what_waits_is_told: asked {counts} times of {ROUNDS * PIECES}")
sys.exit(not good)
