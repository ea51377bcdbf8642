//! Signal state: pending, blocked, what to do; sending (signal(7)).
//!
//! Delivery, that is building the frame, is in `syscalls`.

use std::collections::VecDeque;
use std::sync::Arc;

use linux_abi::Errno;
use linux_abi::signal::{SIG_DFL, SIG_IGN, SigAction, SigInfo, SigSet, Signo, si};
use parking_lot::Mutex;

use crate::process::{ExitStatus, Process};
use crate::{Kernel, Result, Thread};

/// Signals waiting to be delivered, in order of arrival.
#[derive(Clone, Default, Debug)]
pub struct Pending {
    queue: VecDeque<SigInfo>,
    set: SigSet,
}

impl Pending {
    /// Which signals are pending.
    pub fn set(&self) -> SigSet {
        self.set
    }
    /// How many entries are queued.
    pub fn len(&self) -> usize {
        self.queue.len()
    }
    /// Whether none is queued.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
    /// Adds one: a standard signal that is pending already is dropped; a real-time one queues up to `limit` (`EAGAIN`).
    pub fn push(&mut self, info: SigInfo, limit: u64) -> Result<()> {
        let sig = Signo::new(info.signo).ok_or(Errno::EINVAL)?;
        if !sig.is_realtime() && self.set.contains(sig) {
            return Ok(());
        }
        if sig.is_realtime() && self.queue.len() as u64 >= limit {
            // What kill(2) sends is told at least once, as in Linux.
            return match info.code {
                si::USER if self.set.contains(sig) => Ok(()),
                si::USER => {
                    self.add(sig, info);
                    Ok(())
                }
                _ => Err(Errno::EAGAIN),
            };
        }
        self.add(sig, info);
        Ok(())
    }
    fn add(&mut self, sig: Signo, info: SigInfo) {
        self.set = self.set.with(sig);
        self.queue.push_back(info);
    }
    /// Changes the first queued entry that fits, if there is one; says whether.
    pub fn update(&mut self, fits: impl Fn(&SigInfo) -> bool, change: impl FnOnce(&mut SigInfo)) -> bool {
        match self.queue.iter_mut().find(|info| fits(info)) {
            Some(info) => {
                change(info);
                true
            }
            None => false,
        }
    }
    /// Drops the entries that fit.
    pub fn remove(&mut self, fits: impl Fn(&SigInfo) -> bool) {
        self.queue.retain(|info| !fits(info));
        self.set =
            self.queue.iter().filter_map(|info| Signo::new(info.signo)).fold(SigSet::EMPTY, SigSet::with);
    }
    /// Takes the next one out of `wanted`: faults and standard signals by number, each in order of arrival.
    pub fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let candidates = SigSet(self.set.0 & wanted.0);
        // Synchronous signals come first, as in Linux.
        let synchronous = SigSet(candidates.0 & SYNCHRONOUS.0);
        let sig = synchronous.first().or(candidates.first())?;
        let at = self.queue.iter().position(|i| i.signo == sig.raw())?;
        let info = self.queue.remove(at)?;
        if !self.queue.iter().any(|i| i.signo == sig.raw()) {
            self.set = self.set.without(sig);
        }
        Some(info)
    }
    /// Drops all of these signals.
    pub fn discard(&mut self, set: SigSet) {
        self.queue.retain(|i| Signo::new(i.signo).is_none_or(|s| !set.contains(s)));
        self.set = SigSet(self.set.0 & !set.0);
    }
}

/// SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS.
const SYNCHRONOUS: SigSet = SigSet((1 << 10) | (1 << 6) | (1 << 3) | (1 << 4) | (1 << 7) | (1 << 30));

/// The signals of one thread.
#[derive(Debug)]
pub struct ThreadSignals {
    /// Blocked.
    pub mask: SigSet,
    /// Waited for by sigtimedwait(2) right now: counts as unblocked for waking.
    pub waited: SigSet,
    /// For this thread alone.
    pub pending: Pending,
}

impl ThreadSignals {
    /// With this mask, nothing pending.
    pub fn new(mask: SigSet) -> ThreadSignals {
        ThreadSignals { mask: mask.blockable(), waited: SigSet::EMPTY, pending: Pending::default() }
    }
}

/// What to do on each signal, shared by the threads of a process.
#[derive(Debug)]
pub struct Actions(Mutex<[SigAction; 64]>);

impl Default for Actions {
    fn default() -> Actions {
        Actions(Mutex::new([SigAction::default(); 64]))
    }
}

