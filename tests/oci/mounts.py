"""Mounts of config.json: flags, the mounts below a bind, propagation words, symbolic links."""
import os
exec(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "oci.py.inc")).read())


def tree(box):
    """A tmpfs with a tmpfs in it, a file in each."""
    top = box.tmpfs(box.dir + "/top")
    below = box.tmpfs(top + "/below")
    for folder in (top, below):
        with open(folder + "/file", "w") as file:
            file.write("text")
    return top


def bind(box, *options):
    box.config["mounts"].append({"destination": "/mnt", "source": box.dir + "/top", "options": list(options)})


def options_of(box, point):
    """The options of one mount in the container's own table."""
    text = box.sh(f"awk '$5 == \"{point}\" {{ print $6 }}' /proc/self/mountinfo")
    return text.split(",")


@test
def plain_bind_leaves_out_what_is_below(box):
    tree(box)
    bind(box, "bind")
    equal("text 0", box.sh("echo $(cat /mnt/file) $(ls /mnt/below | wc -l)"))


@test
def rbind_has_what_is_below(box):
    tree(box)
    bind(box, "rbind")
    equal("text text", box.sh("echo $(cat /mnt/file) $(cat /mnt/below/file)"))
    box.sh("echo new >/mnt/below/made")
    equal("new\n", open(box.dir + "/top/below/made").read())


@test
def ro_is_for_the_top(box):
    tree(box)
    bind(box, "rbind", "ro")
    box.sh("! touch /mnt/x 2>/dev/null && touch /mnt/below/x")


@test
def rro_is_for_all(box):
    tree(box)
    bind(box, "rbind", "rro")
    box.sh("! touch /mnt/x 2>/dev/null && ! touch /mnt/below/x 2>/dev/null")


@test
def rw_after_ro(box):
    tree(box)
    bind(box, "rbind", "ro", "rw")
    box.sh("touch /mnt/x")


@test
def access_times(box):
    tree(box)
    mounts = list(box.config["mounts"])
    words = (("rnoatime", "noatime"), ("rrelatime", "relatime"), ("rstrictatime", None),
             ("rnodiratime", "nodiratime"), ("rnostrictatime", "relatime"), ("ratime", "relatime"))
    for word, wanted in words:
        box.config["mounts"] = list(mounts)
        bind(box, "rbind", word)
        got = options_of(box, "/mnt/below")
        if wanted and wanted not in got:
            raise Failed(f"{word}: {got}")
        if YARDSTICK and word == "rnodiratime":
            # runc 1.1 refuses the words that only take away.
            break
        if wanted is None and ("noatime" in got or "relatime" in got):
            raise Failed(f"{word}: {got}")


@test
def reading_a_folder_is_an_access(box):
    top = tree(box)
    for number in range(20):
        os.mkdir(f"{top}/below/{number}")
    bind(box, "rbind", "rdiratime")
    time.sleep(0.05)
    equal("", box.sh("cd /mnt/below; for d in [0-9]*; do a=$(stat -c %x $d); ls $d; ls $d;"
                     "[ \"$a\" != \"$(stat -c %x $d)\" ] || echo $d; done"))
    box.config["mounts"].pop()
    bind(box, "rbind", "rnodiratime")
    os.mkdir(f"{top}/below/new")
    time.sleep(0.05)
    equal("", box.sh("cd /mnt/below; a=$(stat -c %x new); ls new; [ \"$a\" = \"$(stat -c %x new)\" ] || echo moved"))


@test
def each_access_counts(box):
    top = tree(box)
    with open(f"{top}/below/file", "w") as file:
        file.write("content")
    os.utime(f"{top}/below/file")
    looks = "cd /mnt/below; for i in 1 2 3 4 5 6; do cat file >/dev/null; stat -c %x file; sleep 0.02; done | uniq | wc -l"
    bind(box, "rbind", "rstrictatime")
    equal("6", box.sh(looks))
    box.config["mounts"].pop()
    bind(box, "rbind", "rrelatime")
    equal("1", box.sh(looks))


