#!/usr/bin/env python3
"""Reads at offsets of the host's files, made again and again: right whatever becomes of the file, without a call each,
and seen by who wants to see them."""
import json, os, subprocess, sys, tempfile, time

SALLET = os.environ.get("SALLET")
WORK = tempfile.mkdtemp(prefix="sallet-reads.")
PYTHON = "/usr/bin/python3"


def sandbox(program, *words, flags=(), options=()):
    command = [PYTHON, "-c", program, *words]
    if SALLET:
        command = [SALLET, *flags, "do", "--rw", WORK, *options, "--", *command]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def equal(wanted, got):
    if wanted != got:
        raise Exception(f"wanted {wanted!r}, got {got!r}")


def end(process):
    out, err = process.communicate(timeout=60)
    if process.returncode != 0:
        raise Exception(f"{process.returncode}: {out} {err}")
    return out, err


def file(name, content):
    path = os.path.join(WORK, name)
    with open(path, "wb") as made:
        made.write(content)
    return path


READER = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
for _ in range(1000): os.pread(fd, 4096, 0)
print("ready", flush=True)
for line in sys.stdin:
    seen = {os.pread(fd, 4096, int(line)) for _ in range(20)}
    print(seen, flush=True)
"""


def ask(process, offset):
    process.stdin.write(f"{offset}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def changed_by_the_host():
    path = file("changed", b"one" * 2000)
    process = sandbox(READER, path)
    equal("ready", process.stdout.readline().strip())
    equal(str({b"ne" + b"one" * 666}), ask(process, 4000))
    with open(path, "r+b") as other:
        other.seek(4000)
        other.write(b"two")
        other.flush()
        equal(True, ask(process, 4000).startswith("{b'two"))
        other.truncate(4001)
        equal(str({b"t"}), ask(process, 4000))
        equal(str({b""}), ask(process, 4096))
    # Another file by that name is not this one.
    os.rename(file("new", b"new"), path)
    equal(str({b"t"}), ask(process, 4000))
    end(process)


def is_not_asked():
    if not SALLET:
        return
    path = file("often", b"x" * 8192)
    process = sandbox(READER, path)
    equal("ready", process.stdout.readline().strip())
    ask(process, 0)
    done = subprocess.run([SALLET, "events", "--stats", f"do-{process.pid}"], capture_output=True, text=True, timeout=60)
    count = json.loads(done.stdout)["kernel"]["calls"]["pread64"]
    end(process)
    if not 10 <= count <= 200:
        raise Exception(f"{count} of 1020 reads were calls")


def is_shown():
    if not SALLET:
        return
    path = file("shown", b"x" * 8192)
    process = sandbox(READER, path, flags=("--strace",))
    _, err = end(process)
    seen = sum("pread64(" in line and ", 4096, 0) = 4096" in line for line in err.splitlines())
    if seen != 1000:
        raise Exception(f"{seen} of 1000 reads were seen")


def is_counted_by_a_tracer():
    # strace(1) inside attaches to what reads already.
    path = file("traced", b"x" * 8192)
    program = """
import os, subprocess, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
for _ in range(1000): os.pread(fd, 4096, 0)
tracer = subprocess.Popen(["strace", "-o", sys.argv[1] + ".log", "-e", "trace=pread64", "-p", str(os.getpid())],
                          stderr=subprocess.PIPE, text=True)
tracer.stderr.readline()
for _ in range(50): os.pread(fd, 4096, 4096)
os.close(fd)
tracer.terminate()
tracer.wait()
print(open(sys.argv[1] + ".log").read().count("4096, 4096) = 4096"))
"""
    equal("50\n", end(sandbox(program, path))[0])


def advice_reaches_the_cache():
    path = file("advised", b"x" * 65536)
    with open(path, "rb+") as made:
        os.fsync(made.fileno())
        os.posix_fadvise(made.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def cached(wanted):
        for _ in range(100):
            found = subprocess.run(["fincore", "-n", "-b", "-o", "RES", path], capture_output=True, text=True).stdout
            if (int(found) > 0) == wanted:
                return True
            time.sleep(0.01)
        return False

    if not cached(False):
        print("skip advice_reaches_the_cache: files are in memory here")
        return
    program = "import os, sys; os.posix_fadvise(os.open(sys.argv[1], os.O_RDONLY), 0, 0, int(sys.argv[2]))"
    for advice, wanted in [(os.POSIX_FADV_WILLNEED, True), (os.POSIX_FADV_DONTNEED, False)] * 2:
        end(sandbox(program, path, str(advice)))
        equal((advice, True), (advice, cached(wanted)))


def main():
    failed = 0
    cases = [changed_by_the_host, is_not_asked, is_shown, is_counted_by_a_tracer, advice_reaches_the_cache]
    for case in cases:
        name = case.__name__
        try:
            case()
            print(f"ok {name}")
        except Exception as error:
            print(f"FAIL {name}: {error}")
            failed += 1
    subprocess.run(["rm", "-rf", WORK])
    return 1 if failed else 0


sys.exit(main())
