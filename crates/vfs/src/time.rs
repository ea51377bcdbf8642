//! The time that file attributes are stamped with.

use linux_abi::time::Timespec;
use rustix::time::{ClockId, clock_gettime};

/// The current time (`CLOCK_REALTIME_COARSE`, as Linux stamps files).
pub fn now() -> Timespec {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    Timespec { sec: now.tv_sec, nsec: now.tv_nsec }
}
