"""The commands beside run: update, events, ps, list, exec's flags, hooks, rootless."""
import os
exec(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "oci.py.inc")).read())


def running(box, *args):
    box.args(*(args or ("sleep", "60")))
    box.create()
    box.start()
    return box.state()["pid"]


def group_of(box, controller):
    """Of the container's control group on the host: where its hierarchy is mounted, its path there, the version."""
    for line in open(f"/proc/{box.state()['pid']}/cgroup"):
        _, controllers, path = line.strip().split(":", 2)
        if controller in controllers.split(","):
            return f"/sys/fs/cgroup/{controllers}", path, 1
        if not controllers and os.path.exists(f"/sys/fs/cgroup{path}/{controller}.stat"):
            return "/sys/fs/cgroup", path, 2
    raise Failed(f"no cgroup of {controller}")


def limit(box, controller, v1, v2):
    """What the host limits the container to: of a file's version 1 or version 2."""
    root, path, version = group_of(box, controller)
    return open(f"{root}{path}/{controller}.{v1 if version == 1 else v2}").read().strip()


@test
def update_memory(box):
    box.config["linux"]["resources"]["memory"] = {"limit": 256 << 20}
    running(box)
    box.done(box.run("update", "--memory", "128m", box.id))
    equal(str(128 << 20), limit(box, "memory", "limit_in_bytes", "max"))


@test
def group_of_others(box):
    """Deleting a container kills who is left in its group."""
    if YARDSTICK:
        return  # runc 1.1 warns
    running(box)
    other = Box()
    try:
        other.args("true")
        other.config["linux"]["cgroupsPath"] = group_of(box, "memory")[1]
        contains(other.refused(), "not empty")
    finally:
        other.close()
    equal("running", box.state()["status"])
    equal("here", box.exec("echo", "here"))


@test
def update_pids(box):
    box.config["linux"]["resources"]["pids"] = {"limit": 12}
    running(box)
    script = "n=0; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 1 & n=$((n+1)); done 2>/dev/null; echo $n"
    result = box.run("exec", box.id, "sh", "-c", script)
    if result.stdout.strip() == "16":
        raise Failed("the limit does not hold")
    time.sleep(1.2)
    box.done(box.run("update", "--pids-limit", "40", box.id))
    equal("16", box.exec("sh", "-c", script))


def shown(box):
    """What a program inside may learn of the container's limits."""
    script = """cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.swap.max /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max
        cat /sys/fs/cgroup/cpu.weight /sys/fs/cgroup/cpuset.cpus.effective
        awk '/MemTotal/ { print $2 }' /proc/meminfo
        awk '/MemTotal/ { print $4 }' /sys/devices/system/node/node0/meminfo
        grep -c ^processor /proc/cpuinfo; cat /sys/devices/system/cpu/online
        nproc; taskset -p $$ | awk '{ print $NF }'; awk '/Cpus_allowed:/ { print $2 }' /proc/self/status"""
    return box.exec("sh", "-c", script).split("\n")


@test
def update_is_seen_inside(box):
    if YARDSTICK:
        return  # runc shows the host's limits where it mounts no cgroup2, and all memory of the machine
    mib = 1 << 20
    box.config["linux"]["resources"] = {
        "memory": {"limit": 256 * mib, "swap": 256 * mib}, "pids": {"limit": 100}, "cpu": {"quota": 50000, "cpus": "0", "shares": 512}}
    box.config["mounts"].append({"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup"})
    running(box)
    machine = open("/sys/devices/system/cpu/online").read().strip()
    count = str(os.sysconf("SC_NPROCESSORS_ONLN"))

    def wanted(memory, swap, cpu, pids, allowed, mask):
        kib = str(memory >> 10)
        return [str(memory), swap, cpu, pids, "20", "0", kib, kib, count, machine, allowed, mask, mask]

    equal(wanted(256 * mib, "0", "50000 100000", "100", "1", "1"), shown(box))
    box.done(box.run("update", "--memory", "128m", box.id))
    equal(wanted(128 * mib, str(128 * mib), "50000 100000", "100", "1", "1"), shown(box))
    box.done(box.run("update", "--cpu-period", "200000", box.id))
    equal("50000 200000", shown(box)[2])
    equal("50000", limit(box, "cpu", "cfs_quota_us", "max").split()[0])
    if count != "1":
        box.done(box.run("update", "--cpuset-cpus", "0-1", box.id))
        seen = shown(box)
        equal(["0-1", "2", "3", "3"], [seen[5], *seen[10:]])
    # A paused one learns of it when it goes on.
    box.done(box.run("pause", box.id))
    box.done(box.run("update", "--cpu-quota", "-1", "--pids-limit", "50", box.id))
    equal("paused", box.state()["status"])
    box.done(box.run("resume", box.id))
    equal(["max 100000", "50"], shown(box)[2:4])
    # What an engine leaves at zero stays.
    text = '{"memory":{"limit":201326592,"swap":-1},"cpu":{"quota":0,"shares":0,"cpus":""},"pids":{"limit":0}}'
    box.done(box.run("update", "--resources", "-", box.id, stdin=None, input=text, stdout=subprocess.PIPE,
                     stderr=subprocess.PIPE))
    equal([str(192 * mib), "max", "max 100000", "50"], shown(box)[:4])


