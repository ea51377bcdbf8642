//! Attempts to leave the jail, from inside. Each must fail.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use control::NetworkRights;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Pid, Signal};

/// Paths that no kernel process may open, from its root or through its procfs.
const PATHS: [&str; 8] = [
    "/etc/shadow",
    "/etc/passwd",
    "/proc/sys/kernel/core_pattern",
    "/proc/self/exe",
    "/sys/fs/cgroup",
    "/dev/null",
    "/run",
    "/tmp",
];
const PROC_PATHS: [&str; 10] = [
    "sys/kernel/core_pattern",
    "sysrq-trigger",
    "kcore",
    "kallsyms",
    "mounts/../../etc/shadow",
    "self/root/etc/shadow",
    "self/cwd/etc/shadow",
    "self/../../etc/shadow",
    "1/root/../etc/shadow",
    "2/root/etc/shadow",
];

const SOL_PACKET: i32 = 263;
const PACKET_RX_RING: i32 = 5;

/// One line for each attempt that succeeded; empty when the jail holds.
pub(crate) fn escapes(proc: &OwnedFd, root: Option<&OwnedFd>, rights: NetworkRights) -> Vec<String> {
    let mut escapes = Vec::new();
    let mut attempt = |what: String, succeeded: bool| {
        if succeeded {
            escapes.push(what);
        }
    };
    for path in PATHS {
        attempt(format!("open {path}"), opens(CWD, path, OFlags::RDONLY));
    }
    for path in PROC_PATHS {
        attempt(format!("open proc {path}"), opens(proc.as_fd(), path, OFlags::RDONLY));
    }
    attempt("write our own program".into(), opens(proc.as_fd(), "self/exe", OFlags::WRONLY));
    if let Some(root) = root {
        // ".." at the top of a detached mount stays there: it must be the same.
        let inode = |path: &str| {
            rustix::fs::statat(root, path, rustix::fs::AtFlags::empty())
                .map(|stat| (stat.st_dev, stat.st_ino))
                .ok()
        };
        attempt("climb out of the root file system".into(), inode("..") != inode("."));
    }
    attempt("make a file in /".into(), opens(CWD, "/x", OFlags::WRONLY | OFlags::CREATE));
    attempt("mount".into(), rustix::mount::mount("none", "/", "tmpfs", MountFlags::empty(), None).is_ok());
    attempt("unmount".into(), rustix::mount::unmount("/", UnmountFlags::DETACH).is_ok());
    attempt("pivot the root".into(), rustix::process::pivot_root("/", "/").is_ok());
    attempt("chroot".into(), rustix::process::chroot("/").is_ok());
    attempt("execute a program".into(), std::process::Command::new("/proc/self/exe").spawn().is_ok());
    attempt(
        "make a unix socket".into(),
        rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).is_ok(),
    );
    let packets = rustix::net::socket(AddressFamily::PACKET, SocketType::RAW, None);
    if let Ok(socket) = &packets {
        // struct tpacket_req: one block of one page, two frames.
        let ring = [4096_u32, 1, 2048, 2].map(u32::to_ne_bytes).concat();
        let set = host::socket::set_option(socket.as_fd(), SOL_PACKET, PACKET_RX_RING, &ring);
        attempt("share memory with a packet socket".into(), set.is_ok());
    }
    attempt("make a packet socket".into(), packets.is_ok() && !rights.raw);
    let netfilter = rustix::net::netlink::NETFILTER;
    attempt(
        "reach netfilter".into(),
        rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, Some(netfilter)).is_ok(),
    );
    if let Some(init) = Pid::from_raw(1) {
        attempt(
            "signal a process group".into(),
            rustix::process::kill_process_group(init, Signal::HUP).is_ok(),
        );
    }
    attempt("regain privileges".into(), rustix::thread::set_no_new_privs(false).is_ok());
    let capabilities = rustix::thread::capabilities(None);
    attempt(
        "hold CAP_SYS_ADMIN".into(),
        capabilities.is_ok_and(|sets| sets.permitted.contains(rustix::thread::CapabilitySet::SYS_ADMIN)),
    );
    attempt("be root".into(), rustix::process::geteuid().is_root());
    escapes
}

fn opens(directory: BorrowedFd<'_>, path: &str, flags: OFlags) -> bool {
    rustix::fs::openat(directory, path, flags | OFlags::CLOEXEC, Mode::RUSR).is_ok()
}
