//! Native calls that are shown: announced to the notification worker, and let run as announced.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use host::notify::Notification;
use linux_abi::Errno;
use linux_abi::sysno::nr;
use parking_lot::Mutex;
use slot::kind;
use slot::layout::{CONTROL_VA, SHOWING_HEAD, SHOWING_OFFSET};

use crate::bpf::{self, AUDIT_ARCH_X86_64, Instruction, TRAP};
use crate::filter::{self, NATIVE_CALLS, Settings};
use crate::machine::{Core, Platform, Showing};
use crate::process::ProcessCore;
use crate::slots::{Request, Slots};

/// A call that the shim may make at the gadget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnnouncedCall {
    pub number: u32,
    pub args: [u64; 6],
}

/// What the machine knows of native calls.
pub(crate) struct Native {
    /// Address that calls at the gadget show.
    gadget: u64,
    /// Calls that are shown in every process, and whether those are all there are.
    seen: Vec<u32>,
    all_seen: bool,
    /// Files may stay in processes that show nothing.
    keeps_files: bool,
    /// The filter for processes that show nothing.
    plain: Vec<Instruction>,
    /// Threads that have made announced calls, by the host's id.
    callers: Mutex<HashMap<i32, Weak<Core>>>,
}

impl Native {
    /// Puts the second filter, for single processes, into the control page.
    pub(crate) fn new(settings: &Settings, slots: &Slots) -> Result<Native, Errno> {
        let showing = filter::showing(settings);
        let length = u16::try_from(showing.len()).map_err(|_| Errno::E2BIG)?;
        let address = CONTROL_VA + SHOWING_OFFSET + SHOWING_HEAD;
        let mut bytes = u64::from(length).to_ne_bytes().to_vec();
        bytes.extend(address.to_ne_bytes());
        bytes.extend(bpf::to_bytes(&showing));
        if SHOWING_OFFSET + bytes.len() as u64 > 4096 {
            return Err(Errno::E2BIG);
        }
        slots.write_control(SHOWING_OFFSET, &bytes).ok_or(Errno::EFAULT)?;
        Ok(Native {
            gadget: settings.gadget(),
            all_seen: NATIVE_CALLS.iter().all(|number| settings.seen.contains(number)),
            keeps_files: !settings.checked_memory && !settings.seen.contains(&nr::mmap),
            seen: settings.seen.clone(),
            plain: filter::build(&Settings { seen: Vec::new(), ..settings.clone() }),
            callers: Mutex::default(),
        })
    }

    /// Whether files stay in processes that show nothing.
    pub(crate) fn keeps_files(&self) -> bool {
        self.keeps_files
    }
    /// Whether a notification is of a call made at the gadget.
    pub(crate) fn is_gadget(&self, notification: &Notification) -> bool {
        notification.instruction_pointer == self.gadget
    }

    /// Forgets a thread.
    pub(crate) fn forget(&self, core: &Core) {
        let tid = core.tid.load(Ordering::Relaxed);
        let mut callers = self.callers.lock();
        if callers.get(&tid).is_some_and(|known| std::ptr::eq(known.as_ptr(), core)) {
            callers.remove(&tid);
        }
    }

    /// The thread with this id of the host, which waits for an answer.
    fn caller(&self, platform: &Platform, tid: i32) -> Option<Arc<Core>> {
        let known = self.callers.lock().get(&tid).and_then(Weak::upgrade);
        if let Some(core) = known.filter(|core| core.process.has_thread(tid)) {
            return Some(core);
        }
        let core = look_for(platform, tid)?;
        self.callers.lock().insert(tid, Arc::downgrade(&core));
        Some(core)
    }
}

/// Asks the host whose thread it is. Which of its process's is the guest's word, if it has not rung yet: it cheats
/// itself alone.
fn look_for(platform: &Platform, tid: i32) -> Option<Arc<Core>> {
    let pid = host::proc_fs::process_of(tid)?;
    let process = platform.processes.lock().get(&pid).cloned()?;
    let threads: Vec<_> = process.threads.lock().iter().filter_map(Weak::upgrade).collect();
    let core = threads.into_iter().find(|core| crate::thread::host_tid(core) == tid)?;
    core.tid.store(tid, Ordering::Relaxed);
    process.has_thread(tid).then_some(core)
}