@test
def update_from_a_file(box):
    running(box)
    result = box.run("update", "--resources", "-", box.id, stdin=None, input='{"cpu":{"shares":512}}',
                     stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    equal("", box.done(result))
    # shares 2..262144 are weights 1..10000.
    contains(["512", "20"], limit(box, "cpu", "shares", "weight"))
    if box.run("update", "--resources", "/no/such", box.id).returncode == 0:
        raise Failed("a file that is not there was read")


@test
def events_once(box):
    running(box)
    stats = json.loads(box.done(box.run("events", "--stats", box.id)))
    equal(("stats", box.id), (stats["type"], stats["id"]))
    if stats["data"]["memory"]["usage"]["usage"] <= 0 or stats["data"]["pids"]["current"] <= 0:
        raise Failed(str(stats)[:200])
    for group in "cpuset", "blkio", "hugetlb", "intel_rdt":
        contains(stats["data"], group)
    cpus = sorted(os.sched_getaffinity(0))
    if os.path.exists("/sys/fs/cgroup/cpuset"):
        equal((cpus, 1), (stats["data"]["cpuset"]["cpus"], stats["data"]["cpuset"]["sched_load_balance"]))


@test
def ps_and_list(box):
    pid = running(box)
    if pid not in json.loads(box.done(box.run("ps", "--format", "json", box.id))):
        raise Failed("the state's process is not listed")
    contains(box.done(box.run("ps", box.id)), "PID")
    equal(box.id, box.done(box.run("list", "-q")).strip())
    row = json.loads(box.done(box.run("list", "--format", "json")))[0]
    equal((box.id, pid, "running"), (row["id"], row["pid"], row["status"]))


@test
def ps_with_options(box):
    pid = running(box)
    lines = box.done(box.run("ps", box.id, "-o", "pid,ppid,stat")).split("\n")
    equal(["PID", "PPID", "STAT"], lines[0].split())
    contains([line.split()[0] for line in lines[1:] if line], str(pid))
    contains(box.done(box.run("ps", box.id, "aux")), f" {pid} ")
    if box.run("ps", box.id, "--bogus").returncode == 0:
        raise Failed("ps took --bogus")


@test
def update_below_what_is_used(box):
    box.config["linux"]["resources"]["memory"] = {"limit": 256 << 20}
    running(box)
    if os.path.exists("/sys/fs/cgroup/memory"):
        result = box.run("update", "--memory", "8192", box.id)
        contains(result.stderr, "unable to set memory limit to 8192 (current usage: ")
        equal(1, result.returncode)
    if not YARDSTICK:
        result = box.run("update", "--memory", "128m", "--memory-swap", "64m", box.id)
        contains(result.stderr, "memory+swap limit should be >= memory limit")


@test
def labels_that_nobody_enforces(box):
    running(box)
    for flag, text in ("--apparmor", "no-such-profile"), ("--process-label", "a:b:c:d"):
        result = box.run("exec", flag, text, box.id, "true")
        if result.returncode == 0:
            raise Failed(f"{flag} was taken")
        if not YARDSTICK:
            contains(result.stderr, f"{flag} {text} is not supported")


@test
def pause_and_resume(box):
    running(box)
    box.done(box.run("pause", box.id))
    equal("paused", box.state()["status"])
    if box.run("exec", box.id, "true").returncode == 0:
        raise Failed("a program ran in a paused container")
    box.done(box.run("resume", box.id))
    equal("running", box.state()["status"])
    equal("x", box.exec("echo", "x"))


@test
def exec_flags(box):
    running(box)
    equal("5 6 /tmp v", box.exec("sh", "-c", "echo $(id -u) $(id -g) $(pwd) $X",
                                 flags=["--user", "5:6", "--cwd", "/tmp", "--env", "X=v"]))
    contains(box.exec("id", "-G", flags=["--additional-gids", "77"]), "77")
    contains(box.exec("grep", "NoNewPrivs", "/proc/self/status", flags=["--no-new-privs"]), "1")
    contains(box.exec("grep", "CapEff", "/proc/self/status", flags=["--cap", "CAP_SYS_TIME"]), "2000")
    equal(7, box.run("exec", box.id, "sh", "-c", "exit 7").returncode)
    equal(143, box.run("exec", box.id, "sh", "-c", "kill -TERM $$").returncode)
    if box.run("exec", box.id, "/no/such").returncode == 0:
        raise Failed("a missing program ran")


@test
def names_that_are_no_text(box):
    bundle = os.fsencode(box.dir) + b"/b\xff"
    if not YARDSTICK:  # runc forgets where such a bundle is
        os.rename(box.bundle, bundle)
        box.bundle = os.fsdecode(bundle)
    running(box)
    equal(box.bundle.replace("\udcff", "\ufffd"), box.state()["bundle"])
    shown = box.run("exec", "--env", "V=\udcfe", box.id, "sh", "-c", 'printf "%s %s" "$1" "$V" | od -An -tx1', "-", "\udcff")
    # runc, which hands them on as JSON, makes U+FFFD of each.
    equal("ef bf bd 20 ef bf bd" if YARDSTICK else "ff 20 fe", box.done(shown).strip())
    if not YARDSTICK:
        box.done(box.run("exec", "--cwd", "/tmp", box.id, "mkdir", "/dev/shm/\udcfd"))
        equal("2f 64 65 76 2f 73 68 6d 2f fd 0a", box.exec("sh", "-c", "pwd | od -An -tx1", flags=("--cwd", "/dev/shm/\udcfd")))


@test
def exec_of_a_process_file(box):
    running(box)
    process = dict(box.config["process"], args=["sh", "-c", "echo $A $(pwd)"], env=["A=b", "PATH=/bin"], cwd="/srv")
    path = box.dir + "/process.json"
    json.dump(process, open(path, "w"))
    equal("b /srv", box.done(box.run("exec", "--process", path, box.id)).strip())


@test
def exec_detached(box):
    running(box)
    path, out = box.dir + "/pid", box.dir + "/exec-out"
    with open(out, "w") as file:
        box.done(box.run("exec", "--detach", "--pid-file", path, box.id, "sh", "-c", "echo ran; exec sleep 30",
                         stdout=file, stderr=subprocess.STDOUT))
    eventually(5, lambda: open(out).read() == "ran\n", "the output of a detached program")
    pid = int(open(path).read())
    if not YARDSTICK:
        def pss():
            return int(open(f"/proc/{pid}/smaps_rollup").read().split("Pss:")[1].split()[0])
        eventually(2, lambda: pss() <= 300, "the waiter takes at most 300 KiB")
    os.kill(pid, signal.SIGTERM)
    eventually(5, lambda: "sleep 30" not in box.exec("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"),
               "the guest process ends with its waiter")


def waiter(box, *command, kill=None):
    """The wait status of a detached exec's process, of which we are the subreaper."""
    import ctypes
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    path = box.dir + "/pid"
    with open(box.dir + "/waited", "w") as out:
        box.done(box.run("exec", "--detach", "--pid-file", path, box.id, *command,
                         stdout=out, stderr=subprocess.DEVNULL))
    pid = int(open(path).read())
    if kill:
        eventually(10, lambda: open(box.dir + "/waited").read() == "ready\n", "the program")
        os.kill(pid, kill)
    return os.waitpid(pid, 0)[1]


@test
def a_waiter_ends_as_its_process(box):
    running(box)
    equal(7, os.waitstatus_to_exitcode(waiter(box, "sh", "-c", "sleep 0.1; exit 7")))
    equal(-11, os.waitstatus_to_exitcode(waiter(box, "sh", "-c", "sleep 0.1; kill -SEGV $$")))
    equal(-15, os.waitstatus_to_exitcode(waiter(box, "sh", "-c", "echo ready; exec sleep 50", kill=signal.SIGTERM)))
    equal(-9, os.waitstatus_to_exitcode(waiter(box, "sh", "-c", "echo ready; exec sleep 50", kill=signal.SIGKILL)))
    for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGABRT, signal.SIGURG, signal.SIGWINCH, signal.SIGRTMIN):
        script = f"trap 'exit {int(number)}' {int(number)}; echo ready; while :; do sleep 0.02; done"
        equal(int(number), os.waitstatus_to_exitcode(waiter(box, "bash", "-c", script, kill=number)))
    eventually(3, lambda: "sleep 50" not in box.exec("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"),
               "no program is left")


