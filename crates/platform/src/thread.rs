//! The kernel's handle on one guest thread.

use std::cell::Cell;
use std::future::poll_fn;
use std::mem::offset_of;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use linux_abi::Errno;
use linux_abi::signal::Signo;
use rustix::thread::futex;
use slot::layout::{DATA_SIZE, SLOT_SIZE, SLOT_VA, STACK_SIZE, STACK_VA};
use slot::{Record, action, kind};

use crate::machine::{AnnouncedClone, Core, Phase, Platform};
use crate::native;
use crate::posting::PostArea;
use crate::process::AddressSpace;
use crate::slots::Request;
use crate::types::{CloneRequest, Exit, Fault, Identity, Regs, SignalFrame};

mod copy;
mod ops;

thread_local! {
    /// Set on the spinner's thread when it answered a thread that waits in a doorbell.
    pub(crate) static WOKE_PARKED: Cell<bool> = const { Cell::new(false) };
}

/// One guest thread, owned by its task.
pub struct GuestThread {
    platform: Arc<Platform>,
    pub(crate) core: Arc<Core>,
    space: Arc<AddressSpace>,
    /// Read from the slot when they are asked for first.
    regs: Option<Regs>,
    /// Where the exit was, once `regs` was read.
    exit_rip: u64,
    request: Option<Request>,
    /// Pieces to copy out with the answer, and how much of the slot's data is in use.
    out: Vec<Record>,
    used: usize,
    /// The child of a clone whose result has not come.
    cloning: Option<Arc<Core>>,
    /// Its end was arranged.
    ended: bool,
    /// A file that goes with the answer, if that wakes the thread.
    sent: Option<(u32, Arc<OwnedFd>)>,
    /// The shim was told to make calls of its own accord until the next exit.
    announced: bool,
}

/// The way to reach a guest thread from elsewhere.
pub struct ThreadHandle {
    pub(crate) core: Arc<Core>,
}

impl ThreadHandle {
    /// Makes `Exit::Interrupted` come soon if the thread runs guest code; if it is in the kernel, as soon as
    /// it leaves, unless its task calls `GuestThread::clear_interrupt` first.
    pub fn interrupt(&self) {
        let in_guest = {
            let state = self.core.state.lock();
            if state.phase != Phase::Guest {
                self.core.interrupted.store(true, Ordering::SeqCst);
            }
            state.phase == Phase::Guest
        };
        if in_guest {
            send_interrupt(&self.core);
        }
    }
    /// Has the shim ask again what `GuestThread::set_identity` told it, also while guest code runs.
    pub fn forget_identity(&self) {
        self.core.slot.set_identity(Identity::default().to_array());
        self.post_area().stop();
    }
    /// Where it posts writes and finds bytes to read.
    pub fn post_area(&self) -> PostArea {
        PostArea { core: self.core.clone() }
    }
    /// Kills the host process of the thread.
    pub fn kill_process(&self) {
        // A thread that never was must not take its would-be siblings along.
        if self.core.owns_process || !self.core.stillborn.load(Ordering::SeqCst) {
            self.core.process.kill();
        }
    }
    /// Whether it runs guest code, as far as known here: it may wait in a call that the host answers.
    pub fn in_guest_code(&self) -> bool {
        self.core.state.lock().phase == Phase::Guest
    }
    /// What [`GuestThread::resume_native`] gave, if the thread has not come in since: the guest's word. None if it is not
    /// done yet.
    pub fn native_result(&self) -> Option<i64> {
        Some(self.core.slot.native_ret()).filter(|ret| *ret != 0)
    }
    /// From now on [`ThreadHandle::native_result`] is of the next [`GuestThread::resume_native`]. Only while the thread waits
    /// for an answer.
    pub fn expect_native_result(&self) {
        self.core.slot.set_native_ret(0);
    }
    /// The host's thread id in the kernel process's pid namespace, for /proc (0 while unknown).
    pub fn host_tid(&self) -> i32 {
        host_tid(&self.core)
    }
}

