//! Threads with duties, which must not stand still because a task takes long.
//!
//! A duty (hearing guests, the driver's) is one thread's at a time, which runs tasks as well. One more thread of the
//! crew keeps watch: it looks every 1.5 ms while anybody does anything, and sleeps otherwise. Where it finds a
//! thread in the same poll as before, it takes that thread's duty and the tasks that wait behind the long one, and another
//! keeps watch from then on. The thread that was relieved ends its poll, and is free for what comes next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::affinity::run_anywhere;
use crate::driver::Executor;
use crate::task::Task;
use crate::worker::{Worker, is_relieved, run_ready, worker_scope};

/// How often the watch looks while there is something to see: what it sees twice in the same poll is long.
const TICK: Duration = Duration::from_micros(1500);
/// After so many ticks without anything to see it sleeps.
const QUIET_TICKS: u32 = 3;
/// Threads beside those that have duties from the start: as many polls can be long before others wait for them.
const MAX_SPARE: usize = 12;
/// How long a thread without anything to do waits before it ends.
const IDLE: Duration = Duration::from_secs(5);
const STACK_SIZE: usize = 512 << 10;

/// What a thread does beside running tasks.
pub(crate) struct Duty {
    name: &'static str,
    body: Box<dyn Fn() + Send + Sync>,
}

impl Duty {
    pub(crate) fn new(name: &'static str, body: impl Fn() + Send + Sync + 'static) -> Duty {
        Duty { name, body: Box::new(body) }
    }
}

struct State {
    workers: Vec<Arc<Worker>>,
    /// Somebody keeps watch, or is about to.
    watched: bool,
    /// Who does.
    watch: Option<Thread>,
    /// Threads that wait for something to do; one of them is to keep watch.
    idle: usize,
    called: bool,
    /// Threads in all, and duties.
    threads: usize,
    duties: usize,
}

impl State {
    const fn new() -> State {
        State {
            workers: Vec::new(),
            watched: false,
            watch: None,
            idle: 0,
            called: false,
            threads: 0,
            duties: 0,
        }
    }

    /// Has an idle thread keep watch, if there is one.
    fn call(&mut self) -> bool {
        let idle = self.idle > 0;
        if idle {
            self.called = true;
            CALL.notify_one();
        }
        idle
    }

    /// No thread could be started for the watch that was to be.
    fn do_without_watch(&mut self) {
        // Who has become idle meanwhile has seen that there was to be one.
        if !self.call() {
            SHORT.store(true, Ordering::Relaxed);
            self.watched = false;
        }
    }
}

static STATE: Mutex<State> = Mutex::new(State::new());
static CALL: Condvar = Condvar::new();
/// The watch sleeps until somebody does something.
static ASLEEP: AtomicBool = AtomicBool::new(false);
/// Nobody keeps watch, since all threads that there may be have work.
static SHORT: AtomicBool = AtomicBool::new(false);

/// What a thread of the crew does next.
enum Next {
    Serve(Arc<Duty>, VecDeque<Arc<Task>>),
    Watch,
}

/// Starts a thread that runs `body`, which runs tasks by [`run_ready`] and returns soon after [`is_relieved`]: another
/// thread runs it by then, perhaps at the same time.
///
/// # Errors
/// There is no thread to be had.
pub fn start_duty(name: &'static str, body: impl Fn() + Send + Sync + 'static) -> std::io::Result<()> {
    let duty = Arc::new(Duty::new(name, body));
    STATE.lock().duties += 1;
    start(name, Next::Serve(duty, VecDeque::new())).inspect_err(|_| STATE.lock().duties -= 1)?;
    // Early, since there may be no room for it later.
    find_watch();
    Ok(())
}

/// Whether as many polls are long as can be before others wait for them: what may be long is to wait its turn elsewhere.
pub fn is_short() -> bool {
    SHORT.load(Ordering::Relaxed)
}

/// A worker does something.
pub(crate) fn notice() {
    // No barrier is needed: the watch looks once more, a tick after it has said that it is going to sleep.
    if ASLEEP.load(Ordering::Relaxed) && ASLEEP.swap(false, Ordering::Relaxed) {
        let watch = STATE.lock().watch.clone();
        if let Some(watch) = watch {
            watch.unpark();
        }
    }
}

pub(crate) fn add(worker: &Arc<Worker>) {
    STATE.lock().workers.push(Arc::clone(worker));
}

pub(crate) fn remove(worker: &Arc<Worker>) {
    STATE.lock().workers.retain(|other| !Arc::ptr_eq(other, worker));
}

fn start(name: &str, next: Next) -> std::io::Result<()> {
    STATE.lock().threads += 1;
    let started = thread::Builder::new().name(name.into()).stack_size(STACK_SIZE).spawn(move || run(next));
    if started.is_err() {
        STATE.lock().threads -= 1;
    }
    started.map(drop)
}

/// Sees to it that somebody keeps watch.
fn find_watch() {
    let mut state = STATE.lock();
    if state.watched {
        return;
    }
    state.watched = true;
    if state.call() {
        return;
    }
    let room = state.threads < state.duties + MAX_SPARE;
    drop(state);
    if !room || start("watch", Next::Watch).is_err() {
        STATE.lock().do_without_watch();
    }
}