impl Actions {
    /// The action of a signal.
    pub fn get(&self, sig: Signo) -> SigAction {
        self.0.lock().get(sig.raw() as usize - 1).copied().unwrap_or_default()
    }
    /// Sets it and returns the old one.
    pub fn set(&self, sig: Signo, action: SigAction) -> SigAction {
        match self.0.lock().get_mut(sig.raw() as usize - 1) {
            Some(slot) => std::mem::replace(slot, action),
            None => SigAction::default(),
        }
    }
    /// A private copy, as fork makes.
    pub fn duplicate(&self) -> Actions {
        Actions(Mutex::new(*self.0.lock()))
    }
    /// What exec keeps: ignored signals stay ignored, handlers become the default.
    pub fn after_exec(&self) -> Actions {
        let mut all = *self.0.lock();
        for action in &mut all {
            let handler = if action.handler == SIG_IGN { SIG_IGN } else { SIG_DFL };
            *action = SigAction { handler, ..SigAction::default() };
        }
        Actions(Mutex::new(all))
    }
}

/// What a signal does by default (signal(7)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "named in signal(7)")]
pub enum DefaultAction {
    Terminate,
    Core,
    Ignore,
    Stop,
    Continue,
}

/// The default action of a signal.
pub fn default_action(sig: Signo) -> DefaultAction {
    match sig {
        Signo::SIGCHLD | Signo::SIGURG | Signo::SIGWINCH => DefaultAction::Ignore,
        Signo::SIGCONT => DefaultAction::Continue,
        Signo::SIGSTOP | Signo::SIGTSTP | Signo::SIGTTIN | Signo::SIGTTOU => DefaultAction::Stop,
        Signo::SIGQUIT
        | Signo::SIGILL
        | Signo::SIGTRAP
        | Signo::SIGABRT
        | Signo::SIGBUS
        | Signo::SIGFPE
        | Signo::SIGSEGV
        | Signo::SIGXCPU
        | Signo::SIGXFSZ
        | Signo::SIGSYS => DefaultAction::Core,
        _ => DefaultAction::Terminate,
    }
}

/// Whether a signal would do nothing to the process if delivered now.
pub fn is_ignored(process: &Process, sig: Signo) -> bool {
    // A tracer sees every signal.
    if process.traced.load(std::sync::atomic::Ordering::Relaxed) != 0 {
        return false;
    }
    let action = process.actions().get(sig);
    match action.handler {
        SIG_IGN => true,
        SIG_DFL => {
            process.is_init_immune(sig)
                || matches!(default_action(sig), DefaultAction::Ignore | DefaultAction::Continue)
        }
        _ => false,
    }
}

impl Process {
    /// Init of a pid namespace is spared signals that it has no handler for, when they come from inside.
    pub fn is_init_immune(&self, sig: Signo) -> bool {
        self.pid() == 1
            && !self.kernel().config.ordinary_init
            && !SigSet::UNBLOCKABLE.contains(sig)
            && matches!(
                default_action(sig),
                DefaultAction::Terminate | DefaultAction::Core | DefaultAction::Stop
            )
    }
}

const SIGPENDING: usize = crate::limits::resource::SIGPENDING;

/// Whether an unblocked, not ignored signal is pending for the thread or its process.
pub fn has_deliverable(thread: &Thread) -> bool {
    let (mask, waited, own) = {
        let signals = thread.signals.lock();
        (signals.mask, signals.waited, signals.pending.set())
    };
    let shared = thread.process().shared_pending.lock().set();
    (own.0 | shared.0) & (!mask.0 | waited.0) != 0
}

/// Whether a signal is pending that ends the process and that nobody catches, as it ends waits that others leave
/// alone (`TASK_KILLABLE`). One that dumps core does not.
pub fn has_fatal(thread: &Thread) -> bool {
    let process = thread.process();
    // A tracer sees it first.
    if process.traced.load(std::sync::atomic::Ordering::Relaxed) != 0 {
        return false;
    }
    let shared = process.shared_pending.lock().set();
    let pending = {
        let signals = thread.signals.lock();
        SigSet((signals.pending.set().0 | shared.0) & !signals.mask.0)
    };
    (1..=64).filter_map(Signo::new).filter(|sig| pending.contains(*sig)).any(|sig| {
        process.actions().get(sig).handler == SIG_DFL
            && default_action(sig) == DefaultAction::Terminate
            && !process.is_init_immune(sig)
    })
}

/// tgkill(2) and faults: queues for one thread.
pub fn send_to_thread(thread: &Thread, info: SigInfo) -> Result<()> {
    let sig = Signo::new(info.signo).ok_or(Errno::EINVAL)?;
    let process = thread.process();
    prepare(process, sig);
    if sig == Signo::SIGKILL {
        process.begin_exit(ExitStatus::Signaled { signal: sig, core: false });
        return Ok(());
    }
    {
        let limit = process.limit(SIGPENDING);
        let mut signals = thread.signals.lock();
        let unwanted =
            is_ignored(process, sig) && !signals.mask.contains(sig) && !signals.waited.contains(sig);
        if unwanted {
            return Ok(());
        }
        signals.pending.push(info, limit)?;
        let awake = !signals.mask.contains(sig) || signals.waited.contains(sig);
        if !awake {
            process.kernel().signal_queue.wake(linux_abi::Events::IN);
            return Ok(());
        }
    }
    thread.request_attention();
    process.kernel().signal_queue.wake(linux_abi::Events::IN);
    Ok(())
}

