#!/usr/bin/env python3
"""docker run -it and exec -it: a terminal with job control, Ctrl-C, Ctrl-Z and a window size."""
import atexit, fcntl, os, pty, re, select, signal, struct, subprocess, sys, termios, time

here = os.path.dirname(os.path.abspath(__file__))
setup = subprocess.run(
    ["bash", "-c", ". ./lib.sh.inc; image base || exit 3; echo NAME=$NAME", here + "/terminal"],
    cwd=here, capture_output=True, text=True)
found = re.search(r"NAME=(\S+)", setup.stdout)
if not found:
    print("skip all: no Docker or no image")
    sys.exit(0)
RUNTIME, IMAGE = found[1], "sallet-test:base"
LABEL = f"sallet-test=terminal{os.getpid()}"


@atexit.register
def remove_containers():
    """A client that is killed leaves its container behind."""
    left = subprocess.run(["docker", "ps", "-aq", "--filter", f"label={LABEL}"], capture_output=True, text=True)
    if left.stdout.split():
        subprocess.run(["docker", "rm", "-f", *left.stdout.split()], capture_output=True)


class Terminal:
    def __init__(self, *words, rows=30, columns=100):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execvp(words[0], words)
        self.text = ""

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def send(self, text):
        os.write(self.fd, text.encode())

    def expect(self, pattern, seconds=15):
        end = time.time() + seconds * int(os.environ.get("SLOW", 1))
        while True:
            match = re.search(pattern, self.text)
            if match:
                self.text = self.text[match.end():]
                return match
            if time.time() > end:
                raise AssertionError(f"no {pattern!r} in {self.text[-200:]!r}")
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.fd, 4096).decode(errors="replace")
                except OSError:
                    time.sleep(0.1)

    def end(self):
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def run(*words):
    return Terminal("docker", "run", "--rm", "-it", "--label", LABEL, "--runtime", RUNTIME, IMAGE, *(words or ("bash", "--norc")))


def size_is(terminal, rows, columns):
    # The engine passes a new size on when it comes to it.
    for attempt in range(6):
        terminal.send("stty size\n")
        got = terminal.expect(r"\r(\d+) (\d+)\r")
        if (int(got[1]), int(got[2])) == (rows, columns):
            return
        # The client may not yet have listened when the size changed.
        os.kill(terminal.pid, signal.SIGWINCH)
        time.sleep(0.3)
    raise AssertionError(f"the size is {got[0]!r}")


def prompt(terminal):
    terminal.expect(r"[#$] $|[#$] ")


def is_a_terminal():
    t = run()
    prompt(t)
    t.send("test -t 0 && tty | tr a-z A-Z\n")
    t.expect(r"/DEV/(PTS/\d+|CONSOLE)")
    t.send("exit 5\n")
    _, status = os.waitpid(t.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 5, status
    os.close(t.fd)


def interrupt():
    t = run()
    prompt(t)
    t.send("sleep 50\n")
    time.sleep(0.5)
    t.send("\x03")
    t.send("echo status=$?.\n")
    t.expect(r"status=130\.")
    t.end()


def suspend_and_resume():
    t = run()
    prompt(t)
    t.send("sleep 3\n")
    time.sleep(0.5)
    t.send("\x1a")
    t.expect("Stopped")
    t.send("jobs\n")
    t.expect(r"\[1\]\+\s+Stopped\s+sleep 3")
    t.send("fg; echo back=$?.\n")
    t.expect(r"back=0\.")
    t.end()


def window_size():
    t = run()
    prompt(t)
    size_is(t, 30, 100)
    t.send("trap 'echo changed' WINCH; while :; do sleep 0.1; done\n")
    time.sleep(0.5)
    t.resize(41, 77)
    t.expect("changed\r")
    # One alone may hit a sleep that has ended and that the shell has not noticed yet, on any system.
    for _ in range(3):
        t.send("\x03")
        time.sleep(0.2)
    size_is(t, 41, 77)
    t.end()


def end_of_file():
    t = run("cat")
    t.send("hello\n")
    t.expect("hello\r\nhello")
    t.send("\x04")
    _, status = os.waitpid(t.pid, 0)
    assert status == 0, status
    os.close(t.fd)


def three_execs_at_once():
    name = f"st-terminal-{os.getpid()}"
    subprocess.run(["docker", "run", "-d", "--rm", "--name", name, "--runtime", RUNTIME, IMAGE, "sleep", "60"],
                   check=True, capture_output=True)
    try:
        terminals = [Terminal("docker", "exec", "-it", name, "bash", "--norc") for _ in range(3)]
        for i, t in enumerate(terminals):
            prompt(t)
            t.resize(20 + i, 60 + i)
        time.sleep(0.5)
        for i, t in enumerate(terminals):
            size_is(t, 20 + i, 60 + i)
            t.send("exit\n")
        for t in terminals:
            t.end()
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True)


for test in (is_a_terminal, interrupt, suspend_and_resume, window_size, end_of_file, three_execs_at_once):
    try:
        test()
        print(f"ok {test.__name__}", flush=True)
    except Exception as error:
        print(f"FAIL {test.__name__}: {error!r}".replace("\n", " ")[:300], flush=True)
