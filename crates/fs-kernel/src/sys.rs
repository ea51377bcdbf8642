//! sysfs: sysfs(5), as much as programs ask for.

use std::ops::Range;
use std::sync::Arc;

use kernel::Kernel;
use vfs::FileSystem;

use crate::synthetic::{Fixed, Kind, Node, Synthetic, ino_of};

const SYSFS_MAGIC: u64 = 0x6265_6572;

/// All of `count` CPUs as a list.
fn range(count: usize) -> String {
    format!("{}\n", crate::cpus::list(&(0..count.max(1)).collect::<Vec<_>>()))
}

/// CPUs as a mask over `count`.
fn mask(cpus: Range<usize>, count: usize) -> String {
    format!("{}\n", crate::cpus::mask(&cpus.collect::<Vec<_>>(), count))
}

/// A directory below a path: paths keep the inode numbers of equal names apart.
fn dir(parent: Fixed, path: &str, contents: Fixed) -> Fixed {
    let name = path.rsplit('/').next().unwrap_or(path);
    let node = Node::new(ino_of(5, path.as_bytes()), 0o555, None, Kind::Directory(Box::new(contents)));
    parent.with(name, node)
}

fn link(parent: Fixed, path: &str, target: &str) -> Fixed {
    let name = path.rsplit('/').next().unwrap_or(path);
    let target = target.as_bytes().to_vec();
    let kind = Kind::Link(Box::new(move |_| Ok(target.clone())));
    parent.with(name, Node::new(ino_of(6, path.as_bytes()), 0o777, None, kind))
}

/// /sys/devices/system/cpu.
fn cpus(count: usize) -> Fixed {
    let mut all = Fixed::default()
        .with_text("online", range(count))
        .with_text("possible", range(count))
        .with_text("present", range(count))
        .with_text("offline", "\n")
        .with_text("isolated", "\n")
        .with_text("kernel_max", "8191\n");
    for cpu in 0..count {
        let one = cpu..cpu.saturating_add(1);
        // Each is a core of its own: guests see no siblings.
        let topology = Fixed::default()
            .with_text("core_id", format!("{cpu}\n"))
            .with_text("physical_package_id", "0\n")
            .with_text("die_id", "0\n")
            .with_text("cluster_id", "-1\n")
            .with_text("core_cpus", mask(one.clone(), count))
            .with_text("core_cpus_list", format!("{cpu}\n"))
            .with_text("thread_siblings", mask(one, count))
            .with_text("thread_siblings_list", format!("{cpu}\n"))
            .with_text("core_siblings", mask(0..count, count))
            .with_text("core_siblings_list", range(count))
            .with_text("package_cpus", mask(0..count, count))
            .with_text("package_cpus_list", range(count));
        let path = format!("cpu{cpu}");
        let mut contents = dir(Fixed::default(), &format!("{path}/topology"), topology);
        if cpu > 0 {
            contents = contents.with_text("online", "1\n");
        }
        contents = link(contents, &format!("{path}/node0"), "../../node/node0");
        all = dir(all, &path, contents);
    }
    all
}

/// /sys/devices/system/node: one node with all.
fn nodes(kernel: &Arc<Kernel>, count: usize) -> Fixed {
    let kernel = kernel.clone();
    let meminfo = move || {
        let memory = kernel.memory();
        let (total, free) = (memory.total >> 10, memory.free >> 10);
        format!(
            "Node 0 MemTotal:       {total:8} kB\nNode 0 MemFree:        {free:8} kB\nNode 0 MemUsed:        {:8} kB\n",
            total.saturating_sub(free)
        )
        .into_bytes()
    };
    let node0 = Fixed::default()
        .with_text("cpulist", range(count))
        .with_text("cpumap", mask(0..count, count))
        .with_text("distance", "10\n")
        .with_made("meminfo", meminfo);
    let all = Fixed::default()
        .with_text("online", "0\n")
        .with_text("possible", "0\n")
        .with_text("has_cpu", "0\n")
        .with_text("has_memory", "0\n")
        .with_text("has_normal_memory", "0\n");
    dir(all, "node0", node0)
}

