#!/usr/bin/env python3
"""A program in a terminal as a job of a shell: Ctrl-Z, fg, bg, kill. The yardstick is the program without a sandbox."""
import os, pty, re, select, signal, subprocess, sys, tempfile, termios, time

SALLET = os.environ.get("SALLET")
IN = f"{SALLET} do -- " if SALLET else ""


class Shell:
    """An interactive shell of the host, with job control."""

    def __init__(self):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            environment = {**os.environ, "PS1": "ready> ", "TERM": "dumb", "HISTFILE": ""}
            os.execve("/bin/bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"], environment)
        self.text = ""
        self.expect("ready> ")

    def send(self, text):
        os.write(self.fd, text.encode())

    def expect(self, pattern, seconds=15):
        end = time.time() + seconds
        while not (match := re.search(pattern, self.text)):
            if time.time() > end:
                raise AssertionError(f"no {pattern!r} in {self.text[-300:]!r}")
            if select.select([self.fd], [], [], 0.2)[0]:
                self.text += os.read(self.fd, 4096).decode(errors="replace")
        self.text = self.text[match.end():]
        return match

    def line(self, text, pattern="ready> "):
        self.send(text + "\n")
        self.expect(re.escape(text))
        return self.expect(pattern)

    def is_cooked(self):
        return bool(termios.tcgetattr(self.fd)[3] & termios.ICANON)

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def suspend_and_continue(shell):
    shell.line(IN + "cat", "\n")
    time.sleep(1)
    shell.line("one", r"\none\r\n")
    shell.send("\x1a")
    shell.expect(r"\[1\]\+\s+Stopped")
    shell.expect("ready> ")
    assert shell.is_cooked()
    shell.line("echo out'side'", r"\noutside\r\n")
    shell.expect("ready> ")
    shell.line("fg", "cat\r\n")
    time.sleep(0.5)
    shell.line("two", r"\ntwo\r\n")
    shell.send("\x1a")
    shell.expect(r"\[1\]\+\s+Stopped")
    shell.line("fg; echo status=$?.", "cat\r\n")
    time.sleep(0.5)
    shell.send("\x04")
    shell.expect(r"status=0\.")


def its_children_stop_too(shell):
    shell.line(IN + "sh -c 'sleep 1.5; echo slept'", "\n")
    time.sleep(0.8)
    shell.send("\x1a")
    shell.expect(r"Stopped")
    shell.expect("ready> ")
    shell.line("bg", "ready> ")
    shell.expect(r"slept\r+\n")
    assert shell.is_cooked()
    shell.line("wait; echo status=$?.", r"status=0\.")


def a_script_stops_with_it(shell):
    shell.line(f"sh -c '{IN}cat; echo after'", "\n")
    time.sleep(1)
    shell.send("\x1a")
    shell.expect(r"Stopped")
    shell.expect("ready> ")
    shell.line("fg", "\n")
    time.sleep(0.5)
    shell.send("\x04")
    shell.expect(r"after\r\n")


def output_to_a_file(shell):
    shell.line(IN + "sh -c 'sleep 1.5; echo slept' | cat", "\n")
    time.sleep(0.8)
    shell.send("\x1a")
    shell.expect(r"Stopped")
    shell.expect("ready> ")
    time.sleep(1.5)
    shell.line("fg", r"slept\r\n")


def a_shell_inside_keeps_its_jobs(shell):
    if not SALLET:
        return  # the outer shell's prompt would be met again
    shell.line(IN + "env PS1='inside: ' bash --norc --noprofile --noediting -i", "inside: ")
    shell.send("\x1a")
    shell.line("sleep 30", "\n")
    time.sleep(0.5)
    shell.send("\x1a")
    shell.expect(r"Stopped\s+sleep 30")
    shell.expect("inside: ")
    shell.line("kill -STOP $$", r"\[1\]\+\s+Stopped[^\n]*\nready> ")
    shell.line("fg", "\n")
    time.sleep(0.5)
    shell.line("kill %1; echo still he're'", r"still here")


def started_in_the_background(shell):
    shell.line(IN + "cat &", "ready> ")
    time.sleep(1)
    assert shell.is_cooked()
    shell.line("echo out'side'", r"\noutside\r\n")
    shell.expect("ready> ")
    shell.line("fg", "cat\r\n")
    time.sleep(0.8)
    shell.line("three", r"\nthree\r\n")
    shell.send("\x04")
    shell.expect("ready> ")


