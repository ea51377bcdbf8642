//! Run queues: one per worker thread, and the driver's injector for everybody else.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::crew::{self, Duty};
use crate::driver::Executor;
use crate::task::Task;

/// Tasks polled in one drain; what is left then goes to the driver, so that tasks which wake each
/// other without end do not keep a worker from its events.
const DRAIN_BUDGET: usize = 256;

thread_local! {
    /// What was woken here between polls: nobody else needs to see it.
    static LOCAL: RefCell<VecDeque<Arc<Task>>> = const { RefCell::new(VecDeque::new()) };
    static WORKER: RefCell<Option<Arc<Worker>>> = const { RefCell::new(None) };
}

/// What others see of a worker thread.
pub(crate) struct Worker {
    /// Odd while a task is polled; another number for each.
    polls: AtomicU64,
    /// What waits behind the task that is polled: others take it if that takes long.
    behind: Mutex<VecDeque<Arc<Task>>>,
    /// There may be something in `behind`.
    waiting: AtomicBool,
    /// It has been in one poll for long: others have taken what waited behind it, and its duty.
    relieved: AtomicBool,
    /// What it does beside running tasks.
    pub(crate) duty: Option<Arc<Duty>>,
    /// `polls` when the watch looked last.
    seen: AtomicU64,
}

impl Worker {
    fn new(duty: Option<Arc<Duty>>) -> Worker {
        Worker {
            polls: AtomicU64::new(0),
            behind: Mutex::default(),
            waiting: AtomicBool::new(false),
            relieved: AtomicBool::new(false),
            duty,
            seen: AtomicU64::new(0),
        }
    }

