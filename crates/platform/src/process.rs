//! Host processes of the guest, and their address spaces.

use crate::kept::Kept;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use executor::{Events, WaitQueue};
use host::notify::Notification;
use linux_abi::Errno;
use parking_lot::Mutex;
use slot::layout::{BATCH, MAX_THREADS};

use crate::limits::HostLimits;
use crate::machine::{Core, Platform};
use crate::patch::Sites;

/// Slot indexes of one address space: batches of the shared file, and which index is in use.
pub(crate) struct Space {
    platform: std::sync::Weak<Platform>,
    state: Mutex<SpaceState>,
    /// Batches that are mapped and not yet kept from forks: a child must not see its parent's slots.
    pub forkable: Mutex<Forkable>,
    /// System call sites met.
    pub sites: Mutex<Sites>,
}

#[derive(Default)]
struct SpaceState {
    /// First index in the shared file of each batch of this space.
    batches: Vec<Option<u32>>,
    /// Batches that are surely mapped. Until then every thread that makes another one there maps it first: the
    /// one that was told to may not have come to it.
    mapped: Vec<bool>,
    used: Vec<bool>,
}

/// Slots that a fork would hand on, and the forks that wait for them.
#[derive(Default)]
pub(crate) struct Forkable {
    pub batches: Vec<Batch>,
    /// Notifications of clone that wait for that.
    pub waiting: Vec<Notification>,
}

/// A batch of slots in guest memory between its mmap and the end of its madvise.
pub(crate) struct Batch {
    pub addr: u64,
    /// Who mapped it.
    pub owner: std::sync::Weak<Core>,
    /// Its madvise was let through to the host.
    pub advised: bool,
}

/// A place for a new thread in a space.
pub(crate) struct Place {
    /// Index in the process.
    pub local: u32,
    /// Index in the sandbox.
    pub index: u32,
    /// First index of a batch that must be mapped first.
    pub new_batch: Option<u32>,
}

impl Space {
    /// A space whose only thread is at `local`.
    pub(crate) fn new(platform: &Arc<Platform>, local: u32) -> Result<(Arc<Space>, u32), Errno> {
        let first = platform.take_batch()?;
        let batch = local as usize / BATCH;
        let mut state = SpaceState::default();
        state.batches.resize(batch + 1, None);
        state.used.resize((batch + 1) * BATCH, true);
        state.batches[batch] = Some(first);
        state.mapped.resize(batch + 1, false);
        state.mapped[batch] = true;
        for i in 0..BATCH {
            state.used[batch * BATCH + i] = batch * BATCH + i == local as usize;
        }
        // Batches below are not mapped in this process: mark their indexes used by nobody until mapped.
        for slot in state.used.iter_mut().take(batch * BATCH) {
            *slot = false;
        }
        let space = Arc::new(Space {
            platform: Arc::downgrade(platform),
            state: Mutex::new(state),
            forkable: Mutex::default(),
            sites: Mutex::default(),
        });
        Ok((space, first + local % BATCH as u32))
    }

    /// A place for one more thread; `EAGAIN` if there is none.
    pub(crate) fn allocate(&self, platform: &Platform) -> Result<Place, Errno> {
        let mut state = self.state.lock();
        for local in 0..state.used.len() {
            if state.used.get(local).copied().unwrap_or(true) {
                continue;
            }
            let batch = local / BATCH;
            let (first, new_batch) = match state.batches.get(batch).copied().flatten() {
                Some(first) if state.mapped.get(batch).copied().unwrap_or(false) => (first, None),
                Some(first) => (first, Some(first)),
                None => {
                    let first = platform.take_batch()?;
                    if let Some(slot) = state.batches.get_mut(batch) {
                        *slot = Some(first);
                    }
                    (first, Some(first))
                }
            };
            let index = first + (local % BATCH) as u32;
            // A thread that ended a moment ago may still run on this stack.
            if platform.slots.slot(index as usize).is_some_and(|s| s.live_tid() != 0) {
                continue;
            }
            if let Some(slot) = state.used.get_mut(local) {
                *slot = true;
            }
            return Ok(Place { local: local as u32, index, new_batch });
        }
        let local = state.used.len();
        if local >= MAX_THREADS {
            return Err(Errno::EAGAIN);
        }
        let first = platform.take_batch()?;
        state.batches.push(Some(first));
        state.used.resize(local + BATCH, false);
        if let Some(slot) = state.used.get_mut(local) {
            *slot = true;
        }
        Ok(Place { local: local as u32, index: first, new_batch: Some(first) })
    }

