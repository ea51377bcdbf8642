//! The system as a whole: uname(2), sysinfo(2), getrandom(2).

use linux_abi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::{Cx, SysResult};

/// The release that uname(2) reports: the Linux whose calls we answer.
pub const RELEASE: &str = "6.12.0-sallet";
/// The version line of uname(2).
pub const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC Sallet";

const FIELD: usize = 65;

/// uname(2).
pub fn uname(cx: &mut Cx<'_>, buf: Ptr) -> SysResult {
    let uts = cx.kernel().uts.read().clone();
    let mut out = [0u8; FIELD * 6];
    let fields: [&[u8]; 6] =
        [b"Linux", &uts.hostname, RELEASE.as_bytes(), VERSION.as_bytes(), b"x86_64", &uts.domainname];
    for (to, from) in out.chunks_exact_mut(FIELD).zip(fields) {
        for (to, from) in to.iter_mut().take(FIELD - 1).zip(from) {
            *to = *from;
        }
    }
    cx.write_bytes(buf, &out)?;
    Ok(0)
}

/// `struct sysinfo`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct SysInfo {
    uptime: i64,
    loads: [u64; 3],
    total_ram: u64,
    free_ram: u64,
    shared_ram: u64,
    buffer_ram: u64,
    total_swap: u64,
    free_swap: u64,
    procs: u16,
    pad: u16,
    pad2: u32,
    total_high: u64,
    free_high: u64,
    mem_unit: u32,
    pad3: u32,
}

/// sysinfo(2).
pub fn sysinfo(cx: &mut Cx<'_>, buf: Ptr) -> SysResult {
    let memory = cx.kernel().memory();
    let info = SysInfo {
        uptime: ((executor::monotonic_ns() - cx.kernel().boot_ns) / 1_000_000_000) as i64,
        loads: [0; 3],
        total_ram: memory.total,
        free_ram: memory.free,
        buffer_ram: memory.buffers,
        procs: u16::try_from(cx.kernel().pids.thread_count()).unwrap_or(u16::MAX),
        mem_unit: 1,
        ..SysInfo::default()
    };
    cx.write(buf, &info)?;
    Ok(0)
}

/// getrandom(2).
pub fn getrandom(cx: &mut Cx<'_>, buf: Ptr, len: usize, flags: u32) -> SysResult {
    // GRND_NONBLOCK 1, GRND_RANDOM 2, GRND_INSECURE 4; the last two exclude each other.
    if flags & !7 != 0 || flags & 6 == 6 {
        return Err(Errno::EINVAL.into());
    }
    let mut done = 0usize;
    let mut chunk = [0u8; 4096];
    // Linux gives at most 32 MiB - 1 at a time.
    let len = len.min((32 << 20) - 1);
    while done < len {
        let n = (len - done).min(chunk.len());
        let filled = chunk.get_mut(..n).ok_or(Errno::EFAULT)?;
        let got = rustix::rand::getrandom(&mut *filled, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| Errno::from_raw(e.raw_os_error()))?;
        let written = cx.write_bytes(buf.add(done as u64)?, chunk.get(..got).unwrap_or_default());
        if let Err(err) = written {
            return if done > 0 { Ok(done as i64) } else { Err(err) };
        }
        done += got;
    }
    Ok(done as i64)
}