/// /sys/kernel: how memory is mapped by large pages.
fn kernel_directory() -> Fixed {
    let huge = Fixed::default()
        .with_text("enabled", "always [madvise] never\n")
        .with_text("defrag", "always defer defer+madvise [madvise] never\n")
        .with_text("shmem_enabled", "always within_size advise [never] deny force\n")
        .with_text("use_zero_page", "1\n")
        .with_text("hpage_pmd_size", "2097152\n");
    // Linux's defaults where a large page has 512 small ones.
    let collapsing = Fixed::default()
        .with_text("defrag", "1\n")
        .with_text("max_ptes_none", "511\n")
        .with_text("max_ptes_shared", "256\n")
        .with_text("max_ptes_swap", "64\n")
        .with_text("pages_to_scan", "4096\n")
        .with_text("scan_sleep_millisecs", "10000\n")
        .with_text("alloc_sleep_millisecs", "60000\n");
    let huge = dir(huge, "kernel/mm/transparent_hugepage/khugepaged", collapsing);
    let mm = dir(Fixed::default(), "kernel/mm/transparent_hugepage", huge);
    let all = dir(Fixed::default(), "kernel/mm", mm);
    dir(all, "kernel/security", Fixed::default())
}

/// The memory devices that /dev has: name and minor number; their major one is 1.
const MEMORY_DEVICES: [(&str, u32); 5] =
    [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];

/// /sys/devices/virtual/mem, /sys/class/mem and /sys/dev/char.
fn memory_devices() -> (Fixed, Fixed, Fixed) {
    let (mut devices, mut class, mut by_number) = (Fixed::default(), Fixed::default(), Fixed::default());
    for (name, minor) in MEMORY_DEVICES {
        let path = format!("devices/virtual/mem/{name}");
        let device = Fixed::default()
            .with_text("dev", format!("1:{minor}\n"))
            .with_text("uevent", format!("MAJOR=1\nMINOR={minor}\nDEVNAME={name}\nDEVMODE=0666\n"));
        let device = link(device, &format!("{path}/subsystem"), "../../../../class/mem");
        devices = dir(devices, &path, device);
        class = link(class, &format!("class/mem/{name}"), &format!("../../{path}"));
        by_number = link(by_number, &format!("dev/char/1:{minor}"), &format!("../../{path}"));
    }
    (devices, class, by_number)
}

/// A sysfs of this kernel.
pub fn mount(kernel: &Arc<Kernel>, device: u64) -> Arc<dyn FileSystem> {
    let count = kernel.config.cpus.max(1);
    let system = dir(Fixed::default(), "devices/system/cpu", cpus(count));
    let system = dir(system, "devices/system/node", nodes(kernel, count));
    let (memory, memory_class, by_number) = memory_devices();
    let virtual_devices = Fixed::default().with("net", crate::sys_net::devices());
    let virtual_devices = dir(virtual_devices, "devices/virtual/mem", memory);
    let devices = dir(Fixed::default(), "devices/system", system);
    let devices = dir(devices, "devices/virtual", virtual_devices);
    let class =
        ["block", "tty"].iter().fold(Fixed::default().with("net", crate::sys_net::class()), |class, name| {
            dir(class, &format!("class/{name}"), Fixed::default())
        });
    let class = dir(class, "class/mem", memory_class);
    // No file system here lies on a disk that the guest sees: their numbers have the major one 0, for
    // which Linux has no entry either.
    let numbers = dir(Fixed::default(), "dev/block", Fixed::default());
    let numbers = dir(numbers, "dev/char", by_number);
    let cgroup = dir(Fixed::default(), "fs/cgroup", Fixed::default());
    let mut root = Fixed::default();
    for (name, contents) in [
        ("block", Fixed::default()),
        ("bus", Fixed::default()),
        ("class", class),
        ("dev", numbers),
        ("devices", devices),
        ("firmware", Fixed::default()),
        ("fs", cgroup),
        ("kernel", kernel_directory()),
        ("module", Fixed::default()),
        ("power", Fixed::default()),
    ] {
        root = dir(root, name, contents);
    }
    let root = Node::new(1, 0o555, None, Kind::Directory(Box::new(root)));
    Synthetic::new("sysfs", SYSFS_MAGIC, device, root)
}
