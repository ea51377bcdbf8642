"""The fields of config.json, each seen from inside the container or refused by name."""
import os
import resource
import socket
import subprocess
import threading
exec(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "oci.py.inc")).read())


@test
def hello(box):
    equal("hello", box.sh("echo hello"))


@test
def hostname_and_domainname(box):
    box.config["hostname"] = "some-host"
    equal("some-host", box.sh("hostname"))


@test
def working_directory_is_made(box):
    box.own_root()
    box.config["process"]["cwd"] = "/srv/new/deep"
    equal("/srv/new/deep", box.sh("pwd"))
    # Of a read-only root, too.
    box.config["root"]["readonly"] = True
    box.config["process"]["cwd"] = "/srv/other/deep"
    equal("/srv/other/deep", box.sh("pwd; ! touch /srv/x 2>/dev/null"))
    for bad, reason in (("/etc/passwd", "not a directory"), ("/etc/passwd/x", "not a directory")):
        box.config["process"]["cwd"] = bad
        contains(box.refused(), reason)


@test
def user_groups_umask(box):
    box.config["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 77], "umask": 0o027}
    equal("1000 1001 1001 5 77 0027", box.sh("echo $(id -u) $(id -g) $(id -G) $(umask)"))


@test
def each_group_once(box):
    box.config["process"]["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [77, 5, 77, 5]}
    # id(1) shows each once whatever there is.
    equal("Groups: 5 77", box.sh("grep ^Groups: /proc/self/status | tr -s '\t ' ' '"))


@test
def environment_last_value_counts(box):
    box.config["process"]["env"] += ["ONE=1", "ONE=2"]
    equal("2", box.sh("echo $ONE"))
    for entry in ("NO_VALUE", ""):
        box.config["process"]["env"] = ["PATH=/bin", entry]
        contains(box.refused(), "invalid environment variable")


@test
def rlimits(box):
    box.config["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 4096},
    ]
    equal("100 200 0", box.sh("echo $(ulimit -Sn) $(ulimit -Hn) $(ulimit -Sc)"))


@test
def rlimits_of_the_caller(box):
    """What config.json does not name comes from whoever starts the runtime, and binds the container alone."""
    box.config["process"]["rlimits"] = [{"type": "RLIMIT_NPROC", "soft": 500, "hard": 600}]
    shown = "echo $(ulimit -Sn) $(ulimit -Hn) $(ulimit -Sl) $(ulimit -Sf) $(ulimit -Sp)"

    def limited(files):
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 2 << 20))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        resource.setrlimit(resource.RLIMIT_NPROC, (5000, 6000))

    box.args("sh", "-c", shown)
    box.write()
    output = box.done(box.run("run", "--bundle", box.bundle, box.id, preexec_fn=lambda: limited(1200)))
    equal("1200 1200 1024 2097152 500", output.strip())
    box.args("sleep", "100")
    box.create()
    box.start()
    output = box.done(box.run("exec", box.id, "sh", "-c", shown, preexec_fn=lambda: limited(1100)))
    equal("1100 1100 1024 2097152 500", output.strip())


@test
def rlimits_of_memory(box):
    mine = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    # Twice what the host allows, where we may raise that.
    raises = subprocess.run(["prlimit", f"--memlock={mine}:{2 * mine}", "true"], capture_output=True)
    locked = 2 * mine if raises.returncode == 0 else mine // 2
    box.config["process"]["capabilities"] = {}
    box.config["process"]["rlimits"] = [
        {"type": "RLIMIT_MEMLOCK", "soft": locked, "hard": locked},
        {"type": "RLIMIT_AS", "soft": 64 << 20, "hard": 64 << 20},
        {"type": "RLIMIT_STACK", "soft": 1 << 20, "hard": 2 << 20},
    ]
    lock = 'perl -e \'$b = "x" x %d; print syscall(149, unpack("Q", pack("P", $b)), %d) < 0 ? "no" : "yes"\''
    many = "dd if=/dev/zero of=/dev/null count=1 2>&1 bs=%dM | grep -c copied"
    script = "; echo; ".join([lock % (n, n) for n in (locked - (1 << 20), locked + (1 << 20))])
    equal("yes\nno", box.sh(script))
    equal("1\n0\n1024", box.sh("; ".join([many % 40, many % 70, "ulimit -s"])))