/// The thread's host id: bound by a doorbell, or what the host wrote into the slot. The latter may be forged;
/// `tgkill` then reaches another thread of the same process, or none.
pub(crate) fn host_tid(core: &Core) -> i32 {
    match core.tid.load(Ordering::Relaxed) {
        0 => core.slot.live_tid() as i32,
        tid => tid,
    }
}

fn send_interrupt(core: &Arc<Core>) {
    let tid = host_tid(core);
    core.owes_exit.store(true, Ordering::SeqCst);
    if !core.watched.swap(true, Ordering::SeqCst)
        && let Some(platform) = core.process.space.platform()
    {
        platform.watch.interrupted(&platform, core);
    }
    if tid > 0 {
        core.process.interrupt(tid);
    } else {
        // Not known yet: it is told when it comes up.
        core.interrupted.store(true, Ordering::SeqCst);
    }
}

impl GuestThread {
    pub(crate) fn new(platform: Arc<Platform>, core: Arc<Core>) -> GuestThread {
        let space = Arc::new(AddressSpace { process: core.process.clone() });
        GuestThread {
            platform,
            core,
            space,
            regs: None,
            exit_rip: 0,
            request: None,
            out: Vec::new(),
            used: 0,
            cloning: None,
            ended: false,
            sent: None,
            announced: false,
        }
    }

    /// Awaits the next exit.
    pub async fn next_exit(&mut self) -> Exit {
        poll_fn(|cx| self.poll_exit(cx)).await
    }

    /// Polls for the next exit.
    pub fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        let request = {
            let mut state = self.core.state.lock();
            if state.gone {
                drop(state);
                if let Some(child) = self.cloning.take().filter(|c| c.tid.load(Ordering::SeqCst) == 0) {
                    // Killed before it could say whether there is a child.
                    child.set_stillborn();
                }
                return Poll::Ready(Exit::Gone(0));
            }
            if state.phase != Phase::Ready {
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            state.phase = Phase::Kernel;
            state.request.take()
        };
        let Some(request) = request else { return Poll::Ready(Exit::Gone(0)) };
        if let Some(child) = self.cloning.take() {
            self.core.in_vfork.store(false, Ordering::SeqCst);
            self.core.announced.lock().clone = None;
            self.cloned(&child, &request);
        }
        if self.announced {
            self.announced = native::heard_of(&self.core, &request);
        }
        self.regs = None;
        self.out.clear();
        self.used = request
            .in_records
            .iter()
            .take(request.in_count)
            .map(|r| (r.offset as usize).saturating_add(r.len as usize))
            .max()
            .unwrap_or(0)
            .min(DATA_SIZE)
            .next_multiple_of(16);
        let exit = match request.kind {
            kind::SYSCALL => {
                self.platform.calls.fetch_add(1, Ordering::Relaxed);
                if request.site != 0 {
                    let platform = &self.platform;
                    platform.patcher.hit(&platform.slots, &self.core.process, request.site, request.call[0]);
                }
                Exit::Syscall
            }
            kind::INTERRUPTED => Exit::Interrupted,
            kind::FAULT => {
                let [signo, code, addr, trapno, error, cr2] = self.core.slot.fault();
                Exit::Fault(Fault { signo: signo as i32, code: code as i32, addr, trapno, error, cr2 })
            }
            kind::NATIVE_DONE => Exit::NativeDone(request.native_ret),
            kind::UNDELIVERED => Exit::Undelivered,
            // STARTED, ZYGOTE, and whatever the guest invents.
            _ => Exit::NativeDone(0),
        };
        self.request = Some(request);
        Poll::Ready(exit)
    }

    /// The host's clone has a result, or the guest says so.
    fn cloned(&self, child: &Arc<Core>, request: &Request) {
        let ret = if request.kind == kind::NATIVE_DONE { request.native_ret } else { -1 };
        match i32::try_from(ret) {
            Ok(pid) if pid > 0 => {}
            _ => {
                child.set_stillborn();
                if !child.owns_process {
                    self.platform.watch.count_threads(&self.platform, &child.process);
                }
            }
        }
    }

