//! Host names and the namespaces that there are not: sethostname(2), unshare(2), setns(2), getcpu(2).

use identity::Capability;
use linux_abi::Errno;
use linux_abi::process::CloneFlags;

use crate::args::Ptr;
use crate::{Cx, SysResult};

/// `__NEW_UTS_LEN`.
const UTS_LEN: usize = 64;

fn read_name(cx: &mut Cx<'_>, name: Ptr, len: i32) -> SysResult<Vec<u8>> {
    cx.require(Capability::SYS_ADMIN)?;
    let len = usize::try_from(len).ok().filter(|len| *len <= UTS_LEN).ok_or(Errno::EINVAL)?;
    cx.read_bytes(name, len)
}

/// sethostname(2).
pub fn sethostname(cx: &mut Cx<'_>, name: Ptr, len: i32) -> SysResult {
    let name = read_name(cx, name, len)?;
    cx.kernel().uts.write().hostname = name;
    Ok(0)
}

/// setdomainname(2).
pub fn setdomainname(cx: &mut Cx<'_>, name: Ptr, len: i32) -> SysResult {
    let name = read_name(cx, name, len)?;
    cx.kernel().uts.write().domainname = name;
    Ok(0)
}

/// unshare(2): descriptors, places and mounts; other namespaces are refused.
pub fn unshare(cx: &mut Cx<'_>, flags: u64) -> SysResult {
    let wanted = CloneFlags::from_bits_retain(flags);
    let alone = CloneFlags::THREAD | CloneFlags::SIGHAND | CloneFlags::VM;
    let namespaces = CloneFlags::NEWNS
        | CloneFlags::NEWCGROUP
        | CloneFlags::NEWUTS
        | CloneFlags::NEWIPC
        | CloneFlags::NEWUSER
        | CloneFlags::NEWPID
        | CloneFlags::NEWNET
        | CloneFlags::NEWTIME;
    let plain = CloneFlags::FILES | CloneFlags::FS | CloneFlags::SYSVSEM;
    if flags & !(alone | namespaces | plain).bits() != 0 {
        return Err(Errno::EINVAL.into());
    }
    if wanted.intersects(alone) && cx.process().threads.lock().len() > 1 {
        return Err(Errno::EINVAL.into());
    }
    if wanted.intersects(namespaces - CloneFlags::NEWNS) {
        cx.kernel().note_missing("unshare of namespaces");
        return Err(Errno::EPERM.into());
    }
    if wanted.contains(CloneFlags::FILES) {
        let own = cx.files().duplicate();
        cx.thread.set_files(Some(own));
    }
    if wanted.contains(CloneFlags::NEWNS) {
        crate::mount::unshare_mounts(cx)?;
    } else if wanted.contains(CloneFlags::FS) {
        let own = cx.fs().duplicate();
        cx.thread.set_fs(own);
    }
    Ok(0)
}

/// setns(2).
pub fn setns(cx: &mut Cx<'_>, fd: i32, _kind: i32) -> SysResult {
    cx.file(fd)?;
    Err(Errno::EPERM.into())
}

/// getcpu(2), where the vDSO did not answer: the CPU that the host ran the thread on last; one node.
pub fn getcpu(cx: &mut Cx<'_>, cpu: Ptr, node: Ptr) -> SysResult {
    let now = kernel::cpu_time::last_cpu(cx.thread);
    if !cpu.is_null() {
        cx.write(cpu, &now)?;
    }
    if !node.is_null() {
        cx.write(node, &0u32)?;
    }
    Ok(0)
}