@test
def rlimit_unknown_is_refused(box):
    box.config["process"]["rlimits"] = [{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}]
    box.refused()


@test
def capabilities(box):
    caps = ["CAP_KILL", "CAP_CHOWN"]
    box.config["process"]["capabilities"] = {"bounding": caps, "permitted": caps, "effective": ["CAP_KILL"]}
    text = box.sh("grep Cap /proc/self/status")
    # 1 << 0 | 1 << 5
    contains(text, "CapBnd:\t0000000000000021")


@test
def capability_unknown_is_told(box):
    for kind in box.config["process"]["capabilities"].values():
        kind.append("CAP_FROM_TOMORROW")
    box.args("true")
    box.write()
    result = box.run("run", "--bundle", box.bundle, box.id)
    equal(0, result.returncode)
    contains(result.stderr, "CAP_FROM_TOMORROW")


@test
def no_new_privileges(box):
    box.config["process"]["noNewPrivileges"] = True
    contains(box.sh("cat /proc/self/status"), "NoNewPrivs:\t1")


@test
def oom_score_adj(box):
    box.config["process"]["oomScoreAdj"] = 321
    equal("321", box.sh("cat /proc/self/oom_score_adj"))


@test
def root_readonly(box):
    box.sh("! touch /x 2>/dev/null")


@test
def readonly_and_masked_paths(box):
    box.own_root()
    box.config["linux"]["maskedPaths"] = ["/etc/passwd", "/etc/apt"]
    box.config["linux"]["readonlyPaths"] = ["/usr", "/not/there"]
    box.config["process"]["user"] = {"uid": 0, "gid": 0}
    equal("", box.sh("cat /etc/passwd; ls -A /etc/apt; ! touch /usr/x 2>/dev/null; touch /etc/x"))