    /// Whether all native calls of its process are shown.
    pub fn shows_calls(&self) -> bool {
        self.core.process.is_showing()
    }
    /// Whether an exit was delivered that has not been answered.
    pub fn has_exited(&self) -> bool {
        self.request.is_some()
    }

    /// Number and arguments of the system call of this exit.
    pub fn call(&self) -> (u32, [u64; 6]) {
        let [number, args @ ..] = self.request.as_ref().map_or([u64::MAX; 7], |request| request.call);
        (number as u32, args)
    }
    /// Registers at the exit.
    pub fn regs(&mut self) -> &Regs {
        self.regs_mut()
    }
    /// Registers to resume with.
    pub fn regs_mut(&mut self) -> &mut Regs {
        let (core, request, exit_rip) = (&self.core, &self.request, &mut self.exit_rip);
        self.regs.get_or_insert_with(|| {
            let mut regs = core.slot.regs();
            if let Some(request) = request {
                // What was acted upon counts, whatever the guest has made of it since.
                regs.iter_mut().zip(request.call).for_each(|(to, from)| *to = from);
            }
            let regs = Regs::from_array(&regs);
            *exit_rip = regs.rip;
            regs
        })
    }
    /// Lets the shim answer getpid(2) and its like for this thread, from patched sites, without an exit. Between
    /// exit and resume; a new thread or process starts with none. None while each call must be seen (strace,
    /// ptrace, a seccomp filter of the guest).
    pub fn set_identity(&mut self, identity: &Identity) {
        self.core.slot.set_identity(identity.to_array());
    }
    /// Tells the shim anew which signals are untouched, and of which it knows the action by [`GuestThread::set_action`]:
    /// bits as in [`Identity`]. Between exit and resume.
    pub fn set_signals(&mut self, untouched: u64, told: u64) {
        self.core.slot.set_signals(untouched, told);
    }
    /// Tells the shim the action of a signal: the words of the kernel's `struct sigaction`. Between exit and resume.
    pub fn set_action(&mut self, sig: Signo, action: [u64; slot::ACTION_WORDS]) {
        if let Ok(index) = usize::try_from(sig.raw() - 1) {
            self.core.slot.set_action(index, action);
        }
    }
    /// Whether the shim goes by what [`crate::Platform::tell_name`] told. Between exit and resume.
    pub fn set_names(&mut self, on: bool) {
        self.core.slot.set_names(on);
    }
    /// Has `observer` told when the host thread is gone, even while the task waits for something else.
    pub fn observe_gone(&self, observer: Option<Arc<dyn executor::Observer>>) {
        *self.core.gone_observer.lock() = observer;
    }
    /// Forgets interrupts that came so far: the caller is about to look at what they were for.
    pub fn clear_interrupt(&self) {
        self.core.interrupted.store(false, Ordering::SeqCst);
    }

    /// Goes back from a system call: only rax changes.
    pub fn resume_syscall(&mut self, ret: i64) {
        let out = std::mem::take(&mut self.out);
        self.core.slot.set_return(ret, &out);
        self.publish();
        self.out = out;
    }
    /// Goes back with all registers.
    pub fn resume_regs(&mut self) {
        self.resume_all(action::REGS, 0);
    }
    /// Goes back with all registers and the extended state found at this guest address (sigreturn).
    pub fn resume_regs_with_xstate(&mut self, fpstate: u64) {
        self.resume_all(action::SIGRETURN, fpstate);
    }
    fn resume_all(&mut self, action: u8, fpstate: u64) {
        self.flush();
        let regs = self.regs().to_array();
        self.core.slot.set_regs(regs);
        self.answer(action, [fpstate, 0, 0, 0, 0, 0, 0, 0], 0);
    }
    /// Sets rip and rax so that the system call of this exit is made again, whatever its entry was.
    pub fn rewind_syscall(&mut self) {
        let Some(number) = self.request.as_ref().map(|request| request.call[0]) else { return };
        self.regs_mut().rax = number;
        // At a patched site there is a jump, or an invalid instruction that the shim takes for the call.
        self.regs_mut().rip = self.exit_rip.wrapping_sub(2);
    }