impl Platform {
    /// Whether the host runs a call of guest code by itself where nobody wants to see it.
    pub fn runs_natively(&self, number: u32, args: &[u64; 6]) -> bool {
        let call = bpf::Call { arch: AUDIT_ARCH_X86_64, number, ip: 0, args: *args };
        // A notification is `--memory=checked`.
        slot::may_run_natively(number.into()) && bpf::run(&self.native.plain, &call) != TRAP
    }
    /// Whether a native call is shown in every process.
    pub fn shows(&self, number: u32) -> bool {
        self.native.seen.contains(&number)
    }
    /// Whether all of them are.
    pub(crate) fn shows_all(&self) -> bool {
        self.native.all_seen
    }
}

impl ProcessCore {
    /// Whether its native calls are shown, all of them.
    pub(crate) fn is_showing(&self) -> bool {
        self.showing.load(Ordering::SeqCst)
    }
    /// A child has the filters of its parent. One that was installed while the host forked is not counted, and is
    /// installed again if need be.
    pub(crate) fn inherit_showing(&self, parent: &ProcessCore) {
        self.showing.store(parent.is_showing(), Ordering::SeqCst);
    }
}

/// Lets a call at the gadget run if it is announced. It may be made again until the thread is heard of: a host that
/// stops and continues a waiting thread does that.
pub(crate) fn answer(platform: &Platform, n: &Notification) -> Result<(), Errno> {
    let core = platform.native.caller(platform, n.pid as i32).ok_or(Errno::EPERM)?;
    let call = AnnouncedCall { number: n.nr as u32, args: n.args };
    if core.announced.lock().calls.contains(&call) { Ok(()) } else { Err(Errno::EPERM) }
}

/// Lets the second filter be installed if that is announced.
pub(crate) fn check_filter(core: &Core, n: &Notification) -> Result<(), Errno> {
    const SET_MODE_FILTER: u64 = 1;
    const TSYNC: u64 = 1;
    let [mode, flags, program, ..] = n.args;
    let mut announced = core.announced.lock();
    let exact = (mode, flags, program) == (SET_MODE_FILTER, TSYNC, CONTROL_VA + SHOWING_OFFSET);
    if !exact || announced.showing != Showing::Announced {
        return Err(Errno::EPERM);
    }
    announced.showing = Showing::Installed;
    Ok(())
}

/// Numbers may be other files' soon, by which a thread that waits for an answer has read without one.
fn forget_reads(core: &Core, numbers: &[u32]) {
    for grant in core.slot.grants() {
        let reads = grant.file.load(Ordering::Relaxed) & slot::READS != 0;
        if reads && numbers.contains(&grant.listed.load(Ordering::Relaxed)) {
            grant.fd.store(0, Ordering::SeqCst);
        }
    }
}

/// A thread that had announcements has come in; whether it has any still.
pub(crate) fn heard_of(core: &Core, request: &Request) -> bool {
    let mut announced = core.announced.lock();
    announced.calls.clear();
    announced.fetched.clear();
    if !announced.kept.is_empty() || !announced.pinned.is_empty() {
        let mut kept = core.process.kept.lock();
        kept.heard(&std::mem::take(&mut announced.kept));
        let over: Vec<u32> = announced.pinned.extract_if(.., |fd| kept.is_over(*fd)).collect();
        kept.heard(&over);
        drop(kept);
        if !over.is_empty() {
            forget_reads(core, &over);
        }
    }
    let installed = std::mem::take(&mut announced.showing) == Showing::Installed;
    if installed && request.kind == kind::NATIVE_DONE && request.native_ret == 0 {
        core.process.showing.store(true, Ordering::SeqCst);
    }
    !announced.pinned.is_empty()
}
