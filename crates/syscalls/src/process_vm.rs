//! Other processes' memory and resources: process_vm_readv(2), process_vm_writev(2), kcmp(2).

use std::cmp::Ordering as Order;
use std::sync::Arc;

use executor::Events;
use kernel::Thread;
use linux_abi::Errno;

use crate::args::Ptr;
use crate::{Cx, Restart, SysResult};

/// `UIO_MAXIOV`.
const MAX_PIECES: usize = 1024;
/// Most bytes copied in one step.
const STEP: usize = 256 << 10;
/// Most bytes of one call, as Linux's `MAX_RW_COUNT`.
const MAX_COUNT: usize = 0x7fff_f000;

/// Whether the caller may look into a thread's process: `PTRACE_MODE_*_REALCREDS` of ptrace(2).
pub fn may_access(cx: &Cx<'_>, target: &Thread) -> bool {
    target.process().pid() == cx.process().pid() || crate::ptrace::may_access(&cx.credentials, target).is_ok()
}

/// A piece of memory: address and length, not checked.
type Piece = (u64, usize);

fn read_pieces(cx: &mut Cx<'_>, list: Ptr, count: u64) -> SysResult<Vec<Piece>> {
    let count = usize::try_from(count).ok().filter(|count| *count <= MAX_PIECES).ok_or(Errno::EINVAL)?;
    let bytes = cx.read_bytes(list, count * 16)?;
    let mut pieces = Vec::with_capacity(count);
    let mut left = MAX_COUNT;
    for piece in bytes.chunks_exact(16) {
        let (addr, len) = piece.split_at(8);
        let word = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).map_err(|_| Errno::EFAULT);
        let len = i64::from_ne_bytes(word(len)?.to_ne_bytes());
        // Longer than what one call moves is cut off.
        let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?.min(left);
        left -= len;
        pieces.push((word(addr)?, len));
    }
    Ok(pieces)
}

/// Takes up to `most` bytes off the front of a list.
fn advance(pieces: &mut std::iter::Peekable<std::vec::IntoIter<Piece>>, most: usize) -> Option<Piece> {
    loop {
        let (addr, len) = pieces.peek_mut()?;
        if *len == 0 {
            pieces.next();
            continue;
        }
        let step = (*len).min(most);
        let piece = (*addr, step);
        *addr = addr.wrapping_add(step as u64);
        *len -= step;
        return Some(piece);
    }
}

#[expect(clippy::too_many_arguments, reason = "the arguments of process_vm_readv(2)")]
async fn transfer(
    cx: &mut Cx<'_>,
    pid: i32,
    local: Ptr,
    local_count: u64,
    remote: Ptr,
    remote_count: u64,
    flags: u64,
    to_remote: bool,
) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let local = read_pieces(cx, local, local_count)?;
    let remote = read_pieces(cx, remote, remote_count)?;
    if local.iter().all(|(_, len)| *len == 0) || remote.iter().all(|(_, len)| *len == 0) {
        return Ok(0);
    }
    let thread = cx.kernel().pids.thread(pid).or_else(|err| {
        // A process whose first thread has ended goes on under its id.
        cx.kernel().pids.process(pid).map_err(|_| err)?.any_thread().ok_or(err)
    })?;
    if !may_access(cx, &thread) {
        return Err(Errno::EPERM.into());
    }
    let theirs = thread.mm().space.clone();
    if let Some(queue) = theirs.coming_up() {
        let came_up =
            |_: &mut Cx<'_>| if theirs.coming_up().is_none() { Ok(()) } else { Err(Errno::EAGAIN.into()) };
        cx.wait_until(&queue, Events::IN, None, Restart::Always, came_up).await?;
    }
    let mine = cx.guest.address_space();
    let (mut local, mut remote) = (local.into_iter().peekable(), remote.into_iter().peekable());
    let mut done = 0usize;
    let mut buffer = Vec::new();
    let mut pace = executor::Pace::default();
    while let Some(at) = local.peek().map(|(_, len)| (*len).min(STEP)) {
        if at == 0 {
            local.next();
            continue;
        }
        let Some((there, len)) = advance(&mut remote, at) else { break };
        let Some((here, len)) = advance(&mut local, len) else { break };
        // On Linux nothing is there.
        if platform::touches_reserved(there, len as u64) || platform::touches_reserved(here, len as u64) {
            break;
        }
        buffer.resize(len, 0);
        let (from, to) =
            if to_remote { ((&mine, here), (&theirs, there)) } else { ((&theirs, there), (&mine, here)) };
        let got = from.0.read(from.1, &mut buffer).unwrap_or(0);
        let put = to.0.write(to.1, buffer.get(..got).unwrap_or_default()).unwrap_or(0);
        done += put;
        if put < len || cx.thread.is_dying() {
            break;
        }
        pace.keep().await;
    }
    if done == 0 { Err(Errno::EFAULT.into()) } else { Ok(done as i64) }
}

/// process_vm_readv(2).
pub async fn process_vm_readv(
    cx: &mut Cx<'_>,
    pid: i32,
    local: Ptr,
    local_count: u64,
    remote: Ptr,
    remote_count: u64,
    flags: u64,
) -> SysResult {
    transfer(cx, pid, local, local_count, remote, remote_count, flags, false).await
}

/// process_vm_writev(2).
pub async fn process_vm_writev(
    cx: &mut Cx<'_>,
    pid: i32,
    local: Ptr,
    local_count: u64,
    remote: Ptr,
    remote_count: u64,
    flags: u64,
) -> SysResult {
    transfer(cx, pid, local, local_count, remote, remote_count, flags, true).await
}

/// kcmp(2): 0 equal, 1 before, 2 after.
pub fn kcmp(cx: &mut Cx<'_>, pid1: i32, pid2: i32, kind: i32, a: u64, b: u64) -> SysResult {
    let first = cx.kernel().pids.thread(pid1)?;
    let second = cx.kernel().pids.thread(pid2)?;
    if ![&first, &second].into_iter().all(|thread| may_access(cx, thread)) {
        return Err(Errno::EPERM.into());
    }
    let order = match kind {
        0 => {
            let one = first.files().get(i32::try_from(a).map_err(|_| Errno::EBADF)?)?;
            let other = second.files().get(i32::try_from(b).map_err(|_| Errno::EBADF)?)?;
            one.id().cmp(&other.id())
        }
        1 => address(&first.mm()).cmp(&address(&second.mm())),
        2 => address(&first.files()).cmp(&address(&second.files())),
        3 => address(&first.fs()).cmp(&address(&second.fs())),
        4 => address(&first.process().actions()).cmp(&address(&second.process().actions())),
        _ => return Err(Errno::EINVAL.into()),
    };
    Ok(match order {
        Order::Equal => 0,
        Order::Less => 1,
        Order::Greater => 2,
    })
}

fn address<T>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).addr()
}