    /// Where the extended state of the present exit lies in guest memory; 0 if the thread came without a host
    /// frame. The guest's word: only good for looking into its own memory.
    pub fn xstate_address(&self) -> u64 {
        self.core.slot.fpstate()
    }

    /// Pushes a signal frame and goes to the handler; a fault comes back as `Exit::Fault` with SIGSEGV and
    /// code `SI_KERNEL`.
    pub fn signal_frame(&mut self, frame: SignalFrame) {
        self.flush();
        // Frames are about 1 KiB without the extended state; the data area holds 64 KiB.
        let ok = self.core.slot.write_data(0, &frame.bytes).is_ok();
        self.regs = Some(frame.regs);
        self.core.slot.set_regs(frame.regs.to_array());
        let len = if ok { frame.bytes.len() as u64 } else { 0 };
        self.answer(action::FRAME, [frame.sp, len, frame.fpstate.unwrap_or(0), 0, 0, 0, 0, 0], 0);
    }

    /// Prepares a child; the parent's next exit is `NativeDone` with the result of the host's clone.
    pub fn begin_clone(&mut self, request: CloneRequest) -> Result<GuestThread, Errno> {
        const VM: u64 = 0x100;
        const SIGCHLD: u64 = 17;
        const PARENT: u64 = 0x8000;
        const TID_WORD: u64 = 0x100_0000 | 0x20_0000;
        self.flush();
        let tls = request.tls.unwrap_or(0);
        let set_tls = if request.tls.is_some() { 0x8_0000 } else { 0 };
        let (core, flags, new_batch, role) = if request.share_memory || request.thread {
            let space = self.core.process.space.clone();
            let place = space.allocate(&self.platform)?;
            let (process, flags, role) = if request.thread {
                // VM FS FILES SIGHAND THREAD SYSVSEM
                (self.core.process.clone(), 0x5_0f00 | TID_WORD | set_tls, 0)
            } else {
                let vfork = if request.vfork { 0x4000 } else { 0 };
                let process = self.core.process.child(space.clone(), self.platform.fresh_nonce());
                (process, VM | vfork | PARENT | TID_WORD | set_tls | SIGCHLD, 2)
            };
            let core = match self.platform.make_core(place.index, place.local, &process, !request.thread) {
                Ok(core) => core,
                Err(errno) => {
                    space.release(place.local);
                    return Err(errno);
                }
            };
            (core, flags, place.new_batch, role)
        } else {
            let (process, index) = self.platform.forked(&self.core)?;
            let core = self.platform.make_core(index, self.core.local, &process, true)?;
            self.platform.pending.lock().insert(process.nonce, core.clone());
            (core, PARENT | SIGCHLD, Some(index - self.core.local % slot::layout::BATCH as u32), 1)
        };
        let this = SLOT_VA + u64::from(core.local) * SLOT_SIZE;
        let stack = STACK_VA + (u64::from(core.local) + 1) * STACK_SIZE - 256;
        let set_tid = request.set_child_tid.unwrap_or(0);
        let tid = request.tid as u32 as u64;
        core.slot.prepare(core.index, this, stack, core.process.nonce);
        core.slot.set_regs(request.regs.to_array());
        core.slot.set_answer(action::REGS, [0, 0, 0, 0, set_tid, tid, 0, role], 0);
        {
            let mut announced = self.core.announced.lock();
            let (stack, tid_word) =
                if role == 1 { (0, 0) } else { (stack, this + offset_of!(slot::Slot, host_tid) as u64) };
            announced.clone = Some(AnnouncedClone { flags, stack, tid_word, child: core.clone() });
            announced.batch = match (role, new_batch) {
                (1, _) | (_, None) => None,
                (_, Some(first)) => {
                    let start = core.local / slot::layout::BATCH as u32 * slot::layout::BATCH as u32;
                    Some((SLOT_VA + u64::from(start) * SLOT_SIZE, first))
                }
            };
        }
        self.platform.add_core(&core);
        let batch = new_batch.map_or(u64::MAX, u64::from);
        let a = [flags, u64::from(core.local), u64::from(core.process.nonce), tls, set_tid, tid, batch, role];
        self.cloning = Some(core.clone());
        self.answer(action::CLONE, a, 0);
        Ok(GuestThread::new(self.platform.clone(), core))
    }

