//! The watchdog: what the host's processes and threads owe the kernel, and must give within a time.
//!
//! The shim says within microseconds which process a fork has made, ends its thread when told to, and comes in
//! when it is interrupted. Code that jumped out of the shim need not: its host process would run on unknown,
//! its host thread unseen, its guest process deaf. So whoever is overdue is looked for in the host's procfs, and
//! killed when its patience is used up. Time is counted in looks, not by the clock: a sandbox that was frozen
//! owes nothing for that while.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::machine::{Core, Platform};
use crate::process::ProcessCore;
use crate::thread::host_tid;

/// How often somebody is seen overdue before it is killed.
const PATIENCE: u32 = 10;

/// What is owed.
pub(crate) struct Watch {
    /// Between two looks.
    tick: Duration,
    /// A child of ours that is no stub; 0 for none.
    helper: AtomicI32,
    owed: Mutex<Owed>,
    /// Held while a host process is reaped, and while one is looked at and killed by its id alone.
    pub(crate) ids: Mutex<()>,
}

#[derive(Default)]
struct Owed {
    /// The task runs.
    running: bool,
    /// Forks that were let through, by the nonce of the child.
    births: HashMap<u32, Birth>,
    /// Processes that may have more host threads than guest threads.
    crowded: Vec<(Weak<ProcessCore>, u32)>,
    /// Threads that were interrupted.
    interrupted: Vec<Interrupted>,
}

struct Birth {
    child: Arc<Core>,
    parent: Arc<Core>,
    /// Seen by a look.
    old: bool,
}

struct Interrupted {
    core: Arc<Core>,
    overdue: u32,
    /// Its time in user code at the last look.
    user_time: u64,
}

/// A child of ours that nobody knows: its id and start time, and how often it was seen.
type Strangers = HashMap<(i32, u64), u32>;

impl Watch {
    /// With so much patience all in all.
    pub(crate) fn new(patience: Duration, helper: Option<i32>) -> Watch {
        Watch {
            tick: patience / PATIENCE,
            helper: AtomicI32::new(helper.unwrap_or(0)),
            owed: Mutex::default(),
            ids: Mutex::default(),
        }
    }

    /// Before a child is reaped, whose id may be another's then.
    pub(crate) fn ended(&self, pid: i32) {
        let _ = self.helper.compare_exchange(pid, 0, Ordering::SeqCst, Ordering::SeqCst);
    }
    /// A fork was let through: a child will say its nonce.
    pub(crate) fn expect(&self, child: &Arc<Core>, parent: &Arc<Core>) {
        let birth = Birth { child: child.clone(), parent: parent.clone(), old: false };
        let mut owed = self.owed.lock();
        owed.births.insert(child.process.nonce, birth);
        self.run(&mut owed, child.process.space.platform());
    }
    /// It did, or the fork did not happen.
    pub(crate) fn born(&self, nonce: u32) {
        self.owed.lock().births.remove(&nonce);
    }
    /// A thread of the process was told to end, or is said not to have come to be.
    pub(crate) fn count_threads(&self, platform: &Arc<Platform>, process: &Arc<ProcessCore>) {
        let mut owed = self.owed.lock();
        if !owed.crowded.iter().any(|(p, _)| p.as_ptr() == Arc::as_ptr(process)) {
            owed.crowded.push((Arc::downgrade(process), 0));
        }
        self.run(&mut owed, Some(platform.clone()));
    }
    /// A thread in guest code was interrupted.
    pub(crate) fn interrupted(&self, platform: &Arc<Platform>, core: &Arc<Core>) {
        let mut owed = self.owed.lock();
        owed.interrupted.push(Interrupted { core: core.clone(), overdue: 0, user_time: 0 });
        self.run(&mut owed, Some(platform.clone()));
    }

    fn run(&self, owed: &mut Owed, platform: Option<Arc<Platform>>) {
        if owed.running {
            return;
        }
        let Some(platform) = platform else { return };
        owed.running = true;
        executor::spawn(async move {
            let mut strangers = Strangers::new();
            loop {
                executor::sleep(platform.watch.tick).await;
                look(&platform, &mut strangers);
                let mut owed = platform.watch.owed.lock();
                if owed.births.is_empty() && owed.crowded.is_empty() && owed.interrupted.is_empty() {
                    owed.running = false;
                    return;
                }
            }
        });
    }
}

fn look(platform: &Platform, strangers: &mut Strangers) {
    births(platform, strangers);
    crowds(platform);
    interrupts(platform);
}

/// Kills children of ours that do not say who they are.
fn births(platform: &Platform, strangers: &mut Strangers) {
    let (over, awaited) = {
        let mut owed = platform.watch.owed.lock();
        let mut over = Vec::new();
        let (mut old, mut awaited) = (false, false);
        for (nonce, birth) in &mut owed.births {
            // A parent that is heard of again, or is gone, has its child, if there is one.
            if birth.old && (!birth.parent.in_clone.load(Ordering::SeqCst) || birth.parent.process.is_gone())
            {
                over.push(*nonce);
            }
            old |= birth.old;
            birth.old = true;
            awaited |= !birth.child.process.is_gone();
        }
        if !old {
            return;
        }
        (over, awaited)
    };
    // With nobody awaited, all are unwelcome.
    let patience = if awaited { PATIENCE } else { 1 };
    let found = unknown_children(platform);
    strangers.retain(|who, _| found.contains(who));
    for who in &found {
        let seen = strangers.entry(*who).or_insert(0);
        *seen += 1;
        if *seen > patience {
            tracing::warn!(pid = who.0, "a process that does not say who it is: killed");
            kill_unknown(platform, *who);
        }
    }
    if found.is_empty() {
        let lost: Vec<_> = {
            let mut owed = platform.watch.owed.lock();
            over.iter().filter_map(|nonce| owed.births.remove(nonce)).collect()
        };
        for birth in lost {
            // It ended before it was known, or never was.
            if birth.child.process.pid() == 0 {
                birth.child.set_stillborn();
            }
        }
    }
}

