//! prctl(2), arch_prctl(2), personality(2).

use std::sync::atomic::Ordering;

use identity::{Capability, CapabilitySet, Credentials};
use linux_abi::Errno;
use linux_abi::signal::Signo;
use platform::NativeOp;

use crate::args::Ptr;
use crate::context::Resume;
use crate::{Cx, SysResult};

/// `PR_*` of prctl(2).
mod pr {
    pub(super) const SET_PDEATHSIG: i32 = 1;
    pub(super) const GET_PDEATHSIG: i32 = 2;
    pub(super) const GET_DUMPABLE: i32 = 3;
    pub(super) const SET_DUMPABLE: i32 = 4;
    pub(super) const GET_KEEPCAPS: i32 = 7;
    pub(super) const SET_KEEPCAPS: i32 = 8;
    pub(super) const GET_TIMING: i32 = 13;
    pub(super) const SET_TIMING: i32 = 14;
    pub(super) const SET_NAME: i32 = 15;
    pub(super) const GET_NAME: i32 = 16;
    pub(super) const GET_SECCOMP: i32 = 21;
    pub(super) const SET_SECCOMP: i32 = 22;
    pub(super) const CAPBSET_READ: i32 = 23;
    pub(super) const CAPBSET_DROP: i32 = 24;
    pub(super) const GET_TSC: i32 = 25;
    pub(super) const SET_TSC: i32 = 26;
    pub(super) const GET_SECUREBITS: i32 = 27;
    pub(super) const SET_SECUREBITS: i32 = 28;
    pub(super) const SET_TIMERSLACK: i32 = 29;
    pub(super) const GET_TIMERSLACK: i32 = 30;
    pub(super) const MCE_KILL_GET: i32 = 34;
    pub(super) const SET_MM: i32 = 35;
    pub(super) const SET_CHILD_SUBREAPER: i32 = 36;
    pub(super) const GET_CHILD_SUBREAPER: i32 = 37;
    pub(super) const SET_NO_NEW_PRIVS: i32 = 38;
    pub(super) const GET_NO_NEW_PRIVS: i32 = 39;
    pub(super) const GET_TID_ADDRESS: i32 = 40;
    pub(super) const SET_THP_DISABLE: i32 = 41;
    pub(super) const GET_THP_DISABLE: i32 = 42;
    pub(super) const CAP_AMBIENT: i32 = 47;
    pub(super) const GET_SPECULATION_CTRL: i32 = 52;
    pub(super) const SET_SPECULATION_CTRL: i32 = 53;
    pub(super) const GET_MDWE: i32 = 66;
}

fn einval() -> SysResult {
    Err(Errno::EINVAL.into())
}

/// A flag argument that is 0 or 1; `EINVAL`.
fn flag(value: u64) -> SysResult<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn change(cx: &mut Cx<'_>, new: Credentials) -> SysResult {
    crate::credentials::commit(cx, new);
    Ok(0)
}

/// prctl(2). What is missing answers `EINVAL`, as a kernel without the feature does.
pub async fn prctl(cx: &mut Cx<'_>, op: i32, a: u64, b: u64, c: u64, d: u64) -> SysResult {
    match op {
        pr::SET_SECCOMP => Box::pin(crate::guest_filter::prctl_set(cx, a, b)).await,
        _ => other(cx, op, a, b, c, d),
    }
}

/// All that needs nothing of the shim.
fn other(cx: &mut Cx<'_>, op: i32, a: u64, b: u64, c: u64, d: u64) -> SysResult {
    let process = cx.process().clone();
    match op {
        pr::SET_PDEATHSIG => {
            let sig = i32::try_from(a).map_err(|_| Errno::EINVAL)?;
            if sig != 0 && Signo::new(sig).is_none() {
                return einval();
            }
            cx.thread.parent_death_signal.store(sig, Ordering::Relaxed);
            Ok(0)
        }
        pr::GET_PDEATHSIG => {
            let sig = cx.thread.parent_death_signal.load(Ordering::Relaxed);
            cx.write(Ptr(a), &sig)?;
            Ok(0)
        }
        pr::GET_DUMPABLE => Ok(i64::from(cx.mm().dumpable.load(Ordering::Relaxed))),
        pr::SET_DUMPABLE => {
            cx.mm().dumpable.store(flag(a)?, Ordering::Relaxed);
            Ok(0)
        }
        pr::SET_NAME => {
            let name = cx.read_cstr(Ptr(a), 16)?;
            let name = match name {
                Some(name) => name,
                None => cx.read_bytes(Ptr(a), 15)?,
            };
            cx.thread.set_comm(&name);
            // The host's ps shows it too.
            cx.guest.resume_native(NativeOp::SetName { name: cx.thread.comm() });
            cx.local.resume = Resume::Done;
            Ok(0)
        }
        pr::GET_NAME => {
            let comm = cx.thread.comm();
            cx.write_bytes(Ptr(a), &comm)?;
            Ok(0)
        }
        pr::SET_TIMERSLACK => {
            cx.thread.scheduling.lock().set_timer_slack(if (a as i64) <= 0 { 0 } else { a });
            Ok(0)
        }
        pr::GET_TIMERSLACK => Ok(cx.thread.scheduling.lock().timer_slack_ns as i64),
        pr::GET_TIMING => Ok(0),
        pr::SET_TIMING if a == 0 => Ok(0),
        pr::GET_TSC => {
            cx.write(Ptr(a), &1i32)?;
            Ok(0)
        }
        pr::SET_TSC if a == 1 => Ok(0),
        pr::MCE_KILL_GET if (a | b | c | d) == 0 => Ok(2),
        pr::SET_MM => {
            cx.require(Capability::SYS_RESOURCE)?;
            cx.kernel().note_missing("prctl(PR_SET_MM)");
            einval()
        }
        pr::SET_CHILD_SUBREAPER => {
            process.child_subreaper.store(a != 0, Ordering::Relaxed);
            Ok(0)
        }
        pr::GET_CHILD_SUBREAPER => {
            let set = i32::from(process.child_subreaper.load(Ordering::Relaxed));
            cx.write(Ptr(a), &set)?;
            Ok(0)
        }
        pr::GET_SECCOMP => Ok(i64::from(cx.thread.seccomp.status().0)),
        pr::SET_NO_NEW_PRIVS => {
            if a != 1 || (b | c | d) != 0 {
                return einval();
            }
            let new = Credentials { no_new_privs: true, ..cx.credentials.as_ref().clone() };
            change(cx, new)
        }
        pr::GET_NO_NEW_PRIVS if (a | b | c | d) == 0 => Ok(i64::from(cx.credentials.no_new_privs)),
        pr::GET_TID_ADDRESS => {
            let address = cx.local.clear_child_tid;
            cx.write(Ptr(a), &address)?;
            Ok(0)
        }
        pr::GET_THP_DISABLE if (a | b | c | d) == 0 => Ok(0),
        pr::SET_THP_DISABLE if (a | b | c | d) == 0 => Ok(0),
        // Store bypass, indirect branch, L1D flush: as a processor that is not affected.
        pr::GET_SPECULATION_CTRL if (b | c | d) != 0 => einval(),
        pr::GET_SPECULATION_CTRL if a <= 2 => Ok(0),
        pr::GET_SPECULATION_CTRL => Err(Errno::ENODEV.into()),
        pr::SET_SPECULATION_CTRL if (c | d) != 0 => einval(),
        pr::SET_SPECULATION_CTRL => Err(if a <= 2 { Errno::ENXIO } else { Errno::ENODEV }.into()),
        pr::GET_MDWE if (a | b | c | d) == 0 => Ok(0),
        _ => capabilities(cx, op, a, b, c, d),
    }
}

