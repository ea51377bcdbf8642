#!/usr/bin/env python3
"""`--strace` beside strace(1) on the host: the same program, the same lines."""
import os, re, shutil, subprocess, sys, tempfile

SALLET = os.environ.get("SALLET")
if not SALLET:
    print("skip all: strace is the yardstick itself")
    sys.exit(0)
WORK = tempfile.mkdtemp(prefix="sallet-strace.")
HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"

CALLS = r'''
import fcntl, os, resource, select, signal, socket, time
def mark(n): os.access(f"/mark/{n}", os.F_OK)
def fails(call, *args):
    try: call(*args)
    except OSError: pass
mark("begin")
fd = os.open("/etc/hostname", os.O_RDONLY)
os.close(fd)
fails(os.open, "/no/such\nmark() = 0", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
fails(os.access, "/x" * 500, os.R_OK | os.X_OK)
fails(os.stat, "")
os.stat("/dev/null")
r, w = os.pipe()
os.write(w, b"x\x1b[31m\x00" + b"1" * 50)
os.read(r, 100)
os.writev(w, [b"abc", b"def"])
os.readv(r, [bytearray(2), bytearray(10)])
poll = select.poll()
poll.register(r, select.POLLIN)
poll.register(w, select.POLLOUT | select.POLLERR)
poll.poll(0)
fcntl.fcntl(r, fcntl.F_SETFL, os.O_NONBLOCK)
fcntl.fcntl(r, fcntl.F_GETFL)
fcntl.fcntl(r, fcntl.F_GETFD)
fcntl.fcntl(r, fcntl.F_DUPFD, 50)
fails(os.read, r, 5)
ep = select.epoll()
ep.register(w, select.EPOLLOUT | select.EPOLLET)
ep.modify(w, select.EPOLLIN)
os.eventfd(3, os.EFD_NONBLOCK)
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", 0))
server.listen(3)
client = socket.socket()
client.connect(server.getsockname())
peer = server.accept()[0]
client.send(b"hello")
peer.recv(100, socket.MSG_WAITALL | socket.MSG_PEEK) if False else peer.recv(100)
peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
peer.shutdown(socket.SHUT_WR)
fails(client.connect, ("127.0.0.1", 1))
one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
one.sendmsg([b"one", b"two"])
fails(socket.socket(socket.AF_UNIX).connect, "/no/such")
fails(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).connect, "\0abstract\n")
fails(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).bind, ("2001:db8::1", 53))
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR2])
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGUSR2])
for end in (lambda: os._exit(3), lambda: os.kill(os.getpid(), 9)):
    mark("fork")
    pid = os.fork()
    if pid == 0: end()
    os.waitpid(pid, 0)
mark("joined")
resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
fails(os.rename, "/no/a", "/no/b")
fails(os.setxattr, "/no/a", "user.a", b"1\n", os.XATTR_CREATE)
fails(os.setxattr, 99, "user.a", b"")
fails(os.getxattr, "/no/a", "user.a")
fails(os.removexattr, "/no/a", "user.a")
fails(os.unlink, "/no/a")
fails(os.mkdir, "/no/a/b", 0o750)
fails(os.chmod, "/no/a", 0o4755)
fails(os.symlink, "target", "/no/a")
fails(os.execve, "/no/such", ["a", "b" * 40, "c\n"], {"A": "b"})
fails(os.execve, "/no/such", ["a"], {"A": "b", "C": "d"})
fails(os.kill, 999999, signal.SIGTERM)
time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)
mark("end")
'''

FUZZ = r'''
import ctypes, mmap, os, random
libc = ctypes.CDLL(None, use_errno=True)
random.seed(int(os.environ.get("SEED", "1")))
room = mmap.mmap(-1, 1 << 20)
base = ctypes.addressof(ctypes.c_char.from_buffer(room)) + (1 << 19)
# Not those that end, stop or block the process, or take its memory away.
avoid = {9, 10, 11, 12, 13, 14, 15, 23, 24, 25, 34, 35, 36, 37, 38, 56, 57, 58, 60, 61, 62, 101, 109, 112, 128, 129,
         130, 131, 157, 158, 200, 202, 207, 218, 222, 223, 230, 231, 234, 247, 270, 271, 273, 281, 282, 297, 298, 310, 311, 317, 334,
         435, 436, 441, 449, 26, 27, 28, 149, 150, 216, 219, 325, 329, 7, 232, 22, 32, 33, 3, 43, 45, 47, 288, 299, 0, 17, 19,
         20, 1, 18, 295, 296, 327, 328, 40, 275, 276, 278, 44, 46, 307, 42, 59, 322, 65, 220, 69, 70, 242, 243, 72, 73, 16, 168, 453, 454, 455, 456, 161, 155, 272, 308, 165, 166}
wild = [0, 1, 2, 3, 7, -1, -100, 0x7fffffff, 1 << 31, 1 << 47, (1 << 64) - 1, base, base + 8190, base + 1, 4096, 0x700000000000]
for _ in range(4000):
    if random.random() < 0.1:
        room[1 << 19:(1 << 19) + 8192] = bytes(random.choice(b"\0\1\2\n\x1b/a\xff") for _ in range(64)) * 128
    nr = random.choice([n for n in range(0, 470) if n not in avoid])
    libc.syscall(ctypes.c_long(nr), *[ctypes.c_long(ctypes.c_int64(random.choice(wild) & (1 << 64) - 1).value) for _ in range(6)])
print("alive")
'''