@test
def devices(box):
    box.config["linux"]["devices"] = [
        {"path": "/dev/other-zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o644, "uid": 3, "gid": 4},
        {"path": "/dev/queue", "type": "p", "major": 0, "minor": 0, "fileMode": 0o622},
    ]
    box.config["linux"]["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}
    # The umask of whoever runs the tests does not count.
    equal("c 644 3 4 1 5|p|0000", box.sh(
        "stat -c '%A %a %u %g %t %T' /dev/other-zero | sed 's/^\\(.\\)[^ ]*/\\1/' | tr '\\n' '|';"
        "stat -c %A /dev/queue | cut -c1 | tr '\\n' '|'; head -c2 /dev/other-zero | od -An -tx1 | tr -d ' '"))


@test
def default_devices(box):
    equal("", box.sh("for d in null zero full random urandom tty; do [ -c /dev/$d ] || echo no $d; done;"
                     "for l in fd stdin stdout stderr ptmx; do [ -L /dev/$l ] || echo no $l; done"))


@test
def sysctl_of_the_network(box):
    box.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "net.ipv4.ip_unprivileged_port_start": "80"}
    equal("1 80", box.sh("echo $(cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_unprivileged_port_start)"))


@test
def low_ports(box):
    """CAP_NET_BIND_SERVICE counts, and the first port that needs none; also in a namespace that an engine made."""
    bind = """for port in 80 79 81; do perl -MSocket -e '
        socket(S, AF_INET, SOCK_STREAM, 0);
        print bind(S, sockaddr_in(shift, INADDR_ANY)) ? "yes " : "$! "' $port; done"""
    no = "Permission denied"
    name = "sallet-oci-%d" % os.getpid()
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for path in None, "/run/netns/" + name:
            for namespace in box.config["linux"]["namespaces"]:
                if namespace["type"] == "network" and path:
                    namespace["path"] = path
            box.config["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "81"}
            box.config["process"]["user"] = {"uid": 0, "gid": 0}
            equal("yes yes yes", box.sh(bind).strip())
            box.config["process"]["user"] = {"uid": 1000, "gid": 1000}
            equal(f"{no} {no} yes", box.sh(bind).strip())
            del box.config["linux"]["sysctl"]
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@test
def raw_sockets_of_a_joined_network(box):
    """With CAP_NET_RAW, as in pods; never on the host's network, and not from a user namespace with no right over it."""
    opens = """perl -MSocket -e '
        for ([2, 3, 1], [17, 3, 0], [17, 2, 0]) { print socket(S, $$_[0], $$_[1], $$_[2]) ? "yes " : "$! " }'"""
    no = "Operation not permitted"
    linux, capabilities = box.config["linux"], box.config["process"]["capabilities"]
    network = next(namespace for namespace in linux["namespaces"] if namespace["type"] == "network")
    name = "sallet-oci-%d" % os.getpid()
    subprocess.run(["ip", "netns", "add", name], check=True)
    # A pod with a user namespace of its own.
    pod = subprocess.Popen(["unshare", "--user", "--net", "--map-root-user", "sleep", "60"])
    try:
        eventually(10, lambda: os.readlink(f"/proc/{pod.pid}/ns/net") != os.readlink("/proc/self/ns/net"), "the pod")
        pod_network = f"/proc/{pod.pid}/ns/net"
        for path in "/run/netns/" + name, pod_network:
            network["path"] = path
            # To Linux, who made a user namespace may do everything over its network.
            if not (YARDSTICK and path == pod_network):
                equal(f"{no} {no} {no}", box.sh(opens).strip())
            for kind in "bounding", "effective", "permitted":
                capabilities[kind].append("CAP_NET_RAW")
            equal("yes yes yes", box.sh(opens).strip())
            box.config["process"]["user"] = {"uid": 1000, "gid": 1000}
            equal(f"{no} {no} {no}", box.sh(opens).strip())
            box.config["process"]["user"] = {"uid": 0, "gid": 0}
            for kind in "bounding", "effective", "permitted":
                capabilities[kind].remove("CAP_NET_RAW")
        for kind in "bounding", "effective", "permitted":
            capabilities[kind].append("CAP_NET_RAW")
        if not YARDSTICK:
            network["path"] = f"/proc/{os.getpid()}/ns/net"
            equal(f"{no} {no} {no}", box.sh(opens).strip())
            linux["namespaces"].append({"type": "user"})
            linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 0, "size": 2000}]
            network["path"] = "/run/netns/" + name
            equal(f"{no} {no} {no}", box.sh(opens).strip())
    finally:
        pod.kill()
        pod.wait()
        subprocess.run(["ip", "netns", "delete", name], check=True)


@test
def sysctl_of_ipc(box):
    box.config["linux"]["sysctl"] = {"kernel.shmmax": "65536", "kernel.sem": "100 200 30 40",
                                     "fs.mqueue.msg_max": "7"}
    equal("65536 7 100 200 30 40",
          box.sh("echo $(cat /proc/sys/kernel/shmmax /proc/sys/fs/mqueue/msg_max /proc/sys/kernel/sem)"))
    equal("refused", box.sh("ipcmk -M 100000 >/dev/null 2>&1 || echo refused"))


@test
def sysctl_of_the_machine_is_refused(box):
    box.config["linux"]["sysctl"] = {"vm.swappiness": "1"}
    contains(box.refused(), "vm.swappiness")


@test
def id_mappings(box):
    linux = box.config["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = [{"containerID": 0, "hostID": 0, "size": 1000}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": 0, "size": 2000}]
    equal("0 0 1000 0 0 2000", box.sh("echo $(cat /proc/self/uid_map /proc/self/gid_map)"))


