#!/usr/bin/env python3
"""Names, arguments and variables that are no text reach the program as they are."""
import os, shutil, subprocess, sys, tempfile

SALLET = os.environ.get("SALLET")
WORK = os.path.join(tempfile.mkdtemp(prefix="sallet-bytes.").encode(), b"folder \xff")
PYTHON = b"/usr/bin/python3"
SHOW = b"import os, sys; print([os.fsencode(a) for a in sys.argv[1:]], os.environb.get(b'V'), os.getcwdb())"


def sandbox(*command, options=(), **more):
    command = [SALLET.encode(), b"do", *options, b"--", *command] if SALLET else command
    done = subprocess.run(command, capture_output=True, timeout=60, cwd=WORK, **more)
    if done.returncode != 0 or done.stderr:
        raise Exception(f"{command}: {done}")
    return done.stdout


def equal(wanted, got):
    if wanted != got:
        raise Exception(f"wanted {wanted!r}, got {got!r}")


def arguments_and_folder():
    words = [b"a\xffb", b"\x80", b"", "\u00e4".encode(), b"new\nline"]
    equal(f"{words} None {WORK}\n".encode(), sandbox(PYTHON, b"-c", SHOW, *words))


def variables():
    environment = {**os.environb, b"V": b"\xfd="}
    wanted = f"[] {environment[b'V']} {WORK}\n".encode()
    equal(wanted, sandbox(PYTHON, b"-c", SHOW, options=(b"-e", b"V"), env=environment))
    if SALLET:
        equal(wanted, sandbox(PYTHON, b"-c", SHOW, options=(b"--env", b"V=1", b"--env", b"V=\xfd=")))
        equal(wanted, sandbox(PYTHON, b"-c", SHOW, options=(b"-e", b"V=\xfd=", b"--cwd", WORK)))


def program():
    with open(os.path.join(WORK, b"run \xfe"), "w") as file:
        file.write("#!/bin/sh\nprintf '%s' \"$0\"\n")
    os.chmod(file.name, 0o755)
    equal(b"./run \xfe", sandbox(b"./run \xfe"))
    equal(b"\xfe/run \xfe", sandbox(b"sh", b"-c", b'mkdir /tmp/\xfe && cd /tmp && cp "$1" \xfe && "\xfe/run \xfe"', b"-",
                                    os.path.join(WORK, b"run \xfe")))
    shutil.rmtree(b"/tmp/\xfe", ignore_errors=True)


def shown_folder():
    if not SALLET:
        return
    folder = os.path.join(os.path.dirname(WORK), b"out\xf0")
    os.mkdir(folder)
    sandbox(b"sh", b"-c", b'echo out >"$1/file"', b"-", folder, options=(b"--rw", folder))
    equal(b"out\n", open(folder + b"/file", "rb").read())
    equal(b"out\n", sandbox(b"cat", folder + b"/file", options=(b"--ro", folder)))
    for table in b"mountinfo", b"mounts":
        lines = sandbox(b"cat", b"/proc/self/" + table, options=(b"--ro", folder)).split(b"\n")
        if not any(folder in line.split(b" ") and b" ro," in line for line in lines):
            raise Exception(f"no mount of {folder} in {lines}")


def messages():
    if not SALLET:
        return
    for name, said in (b"no\xff", "not found"), (b"./no\xff", "no such file"):
        done = subprocess.run([SALLET.encode(), b"do", b"--", name], capture_output=True, timeout=60, cwd=WORK)
        equal(127, done.returncode)
        if said not in done.stderr.decode():
            raise Exception(f"wanted {said!r} in {done.stderr!r}")


os.mkdir(WORK)
try:
    for test in (arguments_and_folder, variables, program, shown_folder, messages):
        try:
            test()
            print(f"ok {test.__name__}")
        except Exception as error:
            print(f"FAIL {test.__name__}: {error}".replace("\n", " "))
finally:
    shutil.rmtree(os.path.dirname(WORK))
