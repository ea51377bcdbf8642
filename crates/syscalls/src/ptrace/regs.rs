//! Registers as a tracer sees them: `struct user_regs_struct`, the extended state.

use kernel::ptrace::Stop;
use kernel::{Kernel, Thread};
use linux_abi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const USER_CS: u64 = 0x33;
const USER_DS: u64 = 0x2b;

/// `struct user_regs_struct`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UserRegs {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    rbp: u64,
    rbx: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rax: u64,
    rcx: u64,
    rdx: u64,
    rsi: u64,
    rdi: u64,
    orig_rax: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
    fs_base: u64,
    gs_base: u64,
    /// ds, es, fs, gs.
    selectors: [u64; 4],
}

/// Bytes of it.
pub const SIZE: usize = size_of::<UserRegs>();

impl UserRegs {
    /// Of a stopped tracee.
    pub fn of(stop: &Stop) -> UserRegs {
        let r = &stop.regs;
        UserRegs {
            r15: r.r15,
            r14: r.r14,
            r13: r.r13,
            r12: r.r12,
            rbp: r.rbp,
            rbx: r.rbx,
            r11: r.r11,
            r10: r.r10,
            r9: r.r9,
            r8: r.r8,
            rax: r.rax,
            rcx: r.rcx,
            rdx: r.rdx,
            rsi: r.rsi,
            rdi: r.rdi,
            orig_rax: stop.orig_rax,
            rip: r.rip,
            cs: USER_CS,
            rflags: r.rflags,
            rsp: r.rsp,
            ss: USER_DS,
            fs_base: stop.fs_base,
            gs_base: 0,
            selectors: [0; 4],
        }
    }

    /// Into a stopped tracee; `EIO` for segments or bases that are not to be had.
    pub fn put(&self, stop: &mut Stop) -> Result<(), Errno> {
        const FLAGS: u64 = 0x10_0000 | 0xdd5 | 0x4_0000;
        if self.cs != USER_CS || self.ss != USER_DS || self.rip >= crate::elf::TASK_SIZE {
            return Err(Errno::EIO);
        }
        if self.fs_base != stop.fs_base || self.gs_base != 0 {
            return Err(Errno::EIO);
        }
        let r = &mut stop.regs;
        r.r15 = self.r15;
        r.r14 = self.r14;
        r.r13 = self.r13;
        r.r12 = self.r12;
        r.rbp = self.rbp;
        r.rbx = self.rbx;
        r.r11 = self.r11;
        r.r10 = self.r10;
        r.r9 = self.r9;
        r.r8 = self.r8;
        r.rax = self.rax;
        r.rcx = self.rcx;
        r.rdx = self.rdx;
        r.rsi = self.rsi;
        r.rdi = self.rdi;
        r.rip = self.rip;
        r.rflags = r.rflags & !FLAGS | self.rflags & FLAGS;
        r.rsp = self.rsp;
        stop.orig_rax = self.orig_rax;
        Ok(())
    }
}

/// Bytes of the legacy part, and where software's bytes lie in it.
const LEGACY: usize = 512;
const SOFTWARE: usize = 464;

/// The extended state of a stopped tracee as `PTRACE_GETREGSET` with `NT_X86_XSTATE` gives it. Where the thread
/// came in without saving it, it is the initial one.
pub fn xstate(kernel: &Kernel, thread: &Thread, stop: &Stop) -> Vec<u8> {
    let size = kernel.platform.xstate_size().saturating_sub(4).max(LEGACY);
    let mut state = vec![0; size];
    let saved = stop.xstate != 0 && thread.mm().space.read(stop.xstate, &mut state) == Ok(size);
    let features = if saved {
        let word = state.get(SOFTWARE + 8..SOFTWARE + 16).and_then(|b| b.try_into().ok());
        word.map_or(3, u64::from_ne_bytes)
    } else {
        state.fill(0);
        put(&mut state, 0, &0x37fu16.to_ne_bytes());
        put(&mut state, 24, &0x1f80u32.to_ne_bytes());
        u64::from(std::arch::x86_64::__cpuid_count(0xd, 0).eax) & 0xe7
    };
    put(&mut state, SOFTWARE, &[0; LEGACY - SOFTWARE]);
    put(&mut state, SOFTWARE, &features.to_ne_bytes());
    state
}

/// Sets it; `EIO` where it was not saved.
pub fn set_xstate(kernel: &Kernel, thread: &Thread, stop: &Stop, bytes: &[u8]) -> Result<(), Errno> {
    if stop.xstate == 0 {
        return Err(Errno::EIO);
    }
    let size = kernel.platform.xstate_size().saturating_sub(4).max(LEGACY);
    let head = bytes.get(..SOFTWARE.min(bytes.len())).unwrap_or_default();
    let tail = bytes.get(LEGACY..size.min(bytes.len())).unwrap_or_default();
    let space = &thread.mm().space;
    // The processor's own checks are made at the host's sigreturn.
    space.write(stop.xstate, head)?;
    space.write(stop.xstate.saturating_add(LEGACY as u64), tail)?;
    Ok(())
}

fn put(state: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in state.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}