    /// The machine, while it lives.
    pub(crate) fn platform(&self) -> Option<Arc<Platform>> {
        self.platform.upgrade()
    }

    /// How many threads run in it.
    pub(crate) fn threads(&self) -> usize {
        self.state.lock().used.iter().filter(|used| **used).count()
    }

    /// The batch of slots at this address is mapped.
    pub(crate) fn set_mapped(&self, addr: u64) {
        let size = slot::layout::SLOT_SIZE * BATCH as u64;
        let batch = addr.checked_sub(slot::layout::SLOT_VA).and_then(|at| usize::try_from(at / size).ok());
        let mut state = self.state.lock();
        if let Some(batch) = batch.filter(|b| *b < state.batches.len()) {
            if state.mapped.len() <= batch {
                state.mapped.resize(batch + 1, false);
            }
            if let Some(mapped) = state.mapped.get_mut(batch) {
                *mapped = true;
            }
        }
    }

    /// Gives an index back.
    pub(crate) fn release(&self, local: u32) {
        if let Some(slot) = self.state.lock().used.get_mut(local as usize) {
            *slot = false;
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if let Some(platform) = self.platform.upgrade() {
            for first in self.state.get_mut().batches.iter().flatten() {
                platform.return_batch(*first);
            }
        }
    }
}

/// One host process.
pub(crate) struct ProcessCore {
    pub space: Arc<Space>,
    /// Proves the first ring of a new process; 0 once bound.
    pub nonce: u32,
    /// Host process id; 0 before it is known and after it was reaped. Signals are sent under the lock.
    pid: Mutex<i32>,
    /// Taken while `pid` is held.
    limits: Mutex<HostLimits>,
    gone: AtomicBool,
    /// The second filter is installed.
    pub showing: AtomicBool,
    /// Files that stay in it.
    pub kept: Mutex<Kept>,
    pub threads: Mutex<Vec<std::sync::Weak<Core>>>,
}

impl ProcessCore {
    pub(crate) fn new(space: Arc<Space>, nonce: u32, pid: i32, limits: HostLimits) -> Arc<ProcessCore> {
        Arc::new(ProcessCore {
            space,
            nonce,
            pid: Mutex::new(pid),
            limits: Mutex::new(limits),
            gone: AtomicBool::new(false),
            showing: AtomicBool::new(false),
            kept: Mutex::default(),
            threads: Mutex::default(),
        })
    }
    /// Host process id, 0 if it has none (yet, or any more).
    pub(crate) fn pid(&self) -> i32 {
        *self.pid.lock()
    }
    /// Makes the host process known; false if it comes too late or twice.
    pub(crate) fn bind(&self, pid: i32) -> bool {
        let mut known = self.pid.lock();
        if *known != 0 || self.is_gone() {
            return false;
        }
        *known = pid;
        true
    }
    /// A process that it forks, which inherits the host's limits on it, and its filters.
    pub(crate) fn child(&self, space: Arc<Space>, nonce: u32) -> Arc<ProcessCore> {
        let limits = self.limits.lock().inherited(self.known_threads() <= 1);
        let child = ProcessCore::new(space, nonce, 0, limits);
        child.inherit_showing(self);
        *child.kept.lock() = self.kept.lock().forked();
        child
    }
    /// Works on the limits of the host process, which is not reaped meanwhile; 0 if it is unknown.
    pub(crate) fn with_limits(&self, work: impl FnOnce(&mut HostLimits, i32)) {
        let pid = self.pid.lock();
        work(&mut self.limits.lock(), *pid);
    }
    /// SIGKILL. One that is not known yet never will be: it is refused when it comes up, or found by the watchdog.
    pub(crate) fn kill(&self) {
        let pid = self.pid.lock();
        match rustix::process::Pid::from_raw(*pid) {
            // It may have died by itself; we have not reaped it, so the id is still its own.
            Some(pid) => {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            None if self.gone.swap(true, Ordering::SeqCst) => {}
            None => {
                drop(pid);
                self.tell_gone();
            }
        }
    }
    /// A host process none of whose guest threads is left ends, whatever its host threads do.
    pub(crate) fn end_if_deserted(&self) {
        let deserted = {
            let threads = self.threads.lock();
            threads.iter().filter_map(std::sync::Weak::upgrade).all(|core| core.parked.load(Ordering::SeqCst))
        };
        if deserted {
            self.kill();
        }
    }
    /// How many guest threads it has, its parked leader among them.
    pub(crate) fn known_threads(&self) -> usize {
        self.threads.lock().iter().filter(|core| core.strong_count() > 0).count()
    }
    /// Sends the interrupt to a thread of it.
    pub(crate) fn interrupt(&self, tid: i32) {
        let pid = self.pid.lock();
        if *pid != 0 {
            // A thread that just ended needs none.
            let _ = host::process::signal_thread(*pid, tid, slot::layout::SIG_INTERRUPT);
        }
    }
    /// Whether a living thread of the host is one of it.
    pub(crate) fn has_thread(&self, tid: i32) -> bool {
        // Not reaped while the lock is held, so that the id is its own.
        let pid = self.pid.lock();
        *pid != 0 && host::process::signal_thread(*pid, tid, 0).is_ok()
    }
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }
    /// The host process has ended: forgets its id (before it is reaped) and tells its threads.
    pub(crate) fn set_gone(&self) {
        {
            let mut pid = self.pid.lock();
            *pid = 0;
            self.gone.store(true, Ordering::SeqCst);
        }
        self.tell_gone();
    }
    fn tell_gone(&self) {
        if let Some(platform) = self.space.platform.upgrade() {
            platform.came_up.wake_all(Events::all());
        }
        let threads = self.threads.lock().clone();
        for core in threads.iter().filter_map(std::sync::Weak::upgrade) {
            core.set_gone();
        }
    }
}

/// Guest memory, reachable from everywhere.
pub struct AddressSpace {
    pub(crate) process: Arc<ProcessCore>,
}

impl AddressSpace {
    /// Reads guest memory; the number of bytes before a fault; `EFAULT` if none.
    pub fn read(&self, addr: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        if buf.is_empty() {
            return Ok(0);
        }
        read_process(&self.process, addr, buf)
    }
    /// Writes guest memory, as `read`.
    pub fn write(&self, addr: u64, buf: &[u8]) -> Result<usize, Errno> {
        if buf.is_empty() {
            return Ok(0);
        }
        let pid = self.process.pid();
        if pid == 0 {
            Err(Errno::EFAULT)
        } else {
            host::process::write_memory(pid, addr, buf).map_err(to_fault)
        }
    }
    /// As `read`, also of what the program itself may not read: proc_pid_mem(5), `PTRACE_PEEKDATA`.
    pub fn peek(&self, addr: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let done = self.read(addr, buf).unwrap_or(0);
        let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) else { return Ok(done) };
        let more =
            self.memory_file().and_then(|file| file.read_at(rest, addr.saturating_add(done as u64)).ok());
        match done.saturating_add(more.unwrap_or(0)) {
            0 => Err(Errno::EFAULT),
            done => Ok(done),
        }
    }
    /// As `write`, also where the program may not write: breakpoints go into the text of programs, which gets a
    /// page of its own.
    pub fn poke(&self, addr: u64, buf: &[u8]) -> Result<usize, Errno> {
        let done = self.write(addr, buf).unwrap_or(0);
        let Some(rest) = buf.get(done..).filter(|rest| !rest.is_empty()) else { return Ok(done) };
        let more =
            self.memory_file().and_then(|file| file.write_at(rest, addr.saturating_add(done as u64)).ok());
        match done.saturating_add(more.unwrap_or(0)) {
            0 => Err(Errno::EFAULT),
            done => Ok(done),
        }
    }
    fn memory_file(&self) -> Option<std::fs::File> {
        let pid = self.host_pid();
        let file = host::proc_fs::open_memory(None, pid).ok().filter(|_| pid != 0)?;
        // The id is forgotten before it is free for another process.
        (self.host_pid() == pid).then_some(file)
    }
    /// Where the byte at an address of a shared mapping is kept: device (as the host names it), inode and offset
    /// of the backing object. None if the mapping is private or there is none.
    pub fn shared_place(&self, addr: u64) -> Option<(u64, u64, u64)> {
        let maps = host::proc_fs::read(&format!("{}/maps", self.host_pid())).ok()?;
        maps.lines().find_map(|line| shared_place(line, addr))
    }
    /// The queue to wait on while a forked child has not come up and nobody but the host reaches its memory; none
    /// once it has, or has died.
    pub fn coming_up(&self) -> Option<Arc<WaitQueue>> {
        let early = self.process.pid() == 0 && !self.process.is_gone();
        early
            .then(|| self.process.space.platform.upgrade().map(|platform| platform.came_up.clone()))
            .flatten()
    }
    /// The host's process id in the kernel process's pid namespace (0 while unknown).
    pub fn host_pid(&self) -> i32 {
        self.process.pid()
    }
}

