//! ptrace(2): the requests of a tracer. The tracee's side is in `stop`.

pub mod regs;
pub mod stop;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use identity::{Capability, Credentials};
use kernel::Thread;
use kernel::process::ExitStatus;
use kernel::ptrace::{self, How, Kind, Mode, Resume, Stop, option};
use linux_abi::Errno;
use linux_abi::signal::{SigInfo, SigSet, Signo};
use regs::UserRegs;
use zerocopy::{FromBytes, IntoBytes};

use crate::args::Ptr;
use crate::context::SignalsTold;
use crate::file_io::IoVec;
use crate::{Cx, SysResult};

const TRACEME: i64 = 0;
const PEEKTEXT: i64 = 1;
const PEEKDATA: i64 = 2;
const PEEKUSER: i64 = 3;
const POKETEXT: i64 = 4;
const POKEDATA: i64 = 5;
const POKEUSER: i64 = 6;
const CONT: i64 = 7;
const KILL: i64 = 8;
const SINGLESTEP: i64 = 9;
const GETREGS: i64 = 12;
const SETREGS: i64 = 13;
const GETFPREGS: i64 = 14;
const SETFPREGS: i64 = 15;
const ATTACH: i64 = 16;
const DETACH: i64 = 17;
const SYSCALL: i64 = 24;
const SETOPTIONS: i64 = 0x4200;
const GETEVENTMSG: i64 = 0x4201;
const GETSIGINFO: i64 = 0x4202;
const SETSIGINFO: i64 = 0x4203;
const GETREGSET: i64 = 0x4204;
const SETREGSET: i64 = 0x4205;
const SEIZE: i64 = 0x4206;
const INTERRUPT: i64 = 0x4207;
const LISTEN: i64 = 0x4208;
const GETSIGMASK: i64 = 0x420a;
const SETSIGMASK: i64 = 0x420b;
const GET_SYSCALL_INFO: i64 = 0x420e;

const NT_PRSTATUS: u64 = 1;
const NT_PRFPREG: u64 = 2;
const NT_X86_XSTATE: u64 = 0x202;
/// Where the debug registers lie in `struct user`, and its size.
const DEBUG_REGISTERS: std::ops::Range<u64> = 848..912;
const USER_SIZE: u64 = 912;

/// Whether the caller may look into another thread (`PTRACE_MODE_ATTACH_REALCREDS`); `EPERM`.
pub fn may_access(caller: &Credentials, target: &Thread) -> Result<(), Errno> {
    ptrace::may_access(caller, ptrace::Ids::Real, target)
}

/// ptrace(2).
pub fn ptrace(cx: &mut Cx<'_>, request: i64, pid: i32, addr: u64, data: u64) -> SysResult {
    match request {
        TRACEME => {
            let parent = cx.process().parent().ok_or(Errno::EPERM)?;
            let how = How { seized: false, options: 0, capable: capable(cx) };
            ptrace::attach(cx.thread, &parent, how, || Ok(()))?;
            forget_identity(cx);
            return Ok(0);
        }
        ATTACH | SEIZE => return attach(cx, request == SEIZE, pid, addr, data),
        _ => {}
    }
    let thread = tracee(cx, pid)?;
    match request {
        KILL => {
            let stopped = thread.ptrace.trace.lock().as_ref().is_some_and(|t| t.stop.is_some());
            if stopped {
                let status = ExitStatus::Signaled { signal: Signo::SIGKILL, core: false };
                thread.process().begin_exit(status);
            }
            return Ok(0);
        }
        INTERRUPT => {
            {
                let mut trace = thread.ptrace.trace.lock();
                let trace = trace.as_mut().filter(|t| t.seized).ok_or(Errno::EIO)?;
                trace.trap = true;
            }
            thread.request_attention();
            return Ok(0);
        }
        _ => {}
    }
    let copy = thread.ptrace.trace.lock().as_ref().and_then(|t| t.stop.clone()).ok_or(Errno::ESRCH)?;
    match request {
        PEEKTEXT | PEEKDATA | POKETEXT | POKEDATA if !may_touch(&thread, addr) => {
            return Err(Errno::EIO.into());
        }
        PEEKTEXT | PEEKDATA => {
            let mut word = [0; 8];
            if thread.mm().space.peek(addr, &mut word) != Ok(8) {
                return Err(Errno::EIO.into());
            }
            cx.write(Ptr(data), &word)?;
        }
        POKETEXT | POKEDATA => poke(&thread, addr, &data.to_ne_bytes())?,
        PEEKUSER => {
            let word = peek_user(&copy, addr)?;
            cx.write(Ptr(data), &word)?;
        }
        POKEUSER => poke_user(&thread, addr, data)?,
        GETREGS => cx.write(Ptr(data), &UserRegs::of(&copy))?,
        SETREGS => {
            let regs: UserRegs = cx.read(Ptr(data))?;
            change(&thread, |stop| regs.put(stop))?;
        }
        GETFPREGS => {
            let state = regs::xstate(cx.kernel(), &thread, &copy);
            cx.write_bytes(Ptr(data), state.get(..512).unwrap_or_default())?;
        }
        SETFPREGS => {
            let bytes = cx.read_bytes(Ptr(data), 512)?;
            regs::set_xstate(cx.kernel(), &thread, &copy, &bytes)?;
        }
        GETREGSET | SETREGSET => regset(cx, &thread, &copy, request == SETREGSET, addr, data)?,
        GETSIGINFO => {
            if copy.kind == Kind::Group {
                return Err(Errno::EINVAL.into());
            }
            cx.write(Ptr(data), &copy.info)?;
        }
        SETSIGINFO => {
            let info: SigInfo = SigInfo::read_from_bytes(&cx.read_bytes(Ptr(data), size_of::<SigInfo>())?)
                .map_err(|_| Errno::EFAULT)?;
            change(&thread, |stop| {
                stop.info = info;
                Ok(())
            })?;
        }
        GETSIGMASK => {
            size_is(addr)?;
            let mask = thread.signals.lock().mask;
            cx.write(Ptr(data), &mask)?;
        }
        SETSIGMASK => {
            size_is(addr)?;
            let mask: SigSet = cx.read(Ptr(data))?;
            thread.signals.lock().mask = mask.blockable();
        }
        SETOPTIONS => {
            let options = checked_options(data)?;
            if let Some(trace) = thread.ptrace.trace.lock().as_mut() {
                trace.options = options;
            }
        }
        GETEVENTMSG => {
            let message = thread.ptrace.trace.lock().as_ref().map_or(0, |t| t.message);
            cx.write(Ptr(data), &message)?;
        }
        GET_SYSCALL_INFO => return syscall_info(cx, &copy, addr, data),
        CONT | SYSCALL | SINGLESTEP => {
            let mode = match request {
                CONT => Mode::Continue,
                SYSCALL => Mode::Syscall,
                _ => Mode::Step,
            };
            resume(&thread, signal_number(data)?, mode)?;
        }
        LISTEN => {
            let seized = thread.ptrace.trace.lock().as_ref().is_some_and(|t| t.seized);
            if !seized || copy.status >> 8 != ptrace::event::STOP {
                return Err(Errno::EIO.into());
            }
            resume(&thread, 0, Mode::Listen)?;
        }
        DETACH => ptrace::detach(&thread, signal_number(data)?),
        _ => {
            cx.kernel().note_missing(&format!("ptrace request {request:#x}"));
            return Err(Errno::EIO.into());
        }
    }
    Ok(0)
}

