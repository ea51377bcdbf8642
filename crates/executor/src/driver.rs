//! The driver thread: host descriptors by epoll, timers, and tasks woken outside any worker.

use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use linux_abi::poll::Events;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, epoll, eventfd, poll};
use rustix::io::{Errno, read, write};

use crate::blocking::Pool;
use crate::clock::{monotonic_ns, timespec};
use crate::crew::start_duty;
use crate::host_source::Sources;
use crate::task::Task;
use crate::timer::Timers;
use crate::worker::{adopt, is_relieved, run_ready};

/// The epoll key of the eventfd that interrupts the driver's sleep.
const BELL: u64 = u64::MAX;
/// Where others look by themselves so often, the driver need not be woken for each event: it would find nothing.
const LOOKS: u32 = 3;
/// It leaves that to them for so long, in nanoseconds.
const REST_NS: u64 = 300_000;
/// Events that nobody waits for, since their tasks are busy, wake the driver for nothing: after so many in a row ...
const IDLE_WAKES: u32 = 2;
/// ... it lets them gather for so long, in nanoseconds. Who waits for others meanwhile waits no longer.
const GATHER_NS: u64 = 100_000;

/// Everything the executor shares between threads.
pub(crate) struct Executor {
    pub(crate) epoll: OwnedFd,
    bell: OwnedFd,
    /// True while the bell has been rung and the driver has not looked yet.
    rung: AtomicBool,
    /// How often others have found something in the epoll set since the driver slept last.
    looks: AtomicU32,
    /// The driver leaves the epoll set to others.
    resting: AtomicBool,
    injector: Mutex<VecDeque<Arc<Task>>>,
    pub(crate) sources: Sources,
    pub(crate) timers: Timers,
    pub(crate) pool: Pool,
}

thread_local! {
    /// This thread has the driver's duty, or had it until a moment ago.
    static DRIVES: Cell<bool> = const { Cell::new(false) };
}

static EXECUTOR: OnceLock<Executor> = OnceLock::new();
static START: OnceLock<()> = OnceLock::new();
static PANIC_HOOK: OnceLock<fn(&str)> = OnceLock::new();