    /// Ends this thread of several: its shim walks the robust list, clears the tid word and wakes it. The
    /// host's leader only seems to end, since memory is reached through it.
    pub fn exit_thread(
        mut self,
        clear_child_tid: Option<u64>,
        robust_list: Option<u64>,
        tid: i32,
        code: i32,
    ) {
        self.flush();
        let leader = self.core.tid.load(Ordering::Relaxed) == self.core.process.pid();
        self.ended = true;
        self.core.parked.store(leader, Ordering::SeqCst);
        // A leader that is kept is nobody's any more: what becomes of its host process others see.
        self.observe_gone(None);
        self.platform.watch.count_threads(&self.platform, &self.core.process);
        let head = robust_list.unwrap_or(0);
        let a =
            [clear_child_tid.unwrap_or(0), head, tid as u32 as u64, code as u64, u64::from(leader), 0, 0, 0];
        self.answer(action::EXIT, a, 0);
    }

    /// The way to reach it from elsewhere.
    pub fn handle(&self) -> Arc<ThreadHandle> {
        Arc::new(ThreadHandle { core: self.core.clone() })
    }
    /// Its memory.
    pub fn address_space(&self) -> Arc<AddressSpace> {
        self.space.clone()
    }

    /// Writes an answer without data and lets the shim go on.
    fn answer(&mut self, action: u8, a: [u64; 8], count: u32) {
        self.core.slot.set_answer(action, a, count);
        self.publish();
    }
    /// Lets the shim go on with the answer in the slot.
    fn publish(&mut self) {
        self.request = None;
        let sent = self.sent.take();
        let before;
        let notification = {
            let mut state = self.core.state.lock();
            state.phase = Phase::Guest;
            // Before the answer: the next request may follow it at once, and be looked for once.
            self.platform.set_listening(self.core.index, true);
            before = self.core.slot.state().swap(slot::state::DONE, Ordering::SeqCst);
            state.notification.take()
        };
        if let Some(id) = notification {
            WOKE_PARKED.set(true);
            let listener = self.platform.listener();
            // Who does not get a file with it asks for that.
            let send = |(fd, file): (u32, Arc<OwnedFd>)| {
                host::notify::answer_with_fd(listener, id, file.as_fd(), fd).is_ok()
            };
            if !sent.is_some_and(send) {
                // If the thread has died there is nobody to tell.
                let _ = host::notify::answer(listener, id, 0);
            }
        } else if before == slot::state::PARKED {
            // If nobody waits any more it rings, and looks again.
            let _ = futex::wake(self.core.slot.state(), futex::Flags::empty(), 1);
        }
        if self.core.interrupted.swap(false, Ordering::SeqCst) {
            send_interrupt(&self.core);
        }
    }
}

impl Drop for GuestThread {
    fn drop(&mut self) {
        let process = &self.core.process;
        self.platform.pending.lock().remove(&process.nonce);
        if !self.ended && (self.core.owns_process || self.core.tid.load(Ordering::Relaxed) != 0) {
            // Nobody would ever answer it again; one that is yet to come up ends then.
            process.kill();
        }
        if self.core.parked.load(Ordering::SeqCst) && !process.is_gone() {
            // The reaper does the rest.
            process.end_if_deserted();
            return;
        }
        self.platform.remove_core(&self.core);
    }
}