def a_handler_keeps_it_running(shell):
    handler = "import signal; signal.signal(signal.SIGTSTP, lambda *_: print('caught')); [signal.pause() for _ in range(9)]"
    shell.line(f"{IN}/usr/bin/python3 -c \"{handler}\"", "\n")
    time.sleep(1)
    shell.send("\x1a")
    shell.expect(r"caught\r\n")
    shell.send("\x03")
    shell.expect("ready> ")


def interrupt_with_output_to_a_pipe(shell):
    """All of the job are told, not its first program alone, which waits for the others."""
    for words in ("| cat", "< /dev/null > /dev/null"):
        shell.line(IN + "sh -c 'sleep 30; echo af''ter' " + words, "\n")
        time.sleep(1)
        shell.send("\x03")
        shell.expect("ready> ", 10)
        assert "after" not in shell.text
    shell.line(IN + "sh -c 'trap \"echo cau''ght; exit 7\" INT; while :; do sleep 0.1; done' < /dev/null", "\n")
    time.sleep(1)
    shell.send("\x03")
    shell.expect(r"caught\r\n")
    shell.line("echo status=$?.", r"status=7\.")


def interrupt_ends_a_loop(shell):
    for words in ("", " < /dev/null"):
        shell.line("for i in 1 2; do " + IN + "sleep 30" + words + "; echo on''wards; done", "\n")
        time.sleep(1)
        shell.send("\x03")
        shell.expect("ready> ", 10)
        shell.line("echo status=$?.", r"status=130\.\r\nready> ")
        shell.line("bash -c '" + IN + "sleep 30" + words + "; echo on\"\"wards'", "\n")
        time.sleep(1)
        shell.send("\x03")
        shell.expect("ready> ", 10)
        shell.line("echo status=$?.", r"status=130\.\r\nready> ")
    # A program that takes the interrupt for itself ends nothing.
    shell.line("bash -c '" + IN + "sh -c \"trap : INT; sleep 1; exit 0\"; echo on\"\"wards'", "\n")
    time.sleep(0.5)
    shell.send("\x03")
    shell.expect("onwards", 10)


def errors_to_a_file(shell):
    with tempfile.NamedTemporaryFile("r") as errors:
        script = "import os; os.write(2, b'err'); print('o''ut', [os.isatty(n) for n in range(3)])"
        shell.line(f'{IN}/usr/bin/python3 -c "{script}" 2>{errors.name}', r"out \[True, True, False\]\r\n")
        shell.expect("ready> ")
        assert errors.read() == "err"


def what_is_ignored_does_not_end_it():
    """Started as by nohup(1), or in the background by a shell without job control."""
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    child = subprocess.Popen([*IN.split(), "sh", "-c", "echo begun; sleep 1; echo on"], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, preexec_fn=ignore)
    assert child.stdout.readline() == b"begun\n"
    child.send_signal(signal.SIGHUP)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=10)[0] == b"on\n" and child.returncode == 0


def a_stop_without_a_terminal():
    child = subprocess.Popen([*IN.split(), "sh", "-c", "kill -STOP $$; echo on"], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE)
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGSTOP, status
    os.kill(child.pid, signal.SIGCONT)
    assert child.communicate(timeout=10)[0] == b"on\n"


def nobody_could_continue_it():
    """The session has no shell: Ctrl-Z does nothing."""
    pid, fd = pty.fork()
    if pid == 0:
        words = [*IN.split(), "sh", "-c", "echo begun; sleep 1.5; echo ended"]
        os.execvp(words[0], words)
    text = b""
    try:
        while b"ended" not in text:
            assert select.select([fd], [], [], 15)[0], text
            text += os.read(fd, 4096)
            if text.startswith(b"begun\r\n") and b"^Z" not in text:
                os.write(fd, b"\x1a")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(fd)


WITH_A_SHELL = (suspend_and_continue, its_children_stop_too, a_script_stops_with_it, output_to_a_file,
                a_shell_inside_keeps_its_jobs, started_in_the_background, a_handler_keeps_it_running,
                interrupt_with_output_to_a_pipe, interrupt_ends_a_loop, errors_to_a_file)
for test in (*WITH_A_SHELL, what_is_ignored_does_not_end_it, a_stop_without_a_terminal, nobody_could_continue_it):
    shell = Shell() if test in WITH_A_SHELL else None
    try:
        test(*[shell] if shell else [])
        print(f"ok {test.__name__}", flush=True)
    except Exception as error:
        print(f"FAIL {test.__name__}: {error!r}".replace("\n", " ")[:600], flush=True)
    finally:
        if shell:
            shell.end()