def traced(script, sallet):
    path, out = WORK + "/script.py", WORK + "/trace"
    with open(path, "w") as file:
        file.write(script)
    if os.path.exists(out):
        os.unlink(out)
    if sallet:
        words = [SALLET, "--debug-log", out, "--strace", "do", "--ro", WORK, "--", PYTHON, "-S", path]
    else:
        words = ["strace", "-f", "-o", out, PYTHON, "-S", path]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, cwd="/usr")
    return done, open(out, errors="replace").read().split("\n")


def shape(line):
    """A line without what differs from run to run."""
    line = re.sub(r"^\[pid +\d+\] |^\d+ +", "", line)
    line = re.sub(r"\) += ", ") = ", line)
    line = re.sub(r"0x[0-9a-f]{5,}", "ADDRESS", line)
    line = re.sub(r"htons\((?!53\)|0\)|1\))\d+\)", "htons(PORT)", line)
    line = re.sub(r"u32=\d+, u64=\d+", "DATA", line)
    line = re.sub(r"rlim_(cur|max)=[^,}]+", r"rlim_\1=N", line)
    line = re.sub(r"tv_n?sec=\d+", "T", line)
    line = re.sub(r"^(clone|wait4)\((\d+)?", r"\1(", line)
    return re.sub(r"^((?:clone|wait4|getpid)\(.*) = \d+", r"\1 = PID", line)


def shown(lines):
    """Between the marks, of the first process where there are several; and no signals, which only strace shows."""
    lines = [shape(line) for line in lines]
    first = next(i for i, line in enumerate(lines) if "/mark/begin" in line)
    last = next(i for i, line in enumerate(lines) if "/mark/end" in line)
    # A process ends as it likes in between.
    out, skip = [], False
    for line in lines[first:last]:
        skip = "/mark/fork" in line or (skip and "/mark/joined" not in line)
        if not skip and not re.match(r"---|\+\+\+|mmap|munmap|brk|mprotect|futex|rt_sigreturn|madvise", line):
            out.append(line)
    return out


def same_as_strace():
    _, ours = traced(CALLS, True)
    _, theirs = traced(CALLS, False)
    wanted, got = shown(theirs), shown(ours)
    assert len(wanted) > 60, "the yardstick shows nothing"
    # recvmsg and the like have lengths that strace shows as "110 => 0".
    for one, other in zip(wanted, got):
        assert one == other, f"wanted {one!r}, got {other!r}"
    assert len(wanted) == len(got), f"{len(wanted)} lines, {len(got)} lines"
    text = "\n".join(ours)
    for part in ("[{WIFEXITED(s) && WEXITSTATUS(s) == 3}], 0, NULL)", "[{WIFSIGNALED(s) && WTERMSIG(s) == SIGKILL}]",
                 "flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x", "exit_group(3)"):
        assert part in text, part
    assert re.search(r"^\[pid +\d+\] exit_group\(3\) +\) *= \?|exit_group\(3\) += \?", text, re.M), "the end of a process"


def no_line_of_the_guest():
    _, lines = traced(CALLS, True)
    odd = [line for line in lines if line and not re.match(r"\[pid +\d+\] \w+\(.*= |INFO|WARN|DEBUG|ERROR", line)]
    assert not odd, odd[:3]
    bad = [line for line in lines if re.search(r"[\x00-\x1f\x7f]", line)]
    assert not bad, bad[:3]


def any_arguments():
    done, lines = traced(FUZZ, True)
    assert done.stdout.strip() == "alive", (done.returncode, done.stdout[-200:], done.stderr[-300:], lines[-3:])
    assert len(lines) > 4000, len(lines)
    assert not any("panick" in line or "unexpectedly" in line for line in lines)
    assert max(map(len, lines)) < 100_000, max(map(len, lines))


if not shutil.which("strace") or subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode:
    print("skip same_as_strace: no strace here")
    tests = [no_line_of_the_guest, any_arguments]
else:
    tests = [same_as_strace, no_line_of_the_guest, any_arguments]
try:
    for test in tests:
        try:
            test()
            print(f"ok {test.__name__}", flush=True)
        except Exception as error:
            print(f"FAIL {test.__name__}: {type(error).__name__}: {' '.join(str(error).split())[:600]}", flush=True)
finally:
    shutil.rmtree(WORK, ignore_errors=True)
