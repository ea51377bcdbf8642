//! Work that a synchronous function leaves behind because it would keep everybody else waiting.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::blocking::blocking;

type Work = Box<dyn FnOnce() + Send>;

static LEFT: Mutex<Vec<Work>> = Mutex::new(Vec::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Leaves work, such as the freeing of much memory, to the next task that calls [`settle`].
pub fn defer(work: impl FnOnce() + Send + 'static) {
    LEFT.lock().push(Box::new(work));
    COUNT.fetch_add(1, Ordering::Release);
}

/// Whether there is work left; cheap.
pub fn is_owing() -> bool {
    COUNT.load(Ordering::Relaxed) != 0
}

/// Has the blocking pool do what was left, and waits for it.
pub async fn settle() {
    let work = std::mem::take(&mut *LEFT.lock());
    COUNT.fetch_sub(work.len(), Ordering::Relaxed);
    if !work.is_empty() {
        blocking(move || work.into_iter().for_each(|work| work())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{defer, is_owing, settle};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn what_was_left_is_done_once() {
        let done = Arc::new(AtomicU32::new(0));
        for _ in 0..3 {
            let done = done.clone();
            defer(move || {
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        assert!(is_owing());
        crate::block_on(settle());
        assert_eq!(done.load(Ordering::SeqCst), 3);
        assert!(!is_owing());
        crate::block_on(settle());
        assert_eq!(done.load(Ordering::SeqCst), 3);
    }
}
