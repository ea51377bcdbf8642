//! Memory policy on a machine with one node: set_mempolicy(2), get_mempolicy(2), mbind(2), move_pages(2),
//! migrate_pages(2).

use linux_abi::Errno;

use crate::args::Ptr;
use crate::mm::PAGE;
use crate::{Cx, SysResult};

const DEFAULT: u32 = 0;
const PREFERRED: u32 = 1;
const BIND: u32 = 2;
const INTERLEAVE: u32 = 3;
const LOCAL: u32 = 4;
const PREFERRED_MANY: u32 = 5;
const WEIGHTED: u32 = 6;
/// `MPOL_F_STATIC_NODES`, `MPOL_F_RELATIVE_NODES`, `MPOL_F_NUMA_BALANCING`.
const MODE_FLAGS: u32 = 0xe000;

/// Reads a mask of nodes: whether node 0 is in it; `EINVAL` for nodes that are not there.
fn read_mask(cx: &mut Cx<'_>, mask: Ptr, maxnode: u64) -> SysResult<bool> {
    if mask.is_null() || maxnode <= 1 {
        return Ok(false);
    }
    let bits = maxnode - 1;
    if bits > PAGE * 8 {
        return Err(Errno::EINVAL.into());
    }
    let words = cx.read_bytes(mask, bits.div_ceil(64) as usize * 8)?;
    let set = |bit: u64| words.get((bit / 8) as usize).is_some_and(|byte| byte >> (bit % 8) & 1 == 1);
    if (1..bits).any(set) {
        return Err(Errno::EINVAL.into());
    }
    Ok(set(0))
}

/// Checks a policy; `EINVAL`.
fn check(cx: &mut Cx<'_>, mode: u32, mask: Ptr, maxnode: u64) -> SysResult<(u32, bool)> {
    let kind = mode & !MODE_FLAGS;
    let node = read_mask(cx, mask, maxnode)?;
    let fits = match kind {
        DEFAULT | LOCAL => !node,
        PREFERRED => true,
        BIND | INTERLEAVE | PREFERRED_MANY | WEIGHTED => node,
        _ => false,
    };
    if fits { Ok((mode, node)) } else { Err(Errno::EINVAL.into()) }
}

/// set_mempolicy(2).
pub fn set_mempolicy(cx: &mut Cx<'_>, mode: u32, mask: Ptr, maxnode: u64) -> SysResult {
    cx.local.memory_policy = check(cx, mode, mask, maxnode)?;
    Ok(0)
}

/// get_mempolicy(2).
pub fn get_mempolicy(
    cx: &mut Cx<'_>,
    mode: Ptr,
    mask: Ptr,
    maxnode: u64,
    addr: u64,
    flags: u32,
) -> SysResult {
    const NODE: u32 = 1;
    const ADDR: u32 = 2;
    const MEMS_ALLOWED: u32 = 4;
    if flags & !(NODE | ADDR | MEMS_ALLOWED) != 0 || (!mask.is_null() && maxnode < 1) {
        return Err(Errno::EINVAL.into());
    }
    let (policy, node) = cx.local.memory_policy;
    let (value, nodes) = if flags & MEMS_ALLOWED != 0 {
        if flags != MEMS_ALLOWED {
            return Err(Errno::EINVAL.into());
        }
        (0, true)
    } else if flags & ADDR != 0 {
        // Of the page at an address: by default, and on node 0.
        cx.guest.copy_in(addr, &mut [0])?;
        (DEFAULT, false)
    } else {
        if addr != 0 || (flags & NODE != 0 && policy & !MODE_FLAGS != INTERLEAVE) {
            return Err(Errno::EINVAL.into());
        }
        (if flags & NODE != 0 { 0 } else { policy }, node)
    };
    if !mode.is_null() {
        cx.write(mode, &value)?;
    }
    if !mask.is_null() {
        let mut bytes = vec![0u8; (maxnode - 1).div_ceil(64).clamp(1, 512) as usize * 8];
        if let Some(first) = bytes.first_mut() {
            *first = u8::from(nodes);
        }
        cx.write_bytes(mask, &bytes)?;
    }
    Ok(0)
}

/// mbind(2): all pages are on the one node there is.
pub fn mbind(
    cx: &mut Cx<'_>,
    addr: u64,
    len: u64,
    mode: u32,
    mask: Ptr,
    maxnode: u64,
    flags: u32,
) -> SysResult {
    const STRICT: u32 = 1;
    const MOVE: u32 = 2;
    const MOVE_ALL: u32 = 4;
    if flags & !(STRICT | MOVE | MOVE_ALL) != 0 || !addr.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL.into());
    }
    if flags & MOVE_ALL != 0 {
        cx.require(identity::Capability::SYS_NICE)?;
    }
    addr.checked_add(len).ok_or(Errno::EINVAL)?;
    check(cx, mode, mask, maxnode)?;
    if len != 0 {
        cx.guest.copy_in(addr, &mut [0])?;
    }
    Ok(0)
}

/// migrate_pages(2): how many pages could not be moved.
pub fn migrate_pages(cx: &mut Cx<'_>, pid: i32, maxnode: u64, old: Ptr, new: Ptr) -> SysResult {
    read_mask(cx, old, maxnode)?;
    let to = read_mask(cx, new, maxnode)?;
    if pid != 0 {
        let thread = cx.kernel().pids.thread(pid)?;
        crate::ptrace::may_access(&cx.credentials, &thread)?;
    }
    if to { Ok(0) } else { Err(Errno::EINVAL.into()) }
}

/// move_pages(2).
pub async fn move_pages(
    cx: &mut Cx<'_>,
    pid: i32,
    count: u64,
    pages: Ptr,
    nodes: Ptr,
    status: Ptr,
    flags: u32,
) -> SysResult {
    const MOVE: u32 = 2;
    const MOVE_ALL: u32 = 4;
    if flags & !(MOVE | MOVE_ALL) != 0 {
        return Err(Errno::EINVAL.into());
    }
    if flags & MOVE_ALL != 0 {
        cx.require(identity::Capability::SYS_NICE)?;
    }
    let mm = if pid == 0 {
        cx.mm()
    } else {
        let thread = cx.kernel().pids.thread(pid)?;
        crate::ptrace::may_access(&cx.credentials, &thread)?;
        thread.mm()
    };
    let mut pace = executor::Pace::default();
    for index in 0..count {
        pace.keep().await;
        let page: u64 = cx.read(pages.add(index.checked_mul(8).ok_or(Errno::EFAULT)?)?)?;
        let at = index.checked_mul(4).ok_or(Errno::EFAULT)?;
        if !nodes.is_null() && cx.read::<i32>(nodes.add(at)?)? != 0 {
            return Err(Errno::ENODEV.into());
        }
        let there = mm.space.read(page, &mut [0]).is_ok();
        let word: i32 = if there { 0 } else { -Errno::EFAULT.raw() };
        cx.guest.copy_out_now(status.add(at)?.0, &word.to_ne_bytes())?;
        if cx.thread.is_dying() {
            break;
        }
    }
    Ok(0)
}
