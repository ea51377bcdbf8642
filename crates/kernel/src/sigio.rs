//! SIGIO and SIGURG: the owner of a file is told of input and output (fcntl(2), `O_ASYNC`).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use executor::{Events, Key, Observer, WaitQueue};
use linux_abi::fs::OpenFlags;
use linux_abi::signal::{SigInfo, Signo, si};
use vfs::{FileOwner, OpenFile, OwnerKind};

use crate::kernel::Kernel;
use crate::process::Process;
use crate::thread::Thread;

/// A place in a file's wait queue, left on drop.
struct Watch {
    queue: Arc<WaitQueue>,
    key: Key,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.queue.remove(self.key);
    }
}

struct Teller {
    this: Weak<Teller>,
    kernel: Weak<Kernel>,
    file: Weak<OpenFile>,
    fd: i32,
    /// What happened since the owner was told last.
    seen: AtomicU32,
}

impl Observer for Teller {
    fn notify(&self, events: Events) -> bool {
        // Told by a task of its own: who wakes may hold locks that a signal needs.
        if self.seen.fetch_or(events.bits(), Ordering::AcqRel) == 0
            && let Some(this) = self.this.upgrade()
        {
            executor::spawn(async move { this.tell() });
        }
        false
    }
}

/// Reasons in the order in which one is looked for: `POLL_*`, and the events that are in its `si_band`.
const REASONS: [(Events, i32, Events); 4] = [
    (Events::IN, 1, Events::READABLE),
    (Events::HUP, 6, Events::HUP.union(Events::ERR)),
    (Events::ERR, 4, Events::ERR),
    (Events::OUT, 2, Events::WRITABLE.union(Events::WRBAND)),
];

impl Teller {
    fn tell(&self) {
        let seen = Events::from_bits_truncate(self.seen.swap(0, Ordering::AcqRel));
        let (Some(kernel), Some(file)) = (self.kernel.upgrade(), self.file.upgrade()) else { return };
        let owner = file.owner();
        if owner.id == 0 {
            return;
        }
        let now = seen & file.ops().poll(&file);
        let socket = file.ops_as::<net::SocketFile>().is_some();
        if socket && now.contains(Events::PRI) {
            send(&kernel, owner, SigInfo::new(Signo::SIGURG, si::KERNEL));
        }
        if !file.flags().contains(OpenFlags::ASYNC) {
            return;
        }
        let Some((_, code, band)) = REASONS.into_iter().find(|r| now.intersects(r.0)) else { return };
        let info = match Signo::new(file.owner_signal()) {
            None => SigInfo::new(Signo::SIGIO, si::KERNEL),
            Some(sig) => SigInfo::new(sig, code).with_u64(0, u64::from(band.bits())).with_i32(8, self.fd),
        };
        send(&kernel, owner, info);
    }
}

/// Whether who set the owner may signal this process.
fn may(owner: FileOwner, target: &Process) -> bool {
    owner.euid == 0
        || target.any_thread().is_none_or(|thread| {
            let target = thread.credentials();
            [target.uid, target.suid].iter().any(|id| [owner.uid, owner.euid].contains(id))
        })
}

fn send(kernel: &Kernel, owner: FileOwner, info: SigInfo) {
    let fallback = SigInfo::new(Signo::SIGIO, si::KERNEL);
    let to_process = |process: &Arc<Process>| {
        // A full queue: the plain signal, which has a place always.
        let same = owner.kind == OwnerKind::Group || process.start_ns == owner.born;
        if same && may(owner, process) && process.send_signal(info).is_err() {
            let _ = process.send_signal(fallback);
        }
    };
    let to_thread = |thread: &Arc<Thread>| {
        let same = thread.start_ns == owner.born;
        if same && may(owner, thread.process()) && thread.send_signal(info).is_err() {
            let _ = thread.send_signal(fallback);
        }
    };
    match owner.kind {
        OwnerKind::Thread => drop(kernel.pids.thread(owner.id).map(|thread| to_thread(&thread))),
        OwnerKind::Process => drop(kernel.pids.process(owner.id).map(|process| to_process(&process))),
        OwnerKind::Group => kernel.pids.group(owner.id).iter().for_each(to_process),
    }
}

/// Looks whether the file is to be watched, after its flags or owner changed. `fd` is what a signal will say.
pub fn update(kernel: &Arc<Kernel>, file: &Arc<OpenFile>, fd: i32) {
    let urgent = file.ops_as::<net::SocketFile>().is_some() && file.owner().id != 0;
    let wanted = urgent || file.flags().contains(OpenFlags::ASYNC);
    file.watch_for_owner(wanted.then_some(fd), || {
        let queue = file.ops().fasync()?.queue;
        let teller = Arc::new_cyclic(|this| Teller {
            this: this.clone(),
            kernel: Arc::downgrade(kernel),
            file: Arc::downgrade(file),
            fd,
            seen: AtomicU32::new(0),
        });
        let key = queue.add(teller, Events::IN | Events::OUT | Events::PRI, false);
        Some(Box::new(Watch { queue, key }))
    });
}
