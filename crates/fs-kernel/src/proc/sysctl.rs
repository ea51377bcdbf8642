//! /proc/sys: sysctl values that run-times and databases read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kernel::Kernel;
use linux_abi::Errno;

use crate::proc::system::{RELEASE, VERSION};
use crate::synthetic::{Directory, Fixed, Kind, Node, ino_of};

fn uuid() -> Vec<u8> {
    let mut b = [0u8; 16];
    let _ = rustix::rand::getrandom(&mut b, rustix::rand::GetRandomFlags::empty());
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex: String = b.iter().map(|x| format!("{x:02x}")).collect();
    let part = |r: std::ops::Range<usize>| hex.get(r).unwrap_or_default().to_owned();
    format!("{}-{}-{}-{}-{}\n", part(0..8), part(8..12), part(12..16), part(16..20), part(20..32))
        .into_bytes()
}

/// A file whose value the guest's root may set.
fn settable(
    name: &str,
    get: impl Fn() -> Vec<u8> + Send + Sync + 'static,
    set: impl Fn(&[u8]) + Send + Sync + 'static,
) -> Arc<Node> {
    let make = Box::new(move |_: &mut dyn vfs::Caller| Ok(get()));
    let take = Box::new(move |_: &mut dyn vfs::Caller, bytes: &[u8]| {
        let end = bytes.iter().position(|b| *b == b'\n' || *b == 0).unwrap_or(bytes.len());
        if end > 64 {
            return Err(Errno::EINVAL);
        }
        set(bytes.get(..end).unwrap_or_default());
        Ok(())
    });
    Node::new(ino_of(4, name.as_bytes()), 0o644, None, Kind::File(make, Some(take)))
}

/// Puts the container's own values into a directory, or adds them to it. `prefix` is its dotted name
/// with a dot at its end.
fn configured(mut dir: Fixed, prefix: &str, values: &BTreeMap<String, String>) -> Fixed {
    let mut inner = BTreeSet::new();
    for (name, value) in values {
        match name.strip_prefix(prefix).map(|rest| (rest, rest.split_once('.'))) {
            Some((_, Some((directory, _)))) => {
                inner.insert(directory);
            }
            Some((file, None)) => dir = dir.without(file).with_text(file, format!("{value}\n")),
            None => {}
        }
    }
    for name in inner.into_iter().filter(|name| dir.lookup(name.as_bytes()).is_none()).collect::<Vec<_>>() {
        dir = dir.with_dir(name, configured(Fixed::default(), &format!("{prefix}{name}."), values));
    }
    dir
}