fn capable(cx: &Cx<'_>) -> bool {
    cx.credentials.capable(Capability::SYS_PTRACE)
}

/// Calls must be seen from now on.
fn forget_identity(cx: &mut Cx<'_>) {
    cx.guest.set_identity(&platform::Identity::default());
    cx.local.identity_told = false;
    cx.local.names_told = false;
    cx.local.signals = SignalsTold::default();
    cx.kernel().posting.withdraw(cx.thread, true);
}

fn size_is(addr: u64) -> Result<(), Errno> {
    if addr == size_of::<SigSet>() as u64 { Ok(()) } else { Err(Errno::EINVAL) }
}

fn signal_number(data: u64) -> Result<i32, Errno> {
    i32::try_from(data).ok().filter(|sig| *sig <= 64).ok_or(Errno::EIO)
}

fn checked_options(data: u64) -> Result<u32, Errno> {
    u32::try_from(data).ok().filter(|o| o & !option::ALL == 0).ok_or(Errno::EINVAL)
}

/// The tracee of this id; `ESRCH` if it is not the caller's.
fn tracee(cx: &Cx<'_>, pid: i32) -> Result<Arc<Thread>, Errno> {
    cx.process().tracing.lock().tracees.get(&pid).cloned().ok_or(Errno::ESRCH)
}

fn attach(cx: &mut Cx<'_>, seize: bool, pid: i32, addr: u64, data: u64) -> SysResult {
    let options = if seize {
        if addr != 0 {
            return Err(Errno::EIO.into());
        }
        checked_options(data).map_err(|_| Errno::EIO)?
    } else {
        0
    };
    let thread = cx.kernel().pids.thread(pid)?;
    if Arc::ptr_eq(thread.process(), cx.process()) {
        return Err(Errno::EPERM.into());
    }
    let how = How { seized: seize, options, capable: capable(cx) };
    ptrace::attach(&thread, cx.process(), how, || may_access(&cx.credentials, &thread))?;
    if !seize {
        let info = SigInfo::from_user(Signo::SIGSTOP, 0, cx.process().pid(), cx.credentials.uid);
        thread.send_signal(info)?;
    }
    thread.be_seen();
    if !seize || thread.process().wants_stop() {
        // A process that is stopped already tells of its group stop.
        thread.request_attention();
    }
    Ok(0)
}

fn change(thread: &Thread, how: impl FnOnce(&mut Stop) -> Result<(), Errno>) -> Result<(), Errno> {
    how(thread.ptrace.trace.lock().as_mut().and_then(|t| t.stop.as_mut()).ok_or(Errno::ESRCH)?)
}