@test
def a_waiter_has_its_terminal(box):
    import array, fcntl, struct, termios
    running(box)
    path = box.dir + "/console"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    box.done(box.run("exec", "--detach", "--tty", "--console-socket", path, "--pid-file", box.dir + "/pid", box.id,
                     "bash", "-c", "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done",
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    connection, _ = listener.accept()
    _, fds, _, _ = socket.recv_fds(connection, 100, 1)
    seen = ""
    os.set_blocking(fds[0], False)

    def reads(text):
        nonlocal seen
        try:
            seen += os.read(fds[0], 4096).decode()
        except (BlockingIOError, OSError):
            pass
        return text in seen

    eventually(5, lambda: reads("ready"), "the program")
    fcntl.ioctl(fds[0], termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    eventually(5, lambda: reads("33 77"), f"a new size: {seen!r}")
    pid = int(open(box.dir + "/pid").read())
    equal(pid, os.getsid(pid))
    os.close(fds[0])
    # The end of the terminal hangs the program up.
    eventually(5, lambda: not os.path.exists(f"/proc/{pid}") or open(f"/proc/{pid}/stat").read().split(") ")[1][0] == "Z",
               "the end of the waiter")


def alone(box, *words):
    """A command of a caller that has no terminal at all; its status and its messages."""
    result = box.run(*words, start_new_session=True)
    return result.returncode, result.stderr


@test
def a_terminal_needs_a_caller_with_one(box):
    box.config["process"]["terminal"] = True
    box.args("echo", "ran")
    box.write()
    status, message = alone(box, "run", "--bundle", box.bundle, box.id)
    equal(1, status)
    contains(message, "open /dev/tty: no such device or address")
    for command in ("create",), ("run", "--detach"):
        status, message = alone(box, *command, "--bundle", box.bundle, box.id)
        equal(1, status)
        contains(message, "without setting console socket")
    if box.run("state", box.id).returncode == 0:
        raise Failed("something is left")
    box.config["process"]["terminal"] = False
    running(box)
    for flags, part in ((["--tty"], "open /dev/tty: no such device or address"),
                        (["--tty", "--detach"], "without setting console socket"),
                        (["--tty", "--console-socket", "/x"], "cannot use console socket"),
                        (["--console-socket", "/x"], "cannot use console socket"),
                        (["--tty", "--detach", "--console-socket", "/no/such"], "/no/such")):
        status, message = alone(box, "exec", *flags, box.id, "echo", "ran")
        equal(255, status)
        contains(message, part)


@test
def exec_that_cannot_start(box):
    root = box.own_root()
    box.config["process"]["cwd"] = "/srv"
    os.mkdir(root + "/mine")
    for name, text, mode in (("script", "#!/no/interpreter -x\n", 0o755), ("plain", "#!/bin/sh\n", 0o644),
                             ("noise", "noise", 0o755)):
        with open(f"{root}/mine/{name}", "w") as file:
            file.write(text)
        os.chmod(f"{root}/mine/{name}", mode)
    shutil.copy(root + "/bin/true", root + "/mine/loader")
    with open(root + "/mine/loader", "rb+") as file:
        program = file.read()
        file.seek(program.index(b"/lib64/ld-linux-x86-64.so.2") + len("/lib64/ld-linux-x86-64.so."))
        file.write(b"9")
    running(box)
    for words, part in ((["no-such"], 'exec: "no-such": executable file not found in $PATH'),
                        (["/no/such"], 'exec: "/no/such": stat /no/such: no such file or directory'),
                        (["/etc/passwd/x"], "stat /etc/passwd/x: not a directory"),
                        (["/etc"], 'exec: "/etc": permission denied'),
                        (["/mine/plain"], 'exec: "/mine/plain": permission denied'),
                        ([], "process args cannot be empty"),
                        (["--cwd", "/no/such", "true"],
                         'chdir to cwd ("/no/such") set in config.json failed: no such file or directory'),
                        (["--cwd", "/etc/passwd", "true"], "failed: not a directory"),
                        (["--cwd", "tmp", "true"], "Cwd must be an absolute path"),
                        (["--user", "nobody", "true"], "nobody"),
                        (["--process", "/no/such"], "/no/such")):
        flags = words[:2] if words and words[0].startswith("--") else []
        result = box.run("exec", *flags, box.id, *words[len(flags):])
        equal(255, result.returncode)
        contains(result.stderr, "exec failed: ")
        contains(result.stderr, part.replace('"', '\\"'))
    if os.path.exists(root + "/no"):
        raise Failed("exec has made a folder")
    # runc has started the container's side by then, which says these without more, and ends with 1.
    for name, part in (("script", "no such file or directory"), ("loader", "no such file or directory"),
                       ("noise", "exec format error")):
        result = box.run("exec", box.id, "/mine/" + name)
        contains(result.stderr, f"exec /mine/{name}: {part}")
        equal(1 if YARDSTICK else 255, result.returncode)
        if not YARDSTICK and name != "noise":
            contains(result.stderr, {"script": "/no/interpreter", "loader": "/lib64/ld-linux-x86-64.so.9"}[name])
    # An unknown capability is told of and left out.
    result = box.run("exec", "--cap", "CAP_FROM_TOMORROW", box.id, "true")
    equal(0, result.returncode)
    contains(result.stderr, "CAP_FROM_TOMORROW")
    # Root enters the folder, whoever the program runs as.
    os.mkdir(root + "/mine/closed")
    os.mkdir(root + "/mine/closed/in", 0o700)
    os.chmod(root + "/mine/closed", 0o700)
    equal("/mine/closed/in", box.exec("sh", "-c", "echo $PWD",
                                      flags=["--user", "1000", "--cwd", "/mine/closed/in", "--env", "PWD=/mine/closed/in"]))
    box.done(box.run("pause", box.id))
    result = box.run("exec", box.id, "true")
    equal((255, True), (result.returncode, "cannot exec in a paused container" in result.stderr))
    box.done(box.run("resume", box.id))
    box.done(box.run("kill", box.id, "KILL"))
    box.stopped()
    result = box.run("exec", box.id, "true")
    equal((255, True), (result.returncode, "cannot exec in a stopped container" in result.stderr))
    result = box.run("exec", "no-such-id", "true")
    equal((255, True), (result.returncode, "container does not exist" in result.stderr))


@test
def preserved_descriptors(box):
    read, write = os.pipe()
    os.write(write, b"through")
    os.close(write)
    box.args("sh", "-c", "cat <&3")
    box.write()
    os.dup2(read, 3)
    result = subprocess.run([RUNTIME, "--root", box.state_dir, "run", "--preserve-fds", "1", "--bundle", box.bundle,
                             box.id], capture_output=True, text=True, timeout=30, pass_fds=[3])
    equal("through", box.done(result))


@test
def hooks_in_order(box):
    log = box.dir + "/log"
    hook = box.dir + "/hook"
    open(hook, "w").write(f"#!/bin/sh\nread -r line || :\necho $1 $2 $(echo \"$line\" | grep -c '\"id\"') >>{log}\n")
    os.chmod(hook, 0o755)
    box.config["hooks"] = {
        name: [{"path": hook, "args": ["hook", name], "env": ["PATH=/usr/bin:/bin"], "timeout": 5}]
        for name in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    }
    box.args("true")
    box.create()
    box.start()
    box.stopped()
    box.done(box.run("delete", box.id))
    words = [line.split()[0] for line in open(log)]
    equal(["prestart", "createRuntime", "createContainer", "poststart", "poststop"], words)


@test
def a_hook_that_fails(box):
    for name in ("prestart", "createRuntime", "createContainer"):
        box.config["hooks"] = {name: [{"path": "/bin/false"}]}
        box.refused()
    box.config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "20"], "timeout": 1}]}
    start = time.time()
    box.refused()
    if time.time() - start > 8:
        raise Failed("the timeout of a hook does not count")