/// The lowest address that the guest can map: its `mmap_min_addr`.
pub const LOWEST_ADDRESS: u64 = slot::layout::PROTECTED_LOW;

/// Whether the mapping at an address is the shim's and not the guest's.
pub fn is_reserved(addr: u64) -> bool {
    crate::shim::RANGES.iter().any(|range| range.contains(&addr))
}

/// Whether some of these bytes are the shim's: Linux would have nothing there.
pub fn touches_reserved(addr: u64, len: u64) -> bool {
    let end = addr.saturating_add(len);
    crate::shim::RANGES.iter().any(|range| addr < range.end && end > range.start)
}

/// How many of these bytes lie before the first of the shim's.
pub fn before_reserved(addr: u64, len: usize) -> usize {
    let ahead = |range: &Range<u64>| (range.end > addr).then(|| range.start.saturating_sub(addr));
    let most = crate::shim::RANGES.iter().filter_map(ahead).min().unwrap_or(u64::MAX);
    usize::try_from(most).map_or(len, |most| len.min(most))
}

/// As [`AddressSpace::shared_place`], if this line of /proc/PID/maps covers the address.
pub(crate) fn shared_place(line: &str, addr: u64) -> Option<(u64, u64, u64)> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (start, end) = (hex(start)?, hex(end)?);
    if addr < start || addr >= end || !fields.next()?.ends_with('s') {
        return None;
    }
    let offset = hex(fields.next()?)?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?.parse().ok()?;
    Some((hex(major)? << 32 | hex(minor)?, inode, offset.checked_add(addr - start)?))
}

pub(crate) fn read_process(process: &ProcessCore, addr: u64, buf: &mut [u8]) -> Result<usize, Errno> {
    let pid = process.pid();
    if pid == 0 { Err(Errno::EFAULT) } else { host::process::read_memory(pid, addr, buf).map_err(to_fault) }
}

/// A process that is gone or out of reach has no memory.
pub(crate) fn to_fault(errno: Errno) -> Errno {
    match errno {
        Errno::ESRCH | Errno::EINVAL => Errno::EFAULT,
        Errno::EPERM => {
            tracing::error!("process_vm call refused by the host");
            Errno::EFAULT
        }
        other => other,
    }
}
