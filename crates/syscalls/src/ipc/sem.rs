//! Semaphores: semget(2), semop(2), semtimedop(2), semctl(2).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use executor::Alarm;
use kernel::ipc::perm::{READ, WRITE};
use kernel::ipc::sem::{Maker, Pending, Set};
use linux_abi::Errno;
use linux_abi::ipc::sem::{SEMAEM, SEMVMX};
use linux_abi::ipc::{SemBuf, SemInfo, SemidDs, ctl};
use linux_abi::time::Timespec;
use zerocopy::{FromBytes, IntoBytes};

use crate::args::Ptr;
use crate::{Cx, SysResult};

/// semget(2).
pub fn semget(cx: &mut Cx<'_>, key: i32, nsems: i32, flags: i32) -> SysResult {
    let ipc = cx.ipc()?;
    let maker = Maker { key, nsems, flags, creds: &cx.credentials };
    Ok(i64::from(ipc.namespace.semget(&maker)?))
}

/// semop(2).
pub async fn semop(cx: &mut Cx<'_>, id: i32, ops: Ptr, count: u32) -> SysResult {
    semtimedop(cx, id, ops, count, Ptr(0)).await
}

/// semtimedop(2).
pub async fn semtimedop(cx: &mut Cx<'_>, id: i32, ops: Ptr, count: u32, timeout: Ptr) -> SysResult {
    let deadline = if timeout.is_null() {
        None
    } else {
        let length = cx.read::<Timespec>(timeout)?.to_nanos()?;
        Some(executor::monotonic_ns().saturating_add(length))
    };
    let ipc = cx.ipc()?;
    if count < 1 || id < 0 {
        return Err(Errno::EINVAL.into());
    }
    let most = ipc.namespace.limits.semopm.load(Ordering::Relaxed);
    if i64::from(count) > i64::from(most) {
        return Err(Errno::E2BIG.into());
    }
    let bytes = cx.read_bytes(ops, count as usize * size_of::<SemBuf>())?;
    let ops: Vec<SemBuf> = bytes
        .chunks_exact(size_of::<SemBuf>())
        .filter_map(|chunk| SemBuf::read_from_bytes(chunk).ok())
        .collect();
    let set = ipc.namespace.sem.get(id)?;
    let waiter = cx.thread.waiter().clone();
    let pid = cx.process().pid();
    waiter.reset();
    match set.operate(ops, &cx.credentials, &ipc.undo, pid, &waiter)? {
        None => Ok(0),
        Some(pending) => {
            let done = wait(cx, &pending, deadline).await;
            if done.is_err()
                && let Some(result) = set.cancel(&pending)
            {
                // It was done in the meantime.
                result?;
                return Ok(0);
            }
            done
        }
    }
}

async fn wait(cx: &mut Cx<'_>, pending: &Arc<Pending>, deadline: Option<u64>) -> SysResult {
    let waiter = cx.thread.waiter().clone();
    let _alarm = deadline.map(|at| Alarm::at(at, waiter.clone()));
    loop {
        if let Some(result) = pending.result() {
            result?;
            return Ok(0);
        }
        // Never restarted, not even after a stop (signal(7)).
        if cx.thread.interrupted() {
            return Err(Errno::EINTR.into());
        }
        if deadline.is_some_and(|at| executor::monotonic_ns() >= at) {
            return Err(Errno::EAGAIN.into());
        }
        cx.sleep_on(&waiter).await;
    }
}

/// semctl(2).
pub fn semctl(cx: &mut Cx<'_>, id: i32, num: i32, cmd: i32, arg: u64) -> SysResult {
    let ipc = cx.ipc()?;
    let namespace = &ipc.namespace;
    if id < 0 {
        return Err(Errno::EINVAL.into());
    }
    match cmd {
        ctl::IPC_INFO | ctl::SEM_INFO => {
            let limit = |l: &std::sync::atomic::AtomicI32| l.load(Ordering::Relaxed);
            let limits = &namespace.limits;
            let semmns = limit(&limits.semmns);
            let mut info = SemInfo {
                semmap: semmns,
                semmni: limit(&limits.semmni),
                semmns,
                semmnu: semmns,
                semmsl: limit(&limits.semmsl),
                semopm: limit(&limits.semopm),
                semume: limit(&limits.semopm),
                semusz: 20,
                semvmx: SEMVMX,
                semaem: SEMAEM,
            };
            if cmd == ctl::SEM_INFO {
                info.semusz = i32::try_from(namespace.sem.len()).unwrap_or(i32::MAX);
                info.semaem = namespace.semaphores();
            }
            cx.write(Ptr(arg), &info)?;
            Ok(i64::from(namespace.sem.highest()))
        }
        ctl::IPC_STAT | ctl::SEM_STAT | ctl::SEM_STAT_ANY => {
            let (full, set) =
                if cmd == ctl::IPC_STAT { (0, namespace.sem.get(id)?) } else { namespace.sem.at(id)? };
            if cmd != ctl::SEM_STAT_ANY {
                set.state.lock().perm.check(&cx.credentials, READ)?;
            }
            cx.write(Ptr(arg), &set.stat())?;
            Ok(i64::from(full))
        }
        ctl::IPC_SET => {
            let to: SemidDs = cx.read(Ptr(arg))?;
            let set = namespace.sem.get(id)?;
            let mut state = set.state.lock();
            state.perm.check_owner(&cx.credentials)?;
            state.perm.set(&to.perm)?;
            state.changed();
            Ok(0)
        }
        ctl::IPC_RMID => {
            namespace.sem.get(id)?.state.lock().perm.check_owner(&cx.credentials)?;
            namespace.sem_remove(id);
            Ok(0)
        }
        ctl::GETALL | ctl::GETVAL | ctl::GETPID | ctl::GETNCNT | ctl::GETZCNT | ctl::SETVAL | ctl::SETALL => {
            values(cx, &namespace.sem.get(id)?, num, cmd, arg)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// The commands of semctl(2) that look at values.
fn values(cx: &mut Cx<'_>, set: &Arc<Set>, num: i32, cmd: i32, arg: u64) -> SysResult {
    let pid = cx.process().pid();
    let writes = matches!(cmd, ctl::SETVAL | ctl::SETALL);
    let wanted = if writes { WRITE } else { READ };
    if cmd == ctl::SETVAL && !(0..=SEMVMX).contains(&(arg as i32)) {
        return Err(Errno::ERANGE.into());
    }
    set.state.lock().perm.check(&cx.credentials, wanted)?;
    match cmd {
        ctl::GETALL => {
            let all = set.state.lock().values();
            cx.write_bytes(Ptr(arg), all.as_bytes())?;
            return Ok(0);
        }
        ctl::SETALL => {
            let mut all = vec![0u16; set.nsems];
            cx.guest.copy_in(arg, all.as_mut_bytes())?;
            if all.iter().any(|value| i32::from(*value) > SEMVMX) {
                return Err(Errno::ERANGE.into());
            }
            set.state.lock().set(0, &all, pid);
            return Ok(0);
        }
        _ => {}
    }
    let at = usize::try_from(num).ok().filter(|at| *at < set.nsems).ok_or(Errno::EINVAL)?;
    let mut state = set.state.lock();
    Ok(i64::from(match cmd {
        ctl::GETVAL => state.value(at)?,
        ctl::GETPID => state.pid(at)?,
        ctl::GETNCNT => state.waiting(at, false)?,
        ctl::GETZCNT => state.waiting(at, true)?,
        _ => {
            state.set(at, &[arg as u16], pid);
            0
        }
    }))
}