fn resume(thread: &Thread, signal: i32, mode: Mode) -> Result<(), Errno> {
    {
        let mut trace = thread.ptrace.trace.lock();
        let trace = trace.as_mut().ok_or(Errno::ESRCH)?;
        let stop = trace.stop.take().ok_or(Errno::ESRCH)?;
        trace.mode = mode;
        *thread.ptrace.resume.lock() = Some(Resume { stop, signal, mode });
    }
    executor::Observer::notify(&**thread.waiter(), executor::Events::IN);
    Ok(())
}

/// Whether the tracer may touch the memory of its tracee: what is not dumpable only with CAP_SYS_PTRACE.
fn may_touch(thread: &Thread, addr: u64) -> bool {
    if platform::touches_reserved(addr, 8) {
        return false;
    }
    let capable = thread.ptrace.trace.lock().as_ref().is_some_and(|trace| trace.capable);
    capable || thread.mm().dumpable.load(Ordering::Relaxed)
}

fn poke(thread: &Thread, addr: u64, bytes: &[u8]) -> Result<(), Errno> {
    if thread.mm().space.poke(addr, bytes) == Ok(bytes.len()) { Ok(()) } else { Err(Errno::EIO) }
}

fn peek_user(stop: &Stop, addr: u64) -> Result<u64, Errno> {
    if !addr.is_multiple_of(8) || addr >= USER_SIZE {
        return Err(Errno::EIO);
    }
    let regs = UserRegs::of(stop);
    let at = addr as usize;
    let word = regs.as_bytes().get(at..at + 8).and_then(|b| b.try_into().ok());
    Ok(word.map_or(0, u64::from_ne_bytes))
}

fn poke_user(thread: &Thread, addr: u64, data: u64) -> Result<(), Errno> {
    if !addr.is_multiple_of(8) || addr >= USER_SIZE {
        return Err(Errno::EIO);
    }
    if DEBUG_REGISTERS.contains(&addr) {
        // The processor's debug registers are the host's; none is in use.
        return if data == 0 { Ok(()) } else { Err(Errno::EINVAL) };
    }
    change(thread, |stop| {
        let mut regs = UserRegs::of(stop);
        let word = regs.as_mut_bytes().get_mut(addr as usize..addr as usize + 8).ok_or(Errno::EIO)?;
        word.copy_from_slice(&data.to_ne_bytes());
        regs.put(stop)
    })
}

/// `PTRACE_GETREGSET`, `PTRACE_SETREGSET`: `at` is an iovec whose length becomes what was moved.
fn regset(cx: &mut Cx<'_>, thread: &Thread, stop: &Stop, set: bool, which: u64, at: u64) -> SysResult<()> {
    let mut vector: IoVec = cx.read(Ptr(at))?;
    let now = match which {
        NT_PRSTATUS => UserRegs::of(stop).as_bytes().to_vec(),
        NT_PRFPREG => regs::xstate(cx.kernel(), thread, stop).get(..512).unwrap_or_default().to_vec(),
        NT_X86_XSTATE => regs::xstate(cx.kernel(), thread, stop),
        _ => return Err(Errno::EINVAL.into()),
    };
    let len = usize::try_from(vector.len).unwrap_or(usize::MAX).min(now.len());
    if which == NT_PRSTATUS && !vector.len.is_multiple_of(8) {
        return Err(Errno::EINVAL.into());
    }
    if set {
        let given = cx.read_bytes(Ptr(vector.base), len)?;
        if which == NT_PRSTATUS {
            let mut regs = UserRegs::of(stop);
            regs.as_mut_bytes().get_mut(..len).unwrap_or_default().copy_from_slice(&given);
            change(thread, |stop| regs.put(stop))?;
        } else {
            regs::set_xstate(cx.kernel(), thread, stop, &given)?;
        }
    } else {
        cx.write_bytes(Ptr(vector.base), now.get(..len).unwrap_or_default())?;
    }
    vector.len = len as u64;
    cx.write(Ptr(at), &vector)
}

/// `PTRACE_GET_SYSCALL_INFO`: the size of what there is to tell.
fn syscall_info(cx: &mut Cx<'_>, stop: &Stop, size: u64, at: u64) -> SysResult {
    const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
    let r = &stop.regs;
    let op: u8 = match stop.kind {
        Kind::Entry => 1,
        Kind::Exit => 2,
        _ => 0,
    };
    let mut out = vec![op, 0, 0, 0];
    out.extend(AUDIT_ARCH_X86_64.to_ne_bytes());
    out.extend(r.rip.to_ne_bytes());
    out.extend(r.rsp.to_ne_bytes());
    match stop.kind {
        Kind::Entry => {
            for word in [stop.orig_rax, r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9] {
                out.extend(word.to_ne_bytes());
            }
        }
        Kind::Exit => {
            out.extend(r.rax.to_ne_bytes());
            out.push(u8::from((-4095..0).contains(&(r.rax as i64))));
        }
        _ => {}
    }
    let given = usize::try_from(size).unwrap_or(usize::MAX).min(out.len());
    cx.write_bytes(Ptr(at), out.get(..given).unwrap_or_default())?;
    Ok(out.len() as i64)
}
