//! Run queues: one per worker thread, and the driver's injector for everybody else.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::driver::Executor;
use crate::task::Task;

/// Tasks polled in one drain; what is left then goes to the driver, so that tasks which wake each
/// other without end do not keep a worker from its events.
const DRAIN_BUDGET: usize = 256;

thread_local! {
    static LOCAL: RefCell<Option<VecDeque<Arc<Task>>>> = const { RefCell::new(None) };
}

/// Marks the current thread as a worker; see [`worker_scope`].
#[must_use = "the thread is a worker only while this value lives"]
pub struct WorkerScope(());

/// Makes the current thread a worker until the returned value is dropped: wakes made here queue
/// here, and the thread promises to call [`run_ready`] before it sleeps.
pub fn worker_scope() -> WorkerScope {
    LOCAL.with_borrow_mut(|queue| {
        queue.get_or_insert_with(VecDeque::new);
    });
    WorkerScope(())
}

impl Drop for WorkerScope {
    fn drop(&mut self) {
        let rest = LOCAL.with_borrow_mut(Option::take);
        for task in rest.into_iter().flatten() {
            Executor::get().inject(task);
        }
    }
}

/// Polls the tasks that were woken on this worker, and those they wake. Returns how many polls
/// were made.
pub fn run_ready() -> usize {
    for polls in 0..DRAIN_BUDGET {
        match LOCAL.with_borrow_mut(|queue| queue.as_mut().and_then(VecDeque::pop_front)) {
            Some(task) => task.run(),
            None => return polls,
        }
    }
    while let Some(task) = LOCAL.with_borrow_mut(|queue| queue.as_mut().and_then(VecDeque::pop_front)) {
        Executor::get().inject(task);
    }
    DRAIN_BUDGET
}

/// Queues a task on this worker, or on the driver where the thread is no worker.
pub(crate) fn schedule(task: Arc<Task>) {
    let mut task = Some(task);
    // The thread-local is gone only while its thread ends.
    let _ = LOCAL.try_with(|queue| {
        if let Some(queue) = queue.borrow_mut().as_mut() {
            queue.extend(task.take());
        }
    });
    if let Some(task) = task {
        Executor::get().inject(task);
    }
}