    /// Before a task is polled, or other work begins that others are not to wait for.
    fn begin(&self) {
        self.polls.store(self.polls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        if self.duty.is_none() && self.relieved.load(Ordering::Relaxed) {
            self.relieved.store(false, Ordering::Relaxed);
        }
        crew::notice();
    }

    fn end(&self) {
        self.polls.store(self.polls.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    fn next(&self) -> Option<Arc<Task>> {
        if self.waiting.load(Ordering::Relaxed) {
            let mut behind = self.behind.lock();
            let task = behind.pop_front();
            self.waiting.store(!behind.is_empty(), Ordering::Relaxed);
            if task.is_some() {
                return task;
            }
        }
        LOCAL.with_borrow_mut(|local| {
            let task = local.pop_front();
            if !local.is_empty() {
                let mut behind = self.behind.lock();
                behind.append(local);
                self.waiting.store(true, Ordering::Relaxed);
            }
            task
        })
    }

    /// Queues a task that was woken while another is polled; gives it back where somebody else is to run it.
    fn push_behind(&self, task: Arc<Task>) -> Option<Arc<Task>> {
        let mut behind = self.behind.lock();
        if self.relieved.load(Ordering::Relaxed) {
            return Some(task);
        }
        behind.push_back(task);
        self.waiting.store(true, Ordering::Relaxed);
        None
    }

    /// Whether it does something now, or has since the last look; and whether that is the same as then, while others wait
    /// for it.
    pub(crate) fn look(&self) -> (bool, bool) {
        let polls = self.polls.load(Ordering::Relaxed);
        let same = self.seen.swap(polls, Ordering::Relaxed) == polls;
        // Relieved as its poll ended it may have gone on with others.
        let awaited = !self.was_relieved() || self.waiting.load(Ordering::Relaxed);
        let stuck = polls % 2 == 1 && same && awaited;
        (!same || stuck, stuck)
    }

    /// Whether others have taken its duty, if it had one.
    pub(crate) fn was_relieved(&self) -> bool {
        self.relieved.load(Ordering::Relaxed)
    }

    /// Takes what waits behind a poll that is long. What is woken in it from now on goes to the driver.
    pub(crate) fn relieve(&self) -> VecDeque<Arc<Task>> {
        let mut behind = self.behind.lock();
        self.relieved.store(true, Ordering::Relaxed);
        self.waiting.store(false, Ordering::Relaxed);
        std::mem::take(&mut *behind)
    }
}

/// Marks the current thread as a worker; see [`worker_scope`].
#[must_use = "the thread is a worker only while this value lives"]
pub(crate) struct WorkerScope(Arc<Worker>);

/// Makes the current thread a worker until the returned value is dropped: wakes made here queue
/// here, and the thread promises to call [`run_ready`] before it sleeps. It begins with these tasks.
pub(crate) fn worker_scope(duty: Option<Arc<Duty>>, tasks: VecDeque<Arc<Task>>) -> WorkerScope {
    let worker = Arc::new(Worker::new(duty));
    crew::add(&worker);
    LOCAL.set(tasks);
    WORKER.set(Some(Arc::clone(&worker)));
    WorkerScope(worker)
}

impl Drop for WorkerScope {
    fn drop(&mut self) {
        WORKER.set(None);
        crew::remove(&self.0);
        give_away(&self.0);
    }
}

fn give_away(worker: &Worker) {
    let behind = std::mem::take(&mut *worker.behind.lock());
    for task in behind.into_iter().chain(LOCAL.take()) {
        Executor::get().inject(task);
    }
}

/// Whether another thread has taken over the duty of this one, which is to return from it.
pub fn is_relieved() -> bool {
    WORKER.with_borrow(|worker| worker.as_ref().is_some_and(|worker| worker.was_relieved()))
}

/// Polls the tasks that were woken on this worker, and those they wake. Returns how many polls
/// were made.
pub fn run_ready() -> usize {
    WORKER.with_borrow(|worker| {
        let Some(worker) = worker.as_ref() else { return 0 };
        for polls in 0..DRAIN_BUDGET {
            let Some(task) = worker.next() else { return polls };
            worker.begin();
            task.run();
            worker.end();
        }
        give_away(worker);
        DRAIN_BUDGET
    })
}

/// Does other work than that of woken tasks on this worker.
pub(crate) fn work(job: impl FnOnce()) {
    WORKER.with_borrow(|worker| {
        worker.as_deref().inspect(|worker| worker.begin());
        job();
        worker.as_deref().inspect(|worker| worker.end());
    });
}

/// Queues tasks on this worker, between two polls.
pub(crate) fn adopt(tasks: VecDeque<Arc<Task>>) {
    LOCAL.with_borrow_mut(|local| local.extend(tasks));
}

/// Queues a task on this worker, or on the driver where the thread is no worker.
pub(crate) fn schedule(task: Arc<Task>) {
    let mut task = Some(task);
    // The thread-locals are gone only while their thread ends.
    let _ = WORKER.try_with(|worker| {
        let worker = worker.borrow();
        let Some(worker) = worker.as_ref() else { return };
        if worker.polls.load(Ordering::Relaxed) % 2 == 1 {
            task = task.take().and_then(|task| worker.push_behind(task));
        } else {
            LOCAL.with_borrow_mut(|local| local.extend(task.take()));
        }
    });
    if let Some(task) = task {
        Executor::get().inject(task);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{LOCAL, Worker};
    use crate::crew::Duty;
    use crate::task::Task;

    /// Whether it is found stuck by two looks.
    fn long(worker: &Worker) -> bool {
        worker.look();
        worker.look().1
    }

    #[test]
    fn who_was_relieved_as_a_poll_ended_gives_up_what_waits_behind_the_next() {
        let worker = Worker::new(Some(Arc::new(Duty::new("test", || ()))));
        worker.begin();
        assert!(long(&worker));
        // The duty is taken, and the poll ends in that moment.
        assert!(worker.relieve().is_empty());
        worker.end();
        assert!(!long(&worker));
        // It takes what had come meanwhile all the same.
        LOCAL.set((0..3).map(|_| Task::new(async {})).collect());
        let first = worker.next();
        worker.begin();
        assert!(first.is_some() && worker.was_relieved() && long(&worker));
        assert_eq!(worker.relieve().len(), 2);
        // Nobody waits for it any more.
        assert!(!long(&worker));
        worker.end();
        assert!(worker.next().is_none());
    }

    #[test]
    fn who_has_no_duty_is_as_new_in_the_next_poll() {
        let worker = Worker::new(None);
        worker.begin();
        assert!(long(&worker) && worker.relieve().is_empty());
        worker.end();
        worker.begin();
        assert!(long(&worker));
    }
}