@test
def a_hook_may_take_for_ever(box):
    box.config["hooks"] = {"createRuntime": [{"path": "/bin/true", "timeout": 2**63 - 1}]}
    equal("fine", box.sh("echo fine"))


@test
def a_hook_inside_has_a_timeout(box):
    if YARDSTICK:
        return  # runc 1.1 looks at no timeout of a startContainer hook
    box.config["hooks"] = {"startContainer": [{"path": "/bin/sleep", "args": ["sleep", "20"], "timeout": 1}]}
    box.args("true")
    box.create()
    start = time.time()
    box.run("start", box.id)
    box.stopped()
    if not 0.9 < time.time() - start < 8:
        raise Failed("the timeout of a startContainer hook does not count")


@test
def log_as_json(box):
    box.args("/no/such/program")
    box.write()
    log = box.dir + "/log.json"
    result = subprocess.run([RUNTIME, "--root", box.state_dir, "--log", log, "--log-format", "json", "run",
                             "--bundle", box.bundle, box.id], capture_output=True, text=True, timeout=30)
    equal(True, result.returncode != 0)
    entries = [json.loads(line) for line in open(log)]
    equal("error", entries[-1]["level"])
    contains(entries[-1]["msg"], "no such file or directory")


@test
def a_debug_log_for_each_container(box):
    if YARDSTICK:
        return
    folder = os.path.join(box.dir, "logs")
    os.mkdir(folder)
    box.args("true")
    box.write()
    for name in box.id, box.id + "-2":
        box.done(box.run("--debug-log", folder, "--strace", "run", "--bundle", box.bundle, name))
        with open(f"{folder}/{name}.log") as file:
            contains(file.read(), "exit_group(0)")


