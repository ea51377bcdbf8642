//! Memory calls that the filter did not let through: their arguments are wrong, or reach for the pages
//! that the sandbox keeps for itself. What is right runs natively and never comes here.

use linux_abi::Errno;

use crate::elf::TASK_SIZE;
use crate::mm::PAGE;
use crate::{Cx, SysResult};

/// Whether a range lies in user space at all.
fn in_user_space(addr: u64, len: u64) -> bool {
    addr.checked_add(len).is_some_and(|end| end <= TASK_SIZE)
}

/// munmap(2).
pub fn munmap(_cx: &mut Cx<'_>, addr: u64, len: u64) -> SysResult {
    if !addr.is_multiple_of(PAGE) || len == 0 || !in_user_space(addr, len) {
        return Err(Errno::EINVAL.into());
    }
    Err(Errno::EPERM.into())
}

/// mprotect(2), pkey_mprotect(2), mlock(2) and their like: what is not the guest's is not mapped to it.
pub fn not_mapped(_cx: &mut Cx<'_>, addr: u64, len: u64) -> SysResult {
    if !addr.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL.into());
    }
    if len == 0 {
        return Ok(0);
    }
    Err(Errno::ENOMEM.into())
}

/// mlock(2), munlock(2), mlock2(2): any address will do.
pub fn lock(_cx: &mut Cx<'_>, _addr: u64, len: u64) -> SysResult {
    if len == 0 { Ok(0) } else { Err(Errno::ENOMEM.into()) }
}

/// madvise(2): also advice that is unknown, or not the guest's to give.
pub fn madvise(_cx: &mut Cx<'_>, addr: u64, len: u64, advice: u32) -> SysResult {
    const HWPOISON: u32 = 100;
    const SOFT_OFFLINE: u32 = 101;
    if matches!(advice, HWPOISON | SOFT_OFFLINE) {
        return Err(Errno::EPERM.into());
    }
    let rounded = len.checked_next_multiple_of(PAGE);
    if !addr.is_multiple_of(PAGE) || advice >= 26 || rounded.is_none_or(|len| !in_user_space(addr, len)) {
        return Err(Errno::EINVAL.into());
    }
    if len == 0 { Ok(0) } else { Err(Errno::ENOMEM.into()) }
}

/// mremap(2).
pub fn mremap(_cx: &mut Cx<'_>, addr: u64, old_len: u64, new_len: u64) -> SysResult {
    if !addr.is_multiple_of(PAGE) || new_len == 0 || !in_user_space(addr, new_len) {
        return Err(Errno::EINVAL.into());
    }
    let _ = old_len;
    Err(Errno::EFAULT.into())
}