/// The operations of prctl(2) on capabilities.
fn capabilities(cx: &mut Cx<'_>, op: i32, a: u64, b: u64, c: u64, d: u64) -> SysResult {
    let creds = cx.credentials.clone();
    match op {
        pr::GET_KEEPCAPS => Ok(i64::from(creds.keep_caps)),
        pr::SET_KEEPCAPS => change(cx, creds.set_keep_caps(flag(a)?)?),
        pr::GET_SECUREBITS => Ok(i64::from(creds.securebits)),
        pr::SET_SECUREBITS => {
            let bits = u32::try_from(a).map_err(|_| Errno::EPERM)?;
            change(cx, creds.set_securebits(bits)?)
        }
        pr::CAPBSET_READ => {
            Ok(i64::from(creds.bounding.has(Capability::from_number(a).ok_or(Errno::EINVAL)?)))
        }
        pr::CAPBSET_DROP => {
            // Linux asks for the capability before it looks at the number.
            cx.require(Capability::SETPCAP)?;
            change(cx, creds.drop_bounding(Capability::from_number(a).ok_or(Errno::EINVAL)?)?)
        }
        pr::CAP_AMBIENT => {
            if (c | d) != 0 || (a == 4 && b != 0) {
                return einval();
            }
            let cap = Capability::from_number(b).ok_or(Errno::EINVAL);
            match a {
                1 => Ok(i64::from(creds.ambient.has(cap?))),
                2 => change(cx, creds.raise_ambient(cap?)?),
                3 => change(cx, creds.lower_ambient(CapabilitySet::EMPTY.with(cap?))),
                4 => change(cx, creds.lower_ambient(CapabilitySet(u64::MAX))),
                _ => einval(),
            }
        }
        _ => {
            cx.kernel().note_missing(&format!("prctl option {op}"));
            einval()
        }
    }
}

const ARCH_SET_GS: i32 = 0x1001;
const ARCH_SET_FS: i32 = 0x1002;
const ARCH_GET_GS: i32 = 0x1004;
const ARCH_GET_CPUID: i32 = 0x1011;
const ARCH_SET_CPUID: i32 = 0x1012;
/// First address that a program cannot have.
const TASK_SIZE_MAX: u64 = (1 << 47) - 4096;

/// arch_prctl(2): FS is native where the processor or the filter lets the guest; the rest is here. A program with
/// a GS base of its own makes all its calls by traps, since the shim's fast way goes by GS.
pub async fn arch_prctl(cx: &mut Cx<'_>, op: i32, addr: u64) -> SysResult {
    match op {
        ARCH_SET_FS if addr >= TASK_SIZE_MAX => Err(Errno::EPERM.into()),
        ARCH_SET_FS => cx.native(NativeOp::SetFsBase { base: addr }).await,
        ARCH_SET_GS if addr >= TASK_SIZE_MAX => Err(Errno::EPERM.into()),
        ARCH_SET_GS => cx.native(NativeOp::SetGsBase { base: addr }).await,
        ARCH_GET_GS => cx.native(NativeOp::GetGsBase { addr }).await,
        ARCH_GET_CPUID => Ok(1),
        ARCH_SET_CPUID => Err(Errno::ENODEV.into()),
        _ => {
            cx.kernel().note_missing(&format!("arch_prctl option {op:#x}"));
            einval()
        }
    }
}

/// personality(2). As Linux, it takes any; of the bits only `STICKY_TIMEOUTS` and `ADDR_NO_RANDOMIZE` change anything.
pub fn personality(cx: &mut Cx<'_>, persona: u32) -> SysResult {
    let slot = &cx.process().personality;
    if persona == u32::MAX {
        return Ok(i64::from(slot.load(Ordering::Relaxed)));
    }
    Ok(i64::from(slot.swap(persona, Ordering::Relaxed)))
}
