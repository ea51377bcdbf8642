//! Calls for the machine itself, which is the host's: they answer as to a process that may not, or as a kernel
//! without the feature. acct(2), reboot(2), iopl(2), init_module(2), bpf(2), perf_event_open(2), syslog(2) and others.

use identity::Capability;
use linux_abi::Errno;
use linux_abi::time::Timespec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::{Cx, SysResult};

/// vhangup(2), acct(2), swapon(2), swapoff(2), reboot(2), kexec_load(2), init_module(2) and their like, fanotify_init(2),
/// bpf(2), io_uring_setup(2) with `io_uring_disabled` 2: not even root's.
pub fn not_permitted(_cx: &mut Cx<'_>) -> SysResult {
    Err(Errno::EPERM.into())
}

/// iopl(2).
pub fn iopl(_cx: &mut Cx<'_>, level: u32) -> SysResult {
    // Level 0 is what everybody has.
    match level {
        0 => Ok(0),
        1..=3 => Err(Errno::EPERM.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// ioperm(2).
pub fn ioperm(_cx: &mut Cx<'_>, from: u64, count: u64, on: i32) -> SysResult {
    const PORTS: u64 = 65536;
    if from.checked_add(count).is_none_or(|end| end <= from || end > PORTS) {
        return Err(Errno::EINVAL.into());
    }
    // Nobody has a port to give back.
    if on == 0 { Ok(0) } else { Err(Errno::EPERM.into()) }
}

/// perf_event_open(2): /proc/sys/kernel/perf_event_paranoid is 3.
pub fn perf_event_open(cx: &mut Cx<'_>) -> SysResult {
    let may = cx.credentials.capable(Capability::PERFMON) || cx.credentials.capable(Capability::SYS_ADMIN);
    Err(if may { Errno::EOPNOTSUPP } else { Errno::EACCES }.into())
}

/// io_uring_enter(2), io_uring_register(2): no descriptor is a ring.
pub fn io_uring(cx: &mut Cx<'_>, fd: i32) -> SysResult {
    cx.file(fd)?;
    Err(Errno::EOPNOTSUPP.into())
}

/// name_to_handle_at(2): no file system gives handles.
pub fn no_handles(_cx: &mut Cx<'_>) -> SysResult {
    Err(Errno::EOPNOTSUPP.into())
}

/// mlockall(2): nothing here can keep the host from swapping.
pub fn mlockall(cx: &mut Cx<'_>, flags: u32) -> SysResult {
    const ONFAULT: u32 = 4;
    if flags == 0 || flags & !7 != 0 || flags == ONFAULT {
        return Err(Errno::EINVAL.into());
    }
    let limit = cx.process().limit(kernel::limits::resource::MEMLOCK);
    let may = limit != 0 || cx.credentials.capable(Capability::IPC_LOCK);
    Err(if may { Errno::ENOMEM } else { Errno::EPERM }.into())
}

/// syslog(2): the log is empty; /proc/sys/kernel/dmesg_restrict is 1.
pub fn syslog(cx: &mut Cx<'_>, action: i32, buf: Ptr, len: i32) -> SysResult {
    const READ: i32 = 2;
    const READ_ALL: i32 = 3;
    const READ_CLEAR: i32 = 4;
    cx.require(Capability::SYSLOG)?;
    match action {
        READ | READ_ALL | READ_CLEAR if buf.is_null() || len < 0 => Err(Errno::EINVAL.into()),
        // CLOSE, OPEN, the reads, CLEAR, SIZE_UNREAD, SIZE_BUFFER.
        0..=5 | 9 | 10 => Ok(0),
        // The console is the host's.
        6..=8 => Err(Errno::EPERM.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `struct timex`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Timex {
    modes: u32,
    pad: u32,
    offset: i64,
    freq: i64,
    maxerror: i64,
    esterror: i64,
    status: i32,
    pad2: u32,
    constant: i64,
    precision: i64,
    tolerance: i64,
    time: [i64; 2],
    tick: i64,
    rest: [u64; 14],
}

const _: () = assert!(size_of::<Timex>() == 208);

/// adjtimex(2).
pub fn adjtimex(cx: &mut Cx<'_>, at: Ptr) -> SysResult {
    let wanted: Timex = cx.read(at)?;
    // Offsets of the old kind may be read by everybody.
    const SS_READ: u32 = 0xa001;
    if wanted.modes != 0 && wanted.modes != SS_READ {
        // The date is the host's.
        return Err(Errno::EPERM.into());
    }
    const UNSYNCHRONIZED: i32 = 0x40;
    const TIME_ERROR: i64 = 5;
    let now = Timespec::from_nanos(executor::realtime_ns());
    // Nothing in the sandbox knows whether the host's clock is kept: as a clock that nobody has set says.
    let answer = Timex {
        modes: wanted.modes,
        maxerror: 16_000_000,
        esterror: 16_000_000,
        status: UNSYNCHRONIZED,
        constant: 2,
        precision: 1,
        tolerance: 32_768_000,
        time: [now.sec, now.nsec / 1000],
        tick: 10_000,
        ..Timex::default()
    };
    cx.write(at, &answer)?;
    Ok(TIME_ERROR)
}

/// clock_adjtime(2).
pub fn clock_adjtime(cx: &mut Cx<'_>, clock: i32, at: Ptr) -> SysResult {
    const REALTIME: i32 = 0;
    match clock {
        REALTIME => adjtimex(cx, at),
        1..=11 => Err(Errno::EOPNOTSUPP.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}
