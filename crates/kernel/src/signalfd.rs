//! Signals as a file: signalfd(2).

use std::any::Any;
use std::sync::{Arc, Weak};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use linux_abi::signal::{SigInfo, SigSet, Signo, si};
use parking_lot::Mutex;
use vfs::{FileOps, OpenFile};
use zerocopy::{Immutable, IntoBytes};

use crate::{Process, Result, Thread};

/// `struct signalfd_siginfo`.
#[repr(C)]
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
struct Record {
    signo: u32,
    errno: i32,
    code: i32,
    pid: u32,
    uid: u32,
    fd: i32,
    tid: u32,
    band: u32,
    overrun: u32,
    trapno: u32,
    status: i32,
    int: i32,
    ptr: u64,
    utime: u64,
    stime: u64,
    addr: u64,
    addr_lsb: u16,
    pad: [u16; 23],
}

const SIZE: usize = size_of::<Record>();
const _: () = assert!(SIZE == 128);

/// A signalfd. It gives the signals of the process that made it, whichever of its threads reads.
pub struct SignalFd {
    process: Weak<Process>,
    queue: Arc<WaitQueue>,
    mask: Mutex<SigSet>,
}

impl SignalFd {
    /// A new open signalfd for the process of this thread.
    pub fn open(thread: &Thread, mask: SigSet, nonblock: bool) -> Arc<OpenFile> {
        let ops = Arc::new(SignalFd {
            process: Arc::downgrade(thread.process()),
            queue: thread.kernel().signal_queue.clone(),
            mask: Mutex::new(mask.blockable()),
        });
        let nonblock = if nonblock { OpenFlags::NONBLOCK } else { OpenFlags::empty() };
        OpenFile::anonymous(b"anon_inode:[signalfd]", 0o600, ops, OpenFlags::RDWR | nonblock)
    }

    /// Changes what it gives.
    pub fn set_mask(&self, mask: SigSet) {
        *self.mask.lock() = mask.blockable();
        self.queue.wake(Events::READABLE);
    }

    fn take(&self) -> Option<SigInfo> {
        let process = self.process.upgrade()?;
        let mask = *self.mask.lock();
        let threads: Vec<_> = process.threads.lock().values().cloned().collect();
        threads.iter().find_map(|thread| crate::signal::take(thread, mask))
    }
}

impl FileOps for SignalFd {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _file: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        if buf.len() < SIZE {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        for slot in buf.chunks_exact_mut(SIZE) {
            let Some(info) = self.take() else { break };
            slot.copy_from_slice(record(&info).as_bytes());
            done += SIZE;
        }
        if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) }
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        let Some(process) = self.process.upgrade() else { return Events::empty() };
        let mask = *self.mask.lock();
        let threads: Vec<_> = process.threads.lock().values().cloned().collect();
        let own = threads.iter().map(|t| t.signals.lock().pending.set().0).fold(0, |all, set| all | set);
        let shared = process.shared_pending.lock().set().0;
        if (own | shared) & mask.0 != 0 { Events::READABLE } else { Events::empty() }
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.queue.clone())
    }
    fn fdinfo(&self, _file: &OpenFile) -> String {
        format!("sigmask:\t{:016x}\n", self.mask.lock().0)
    }
}

/// What a siginfo carries depends on where it comes from (sigaction(2)).
fn record(info: &SigInfo) -> Record {
    let mut out =
        Record { signo: info.signo as u32, errno: info.errno, code: info.code, ..Record::default() };
    let value = info.u64_at(8);
    let by_kernel = info.code > si::USER && info.code < si::KERNEL;
    match Signo::new(info.signo) {
        Some(Signo::SIGCHLD) if by_kernel => {
            (out.pid, out.uid) = (info.i32_at(0) as u32, info.i32_at(4) as u32);
            out.status = info.i32_at(8);
            (out.utime, out.stime) = (info.u64_at(16), info.u64_at(24));
        }
        Some(
            Signo::SIGILL | Signo::SIGFPE | Signo::SIGSEGV | Signo::SIGBUS | Signo::SIGTRAP | Signo::SIGSYS,
        ) if by_kernel => out.addr = info.u64_at(0),
        _ if by_kernel || info.code == si::SIGIO => {
            (out.band, out.fd) = (info.u64_at(0) as u32, info.i32_at(8));
        }
        _ if info.code == si::TIMER => {
            (out.tid, out.overrun) = (info.i32_at(0) as u32, info.i32_at(4) as u32);
            (out.ptr, out.int) = (value, value as i32);
        }
        _ => {
            (out.pid, out.uid) = (info.i32_at(0) as u32, info.i32_at(4) as u32);
            if info.code < 0 {
                (out.ptr, out.int) = (value, value as i32);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::record;
    use linux_abi::signal::{SigInfo, Signo, si};

    #[test]
    fn tells_what_the_source_has() {
        let chld = record(&SigInfo::child(si::CLD_EXITED, 7, 1000, 3, 4, 5));
        assert_eq!((chld.pid, chld.uid, chld.status, chld.utime, chld.stime), (7, 1000, 3, 4, 5));
        let queued = record(&SigInfo::queued(Signo::SIGUSR1, si::QUEUE, 7, 0, 0x1_0000_0002));
        assert_eq!((queued.pid, queued.int, queued.ptr), (7, 2, 0x1_0000_0002));
        let kill = record(&SigInfo::from_user(Signo::SIGUSR1, si::USER, 9, 1));
        assert_eq!((kill.pid, kill.uid, kill.int), (9, 1, 0));
    }
}