/// The directory.
pub(super) fn directory(kernel: &Arc<Kernel>) -> Arc<Node> {
    let (host1, host2, dom1, dom2) = (kernel.clone(), kernel.clone(), kernel.clone(), kernel.clone());
    let line = |name: &[u8]| {
        let mut l = name.to_vec();
        l.push(b'\n');
        l
    };
    let boot_id = uuid();
    let random = Fixed::default()
        .with_text("boot_id", boot_id)
        .with_made("uuid", uuid)
        .with_text("entropy_avail", "256\n")
        .with_text("poolsize", "256\n");
    let kernel_dir = Fixed::default()
        .with_text("ostype", "Linux\n")
        .with_text("osrelease", format!("{RELEASE}\n"))
        .with_text("version", format!("{VERSION}\n"))
        .with(
            "hostname",
            settable(
                "hostname",
                move || line(&host1.uts.read().hostname),
                move |n| host2.uts.write().hostname = n.to_vec(),
            ),
        )
        .with(
            "domainname",
            settable(
                "domainname",
                move || line(&dom1.uts.read().domainname),
                move |n| dom2.uts.write().domainname = n.to_vec(),
            ),
        )
        .with_text("pid_max", format!("{}\n", kernel::kernel::PID_MAX))
        .with_text("threads-max", "62000\n")
        .with_text("cap_last_cap", "40\n")
        .with_text("ngroups_max", "65536\n")
        .with_text("overflowuid", "65534\n")
        .with_text("overflowgid", "65534\n")
        .with_text("core_pattern", "core\n")
        .with_text("core_uses_pid", "1\n")
        .with_text("randomize_va_space", "2\n")
        .with_text("tainted", "0\n")
        .with_text("unprivileged_userns_clone", "0\n")
        .with_text("sched_child_runs_first", "0\n")
        .with_text("perf_event_paranoid", "3\n")
        .with_text("dmesg_restrict", "1\n")
        .with_text("kptr_restrict", "2\n")
        .with_text("io_uring_disabled", "2\n")
        .with_dir("random", random);
    let kernel_dir = super::sysvipc::limits(kernel, kernel_dir);
    let vm = Fixed::default()
        .with_text("overcommit_memory", "0\n")
        .with_text("overcommit_ratio", "50\n")
        .with_text("max_map_count", "65530\n")
        .with_text("swappiness", "60\n")
        .with_text("mmap_min_addr", format!("{}\n", platform::LOWEST_ADDRESS))
        .with_text("nr_hugepages", "0\n")
        .with_text("dirty_ratio", "20\n")
        .with_text("dirty_background_ratio", "10\n")
        .with_text("zone_reclaim_mode", "0\n")
        .with_text("vfs_cache_pressure", "100\n")
        .with_text("min_free_kbytes", "67584\n")
        .with_text("legacy_va_layout", "0\n");
    let inotify = Fixed::default()
        .with_text("max_queued_events", "16384\n")
        .with_text("max_user_instances", "8192\n")
        .with_text("max_user_watches", "524288\n");
    let (get, put, used) = (kernel.io.aio.clone(), kernel.io.aio.clone(), kernel.io.aio.clone());
    let aio_most = settable(
        "aio-max-nr",
        move || format!("{}\n", get.most.load(Ordering::Relaxed)).into_bytes(),
        move |text| {
            if let Some(most) = std::str::from_utf8(text).ok().and_then(|t| t.trim().parse().ok()) {
                put.most.store(most, Ordering::Relaxed);
            }
        },
    );
    let aio_used = move || format!("{}\n", used.used.load(Ordering::Relaxed)).into_bytes();
    let fs = Fixed::default()
        .with_text("file-max", "9223372036854775807\n")
        .with_text("file-nr", "1024\t0\t9223372036854775807\n")
        .with_text("inode-nr", "1024\t0\n")
        .with_text("nr_open", "1048576\n")
        .with_text("pipe-max-size", "1048576\n")
        .with_text("pipe-user-pages-soft", "16384\n")
        .with_text("pipe-user-pages-hard", "0\n")
        .with("aio-max-nr", aio_most)
        .with_made("aio-nr", aio_used)
        .with_text("protected_hardlinks", "1\n")
        .with_text("protected_symlinks", "1\n")
        .with_text("suid_dumpable", "0\n")
        .with_text("lease-break-time", "45\n")
        .with_dir("epoll", Fixed::default().with_text("max_user_watches", "5000000\n"))
        .with_dir("mqueue", super::sysvipc::mqueue(kernel))
        .with_dir("inotify", inotify);
    let core = Fixed::default()
        .with_text("somaxconn", "4096\n")
        .with_text("rmem_max", "212992\n")
        .with_text("wmem_max", "212992\n")
        .with_text("rmem_default", "212992\n")
        .with_text("wmem_default", "212992\n")
        .with_text("netdev_max_backlog", "1000\n");
    let ipv4 = Fixed::default()
        .with_text("ip_local_port_range", "32768\t60999\n")
        .with_text("ip_unprivileged_port_start", "1024\n")
        .with_text("tcp_rmem", "4096\t131072\t6291456\n")
        .with_text("tcp_wmem", "4096\t16384\t4194304\n")
        .with_text("tcp_fin_timeout", "60\n")
        .with_text("tcp_keepalive_time", "7200\n")
        .with_text("tcp_keepalive_intvl", "75\n")
        .with_text("tcp_keepalive_probes", "9\n")
        .with_text("tcp_max_syn_backlog", "1024\n")
        .with_text("tcp_syncookies", "1\n")
        .with_text("tcp_tw_reuse", "2\n")
        .with_text("tcp_fastopen", "1\n")
        .with_text("tcp_congestion_control", "cubic\n")
        .with_text("ping_group_range", "0\t2147483647\n")
        .with_text("ip_forward", "0\n");
    let own = |dir: Fixed, prefix: &str| configured(dir, prefix, &kernel.config.sysctl);
    let net =
        Fixed::default().with_dir("core", own(core, "net.core.")).with_dir("ipv4", own(ipv4, "net.ipv4."));
    let net = own(net, "net.");
    Fixed::default()
        .with_dir("kernel", kernel_dir)
        .with_dir("vm", vm)
        .with_dir("fs", fs)
        .with_dir("net", net)
        .node("sys")
}
