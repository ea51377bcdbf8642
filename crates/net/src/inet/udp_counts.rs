//! What /proc/net/snmp and snmp6 count of datagrams that never leave the kernel process.

use std::sync::atomic::{AtomicU64, Ordering};

/// Of one version of IP.
pub(crate) struct Counts {
    /// `InDatagrams`: read by programs.
    read: AtomicU64,
    /// `OutDatagrams`.
    sent: AtomicU64,
    /// `RcvbufErrors`, which are among `InErrors`.
    lost: AtomicU64,
}

impl Counts {
    const fn new() -> Counts {
        Counts { read: AtomicU64::new(0), sent: AtomicU64::new(0), lost: AtomicU64::new(0) }
    }
    pub(crate) fn add_read(&self) {
        self.read.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn add_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn add_lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
    /// What is to be added to a counter of this name (`InDatagrams`...).
    pub(crate) fn named(&self, name: &str) -> u64 {
        let counter = match name {
            "InDatagrams" => &self.read,
            "OutDatagrams" => &self.sent,
            "RcvbufErrors" | "InErrors" => &self.lost,
            _ => return 0,
        };
        counter.load(Ordering::Relaxed)
    }
}

/// A kernel process holds one sandbox: IPv4, IPv6.
static COUNTS: [Counts; 2] = [Counts::new(), Counts::new()];

/// The counts of IPv6, or of IPv4.
pub(crate) fn counts(six: bool) -> &'static Counts {
    let [four, sixth] = &COUNTS;
    if six { sixth } else { four }
}
