//! Robust futexes of a process that ends as a whole (set_robust_list(2)).
//!
//! Their waiters sleep in the host's kernel, in any process that shares the memory. So the words are marked and
//! the waiters woken by the ending process itself, in its shim, before the host process is killed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use executor::{Alarm, Events, Observer};
use platform::ThreadHandle;

use crate::Thread;

/// How long an ending process may take to mark its futexes, nanoseconds.
const PATIENCE_NS: u64 = 200_000_000;

/// A robust list that is not empty: its head and the thread that it belongs to.
pub type List = (u64, i32);

/// Whether an ending process has futexes to mark.
#[derive(Default)]
pub enum Mending {
    /// No.
    #[default]
    None,
    /// The first thread that ends does it.
    Wanted {
        /// These.
        lists: Vec<List>,
        /// Kills the host process if nobody does.
        watchdog: Option<Alarm>,
    },
    /// A thread does it.
    UnderWay,
}

struct Impatience(Arc<ThreadHandle>);

impl Observer for Impatience {
    fn notify(&self, _events: Events) -> bool {
        self.0.kill_process();
        false
    }
}

impl Mending {
    pub(crate) fn wanted(lists: Vec<List>, handle: Option<Arc<ThreadHandle>>) -> Mending {
        let late = executor::monotonic_ns() + PATIENCE_NS;
        let watchdog = handle.map(|handle| Alarm::at(late, Arc::new(Impatience(handle))));
        Mending::Wanted { lists, watchdog }
    }
}

/// The robust lists of these threads that hold anything, as far as guest memory can be read.
pub fn held(threads: &[Arc<Thread>]) -> Vec<List> {
    threads
        .iter()
        .filter(|thread| holds(thread))
        .map(|t| (t.robust_list.load(Ordering::Relaxed), t.tid()))
        .collect()
}

fn holds(thread: &Thread) -> bool {
    let head = thread.robust_list.load(Ordering::Relaxed);
    if head == 0 {
        return false;
    }
    // struct robust_list_head: the list, which ends in its own head; an offset; a pending operation.
    let mut words = [0; 24];
    if thread.mm().space.read(head, &mut words) != Ok(words.len()) {
        return false;
    }
    let (list, pending) = (words.first_chunk::<8>(), words.last_chunk::<8>());
    list.is_some_and(|list| u64::from_ne_bytes(*list) != head)
        || pending.is_some_and(|pending| u64::from_ne_bytes(*pending) != 0)
}
