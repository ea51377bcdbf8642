#!/bin/bash
# Python's libraries are a good sample of what programs ask of a kernel.
. "$(dirname "$0")/../lib.sh"
WORK=$(mktemp -d /tmp/sallet-do.XXXXXX)
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
sandbox() {
    if [ -n "$SALLET" ]; then timeout -k 1 15 "$SALLET" do -- "$@"; else timeout 15 "$@"; fi
}
python() { sandbox python3 -c "$1"; }

threads() { equal 4950 "$(python '
import threading, queue
q = queue.Queue()
ts = [threading.Thread(target=lambda i=i: q.put(i)) for i in range(100)]
[t.start() for t in ts]; [t.join() for t in ts]
print(sum(q.get() for _ in range(100)))')"; }
thread_pool() { equal 328350 "$(python '
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as p: print(sum(p.map(lambda x: x * x, range(100))))')"; }
subprocesses() { equal "ABC 3" "$(python '
import subprocess
print(subprocess.run(["tr", "a-z", "A-Z"], input=b"abc", capture_output=True).stdout.decode(), subprocess.run(["sh", "-c", "exit 3"]).returncode)')"; }
multiprocessing() {
    cat >m.py <<'END'
import multiprocessing as mp
def f(x): return x * x
if __name__ == "__main__":
    with mp.Pool(4) as p: print(sum(p.map(f, range(100))))
END
    equal 328350 "$(sandbox python3 m.py)"
}
shared_memory() {
    cat >s.py <<'END'
import multiprocessing as mp
from multiprocessing import shared_memory
def f(name):
    s = shared_memory.SharedMemory(name); s.buf[0] = 42; s.close()
if __name__ == "__main__":
    s = shared_memory.SharedMemory(create=True, size=4096)
    p = mp.Process(target=f, args=(s.name,)); p.start(); p.join()
    print(s.buf[0]); s.close(); s.unlink()
END
    equal 42 "$(sandbox python3 s.py)"
}
asyncio_server() { equal "pong" "$(python '
import asyncio
async def serve(r, w):
    await r.readline(); w.write(b"pong\n"); await w.drain(); w.close()
async def main():
    s = await asyncio.start_server(serve, "127.0.0.1", 0)
    r, w = await asyncio.open_connection(*s.sockets[0].getsockname())
    w.write(b"ping\n"); print((await r.readline()).decode().strip()); w.close()
asyncio.run(main())')"; }
asyncio_unix() { equal "pong" "$(python '
import asyncio
async def serve(r, w):
    await r.readline(); w.write(b"pong\n"); await w.drain(); w.close()
async def main():
    s = await asyncio.start_unix_server(serve, "/tmp/s")
    r, w = await asyncio.open_unix_connection("/tmp/s")
    w.write(b"ping\n"); print((await r.readline()).decode().strip()); w.close()
asyncio.run(main())')"; }
asyncio_process() { equal "x" "$(python '
import asyncio
async def main():
    p = await asyncio.create_subprocess_exec("echo", "x", stdout=-1)
    print((await p.communicate())[0].decode().strip())
asyncio.run(main())')"; }
sqlite() { equal "1000" "$(python '
import sqlite3
d = sqlite3.connect("/tmp/db"); d.execute("pragma journal_mode=wal"); d.execute("create table t(a)")
for i in range(10):
    with d: d.executemany("insert into t values(?)", [(j,) for j in range(100)])
print(sqlite3.connect("/tmp/db").execute("select count(*) from t").fetchone()[0])')"; }
signals() { equal "alarm" "$(python '
import signal, time
def h(*a): raise KeyboardInterrupt
signal.signal(signal.SIGALRM, h); signal.setitimer(signal.ITIMER_REAL, 0.1)
try: time.sleep(10)
except KeyboardInterrupt: print("alarm")')"; }
mmap_file() { equal "b'hello'" "$(python '
import mmap
f = open("/tmp/m", "w+b"); f.write(b"x" * 4096); f.flush()
m = mmap.mmap(f.fileno(), 4096); m[0:5] = b"hello"; m.flush(); f.seek(0); print(f.read(5))')"; }
temporary_files() { equal "True False" "$(python '
import tempfile, os
with tempfile.TemporaryDirectory() as d:
    open(d + "/a", "w").write("x"); os.mkdir(d + "/b"); e = os.path.exists(d + "/a")
print(e, os.path.exists(d))')"; }
select_poll() { equal "1 1 1" "$(python '
import select, os
r, w = os.pipe(); os.write(w, b"x")
p = select.poll(); p.register(r, 1); e = select.epoll(); e.register(r, 1)
print(len(select.select([r], [], [], 1)[0]), len(p.poll(1000)), len(e.poll(1)))')"; }
pseudo_terminal() { equal "ok" "$(python '
import pty, os
pid, fd = pty.fork()
if pid == 0: os.execvp("sh", ["sh", "-c", "test -t 0 && echo yes"])
out = os.read(fd, 100); os.waitpid(pid, 0); print("ok" if b"yes" in out else out)')"; }
file_locks() { equal "held" "$(python '
import fcntl, os
f = open("/tmp/l", "w"); fcntl.flock(f, fcntl.LOCK_EX)
g = open("/tmp/l", "w")
try: fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB); print("free")
except BlockingIOError: print("held")')"; }
walk() { equal "$(python3 -c 'import os; print(sum(len(f) for _, _, f in os.walk("/usr/lib/python3")))')" "$(python 'import os; print(sum(len(f) for _, _, f in os.walk("/usr/lib/python3")))')"; }
compile_all() { exits 0 sandbox python3 -c 'import compileall, shutil; shutil.copytree("/usr/lib/python3.11/json", "/tmp/j"); assert compileall.compile_dir("/tmp/j", quiet=1)'; }
resources() { equal "True True" "$(python '
import resource, os
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0, os.cpu_count() >= 1)')"; }
virtual_environment() { exits 0 sandbox python3 -c 'import platform, socket, getpass, locale, ssl, hashlib, uuid; platform.platform(); socket.gethostname(); uuid.uuid1(); getpass.getuser()'; }

for t in threads thread_pool subprocesses multiprocessing shared_memory asyncio_server asyncio_unix asyncio_process sqlite \
    signals mmap_file temporary_files select_poll pseudo_terminal file_locks walk compile_all resources virtual_environment; do
    run_test $t
done
