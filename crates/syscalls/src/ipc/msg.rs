//! Message queues: msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

use std::sync::atomic::Ordering;

use executor::Events;
use kernel::ipc::msg::Message;
use kernel::ipc::perm::READ;
use linux_abi::Errno;
use linux_abi::ipc::msg::{MSG_COPY, MSG_EXCEPT};
use linux_abi::ipc::{IPC_NOWAIT, MsgInfo, MsqidDs, ctl};

use crate::args::Ptr;
use crate::{Cx, Restart, SysError, SysResult};

/// msgget(2).
pub fn msgget(cx: &mut Cx<'_>, key: i32, flags: i32) -> SysResult {
    let ipc = cx.ipc()?;
    Ok(i64::from(ipc.namespace.msgget(key, flags, &cx.credentials)?))
}

/// msgsnd(2).
pub async fn msgsnd(cx: &mut Cx<'_>, id: i32, message: Ptr, size: u64, flags: i32) -> SysResult {
    let kind: i64 = cx.read(message)?;
    let ipc = cx.ipc()?;
    let most = ipc.namespace.limits.msgmax.load(Ordering::Relaxed);
    let length = i32::try_from(size).ok().filter(|n| *n <= most && id >= 0).ok_or(Errno::EINVAL)?;
    if kind < 1 {
        return Err(Errno::EINVAL.into());
    }
    let text = cx.read_bytes(message.add(8)?, length as usize)?;
    let queue = ipc.namespace.msg.get(id)?;
    let pid = cx.process().pid();
    let mut message = Some(Message { kind, text });
    let mut send = |cx: &mut Cx<'_>| Ok(queue.send(&mut message, &cx.credentials, pid)?);
    if flags & IPC_NOWAIT != 0 {
        send(cx)?;
    } else {
        cx.wait_until(&queue.waiters, Events::OUT, None, Restart::Never, send).await?;
    }
    Ok(0)
}

/// msgrcv(2).
pub async fn msgrcv(cx: &mut Cx<'_>, id: i32, to: Ptr, size: u64, kind: i64, flags: i32) -> SysResult {
    if id < 0 || i64::try_from(size).is_err() {
        return Err(Errno::EINVAL.into());
    }
    if flags & MSG_COPY != 0 && (flags & MSG_EXCEPT != 0 || flags & IPC_NOWAIT == 0) {
        return Err(Errno::EINVAL.into());
    }
    let ipc = cx.ipc()?;
    let queue = ipc.namespace.msg.get(id)?;
    let pid = cx.process().pid();
    let message = cx
        .wait_until(&queue.waiters, Events::IN, None, Restart::Never, |cx| {
            Ok(queue.receive(size, kind, flags, &cx.credentials, pid)?)
        })
        .await?
        .ok_or(SysError::Errno(Errno::EAGAIN))?;
    cx.write(to, &message.kind)?;
    let length = message.text.len().min(usize::try_from(size).unwrap_or(usize::MAX));
    cx.write_bytes(to.add(8)?, message.text.get(..length).unwrap_or_default())?;
    Ok(length as i64)
}

/// msgctl(2).
pub fn msgctl(cx: &mut Cx<'_>, id: i32, cmd: i32, buf: Ptr) -> SysResult {
    let ipc = cx.ipc()?;
    let namespace = &ipc.namespace;
    if id < 0 || cmd < 0 {
        return Err(Errno::EINVAL.into());
    }
    match cmd {
        ctl::IPC_INFO | ctl::MSG_INFO => {
            let limit = |l: &std::sync::atomic::AtomicI32| l.load(Ordering::Relaxed);
            let limits = &namespace.limits;
            let (msgmnb, msgmni) = (limit(&limits.msgmnb), limit(&limits.msgmni));
            let mut info = MsgInfo {
                msgpool: msgmni.saturating_mul(msgmnb) / 1024,
                msgmap: msgmnb,
                msgmax: limit(&limits.msgmax),
                msgmnb,
                msgmni,
                msgssz: 16,
                msgtql: msgmnb,
                msgseg: 0xffff,
                pad: 0,
            };
            if cmd == ctl::MSG_INFO {
                let all = namespace.msg.all();
                let count = |n: u64| i32::try_from(n).unwrap_or(i32::MAX);
                info.msgpool = count(all.len() as u64);
                info.msgmap = count(all.iter().map(|queue| queue.stat().qnum).sum());
                info.msgtql = count(all.iter().map(|queue| queue.stat().cbytes).sum());
            }
            cx.write(buf, &info)?;
            Ok(i64::from(namespace.msg.highest()))
        }
        ctl::IPC_STAT | ctl::MSG_STAT | ctl::MSG_STAT_ANY => {
            let (full, queue) =
                if cmd == ctl::IPC_STAT { (0, namespace.msg.get(id)?) } else { namespace.msg.at(id)? };
            if cmd != ctl::MSG_STAT_ANY {
                queue.state.lock().perm.check(&cx.credentials, READ)?;
            }
            cx.write(buf, &queue.stat())?;
            Ok(i64::from(full))
        }
        ctl::IPC_SET => {
            let to: MsqidDs = cx.read(buf)?;
            let msgmnb = namespace.limits.msgmnb.load(Ordering::Relaxed);
            namespace.msg.get(id)?.set(&to, &cx.credentials, msgmnb)?;
            Ok(0)
        }
        ctl::IPC_RMID => {
            namespace.msg.get(id)?.state.lock().perm.check_owner(&cx.credentials)?;
            namespace.msg_remove(id);
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}