/// kill(2): queues for the process and wakes one thread that can take it.
pub fn send_to_process(process: &Process, info: SigInfo) -> Result<()> {
    queue_for_process(process, info, false)
}

/// What the use of CPU time brings about: queues for the process and wakes a thread that runs. On Linux it is the
/// tick of a running thread that sends such a signal, and profilers look at who takes it.
pub fn send_to_running(process: &Process, info: SigInfo) -> Result<()> {
    queue_for_process(process, info, true)
}

fn queue_for_process(process: &Process, info: SigInfo, to_running: bool) -> Result<()> {
    let sig = Signo::new(info.signo).ok_or(Errno::EINVAL)?;
    prepare(process, sig);
    if sig == Signo::SIGKILL {
        process.begin_exit(ExitStatus::Signaled { signal: sig, core: false });
        return Ok(());
    }
    let threads: Vec<_> = process.threads.lock().values().cloned().collect();
    let takes = |thread: &&Arc<Thread>| {
        let signals = thread.signals.lock();
        !thread.is_dying() && (signals.waited.contains(sig) || !signals.mask.contains(sig))
    };
    let running = if to_running { running(&threads.iter().filter(takes).collect::<Vec<_>>()) } else { None };
    let taker = running.or_else(|| threads.iter().find(takes));
    if is_ignored(process, sig)
        && threads.iter().all(|t| {
            let signals = t.signals.lock();
            !signals.mask.contains(sig) && !signals.waited.contains(sig)
        })
    {
        return Ok(());
    }
    process.shared_pending.lock().push(info, process.limit(SIGPENDING))?;
    if let Some(thread) = taker {
        thread.request_attention();
    }
    process.kernel().signal_queue.wake(linux_abi::Events::IN);
    Ok(())
}

/// A thread that runs, not always the same of several.
fn running<'a>(threads: &[&'a Arc<Thread>]) -> Option<&'a Arc<Thread>> {
    // Each look is a file of the host.
    const LOOKS: usize = 32;
    let first = (executor::monotonic_ns() / 1000) as usize % threads.len().max(1);
    let (before, from) = threads.split_at_checked(first)?;
    from.iter().chain(before).take(LOOKS).copied().find(|thread| crate::cpu_time::runs(thread))
}

/// SIGCONT takes back stop signals and continues; stop signals take back SIGCONT.
fn prepare(process: &Process, sig: Signo) {
    const STOPS: SigSet = SigSet((1 << 18) | (1 << 19) | (1 << 20) | (1 << 21));
    let against = match default_action(sig) {
        DefaultAction::Continue => STOPS,
        DefaultAction::Stop => SigSet::EMPTY.with(Signo::SIGCONT),
        _ if sig == Signo::SIGKILL => {
            process.set_wants_stop(false);
            return;
        }
        _ => return,
    };
    flush(process, against);
    if sig == Signo::SIGCONT {
        process.resume_from_stop();
    }
}

/// Takes the next pending signal out of `wanted`, the thread's own ones first.
pub fn take(thread: &Thread, wanted: SigSet) -> Option<SigInfo> {
    let own = thread.signals.lock().pending.take(wanted);
    let info = own.or_else(|| thread.process().shared_pending.lock().take(wanted))?;
    crate::timers::note_taken(thread.process(), &info);
    Some(info)
}

/// Signals of the process that this thread does not take any more: others that can are woken.
pub fn retarget(thread: &Thread, set: SigSet) {
    let process = thread.process();
    let left = SigSet(process.shared_pending.lock().set().0 & set.0);
    if left == SigSet::EMPTY {
        return;
    }
    let others: Vec<_> = process.threads.lock().values().cloned().collect();
    for other in others.iter().filter(|t| t.tid() != thread.tid() && !t.is_dying()) {
        if left.0 & !other.signals.lock().mask.0 != 0 {
            other.request_attention();
        }
    }
}

/// Stops the process by job control: every thread waits as soon as it looks; the parent is told.
pub fn stop(process: &Process, sig: Signo) {
    process.set_wants_stop(true);
    let threads: Vec<_> = process.threads.lock().values().cloned().collect();
    for thread in threads {
        thread.request_attention();
    }
    process.note_stopped(sig);
}

