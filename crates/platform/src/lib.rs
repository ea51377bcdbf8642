//! Guest processes as a machine: address spaces, guest threads and their exits.
//!
//! The types of the interface; uninhabited until the implementation lands.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use linux_abi::Errno;

/// General registers of a guest thread at an exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the registers of x86-64")]
pub struct Regs {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// A fault of guest code as the host's siginfo and ucontext tell it.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "named in sigaction(2)")]
pub struct Fault {
    pub signo: i32,
    pub code: i32,
    pub addr: u64,
    pub trapno: u64,
    pub error: u64,
    pub cr2: u64,
}

/// Why a guest thread came back.
#[derive(Clone, Copy, Debug)]
pub enum Exit {
    /// A system call: number in rax, arguments in their registers.
    Syscall,
    /// A fault.
    Fault(Fault),
    /// Interrupted by `ThreadHandle::interrupt`.
    Interrupted,
    /// The native operations asked for are done: the last result, or the first negative errno.
    NativeDone(i64),
    /// The host thread is gone.
    Gone(i32),
}

/// Something that only the stub itself can do to its memory.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "as in the man pages of the calls")]
pub enum NativeOp {
    Mmap { addr: u64, len: u64, prot: u32, flags: u32, file: Option<(Arc<OwnedFd>, u64)> },
    Munmap { addr: u64, len: u64 },
    Mprotect { addr: u64, len: u64, prot: u32 },
    Mremap { addr: u64, old_len: u64, new_len: u64, flags: u32, new_addr: u64 },
    Madvise { addr: u64, len: u64, advice: u32 },
    Copy { addr: u64, bytes: Vec<u8> },
    Zero { addr: u64, len: u64 },
    SetFsBase { base: u64 },
    FutexWake { addr: u64, count: u32 },
}

/// A new guest thread or process.
#[derive(Clone, Debug)]
pub struct CloneRequest {
    /// A thread of the same process.
    pub thread: bool,
    /// Shares the address space (thread or vfork).
    pub share_memory: bool,
    /// The parent sleeps until the child's stub has gone.
    pub vfork: bool,
    /// What the child starts with.
    pub regs: Regs,
    /// FS base for the child.
    pub tls: Option<u64>,
    /// Guest thread id of the child.
    pub tid: i32,
    /// The child writes its id here before it runs.
    pub set_child_tid: Option<u64>,
}

/// A signal frame to be pushed by the shim.
#[derive(Clone, Debug)]
pub struct SignalFrame {
    /// Where `bytes` go.
    pub sp: u64,
    /// The frame as Linux builds it.
    pub bytes: Vec<u8>,
    /// Where the host frame's extended state is copied to.
    pub fpstate: Option<u64>,
    /// Registers to start the handler with.
    pub regs: Regs,
}

/// All guest processes of a sandbox.
pub struct Platform(Infallible);
/// One guest thread, owned by its task.
pub struct GuestThread(Infallible);
/// The way to reach a guest thread from elsewhere.
pub struct ThreadHandle(Infallible);
/// Guest memory, reachable from everywhere.
pub struct AddressSpace(Infallible);

impl Platform {
    /// A new, empty address space with one parked thread.
    pub async fn new_process(self: &Arc<Self>) -> Result<GuestThread, Errno> {
        match self.0 {}
    }
    /// Where the vDSO is in every guest process (AT_SYSINFO_EHDR).
    pub fn vdso(&self) -> u64 {
        match self.0 {}
    }
    /// Size of the extended state in a signal frame (its `fpstate` area).
    pub fn xstate_size(&self) -> usize {
        match self.0 {}
    }
}

impl GuestThread {
    /// Awaits the next exit.
    pub async fn next_exit(&mut self) -> Exit {
        match self.0 {}
    }
    /// Registers at the exit.
    pub fn regs(&self) -> &Regs {
        match self.0 {}
    }
    /// Registers to resume with.
    pub fn regs_mut(&mut self) -> &mut Regs {
        match self.0 {}
    }
    /// Goes back from a system call: only rax changes.
    pub fn resume_syscall(&mut self, ret: i64) {
        let _ = ret;
        match self.0 {}
    }
    /// Goes back with all registers.
    pub fn resume_regs(&mut self) {
        match self.0 {}
    }
    /// Sets rip and rax so that the system call of this exit is made again, whatever its entry was.
    pub fn rewind_syscall(&mut self) {
        match self.0 {}
    }
    /// Copies from guest memory; `EFAULT`.
    pub fn copy_in(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
        let _ = (addr, buf);
        match self.0 {}
    }
    /// Copies to guest memory; `EFAULT`.
    pub fn copy_out(&mut self, addr: u64, buf: &[u8]) -> Result<(), Errno> {
        let _ = (addr, buf);
        match self.0 {}
    }
    /// One operation by the shim; then `Exit::NativeDone`.
    pub fn native(&mut self, op: NativeOp) {
        let _ = op;
        match self.0 {}
    }
    /// Several operations by the shim, stopping at the first failure; then `Exit::NativeDone`.
    pub fn native_batch(&mut self, ops: Vec<NativeOp>) {
        let _ = ops;
        match self.0 {}
    }
    /// One operation whose result is the guest's result of the present call; no further exit.
    pub fn resume_native(&mut self, op: NativeOp) {
        let _ = op;
        match self.0 {}
    }
    /// Prepares a child; the parent's next exit is `NativeDone` with the result of the host's clone.
    pub fn begin_clone(&mut self, request: CloneRequest) -> Result<GuestThread, Errno> {
        let _ = request;
        match self.0 {}
    }
    /// Pushes a signal frame and goes to the handler; a fault comes back as `Exit::Fault` with SIGSEGV.
    pub fn signal_frame(&mut self, frame: SignalFrame) {
        let _ = frame;
        match self.0 {}
    }
    /// Goes back with all registers and the extended state found at this guest address (sigreturn).
    pub fn resume_regs_with_xstate(&mut self, fpstate: u64) {
        let _ = fpstate;
        match self.0 {}
    }
    /// Ends this thread of several: its shim walks the robust list, clears the tid word and wakes it.
    pub fn exit_thread(
        self,
        clear_child_tid: Option<u64>,
        robust_list: Option<(u64, u64)>,
        tid: i32,
        code: i32,
    ) {
        let _ = (clear_child_tid, robust_list, tid, code);
        match self.0 {}
    }
    /// The way to reach it from elsewhere.
    pub fn handle(&self) -> Arc<ThreadHandle> {
        match self.0 {}
    }
    /// Its memory.
    pub fn address_space(&self) -> Arc<AddressSpace> {
        match self.0 {}
    }
}

impl ThreadHandle {
    /// Makes `Exit::Interrupted` come soon if the thread runs guest code; nothing if it is in the kernel.
    pub fn interrupt(&self) {
        match self.0 {}
    }
    /// Kills the host process of the thread.
    pub fn kill_process(&self) {
        match self.0 {}
    }
    /// The host's thread id in the kernel process's pid namespace, for /proc (0 while unknown).
    pub fn host_tid(&self) -> i32 {
        match self.0 {}
    }
}

impl AddressSpace {
    /// Reads guest memory; the number of bytes before a fault; `EFAULT` if none.
    pub fn read(&self, addr: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        let _ = (addr, buf);
        match self.0 {}
    }
    /// Writes guest memory, as `read`.
    pub fn write(&self, addr: u64, buf: &[u8]) -> Result<usize, Errno> {
        let _ = (addr, buf);
        match self.0 {}
    }
    /// The host's process id in the kernel process's pid namespace (0 while unknown).
    pub fn host_pid(&self) -> i32 {
        match self.0 {}
    }
}
