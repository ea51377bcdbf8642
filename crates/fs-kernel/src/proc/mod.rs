//! procfs: proc(5).

mod fd;
mod maps;
mod mem;
mod options;
mod pid;
mod status;
mod sysctl;
mod system;
mod sysvipc;

use std::sync::Arc;

use kernel::{Kernel, Process};
use linux_abi::Errno;
use linux_abi::fs::DirentType;
use vfs::{Caller, FileSystem, Result};

pub(crate) use options::Options;

use crate::synthetic::{Directory, Fixed, Kind, Node, Synthetic, ino_of};

const PROC_MAGIC: u64 = 0x9fa0;

/// The root: processes and the system's files.
struct Root {
    kernel: Arc<Kernel>,
    fixed: Fixed,
    options: Arc<Options>,
}

/// What there is without the rest of the system.
const OF_PROCESSES: [&[u8]; 2] = [b"self", b"thread-self"];

fn parse_pid(name: &[u8]) -> Option<i32> {
    // No sign, no leading zero.
    if name.first().is_none_or(|b| *b == b'0') || !name.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(name).ok()?.parse().ok()
}

impl Directory for Root {
    fn lookup(&self, name: &[u8]) -> Option<Arc<Node>> {
        if let Some(pid) = parse_pid(name) {
            // A thread's id is found too, though not listed.
            let process = self
                .kernel
                .pids
                .process(pid)
                .ok()
                .or_else(|| self.kernel.pids.thread(pid).ok().map(|t| t.process().clone()))?;
            let thread = self.kernel.pids.thread(pid).ok();
            return Some(pid::directory(&self.kernel, process, thread, Some(self.options.clone())));
        }
        if self.options.pids_only() && !OF_PROCESSES.contains(&name) {
            return None;
        }
        self.fixed.lookup(name)
    }
    fn list(&self) -> Vec<(Vec<u8>, DirentType, u64)> {
        self.shown(&|_| true)
    }
    fn list_for(&self, caller: &dyn Caller) -> Vec<(Vec<u8>, DirentType, u64)> {
        self.shown(&|process| self.options.check(caller, process, false).is_ok())
    }
    fn is_of_processes(&self) -> bool {
        true
    }
    fn still(&self, name: &[u8]) -> bool {
        // Ids are used again: a new look costs little.
        parse_pid(name).is_none() && !self.options.pids_only()
    }
}

impl Root {
    fn shown(&self, shows: &dyn Fn(&Process) -> bool) -> Vec<(Vec<u8>, DirentType, u64)> {
        let mut all = self.fixed.list();
        if self.options.pids_only() {
            all.retain(|(name, ..)| OF_PROCESSES.contains(&name.as_slice()));
        }
        for process in self.kernel.pids.processes().into_iter().filter(|process| shows(process)) {
            let name = process.pid().to_string().into_bytes();
            let ino = ino_of(2, &name);
            all.push((name, DirentType::Dir, ino));
        }
        all
    }
}

/// A procfs of this kernel with options such as `hidepid=2`; `EINVAL`.
pub fn mount(kernel: &Arc<Kernel>, data: &[u8], device: u64) -> Result<Arc<dyn FileSystem>> {
    let options = Arc::new(Options::default());
    options.set(data)?;
    let link = |name: &str, kind: Kind| Node::new(ino_of(3, name.as_bytes()), 0o777, None, kind);
    let this = Kind::Link(Box::new(|caller| {
        if caller.pid() == 0 { Err(Errno::ENOENT) } else { Ok(caller.pid().to_string().into_bytes()) }
    }));
    let thread = Kind::Link(Box::new(|caller| {
        let tid = caller.as_any().downcast_ref::<Arc<kernel::Thread>>().map_or(caller.pid(), |t| t.tid());
        Ok(format!("{}/task/{tid}", caller.pid()).into_bytes())
    }));
    let fixed = system::files(kernel, Fixed::default())
        .with("self", link("self", this))
        .with("thread-self", link("thread-self", thread))
        .with("mounts", link("mounts", Kind::Link(Box::new(|_| Ok(b"self/mounts".to_vec())))))
        .with("net", link("net", Kind::Link(Box::new(|_| Ok(b"self/net".to_vec())))))
        .with_dir("sysvipc", sysvipc::directory(kernel))
        .with("sys", sysctl::directory(kernel));
    kernel.set_process_finder(crate::synthetic::process_of_directory);
    let root = Root { kernel: kernel.clone(), fixed, options: options.clone() };
    let node = Node::new(1, 0o555, None, Kind::Directory(Box::new(root)));
    Ok(Synthetic::with_options("proc", PROC_MAGIC, device, node, Some(options)))
}
