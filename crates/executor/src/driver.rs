//! The driver thread: host descriptors by epoll, timers, and tasks woken outside any worker.

use std::any::Any;
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use linux_abi::poll::Events;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::{Errno, read, write};

use crate::blocking::Pool;
use crate::clock::{monotonic_ns, timespec};
use crate::host_source::Sources;
use crate::task::Task;
use crate::timer::Timers;
use crate::worker::{run_ready, worker_scope};

/// The epoll key of the eventfd that interrupts the driver's sleep.
const BELL: u64 = u64::MAX;

/// Everything the executor shares between threads.
pub(crate) struct Executor {
    pub(crate) epoll: OwnedFd,
    bell: OwnedFd,
    /// True while the bell has been rung and the driver has not looked yet.
    rung: AtomicBool,
    injector: Mutex<VecDeque<Arc<Task>>>,
    pub(crate) sources: Sources,
    pub(crate) timers: Timers,
    pub(crate) pool: Pool,
}

static EXECUTOR: OnceLock<Executor> = OnceLock::new();
static START: OnceLock<()> = OnceLock::new();
static PANIC_HOOK: OnceLock<fn(&str)> = OnceLock::new();

/// Passes on what host descriptors have to tell by now, which the driver may not have got around to.
pub fn look_at_host() {
    if let Some(executor) = EXECUTOR.get().filter(|executor| !executor.sources.is_empty()) {
        executor.take_events(Some(0));
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
            thread::Builder::new()
                .name("driver".into())
                .stack_size(512 << 10)
                .spawn(|| executor.drive())
                .expect("the driver thread");
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
        if !self.rung.swap(true, Ordering::AcqRel) {
            // A full counter (EAGAIN) means that the bell rings already.
            let _ = write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    fn drive(&self) {
        // Linux defers wake-ups by 50 µs to save power; a guest's timers should not suffer it.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let _worker = worker_scope();
        let mut busy = false;
        loop {
            let timeout = if busy || !self.injector.lock().is_empty() {
                Some(0)
            } else {
                self.timers.next_deadline().map(|at| at.saturating_sub(monotonic_ns()))
            };
            if self.take_events(timeout) {
                let mut counter = [0; 8];
                let _ = read(&self.bell, &mut counter);
            }
            // Before the queues are read: a push after this rings again.
            self.rung.store(false, Ordering::SeqCst);
            self.timers.fire(monotonic_ns());
            busy = self.run_injected() | (run_ready() > 0);
        }
    }

    /// Passes events on to their queues; whether the bell was among them.
    fn take_events(&self, timeout: Option<u64>) -> bool {
        let mut room = [const { MaybeUninit::uninit() }; 64];
        let wait = timeout.map(timespec);
        // EINTR and the like are as good as "nothing ready".
        let Ok((ready, _)) = epoll::wait(&self.epoll, &mut room[..], wait.as_ref()) else {
            return false;
        };
        let mut rung = false;
        for event in ready {
            let key = event.data.u64();
            if key == BELL {
                rung = true;
            } else {
                let flags = event.flags;
                self.sources.wake(key, Events::from_bits_truncate(flags.bits()));
            }
        }
        rung
    }

    fn run_injected(&self) -> bool {
        let batch = std::mem::take(&mut *self.injector.lock());
        let any = !batch.is_empty();
        for task in batch {
            task.run();
        }
        any
    }
}
