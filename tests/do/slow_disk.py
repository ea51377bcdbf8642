#!/usr/bin/env python3
"""A slow disk of the host keeps those waiting that use it, and nobody else. The yardstick is the host.

The disk is a FUSE file system, served here, each of whose files answers after so many milliseconds as its name says."""
import ctypes, os, struct, subprocess, sys, tempfile, threading, time

SALLET = os.environ.get("SALLET")
TIMES = float(os.environ.get("SLOW", "1"))

INIT, LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, OPENDIR, READDIR, RELEASEDIR = (
    26, 1, 2, 3, 4, 14, 15, 16, 17, 18, 20, 25, 27, 28, 29)
SIZE = 1 << 20


class Disk:
    """Serves that file system at a place."""

    def __init__(self, place):
        self.place, self.fd = place, os.open("/dev/fuse", os.O_RDWR)
        self.waits = {}
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={self.fd},rootmode=40000,user_id=0,group_id=0,allow_other"
        if libc.mount(b"slow", place.encode(), b"fuse.slow", 0, options.encode()) < 0:
            raise OSError(ctypes.get_errno(), "mount")
        threading.Thread(target=self.serve, daemon=True).start()

    def end(self):
        ctypes.CDLL(None).umount2(self.place.encode(), 2)

    def attributes(self, node):
        kind = 0o40755 if node == 1 else 0o100666
        return struct.pack("<QQQQQQIIIIIIIIII", node, 0 if node == 1 else SIZE, 8, 0, 0, 0, 0, 0, 0, kind, 1, 0, 0, 0, 4096, 0)

    def serve(self):
        while True:
            try:
                message = os.read(self.fd, 1 << 18)
            except OSError:
                return
            _, opcode, unique, node = struct.unpack_from("<IIQQ", message)
            body = message[40:]
            wait = self.waits.get(node, 0) if opcode in (READ, WRITE, FSYNC) else 0
            if wait:
                # They wait side by side.
                threading.Timer(wait / 1000, self.reply, (opcode, unique, node, body)).start()
            else:
                self.reply(opcode, unique, node, body)

    def reply(self, opcode, unique, node, body):
        error, answer = 0, b""
        if opcode == INIT:
            answer = struct.pack("<IIIIHHIIHHI28x", 7, 31, 1 << 16, 0, 64, 48, 1 << 16, 1, 16, 0, 0)
        elif opcode == LOOKUP:
            name = body.rstrip(b"\0").decode()
            if name.replace("-", "").isdigit():
                child = 2 + len(self.waits)
                self.waits[child] = int(name.split("-")[0])
                answer = struct.pack("<QQQQII", child, 0, 3600, 3600, 0, 0) + self.attributes(child)
            else:
                error = -2
        elif opcode in (GETATTR, SETATTR):
            answer = struct.pack("<QII", 3600, 0, 0) + self.attributes(node)
        elif opcode in (OPEN, OPENDIR):
            answer = struct.pack("<QII", 0, 0, 0)
        elif opcode == READ:
            size = struct.unpack_from("<QQI", body)[2]
            answer = b"x" * size
        elif opcode == WRITE:
            answer = struct.pack("<II", struct.unpack_from("<QQI", body)[2], 0)
        elif opcode == STATFS:
            answer = struct.pack("<QQQQQIIII24x", 1 << 30, 1 << 30, 1 << 30, 1 << 20, 1 << 20, 4096, 255, 4096, 0)
        elif opcode == FORGET:
            return
        elif opcode not in (RELEASE, FLUSH, RELEASEDIR, FSYNC, READDIR):
            error = -38
        try:
            os.write(self.fd, struct.pack("<IiQ", 16 + len(answer), error, unique) + answer)
        except OSError:
            pass


# So many processes do something with a slow file each, while this one makes calls, of which it tells the longest one and
# the longest but for one in a hundred, in milliseconds.
INSIDE = r"""
import os, sys, time
does, count, place = sys.argv[1], int(sys.argv[2]), sys.argv[3]
shared = os.open(place + "/1500", os.O_RDWR)
children = []
for i in range(count):
    if pid := os.fork():
        children.append(pid)
        continue
    name = f"{place}/1500-{i}"
    if does == "read":
        os.pread(os.open(name, os.O_RDONLY), 4096, 0)
    elif does == "write":
        os.write(os.open(name, os.O_WRONLY), b"y" * 4096)
    elif does == "read_together":
        os.read(shared, 4096)
    elif does == "append":
        os.write(os.open(name, os.O_WRONLY | os.O_APPEND), b"y" * 100)
    elif does == "write_synchronously":
        os.write(os.open(name, os.O_WRONLY | os.O_DSYNC), b"y" * 100)
    elif does == "send":
        ours, theirs = os.pipe()
        os.sendfile(theirs, os.open(name, os.O_RDONLY), 0, 4096)
    os._exit(0)
times = []
r, w = os.pipe()
begun = now = time.monotonic()
while now < begun + 1.2:
    os.stat("/etc/passwd")
    os.write(w, b"x")
    os.read(r, 1)
    before, now = now, time.monotonic()
    times.append((now - before) * 1000)
    time.sleep(0.001)
    now = time.monotonic()
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
took = time.monotonic() - begun
# A wait for a disk is told by those who wait.
assert took > 1.4, took
times.sort()
print(times[-1], times[len(times) * 99 // 100])
"""


def others_go_on(disk, does, count):
    command = [SALLET, "do", "--rw", disk.place, "--"] if SALLET else []
    command += ["python3", "-c", INSIDE, does, str(count), disk.place]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120 * TIMES)
    assert done.returncode == 0, done.stderr[-500:]
    longest, most = map(float, done.stdout.split())
    # One that is heard by a thread which then waits is taken over from it.
    assert longest < 500 * TIMES and most < 50 * TIMES, f"a call took {longest} ms, one in a hundred {most} ms"


def main():
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        print("skip slow_disk: root mounts a FUSE file system")
        return
    place = tempfile.mkdtemp(prefix="sallet-slow.")
    os.chmod(place, 0o755)
    try:
        disk = Disk(place)
    except OSError as error:
        os.rmdir(place)
        print(f"skip slow_disk: {error}")
        return
    try:
        for does in "read", "write", "append", "write_synchronously", "send", "read_together":
            for count in (1, 4) if does == "read_together" else (1, 40):
                name = f"others_go_on_while_{count}_{does}"
                try:
                    others_go_on(disk, does, count)
                    print(f"ok {name}", flush=True)
                except Exception as error:
                    print(f"FAIL {name}: {' '.join(str(error).split())}", flush=True)
    finally:
        disk.end()
        os.rmdir(place)


main()