@test
def ids_are_mapped_on_the_host(box):
    linux = box.config["linux"]
    linux["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        linux[kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    share = box.tmpfs(box.dir + "/share")
    os.chown(share, 100000, 100000)
    # Whoever maps ids must be able to reach the bundle and its root.
    os.chmod(box.dir, 0o755)
    box.config["mounts"].append({"destination": "/mnt", "source": share, "options": ["rbind"]})
    equal("0 0", box.sh("touch /mnt/made; stat -c '%u %g' /mnt/made"))
    status = os.stat(share + "/made")
    equal((100000, 100000), (status.st_uid, status.st_gid))


@test
def rootfs_propagation(box):
    for word in ("shared", "slave", "private"):
        box.config["linux"]["rootfsPropagation"] = word
        equal("x", box.sh("echo x"))
    box.config["linux"]["rootfsPropagation"] = "sideways"
    box.refused()


@test
def personality(box):
    if not YARDSTICK:
        box.config["linux"]["personality"] = {"domain": "LINUX32"}
        contains(box.refused(), "LINUX32")
    box.config["linux"]["personality"] = {"domain": "LINUX"}
    equal("x86_64", box.sh("uname -m"))


@test
def seccomp(box):
    box.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
            {"names": ["rmdir", "no_such_call"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 61,
             "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]},
            {"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"},
        ],
    }
    box.own_root()
    text = box.sh("""
        mkdir /tmp/a 2>&1 | grep -o 'not supported'
        busybox true 2>/dev/null
        mkdir -p /tmp; rmdir /var/tmp 2>&1 | grep -o 'not permitted'
        sh -c 'kill -USR1 $$' 2>&1 | grep -o 'No data available'
        sh -c 'kill -TERM $$'; echo $?
        hostname x; echo $?
        grep ^Seccomp: /proc/self/status | tr -d '\\t'""")
    words = text.split("\n")
    contains(text, "not supported")
    contains(text, "not permitted")
    contains(text, "143\n159\nSeccomp:2" if len(words) > 3 else "?")


@test
def seccomp_of_native_calls(box):
    """Calls that a sandbox may leave to its host, or answer without its kernel."""
    def rule(name, errno, index=None, value=None):
        args = [{"index": index, "value": value, "op": "SCMP_CMP_EQ"}] if index is not None else []
        return {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args}
    box.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            rule("futex", 61, 2, 77), rule("mmap", 62, 1, 0x12345000), rule("munmap", 63, 1, 0x12345000),
            rule("geteuid", 64), rule("getppid", 65), rule("sched_yield", 66), rule("membarrier", 67),
            {"names": ["mlock"], "action": "SCMP_ACT_KILL_PROCESS"},
            {"names": ["madvise"], "action": "SCMP_ACT_LOG"},
        ],
    }
    script = """
        sub try { my $got = syscall($_[0], @_[1 .. $#_]); return $got == -1 ? "e" . ($! + 0) : $got }
        my $word = pack("L", 0);
        my $at = syscall(9, 0, 8192, 3, 0x22, -1, 0);
        for (1 .. 100) { try(107) }
        print join(" ", try(202, $word, 1, 77), try(202, $word, 1, 1), try(202, $word, 0, 5, 0),
            try(9, 0, 0x12345000, 3, 0x22, -1, 0), try(11, $at, 0x12345000), try(10, $at, 4096, 1),
            try(28, $at, 8192, 4), try(11, $at, 8192), try(107), try(110), try(24), try(324, 0, 0)), "\n";
        my $pid = fork;
        if (!$pid) { print try(202, $word, 1, 77), " ", try(24), "\n"; exit 0 }
        waitpid $pid, 0;
        syscall(149, $at, 4096);
        print "not killed\n";"""
    wanted = "e61 0 e11 e62 e63 0 0 0 e64 e65 e66 e67\ne61 e66\n159"
    equal(wanted, box.sh(f"perl -e '$|=1; {script}'; echo $?"))
    contains(box.sh("grep ^Seccomp: /proc/self/status"), "2")