/// Host processes that are our children and that nobody knows.
fn unknown_children(platform: &Platform) -> Vec<(i32, u64)> {
    let pids = host::proc_fs::processes().unwrap_or_default();
    pids.into_iter().filter_map(|pid| Some((pid, unknown_child(platform, pid)?))).collect()
}

/// The start time of a host process if it is a living child of ours that nobody knows.
fn unknown_child(platform: &Platform, pid: i32) -> Option<u64> {
    let known = |pid| {
        platform.watch.helper.load(Ordering::SeqCst) == pid
            || platform.processes.lock().contains_key(&pid)
            || platform.core(0).is_some_and(|c| c.process.pid() == pid)
    };
    if known(pid) {
        return None;
    }
    let stat = host::proc_fs::stat(&format!("{pid}/stat"))?;
    let own = i64::from(rustix::process::getpid().as_raw_nonzero().get());
    // It may have said who it is meanwhile.
    (stat.parent == own && !matches!(stat.state, b'Z' | b'X') && !known(pid)).then_some(stat.start_time)
}

fn kill_unknown(platform: &Platform, (pid, start_time): (i32, u64)) {
    // It is not reaped meanwhile, so that the id stays its own.
    let _ids = platform.watch.ids.lock();
    if unknown_child(platform, pid) == Some(start_time)
        && let Some(pid) = rustix::process::Pid::from_raw(pid)
    {
        // It may just end by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Kills processes with host threads beyond those that are known.
fn crowds(platform: &Platform) {
    let crowded = std::mem::take(&mut platform.watch.owed.lock().crowded);
    let mut left = Vec::new();
    for (process, overdue) in crowded {
        let Some(known) = process.upgrade() else { continue };
        let pid = known.pid();
        if pid == 0 {
            continue;
        }
        match host::proc_fs::threads(pid) {
            Some(threads) if threads > known.known_threads() => {
                if overdue >= PATIENCE {
                    tracing::warn!(pid, threads, "threads that should have ended: the process is killed");
                    known.kill();
                } else {
                    left.push((process, overdue + 1));
                }
            }
            _ => {}
        }
    }
    let mut owed = platform.watch.owed.lock();
    let known =
        |list: &[(Weak<ProcessCore>, u32)], p: &Weak<ProcessCore>| list.iter().any(|(o, _)| o.ptr_eq(p));
    let newer = std::mem::take(&mut owed.crowded);
    left.extend(newer.into_iter().filter(|(p, _)| !known(&left, p)).collect::<Vec<_>>());
    owed.crowded = left;
}

/// Kills processes whose threads do not come in when they are interrupted.
fn interrupts(platform: &Platform) {
    let interrupted = std::mem::take(&mut platform.watch.owed.lock().interrupted);
    let mut left = Vec::new();
    for mut entry in interrupted {
        let core = &entry.core;
        let over = |core: &Arc<Core>| {
            !core.owes_exit.load(Ordering::SeqCst)
                || core.process.is_gone()
                || core.parked.load(Ordering::SeqCst)
                || !platform.core(u64::from(core.index)).is_some_and(|known| Arc::ptr_eq(&known, core))
        };
        if over(core) {
            core.watched.store(false, Ordering::SeqCst);
            // An interrupt that came in between saw that it was watched.
            if over(core) || core.watched.swap(true, Ordering::SeqCst) {
                continue;
            }
        }
        if overdue(&mut entry) {
            entry.overdue += 1;
        }
        let core = &entry.core;
        if entry.overdue > PATIENCE {
            tracing::warn!(
                pid = core.process.pid(),
                "guest code that cannot be interrupted: the process is killed"
            );
            core.process.kill();
            core.watched.store(false, Ordering::SeqCst);
            continue;
        }
        // The first may have met another thread, if the guest forged its id.
        core.process.interrupt(host_tid(core));
        left.push(entry);
    }
    platform.watch.owed.lock().interrupted.append(&mut left);
}

/// Whether a thread could have come in: it ran guest code, or sleeps in a call that a signal would end. One
/// that the host holds (a long call, a slow disk, a debugger) or has not run at all owes nothing for that while.
fn overdue(entry: &mut Interrupted) -> bool {
    let core = &entry.core;
    if core.in_vfork.load(Ordering::SeqCst) {
        return false;
    }
    let stat = host::proc_fs::stat(&format!("{}/task/{}/stat", core.process.pid(), host_tid(core)));
    // A thread that is not where its slot says cannot be interrupted at all.
    let Some(stat) = stat else { return true };
    let ran = stat.user_time != entry.user_time;
    entry.user_time = stat.user_time;
    match stat.state {
        b'S' => true,
        b'R' => ran,
        b'Z' | b'X' => true,
        _ => false,
    }
}