fn run(mut next: Next) {
    run_anywhere();
    loop {
        next = match next {
            Next::Serve(duty, tasks) => {
                serve(&duty, tasks);
                match wait() {
                    Some(next) => next,
                    None => return,
                }
            }
            Next::Watch => watch(),
        };
    }
}

fn serve(duty: &Arc<Duty>, tasks: VecDeque<Arc<Task>>) {
    set_name(duty.name);
    let _scope = worker_scope(Some(Arc::clone(duty)), tasks);
    run_ready();
    if !is_relieved() {
        (duty.body)();
    }
}

/// Waits for something to do; None if there was nothing for long.
fn wait() -> Option<Next> {
    let mut state = STATE.lock();
    if !state.watched {
        state.watched = true;
        return Some(Next::Watch);
    }
    state.idle += 1;
    loop {
        let timed_out = CALL.wait_for(&mut state, IDLE).timed_out();
        if std::mem::take(&mut state.called) {
            state.idle -= 1;
            return Some(Next::Watch);
        }
        if timed_out {
            state.idle -= 1;
            state.threads -= 1;
            return None;
        }
    }
}

/// Keeps watch until there is a duty to be taken over.
fn watch() -> Next {
    set_name("watch");
    STATE.lock().watch = Some(thread::current());
    SHORT.store(false, Ordering::Relaxed);
    let mut quiet = 0;
    loop {
        thread::sleep(TICK);
        let (active, next) = look();
        if let Some(next) = next {
            ASLEEP.store(false, Ordering::Relaxed);
            find_watch();
            return next;
        }
        if active {
            quiet = 0;
            ASLEEP.store(false, Ordering::Relaxed);
            continue;
        }
        quiet += 1;
        if quiet == QUIET_TICKS {
            ASLEEP.store(true, Ordering::SeqCst);
        } else if quiet > QUIET_TICKS {
            while ASLEEP.load(Ordering::Relaxed) {
                thread::park();
            }
            quiet = 0;
        }
    }
}

/// Looks at all workers: whether any does anything, and what there is to be taken over.
fn look() -> (bool, Option<Next>) {
    let (mut active, mut next, mut left) = (false, None, VecDeque::new());
    let mut state = STATE.lock();
    for worker in &state.workers {
        let (acts, stuck) = worker.look();
        active |= acts;
        match &worker.duty {
            _ if !stuck => {}
            Some(duty) if !worker.was_relieved() => {
                // The next watch sees another one a tick after it has begun.
                if next.is_none() {
                    next = Some(Next::Serve(Arc::clone(duty), worker.relieve()));
                }
            }
            // It has no duty, or no longer: it may have been relieved as its poll ended.
            _ => left.append(&mut worker.relieve()),
        }
    }
    if next.is_some() {
        (state.watched, state.watch) = (false, None);
    }
    drop(state);
    for task in left {
        Executor::get().inject(task);
    }
    (active, next)
}

fn set_name(name: &str) {
    // Only who looks at threads sees it.
    let _ = std::ffi::CString::new(name).map(|name| rustix::thread::set_name(&name));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use parking_lot::{Condvar, Mutex};

    use super::{State, start_duty};
    use crate::{is_relieved, run_ready, spawn};

    #[test]
    fn a_watch_that_cannot_be_started_is_one_that_has_become_idle() {
        // Of its own: the threads of the crew do not look here.
        let mut state = State { watched: true, idle: 1, ..State::new() };
        state.do_without_watch();
        assert!(state.watched && state.called);
    }

    /// A duty that takes what is sent to it, and says when.
    #[derive(Default)]
    struct Post {
        sent: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
        bell: Condvar,
    }

    impl Post {
        fn send(&self, work: impl FnOnce() + Send + 'static) {
            self.sent.lock().push(Box::new(work));
            self.bell.notify_one();
        }

        fn hear(&self) {
            while !is_relieved() {
                let mut sent = self.sent.lock();
                while sent.is_empty() {
                    self.bell.wait(&mut sent);
                }
                let work = std::mem::take(&mut *sent);
                drop(sent);
                for work in work {
                    let mut work = Some(work);
                    spawn(async move {
                        if let Some(work) = work.take() {
                            work();
                        }
                    });
                }
                run_ready();
            }
        }
    }

    #[test]
    fn what_waits_behind_a_long_task_and_what_comes_later_is_done() {
        let post = Arc::new(Post::default());
        let hearing = post.clone();
        start_duty("test", move || hearing.hear()).unwrap();
        let done = Arc::new(AtomicU32::new(0));
        let count = || {
            let done = done.clone();
            move || {
                done.fetch_add(1, Ordering::SeqCst);
            }
        };
        for round in 1..=3 {
            thread::sleep(Duration::from_millis(30));
            let begun = Instant::now();
            let long = Duration::from_millis(500);
            // Several long ones, the second of them behind the first, and short ones between them.
            let mut sent = post.sent.lock();
            for _ in 0..2 {
                sent.push(Box::new(move || thread::sleep(long)));
                sent.push(Box::new(count()));
            }
            drop(sent);
            post.bell.notify_one();
            post.send(count());
            while done.load(Ordering::SeqCst) < 3 * round {
                thread::sleep(Duration::from_millis(1));
            }
            assert!(begun.elapsed() < long, "round {round} took {:?}", begun.elapsed());
        }
    }
}