@test
def seccomp_of_files_that_are_mapped_again(box):
    """Files that many calls are made of, which a thread may map and close on its own."""
    box.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mmap"], "action": "SCMP_ACT_ERRNO", "errnoRet": 62,
                      "args": [{"index": 2, "value": 4, "op": "SCMP_CMP_EQ"}]}],
    }
    # PROT_READ is let through, PROT_EXEC is not.
    script = """
        my ($good, $bad, $path) = (0, 0, "$^X");
        for my $turn (1 .. 3000) {
            my $fd = syscall(2, $path, 0);
            for my $prot (1, 4, 1, 4) {
                my $at = syscall(9, 0, 4096, $prot, 2, $fd, 0);
                $at == -1 ? $! == 62 && $bad++ : ($prot == 1 && $good++, syscall(11, $at, 4096));
            }
            syscall(3, $fd);
        }
        print "$good $bad\n";"""
    equal("6000 6000", box.sh(f"perl -e '{script}'"))


@test
def scheduler_and_priority(box):
    if YARDSTICK:
        return
    box.config["process"]["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    box.config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    equal("7", box.sh("nice"))
    contains(box.sh("chrt -p $$"), "SCHED_BATCH")
    contains(box.sh("ionice -p $$"), "best-effort: prio 6")
    box.config["process"]["scheduler"] = {"policy": "SCHED_FIFO", "priority": 5}
    contains(box.refused(), "SCHED_FIFO")


@test
def memory_policy(box):
    if YARDSTICK or not os.path.exists("/proc/self/numa_maps"):
        return
    box.config["linux"]["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    contains(box.sh("cat /proc/self/numa_maps"), "bind=static:0")
    for bad in ({"mode": "BIND"}, {"nodes": "0"}, {"mode": "MPOL_BIND", "nodes": "0-9876543210"},
                {"mode": "MPOL_DEFAULT", "nodes": "0"}):
        box.config["linux"]["memoryPolicy"] = bad
        box.refused()


@test
def less_memory_than_a_start_takes(box):
    for limit in 1000, 500_000, 1_000_000:
        box.config["linux"]["resources"] = {"memory": {"limit": limit}}
        message = box.refused()
        if not YARDSTICK:
            contains(message, "limit of memory may be too small")


@test
def unsupported_is_refused_by_name(box):
    if YARDSTICK:
        return
    for name, value in (("intelRdt", {"closID": "x"}), ("netDevices", {"eth0": {}}),
                        ("timeOffsets", {"monotonic": {"secs": 1}})):
        box.config["linux"][name] = value
        contains(box.refused(), name)
        del box.config["linux"][name]
    box.config["linux"]["namespaces"].append({"type": "time"})
    contains(box.refused(), "time namespace")


@test
def unknown_fields_are_ignored(box):
    box.config["linux"]["fromTomorrow"] = {"x": 1}
    equal("x", box.sh("echo x"))


@test
def annotations_in_the_state(box):
    box.config["annotations"] = {"org.example": "yes"}
    box.args("sleep", "20")
    box.create()
    equal({"org.example": "yes"}, {k: v for k, v in box.state()["annotations"].items() if k == "org.example"})


@test
def sockets_of_the_host(box):
    folder = box.dir + "/top"
    os.mkdir(folder)
    server = socket.socket(socket.AF_UNIX)
    server.bind(folder + "/socket")
    server.listen()
    threading.Thread(target=lambda: [server.accept()[0].sendall(b"from outside") for _ in range(9)], daemon=True).start()
    box.config["mounts"].append({"destination": "/mnt", "source": folder, "options": ["bind"]})
    ask = """perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new(Peer => "/mnt/socket") or die "$!"; print <$s>' 2>&1"""
    if not YARDSTICK:
        contains(box.sh(ask + " || true"), "Connection refused")
    box.config["annotations"] = {"org.sallet.host-uds": "open"}
    equal("from outside", box.sh(ask))
    if YARDSTICK:
        return
    # Who gives the flag says how much an annotation may.
    result = box.run("--host-uds=mounted", "run", "--bundle", box.bundle, box.id)
    contains(result.stderr, "open is more than --host-uds=mounted allows")
    box.config["annotations"]["org.sallet.host-uds"] = "none"
    box.args("sh", "-c", ask)
    box.write()
    contains(box.run("--host-uds=open", "run", "--bundle", box.bundle, box.id).stdout, "Connection refused")
    box.config["annotations"]["org.sallet.host-uds"] = "much"
    contains(box.refused(), "is not none, mounted, open or all")


main()
