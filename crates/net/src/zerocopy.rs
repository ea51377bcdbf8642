//! `MSG_ZEROCOPY` of send(2), as a socket answers it that copies all the same: the bytes are taken at once, and the
//! error queue says that they were copied (networking/msg_zerocopy of the kernel's documentation).

use std::sync::atomic::{AtomicBool, Ordering};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use linux_abi::socket::{AF_INET, MsgFlags};
use parking_lot::Mutex;

use crate::Result;
use crate::socket::{Control, Received, int_option};

/// `SO_EE_ORIGIN_ZEROCOPY`, `SO_EE_CODE_ZEROCOPY_COPIED`.
const ORIGIN: u8 = 5;
const COPIED: u8 = 1;
/// Level and type of the control message: `IP_RECVERR`, `IPV6_RECVERR`. Sizes of the address behind it.
const IP_RECVERR: (i32, i32, usize) = (0, 11, 16);
const IPV6_RECVERR: (i32, i32, usize) = (41, 25, 28);

/// What a socket keeps for it.
#[derive(Default)]
pub(crate) struct Completions {
    /// `SO_ZEROCOPY`.
    enabled: AtomicBool,
    waiting: AtomicBool,
    sends: Mutex<Sends>,
}

#[derive(Default)]
struct Sends {
    /// Number of the next one.
    next: u32,
    /// First and last one that nobody was told of.
    untold: Option<(u32, u32)>,
}

impl Completions {
    /// setsockopt(2): 0 or 1, else `EINVAL`.
    pub(crate) fn set(&self, value: &[u8]) -> Result<()> {
        let on = int_option(value)?;
        if !(0..=1).contains(&on) {
            return Err(Errno::EINVAL);
        }
        self.enabled.store(on == 1, Ordering::Relaxed);
        Ok(())
    }
    /// getsockopt(2).
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }
    /// An accepted socket begins with its listener's option.
    pub(crate) fn inherit(&self, other: &Completions) {
        self.enabled.store(other.is_enabled(), Ordering::Relaxed);
    }
    /// A send(2) with the flag was done.
    pub(crate) fn note(&self, queue: &WaitQueue) {
        if !self.is_enabled() {
            return;
        }
        {
            let mut sends = self.sends.lock();
            let number = sends.next;
            sends.next = number.wrapping_add(1);
            let first = sends.untold.map_or(number, |(first, _)| first);
            sends.untold = Some((first, number));
            self.waiting.store(true, Ordering::SeqCst);
        }
        queue.wake_all(Events::ERR);
    }
    /// What poll(2) adds.
    pub(crate) fn events(&self) -> Events {
        if self.waiting.load(Ordering::SeqCst) { Events::ERR } else { Events::empty() }
    }
    /// What a receive with `MSG_ERRQUEUE` has: all sends that are done, in one message.
    pub(crate) fn take(&self, family: u16) -> Option<Received> {
        if !self.waiting.load(Ordering::SeqCst) {
            return None;
        }
        let (first, last) = {
            let mut sends = self.sends.lock();
            self.waiting.store(false, Ordering::SeqCst);
            sends.untold.take()?
        };
        let (level, kind, address) = if family == AF_INET { IP_RECVERR } else { IPV6_RECVERR };
        // struct sock_extended_err: errno, origin, type, code, padding, info, data; then an address of nobody.
        let mut data = vec![0, 0, 0, 0, ORIGIN, 0, COPIED, 0];
        data.extend_from_slice(&first.to_ne_bytes());
        data.extend_from_slice(&last.to_ne_bytes());
        data.resize(16 + address, 0);
        let control = vec![Control::Raw { level, kind, data }];
        Some(Received { flags: MsgFlags::ERRQUEUE, control, ..Received::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::Completions;
    use crate::socket::Control;
    use executor::WaitQueue;
    use linux_abi::Errno;

    #[test]
    fn sends_are_told_once_and_in_ranges() {
        let (completions, queue) = (Completions::default(), WaitQueue::new());
        completions.note(&queue);
        assert!(completions.take(2).is_none());
        assert_eq!(completions.set(&2_i32.to_ne_bytes()), Err(Errno::EINVAL));
        completions.set(&1_i32.to_ne_bytes()).unwrap();
        let range = || match completions.take(10)?.control.pop()? {
            Control::Raw { data, .. } => {
                assert_eq!(data.len(), 44);
                Some((data[8], data[12]))
            }
            _ => None,
        };
        for expected in [(0, 2), (3, 5)] {
            (0..3).for_each(|_| completions.note(&queue));
            assert!(!completions.events().is_empty());
            assert_eq!((range(), range()), (Some(expected), None));
        }
        assert!(completions.events().is_empty());
    }
}
