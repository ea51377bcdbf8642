//! select(2), pselect6(2).

use executor::Events;
use linux_abi::Errno;
use linux_abi::signal::SigSet;
use linux_abi::time::Timeval;
use smallvec::SmallVec;
use zerocopy::IntoBytes;

use crate::args::Ptr;
use crate::poll::{Watched, deadline_after, read_timeout, ready, wait_for_files, wait_mask, write_left};
use crate::{Cx, SysResult};

/// What counts as readable, writable and exceptional (select(2)).
const CLASSES: [Events; 3] = [
    Events::READABLE.union(Events::RDBAND).union(Events::HUP).union(Events::ERR),
    Events::WRITABLE.union(Events::WRBAND).union(Events::ERR),
    Events::PRI,
];

/// select(2).
pub async fn select(
    cx: &mut Cx<'_>,
    nfds: i32,
    read: Ptr,
    write: Ptr,
    except: Ptr,
    timeout_at: Ptr,
) -> SysResult {
    let timeout = if timeout_at.is_null() {
        None
    } else {
        // Unlike other calls, select takes microseconds of a second and more.
        let tv: Timeval = cx.read(timeout_at)?;
        let whole = Timeval {
            sec: tv.sec.checked_add(tv.usec.div_euclid(1_000_000)).ok_or(Errno::EINVAL)?,
            usec: tv.usec.rem_euclid(1_000_000),
        };
        Some(whole.to_nanos()?)
    };
    let deadline = deadline_after(cx, timeout);
    let result = select_until(cx, nfds, [read, write, except], timeout == Some(0), deadline).await;
    if let Some(at) = deadline.filter(|_| !cx.process().keeps_timeouts()) {
        let left = at.saturating_sub(executor::monotonic_ns());
        // Linux ignores a failure to write it.
        let _ = cx.write(timeout_at, &Timeval::from_nanos(left));
    }
    result
}

/// pselect6(2).
pub async fn pselect6(
    cx: &mut Cx<'_>,
    nfds: i32,
    read: Ptr,
    write: Ptr,
    except: Ptr,
    timeout_at: Ptr,
    mask: Ptr,
) -> SysResult {
    let timeout = read_timeout(cx, timeout_at)?;
    if !mask.is_null() {
        let [set, size]: [u64; 2] = cx.read(mask)?;
        wait_mask(cx, Ptr(set), if set == 0 { size_of::<SigSet>() as u64 } else { size })?;
    }
    let deadline = deadline_after(cx, timeout);
    let result = select_until(cx, nfds, [read, write, except], timeout == Some(0), deadline).await;
    write_left(cx, timeout_at, deadline);
    result
}

/// A guest's `fd_set`, 64 descriptors a word.
type Bits = SmallVec<[u64; 16]>;

fn bit(bits: &Bits, fd: usize) -> bool {
    bits.get(fd / 64).is_some_and(|word| word >> (fd % 64) & 1 != 0)
}

async fn select_until(
    cx: &mut Cx<'_>,
    nfds: i32,
    sets: [Ptr; 3],
    at_once: bool,
    deadline: Option<u64>,
) -> SysResult {
    let nfds = usize::try_from(nfds).map_err(|_| Errno::EINVAL)?;
    let table = cx.files();
    // As Linux, what lies beyond the table is not looked at.
    let nfds = nfds.min(table.capacity());
    let words = nfds.div_ceil(64);
    let mut asked: [Bits; 3] = Default::default();
    for (bits, at) in asked.iter_mut().zip(sets) {
        if !at.is_null() {
            bits.resize(words, 0);
            cx.guest.copy_in(at.0, bits.as_mut_slice().as_mut_bytes())?;
        }
    }
    let mut fds: SmallVec<[usize; 16]> = SmallVec::new();
    let mut files: SmallVec<[Option<Watched>; 16]> = SmallVec::new();
    for fd in 0..nfds {
        let mut events = Events::empty();
        for (bits, class) in asked.iter().zip(CLASSES) {
            if bit(bits, fd) {
                events |= class;
            }
        }
        if !events.is_empty() {
            let file = table.get(i32::try_from(fd).map_err(|_| Errno::EBADF)?)?;
            if file.flags().contains(linux_abi::fs::OpenFlags::PATH) {
                return Err(Errno::EBADF.into());
            }
            fds.push(fd);
            files.push(Some((file, events)));
        }
    }
    let mut found: [Bits; 3] = [0, 1, 2].map(|i| SmallVec::from_elem(0, asked.get(i).map_or(0, Bits::len)));
    let mut scan = || {
        let mut n = 0;
        for (fd, (file, events)) in fds.iter().zip(files.iter().flatten()) {
            let now = ready(file, *events);
            for ((bits, class), asked) in found.iter_mut().zip(CLASSES).zip(&asked) {
                if now.intersects(class) && bit(asked, *fd) {
                    if let Some(word) = bits.get_mut(fd / 64) {
                        *word |= 1 << (fd % 64);
                    }
                    n += 1;
                }
            }
        }
        n
    };
    let mut n = scan();
    if n == 0 && !at_once {
        n = wait_for_files(cx, &files, deadline, scan).await?;
    }
    for (bits, at) in found.iter().zip(sets) {
        if !bits.is_empty() {
            cx.write_bytes(at, bits.as_slice().as_bytes())?;
        }
    }
    Ok(n as i64)
}