@test
def rnoexec(box):
    tree(box)
    for folder in ("/top", "/top/below"):
        path = box.dir + folder + "/run"
        open(path, "w").write("#!/bin/sh\necho ran\n")
        os.chmod(path, 0o755)
    bind(box, "rbind", "rnoexec")
    equal("126 126", box.sh("/mnt/run 2>/dev/null; a=$?; /mnt/below/run 2>/dev/null; echo $a $?"))
    box.config["mounts"].pop()
    bind(box, "rbind", "rexec")
    equal("ran ran", box.sh("echo $(/mnt/run) $(/mnt/below/run)"))


@test
def rnodev(box):
    tree(box)
    os.mknod(box.dir + "/top/below/null", 0o20666, os.makedev(1, 3))
    bind(box, "rbind", "rnodev")
    box.sh("! cat /mnt/below/null 2>/dev/null")
    box.config["mounts"].pop()
    bind(box, "rbind", "rdev")
    equal("", box.sh("cat /mnt/below/null"))


@test
def rnosuid(box):
    tree(box)
    for folder in ("/top", "/top/below"):
        path = box.dir + folder + "/id"
        subprocess.run(["cp", ROOT + "/usr/bin/id", path], check=True)
        os.chown(path, 1200, 1200)
        os.chmod(path, 0o4755)
    box.config["process"]["noNewPrivileges"] = False
    bind(box, "rbind", "rnosuid")
    equal("0 0", box.sh("echo $(/mnt/id -u) $(/mnt/below/id -u)"))
    box.config["mounts"].pop()
    bind(box, "rbind", "rsuid")
    equal("1200 1200", box.sh("echo $(/mnt/id -u) $(/mnt/below/id -u)"))


@test
def flags_of_the_source_stay(box):
    top = tree(box)
    subprocess.run(["mount", "-o", "remount,nosuid,nodev,noexec", top], check=True)
    bind(box, "rbind")
    got = options_of(box, "/mnt")
    for word in ("nosuid", "nodev", "noexec"):
        if word not in got:
            raise Failed(f"{word} is lost: {got}")


@test
def a_file(box):
    path = box.dir + "/one"
    open(path, "w").write("one")
    box.own_root()
    box.config["mounts"].append({"destination": "/srv/new/file", "source": path, "options": ["bind", "ro"]})
    equal("one", box.sh("cat /srv/new/file; ! echo x 2>/dev/null >/srv/new/file"))


@test
def tmpfs_options(box):
    box.own_root()
    box.config["mounts"].append({"destination": "/new", "type": "tmpfs", "source": "tmpfs",
                                 "options": ["size=64k", "mode=1750", "noexec"]})
    equal("1750 full", box.sh("stat -c %a /new | tr '\\n' ' ';"
                              "head -c 100000 /dev/zero 2>/dev/null >/new/x 2>/dev/null || echo full"))


@test
def links_stay_inside(box):
    root = box.own_root()
    os.symlink("/etc/../../../../tmp", root + "/srv/out")
    path = box.dir + "/one"
    os.mkdir(path)
    open(path + "/f", "w").write("f")
    box.config["mounts"].append({"destination": "/srv/out/in", "source": path, "options": ["bind"]})
    equal("f", box.sh("cat /tmp/in/f"))
    equal(False, os.path.exists("/tmp/in"))


@test
def proc_on_a_link_is_refused(box):
    root = box.own_root()
    os.rmdir(root + "/proc")
    os.symlink("/tmp", root + "/proc")
    box.args("true")
    contains(box.refused(), "must be mounted on ordinary directory")


@test
def unknown_kind_is_refused(box):
    box.config["mounts"].append({"destination": "/mnt", "type": "nonsense", "source": "x"})
    box.refused()


@test
def missing_source_is_refused(box):
    box.config["mounts"].append({"destination": "/mnt", "source": "/no/such/source", "options": ["bind"]})
    contains(box.refused(), "/no/such/source")


