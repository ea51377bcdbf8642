//! Whether reads of an open file would sleep: which of them ask the host for that.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use linux_abi::Errno;
use vfs::{OpenFile, Result};

/// The first reads of a file ask, and those after one that would have slept.
const FIRST: i32 = 8;
const AFTER: i32 = 64;
/// To ask costs 0.1 µs: where nothing would have slept for so long, one of so many does.
const EACH: i32 = 8;
/// A read that took longer has slept, and what it takes at most for each byte.
const SLEPT: Duration = Duration::from_micros(30);
const NS_PER_BYTE: f64 = 0.25;

/// What is known of an open file.
pub(crate) struct Asking {
    /// Its file system cannot tell whether a read would sleep. How long reads take tells that of those that follow.
    cannot_tell: AtomicBool,
    /// So many reads are to ask; below 0, how many did not since the last one.
    left: AtomicI32,
}

impl Asking {
    /// Of a file that was just opened.
    pub(crate) fn new(can_tell: bool) -> Asking {
        Asking { cannot_tell: AtomicBool::new(!can_tell), left: AtomicI32::new(FIRST) }
    }

    /// Whether reads at once do not sleep, as far as is known.
    pub(crate) fn can_tell(&self) -> bool {
        !self.cannot_tell.load(Ordering::Relaxed)
    }

    fn is_due(&self) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        let next = if left > -EACH { left - 1 } else { -1 };
        self.left.store(next, Ordering::Relaxed);
        left > 0 || left == -EACH
    }

    /// Makes a read, `at_once` without sleeping as far as can be told (`EAGAIN`). `read` is given whether it is to ask.
    pub(crate) fn read(
        &self,
        file: &OpenFile,
        at_once: bool,
        mut read: impl FnMut(bool) -> Result<usize>,
    ) -> Result<usize> {
        if at_once && !self.is_due() {
            return read(false);
        }
        if at_once && self.can_tell() {
            match read(true) {
                Err(Errno::EOPNOTSUPP) => self.cannot_tell.store(true, Ordering::Relaxed),
                Err(Errno::EAGAIN) => {
                    self.left.store(AFTER, Ordering::Relaxed);
                    return Err(Errno::EAGAIN);
                }
                result => return result,
            }
        }
        if self.can_tell() {
            return read(false);
        }
        let begun = Instant::now();
        let result = read(false);
        let count = *result.as_ref().unwrap_or(&0);
        if begun.elapsed() > SLEPT + Duration::from_nanos((count as f64 * NS_PER_BYTE) as u64) {
            self.left.store(AFTER, Ordering::Relaxed);
            file.set_slow();
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::{AFTER, Asking, EACH, FIRST};

    #[test]
    fn what_does_not_sleep_is_rarely_asked() {
        let asking = Asking::new(true);
        let ask = |reads: i32| (0..reads).filter(|_| asking.is_due()).count() as i32;
        assert_eq!(ask(FIRST), FIRST);
        // The first one comes a read later.
        assert_eq!(ask(EACH * 100 + 1), 100);
        asking.left.store(AFTER, super::Ordering::Relaxed);
        assert_eq!(ask(AFTER), AFTER);
    }
}
