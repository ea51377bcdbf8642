//! CPU clocks of other processes: clock_getcpuclockid(3).

use std::io;

/// Which part of the CPU time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// User and system, exact.
    All = 2,
    /// User and system as the clock tick found them.
    Ticks = 0,
    /// User as the clock tick found it.
    UserTicks = 1,
}

/// CPU time that a process (all its threads, ended ones too) has used, nanoseconds. `EINVAL` if there is
/// none of this id.
pub fn process_cpu_ns(pid: i32, part: Part) -> io::Result<u64> {
    // `MAKE_PROCESS_CPUCLOCK` of Linux.
    let clock = (!pid).wrapping_shl(3) | part as i32;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec that lives over the call; any clock id is allowed.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(rest))
}

#[cfg(test)]
mod tests {
    use super::{Part, process_cpu_ns};

    #[test]
    fn own_time_grows() {
        let pid = std::process::id().cast_signed();
        let before = process_cpu_ns(pid, Part::All).unwrap_or(u64::MAX);
        let mut sum = 0u64;
        for i in 0..2_000_000u64 {
            sum = std::hint::black_box(sum ^ i);
        }
        assert!(process_cpu_ns(pid, Part::All).is_ok_and(|after| after > before));
        assert!(process_cpu_ns((1 << 22) + 1, Part::All).is_err());
    }
}