/// Passes on what host descriptors have to tell by now, which the driver may not have got around to.
pub fn look_at_host() {
    if let Some(executor) = EXECUTOR.get().filter(|executor| !executor.sources.is_empty())
        && executor.take_events(Some(0)).1 > 0
    {
        executor.looks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Somebody who may have looked at host descriptors often goes to sleep: the driver is to look after them.
pub fn leave_host() {
    let Some(executor) = EXECUTOR.get() else { return };
    if executor.looks.load(Ordering::Relaxed) > 0 {
        executor.looks.store(0, Ordering::SeqCst);
    }
    if executor.resting.load(Ordering::SeqCst) && executor.resting.swap(false, Ordering::SeqCst) {
        executor.ring();
    }
}

/// Sets what is called, once per task that panicked, with the panic's message. The first call wins.
pub fn set_panic_hook(hook: fn(&str)) {
    let _ = PANIC_HOOK.set(hook);
}

pub(crate) fn report_panic(payload: &(dyn Any + Send)) {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic without a message");
    if let Some(hook) = PANIC_HOOK.get() {
        hook(text);
    }
}

impl Executor {
    /// The process's executor; the first call makes it and starts the driver thread.
    #[expect(clippy::expect_used, reason = "a process without epoll or threads cannot go on")]
    pub(crate) fn get() -> &'static Executor {
        let executor = EXECUTOR.get_or_init(|| Executor::new().expect("epoll and eventfd for the driver"));
        START.get_or_init(|| {
            start_duty("driver", || executor.drive()).expect("the driver thread");
        });
        executor
    }

    fn new() -> Result<Executor, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Until the driver has heard it, whoever else looks.
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        Ok(Executor {
            epoll,
            bell,
            rung: AtomicBool::new(false),
            looks: AtomicU32::new(0),
            resting: AtomicBool::new(false),
            injector: Mutex::new(VecDeque::new()),
            sources: Sources::new(),
            timers: Timers::new(),
            pool: Pool::new(),
        })
    }

    /// Queues a task for the driver thread.
    pub(crate) fn inject(&self, task: Arc<Task>) {
        self.injector.lock().push_back(task);
        self.ring();
    }

    /// Makes the driver look at its queues soon.
    pub(crate) fn ring(&self) {
        // It looks before it sleeps; and so does, as it begins, who takes its duty over.
        if DRIVES.get() && !is_relieved() {
            return;
        }
        if !self.rung.swap(true, Ordering::AcqRel) {
            // A full counter (EAGAIN) means that the bell rings already.
            let _ = write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    fn drive(&self) {
        DRIVES.set(true);
        self.drive_until_relieved();
        DRIVES.set(false);
    }

    fn drive_until_relieved(&self) {
        // Linux defers wake-ups by 50 µs to save power; a guest's timers should not suffer it.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let mut busy = false;
        let mut idle_wakes = 0;
        while !is_relieved() {
            let timeout = if busy || !self.injector.lock().is_empty() {
                Some(0)
            } else {
                self.timers.next_deadline().map(|at| at.saturating_sub(monotonic_ns()))
            };
            let (rung, events) = if self.may_rest() {
                self.rest(timeout, REST_NS)
            } else if idle_wakes >= IDLE_WAKES {
                self.resting.store(true, Ordering::SeqCst);
                self.rest(timeout, GATHER_NS)
            } else {
                self.take_events(timeout)
            };
            if rung {
                let mut counter = [0; 8];
                let _ = read(&self.bell, &mut counter);
            }
            // Before the queues are read: a push after this rings again.
            self.rung.store(false, Ordering::SeqCst);
            self.timers.fire(monotonic_ns());
            adopt(std::mem::take(&mut *self.injector.lock()));
            busy = run_ready() > 0;
            // Without events it sleeps until there are some.
            idle_wakes = if busy || rung || events == 0 { 0 } else { idle_wakes + 1 };
        }
    }

    /// Whether others look after the host's descriptors. Who goes to sleep from now on rings.
    fn may_rest(&self) -> bool {
        if self.looks.load(Ordering::Relaxed) < LOOKS {
            return false;
        }
        self.resting.store(true, Ordering::SeqCst);
        // Somebody may have gone to sleep meanwhile.
        let may = self.looks.swap(0, Ordering::SeqCst) >= LOOKS;
        if !may {
            self.resting.store(false, Ordering::SeqCst);
        }
        may
    }

    /// Waits for the bell alone, at most so many nanoseconds; as [`Executor::take_events`].
    fn rest(&self, timeout: Option<u64>, most: u64) -> (bool, usize) {
        let time = timespec(timeout.unwrap_or(most).min(most));
        let rung = poll(&mut [PollFd::new(&self.bell, PollFlags::IN)], Some(&time));
        self.resting.store(false, Ordering::SeqCst);
        let (heard, events) = self.take_events(Some(0));
        (heard || rung.is_ok_and(|n| n > 0), events)
    }

    /// Passes events on to their queues; whether the bell was among them, and how many others.
    fn take_events(&self, timeout: Option<u64>) -> (bool, usize) {
        let mut room = [const { MaybeUninit::uninit() }; 64];
        let wait = timeout.map(timespec);
        // EINTR and the like are as good as "nothing ready".
        let Ok((ready, _)) = epoll::wait(&self.epoll, &mut room[..], wait.as_ref()) else {
            return (false, 0);
        };
        let (mut rung, mut others) = (false, 0);
        for event in ready {
            let key = event.data.u64();
            if key == BELL {
                rung = true;
            } else {
                others += 1;
                let flags = event.flags;
                self.sources.wake(key, Events::from_bits_truncate(flags.bits()));
            }
        }
        (rung, others)
    }
}