@test
def exit_status_of_a_signal(box):
    box.args("sh", "-c", "exit 42")
    box.write()
    equal(42, box.run("run", "--bundle", box.bundle, box.id).returncode)


@test
def rootless(box):
    """As an ordinary user, with the configuration that `spec --rootless` writes."""
    if YARDSTICK:
        return
    uid = 54321
    os.chown(box.dir, uid, uid)
    os.chmod(box.dir, 0o755)
    home = box.dir + "/home"
    os.mkdir(home)
    os.chown(home, uid, uid)
    binary = box.dir + "/sallet"
    shutil.copy(RUNTIME, binary)
    script = f"""cd {home} && {binary} spec --rootless && python3 - <<'END'
import json
c = json.load(open("config.json"))
c["process"]["terminal"] = False
c["process"]["args"] = ["sh", "-c", "id -u; cat /proc/self/uid_map; touch /x 2>&1"]
c["root"] = {{"path": "{ROOT}", "readonly": True}}
c["linux"]["resources"] = {{"memory": {{"limit": 100000000}}}}
json.dump(c, open("config.json", "w"))
END
{binary} --root {home}/state run x"""
    command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "bash", "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    lines = result.stdout.split("\n")
    equal("0", lines[0] or result.stderr)
    equal(["0", str(uid), "1"], lines[1].split())
    contains(lines[2], "Read-only file system")
    contains(result.stderr, "linux.resources sets no limits")


@test
def refused_commands(box):
    if YARDSTICK:
        return
    running(box)
    for words in (["checkpoint", box.id], ["restore", "--bundle", "x", box.id],
                  ["update", "--l3-cache-schema", "x", box.id]):
        result = box.run(*words)
        equal(1, result.returncode)
        contains(result.stderr, "not supported")


main()
