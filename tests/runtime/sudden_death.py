"""kill -9 at random moments, hundreds of times: of the runtime in each of its commands, of the kernel process, of
a helper. No process of the sandbox may be there a second later (longer where others want the CPUs, too), and the next
command on that name takes the rest away, whether these processes have ended by then or not. ROUNDS and SEED in the
environment change the number of rounds and repeat a series."""
import glob, os, random, sys

HERE = os.path.dirname(os.path.abspath(__file__))
exec(open(HERE + "/../oci/oci.py.inc").read())
ROUNDS = int(os.environ.get("ROUNDS", "40"))
SEED = int(os.environ.get("SEED", random.randrange(1 << 30)))


def members(box):
    """Processes of a sandbox: by its name in their command lines or control groups."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            text = open(f"/proc/{pid}/cmdline", "rb").read() + open(f"/proc/{pid}/cgroup", "rb").read()
            state = open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1][0]
        except OSError:
            continue
        if box.id.encode() in text and state not in "ZX":
            found.append(int(pid))
    return found


def within_a_second(check, what):
    """A second of a machine that has nothing else to do."""
    eventually(1 + os.getloadavg()[0] / os.cpu_count(), check, what)


def record(box):
    """What is recorded of the container; nothing where it has none."""
    try:
        return json.load(open(f"{box.state_dir}/{box.id}/state.json"))
    except OSError:
        return {}


def dying(box):
    """Of the kernel process: one that ends has neither a command line nor control groups, until all others have."""
    pid = record(box).get("pid", 0)
    try:
        state, *rest = open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1].split()
    except OSError:
        return []
    return [pid] if state not in "ZX" and rest[18] == str(record(box).get("pidStart")) else []


def left(box):
    """What is there of a container, in words."""
    rest = [f"process {pid}" for pid in members(box)]
    for line in open("/proc/self/cgroup"):
        # Without a path in its configuration a container's group lies in its creator's, of version 2 beside it.
        _, controllers, path = line.strip().split(":", 2)
        for base in (f"/sys/fs/cgroup/{controllers}{path}", f"/sys/fs/cgroup{os.path.dirname(path)}"):
            rest += glob.glob(f"{base}/{box.id}")
    if os.path.isdir(box.state_dir):
        rest += [f"state {name}" for name in os.listdir(box.state_dir)]
    rest += ["mount " + line for line in open("/proc/self/mountinfo") if box.dir in line]
    return rest


def taken_away(box, random):
    """The next command of somebody else removes what is left."""
    command = random.choice(["delete", "list", "run", "state"])
    found = record(box)
    if found and not found["attached"] and found["recorded"] != "creating":
        # A container that was made to live on is no rest.
        command = "delete"
    if command == "run":
        config = dict(box.config)
        box.args("echo", "next")
        box.write()
        equal("next\n", box.done(box.run("run", "--bundle", box.bundle, box.id)))
        box.config = config
    elif command == "list":
        box.done(box.run("list"))
    elif command == "state":
        contains(box.run("state", box.id).stderr, "does not exist")
    else:
        box.done(box.run("delete", "--force", box.id))
    rest = [what for what in left(box) if not what.startswith("process")]
    if rest:
        raise Failed(f"after {command}: {rest}; recorded before: {found}")
    # One that was not recorded yet ends by itself.
    within_a_second(lambda: not members(box), f"processes end after {command}")


def rounds(box, one):
    if YARDSTICK:
        # runc leaves things behind.
        return
    source = random.Random(SEED)
    box.args("sleep", "60")
    box.write()
    for number in range(ROUNDS):
        try:
            box.args("sleep", "60")
            box.write()
            one(source)
            taken_away(box, source)
        except Exception as error:
            raise Failed(f"round {number} of SEED={SEED}: {error}; left: {left(box)}")


def killed(box, source, most, *words):
    """Starts a command and kills it after at most so many seconds."""
    command = [RUNTIME, "--root", box.state_dir, *words]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(source.random() ** 2 * most)
    child.kill()
    child.wait()


def created(box):
    box.done(box.run("create", "--bundle", box.bundle, box.id, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))


def left_running(box):
    """A second program, with a waiter; not on our pipes, which it would keep open."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return box.run("exec", "-d", box.id, "sleep", "61", **quiet)


@test
def run_is_killed(box):
    def one(source):
        killed(box, source, 0.08, "run", "--bundle", box.bundle, box.id)
        if source.random() < 0.5:
            within_a_second(lambda: not members(box) + dying(box), "processes end with the runtime")
    rounds(box, one)


@test
def run_on_the_hosts_network_is_killed(box):
    """With one helper more."""
    spaces = box.config["linux"]["namespaces"]
    box.config["linux"]["namespaces"] = [space for space in spaces if space["type"] != "network"]
    run_is_killed(box)


@test
def create_is_killed(box):
    rounds(box, lambda source: killed(box, source, 0.06, "create", "--bundle", box.bundle, box.id))


@test
def start_is_killed(box):
    def one(source):
        created(box)
        killed(box, source, 0.02, "start", box.id)
    rounds(box, one)


@test
def exec_is_killed(box):
    def one(source):
        created(box)
        box.start()
        killed(box, source, 0.04, "exec", *source.choice([[], ["-d"]]), box.id, "sleep", "61")
        # The guest process ends with its runtime, unless it was left on purpose.
        equal("running", box.state()["status"])
        equal("x", box.exec("echo", "x"))
    rounds(box, one)


@test
def delete_is_killed(box):
    def one(source):
        created(box)
        killed(box, source, 0.03, "delete", "--force", box.id)
    rounds(box, one)


@test
def kernel_process_is_killed(box):
    def one(source):
        created(box)
        pid = box.state()["pid"]
        if source.random() < 0.7:
            box.start()
        if source.random() < 0.5:
            left_running(box)
        time.sleep(source.random() * 0.05)
        os.kill(pid, 9)
        within_a_second(lambda: not members(box) + dying(box), "processes end with the kernel process")
        equal("stopped", box.state()["status"])
    rounds(box, one)


@test
def a_helper_is_killed(box):
    def one(source):
        created(box)
        kernel = box.state()["pid"]
        box.start()
        left_running(box)
        others = [pid for pid in members(box) if pid != kernel]
        try:
            os.kill(source.choice(others), 9)
        except ProcessLookupError:
            pass
        time.sleep(0.05)
        # Whatever it was: the runtime answers, and the container can be removed.
        if box.state()["status"] not in ("running", "stopped"):
            raise Failed(box.state()["status"])
    rounds(box, one)


@test
def do_is_killed(box):
    if YARDSTICK:
        return
    source = random.Random(SEED)
    marker = "marker" + box.id
    for number in range(ROUNDS):
        command = [RUNTIME, "--root", box.state_dir, "do", "--", "sh", "-c", f": {marker}; sleep 62"]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        time.sleep(source.random() ** 2 * 0.08)
        child.kill()
        child.wait()
    # What the dead left, the next one takes away.
    def taken():
        equal("x\n", box.done(box.run("do", "--", "echo", "x")))
        return not os.listdir(box.state_dir)
    eventually(5, taken, f"state is gone: {os.listdir(box.state_dir)}")


main()