@test
def tmpcopyup(box):
    root = box.own_root()
    folder = root + "/srv/data"
    os.makedirs(folder + "/deep/er")
    os.chmod(folder, 0o2750)
    for name, text in (("small", "text"), ("deep/er/big", "x" * 300_000), ("deep/empty", "")):
        with open(f"{folder}/{name}", "w") as file:
            file.write(text)
    os.chown(folder + "/small", 5, 6)
    os.chmod(folder + "/small", 0o4755)
    os.utime(folder + "/small", (1_000_000_000, 1_000_000_001))
    os.symlink("../small", folder + "/deep/link")
    if not YARDSTICK:
        os.mkfifo(folder + "/deep/fifo")  # runc refuses those
    box.config["mounts"].append({"destination": "/srv/data", "type": "tmpfs", "source": "tmpfs",
                                 "options": ["nosuid", "tmpcopyup"]})
    got = box.sh("""cd /srv/data; stat -c '%a %u %g %F' small; cat deep/link; echo; wc -c <deep/er/big; readlink deep/link
        stat -c %F deep/empty; find . -not -type p | wc -l; rm -r deep small; awk '$5 == "/srv/data" { print $9 }' /proc/self/mountinfo""")
    equal(["4755 5 6 regular file", "text", "300000", "../small", "regular empty file", "7", "tmpfs"],
          got.split("\n"))
    if not YARDSTICK:
        # Nor does it keep times.
        equal("prw-r--r-- 1000000001", box.sh("cd /srv/data; echo $(stat -c %A deep/fifo; stat -c %Y small)"))
    # The image is as it was.
    equal("text", open(folder + "/small").read())
    equal(300_000, os.path.getsize(folder + "/deep/er/big"))
    # What does not fit is no container.
    box.config["mounts"][-1]["options"].append("size=64k")
    box.refused()


@test
def a_tmpfs_has_the_mode_of_its_folder(box):
    root = box.own_root()
    for name, mode in (("plain", 0o750), ("sticky", 0o1777)):
        os.mkdir(f"{root}/srv/{name}")
        os.chmod(f"{root}/srv/{name}", mode)
        box.config["mounts"].append({"destination": f"/srv/{name}", "type": "tmpfs", "source": "tmpfs"})
    box.config["mounts"].append({"destination": "/srv/asked", "type": "tmpfs", "source": "x", "options": ["mode=700"]})
    box.config["mounts"].append({"destination": "/srv/new", "type": "tmpfs", "source": "tmpfs"})
    equal("750 1777 700 1777", box.sh("echo $(stat -c %a /srv/plain /srv/sticky /srv/asked /srv/new)"))


@test
def propagation_is_shown(box):
    tree(box)
    script = "awk '$5 ~ \"^/mnt\" { print $5, $7 ~ /shared/ ? \"shared\" : $7 }' /proc/self/mountinfo"
    for words, top, below in ((["rbind", "rshared"], "shared", "shared"), (["rbind", "shared"], "shared", "-"),
                              (["rbind", "rprivate"], "-", "-"), (["rbind", "runbindable"], "unbindable", "unbindable")):
        bind(box, *words)
        wanted = f"/mnt {top}\n/mnt/below {below}"
        got = box.sh(script)
        # Of the host's mounts that were not named, runc shows what they were.
        if got != wanted and not (YARDSTICK and words == ["rbind", "shared"]):
            raise Failed(f"{words}: {got!r}")
        box.config["mounts"].pop()


@test
def processes_are_hidden(box):
    box.config["mounts"].append({"destination": "/srv", "type": "proc", "source": "proc", "options": ["hidepid=2"]})
    contains(box.sh("cat /proc/self/mountinfo"), "rw,hidepid=invisible")
    box.config["process"]["user"] = {"uid": 1234, "gid": 1234}
    box.config["process"]["capabilities"] = {}
    equal("no", box.sh("sleep 30 & [ -e /srv/$! ] && [ -e /srv/self ] && echo no"))
    box.config["mounts"][-1]["options"] = ["hidepid=9"]
    box.refused("hidepid=9" if YARDSTICK else "proc options")


@test
def options_without_effect_are_told(box):
    if YARDSTICK:
        return
    tree(box)
    bind(box, "rbind", "sync", "x-mine")
    box.args("true")
    box.write()
    result = box.run("--debug", "run", "--bundle", box.bundle, box.id)
    equal(0, result.returncode)
    contains(result.stderr, "/mnt: options without effect here: sync, x-mine")


main()