impl Kernel {
    /// Whether no member of the group has a parent in another group of the same session: nobody could
    /// continue it (setpgid(2)).
    pub fn is_orphaned_group(&self, pgid: i32) -> bool {
        self.is_orphaned_without(pgid, 0)
    }

    /// As `is_orphaned_group`, once the process `ending` has gone.
    fn is_orphaned_without(&self, pgid: i32, ending: i32) -> bool {
        let first = |member: &Process| self.config.job_control && member.pid() == 1;
        let members = self.pids.group(pgid);
        members.iter().filter(|p| !p.is_zombie() && p.pid() != ending).all(|member| {
            !first(member)
                && member.parent().is_none_or(|parent| {
                    let job = parent.job();
                    parent.pid() == ending || job.pgid == pgid || job.sid != member.job().sid
                })
        })
    }
}

/// A process ends: groups that it leaves orphaned with stopped members get SIGHUP and SIGCONT (exit(2)).
pub fn hang_up_orphans(process: &Process) {
    let kernel = process.kernel();
    let mut groups = vec![process.job().pgid];
    groups.extend(process.children.lock().values().map(|child| child.job().pgid));
    groups.sort_unstable();
    groups.dedup();
    for pgid in groups {
        let members = kernel.pids.group(pgid);
        let others: Vec<_> = members.iter().filter(|p| p.pid() != process.pid() && !p.is_zombie()).collect();
        let stopped = others.iter().any(|p| p.state.lock().stopped.is_some());
        let becomes_orphaned =
            !kernel.is_orphaned_group(pgid) && kernel.is_orphaned_without(pgid, process.pid());
        if stopped && becomes_orphaned {
            for member in others {
                // Its queue being full is no reason to leave it stopped.
                let _ = member.send_signal(SigInfo::new(Signo::SIGHUP, si::KERNEL));
                let _ = member.send_signal(SigInfo::new(Signo::SIGCONT, si::KERNEL));
            }
        }
    }
}

/// Drops what is pending of these signals for the process and each of its threads.
pub fn flush(process: &Process, set: SigSet) {
    process.shared_pending.lock().discard(set);
    let threads: Vec<_> = process.threads.lock().values().cloned().collect();
    for thread in threads {
        thread.signals.lock().pending.discard(set);
    }
}

#[cfg(test)]
mod tests {
    use super::{Actions, Pending};
    use linux_abi::signal::{SIG_IGN, SigAction, SigInfo, SigSet, Signo, si};

    const ALL: SigSet = SigSet(u64::MAX);

    fn pushed(pending: &mut Pending, sig: i32, value: i32) -> bool {
        let Some(signo) = Signo::new(sig) else { return false };
        pending.push(SigInfo::new(signo, si::QUEUE).with_i32(0, value), 3).is_ok()
    }

    #[test]
    fn standard_signals_merge_and_realtime_ones_queue() {
        let mut pending = Pending::default();
        for value in 0..2 {
            assert!(pushed(&mut pending, 10, value));
            assert!(pushed(&mut pending, 40, value));
        }
        assert!(!pushed(&mut pending, 40, 9));
        let taken: Vec<_> =
            std::iter::from_fn(|| pending.take(ALL)).map(|i| (i.signo, i.i32_at(0))).collect();
        assert_eq!(taken, [(10, 0), (40, 0), (40, 1)]);
        assert_eq!(pending.set(), SigSet::EMPTY);
    }

    #[test]
    fn faults_come_first_and_the_rest_by_number() {
        let mut pending = Pending::default();
        for sig in [15, 1, 11] {
            assert!(pushed(&mut pending, sig, 0));
        }
        let taken: Vec<_> = std::iter::from_fn(|| pending.take(ALL)).map(|i| i.signo).collect();
        assert_eq!(taken, [11, 1, 15]);
    }

    #[test]
    fn only_what_is_wanted_is_taken_or_dropped() {
        let mut pending = Pending::default();
        for sig in [10, 12] {
            assert!(pushed(&mut pending, sig, 0));
        }
        assert!(pending.take(SigSet::EMPTY.with(Signo::SIGTERM)).is_none());
        pending.discard(SigSet::EMPTY.with(Signo::SIGUSR1));
        assert_eq!(pending.set(), SigSet::EMPTY.with(Signo::SIGUSR2));
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn exec_keeps_what_is_ignored() {
        let actions = Actions::default();
        actions.set(Signo::SIGHUP, SigAction { handler: SIG_IGN, ..SigAction::default() });
        actions.set(Signo::SIGTERM, SigAction { handler: 0x1000, ..SigAction::default() });
        let after = actions.after_exec();
        assert_eq!(after.get(Signo::SIGHUP).handler, SIG_IGN);
        assert_eq!(after.get(Signo::SIGTERM), SigAction::default());
    }
}
