//! The machine: all guest threads and processes of a sandbox, and their slots.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::task::Waker;

use executor::{Events, WaitQueue, Waiter};
use linux_abi::Errno;
use parking_lot::{Mutex, RwLock};
use slot::layout::{BATCH, MAX_SLOTS};
use zerocopy::FromZeros;

use crate::kept::Kept;
use crate::native::AnnouncedCall;
use crate::process::{ProcessCore, Space};
use crate::slots::{Request, SlotRef, Slots};
use crate::thread::GuestThread;
use crate::types::{CloneRequest, Exit, Regs};
use crate::vdso::Vdso;

/// All guest processes of a sandbox.
pub struct Platform {
    pub(crate) slots: Slots,
    pub(crate) listener: OwnedFd,
    /// Threads by slot index.
    cores: RwLock<Vec<Option<Arc<Core>>>>,
    /// One bit per slot that the spinner looks at: of threads that run in the guest.
    pub(crate) active: Vec<AtomicU64>,
    batches: Mutex<Batches>,
    /// Forked children that have not yet come up, by nonce.
    pub(crate) pending: Mutex<HashMap<u32, Arc<Core>>>,
    /// Host processes by id.
    pub(crate) processes: Mutex<HashMap<i32, Arc<ProcessCore>>>,
    pub(crate) watch: crate::watch::Watch,
    /// Woken when a forked child has come up, or has died before.
    pub(crate) came_up: Arc<WaitQueue>,
    zygote: Mutex<Option<GuestThread>>,
    zygote_queue: WaitQueue,
    /// The zygote has closed its end of the notifications.
    pub(crate) zygote_closed: AtomicBool,
    xstate_size: u32,
    vdso: Vdso,
    mmap_top: u64,
    initial_stack: u64,
    pub(crate) spinner: crate::spinner::Spinner,
    pub(crate) placement: crate::placement::Placement,
    pub(crate) parking: crate::parking::Parking,
    pub(crate) patcher: crate::patch::Patcher,
    pub(crate) native: crate::native::Native,
    /// Words of `active` that were ever in use.
    high_water: AtomicU32,
    /// System calls that came to their threads' tasks.
    pub(crate) calls: AtomicU64,
}

/// What is in use, to find leaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Guest threads with a slot, the zygote among them.
    pub threads: usize,
    /// Host processes but the zygote.
    pub processes: usize,
    /// Batches of slots that address spaces hold.
    pub batches: usize,
    /// Children that were announced and have not come up.
    pub pending: usize,
}

#[derive(Default)]
struct Batches {
    next: u32,
    free: VecDeque<u32>,
}

/// Where a thread is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Runs guest code, or the shim.
    Guest,
    /// Its request was taken; its task has not looked yet.
    Ready,
    /// Its task works on the request.
    Kernel,
}

/// What the shim of a thread may have the host do next.
#[derive(Default)]
pub(crate) struct Announced {
    pub files: Vec<FileMap>,
    /// Files that may be taken to a descriptor.
    pub fetched: Vec<(u32, Arc<OwnedFd>)>,
    /// Numbers of kept files that its answer names.
    pub kept: Vec<u32>,
    /// Numbers that it may map or read by without an answer.
    pub pinned: Vec<u32>,
    /// A batch of slots to be mapped: address, index in the shared file.
    pub batch: Option<(u64, u32)>,
    /// The clone to come.
    pub clone: Option<AnnouncedClone>,
    /// Calls at the gadget.
    pub calls: Vec<AnnouncedCall>,
    /// The filter that shows native calls.
    pub showing: Showing,
}

impl Announced {
    /// The thread may use a number without an answer from now on.
    pub(crate) fn pin(&mut self, fd: u32, kept: &mut Kept) {
        if !self.pinned.contains(&fd) {
            self.pinned.push(fd);
            kept.pin(fd);
        }
    }
}

/// How far the installation of the second filter is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Showing {
    #[default]
    No,
    Announced,
    /// The host was told to do it.
    Installed,
}

/// A clone that the shim may make: its arguments, and who comes of it.
pub(crate) struct AnnouncedClone {
    pub flags: u64,
    pub stack: u64,
    pub tid_word: u64,
    pub child: Arc<Core>,
}

/// An announced mapping of a file.
pub(crate) struct FileMap {
    pub addr: u64,
    pub len: u64,
    pub prot: u64,
    pub flags: u64,
    pub offset: u64,
    pub file: Arc<OwnedFd>,
}

pub(crate) struct CoreState {
    pub phase: Phase,
    /// A doorbell that waits for the answer.
    pub notification: Option<u64>,
    pub request: Option<Request>,
    pub waker: Option<Waker>,
    pub gone: bool,
}

/// One guest thread as the workers see it.
pub(crate) struct Core {
    pub index: u32,
    pub local: u32,
    pub slot: SlotRef,
    pub process: Arc<ProcessCore>,
    /// Host thread id once known.
    pub tid: AtomicI32,
    pub state: Mutex<CoreState>,
    pub announced: Mutex<Announced>,
    /// Its process has no other way to be known than its nonce (a vfork child before its first ring).
    pub owns_process: bool,
    pub interrupted: AtomicBool,
    /// Told when the host thread is gone, whatever the task waits for.
    pub gone_observer: Mutex<Option<Arc<dyn executor::Observer>>>,
    /// Kept although its guest thread ended: the host's leader, through which memory is reached.
    pub parked: AtomicBool,
    /// The host did not make it.
    pub stillborn: AtomicBool,
    /// A clone of it was let through to the host, and it has not been heard of since.
    pub in_clone: AtomicBool,
    /// It waits in the host for its vfork child, or says so.
    pub in_vfork: AtomicBool,
    /// It kept slots from its forks, which is done once it is heard of again.
    pub advised: AtomicBool,
    /// It was interrupted in guest code and has not come in since.
    pub owes_exit: AtomicBool,
    /// The watchdog looks after what it owes.
    pub watched: AtomicBool,
    /// When it called last, as [`crate::placement::Placement`] counts.
    pub called: AtomicU32,
    /// The same, as [`crate::parking::Parking`] counts.
    pub turn: AtomicU32,
}

/// Whether there is a request in a slot, by its word.
pub(crate) fn is_request(word: u32) -> bool {
    matches!(word, slot::state::REQUEST | slot::state::PARKED)
}

impl Core {
    /// The host did not make this thread, or it must not come up any more.
    pub(crate) fn set_stillborn(&self) {
        self.stillborn.store(true, Ordering::SeqCst);
        if self.owns_process {
            self.process.kill();
        }
        self.set_gone();
    }
    pub(crate) fn set_gone(&self) {
        let waker = {
            let mut state = self.state.lock();
            state.gone = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        let observer = self.gone_observer.lock().clone();
        if let Some(observer) = observer {
            observer.notify(Events::HUP);
        }
    }
}

impl Platform {
    #[expect(clippy::too_many_arguments, reason = "what `start` has gathered")]
    pub(crate) fn assemble(
        slots: Slots,
        listener: OwnedFd,
        vdso: Vdso,
        mmap_top: u64,
        initial_stack: u64,
        xstate_size: u32,
        (spinner, placement, parking): (
            crate::spinner::Spinner,
            crate::placement::Placement,
            crate::parking::Parking,
        ),
        patcher: crate::patch::Patcher,
        watch: crate::watch::Watch,
        native: crate::native::Native,
    ) -> Platform {
        // Zeroed by the host: pages of it take memory once slots there are in use.
        let active = AtomicU64::new_vec_zeroed(MAX_SLOTS / 64).unwrap_or_default();
        Platform {
            slots,
            listener,
            cores: RwLock::default(),
            active,
            batches: Mutex::new(Batches { next: 0, free: VecDeque::new() }),
            pending: Mutex::default(),
            processes: Mutex::default(),
            watch,
            zygote: Mutex::new(None),
            came_up: Arc::new(WaitQueue::new()),
            zygote_queue: WaitQueue::new(),
            zygote_closed: AtomicBool::new(false),
            xstate_size,
            vdso,
            mmap_top,
            initial_stack,
            spinner,
            placement,
            parking,
            patcher,
            native,
            high_water: AtomicU32::new(0),
            calls: AtomicU64::new(0),
        }
    }

    /// The vDSO of new guest processes.
    pub fn vdso(&self) -> &Vdso {
        &self.vdso
    }
    /// An address in the stack that the host gave the zygote, which is mapped in every guest process.
    pub fn initial_stack(&self) -> u64 {
        self.initial_stack
    }
    /// Where the host's mmap(2) begins in every guest process, going downwards; None where it goes upwards.
    pub fn mmap_top(&self) -> Option<u64> {
        // Above the shim there is room for a program's libraries in any case.
        (self.mmap_top > crate::shim::RANGES[0].end).then_some(self.mmap_top)
    }
    /// Size of the extended state in a signal frame (its `fpstate` area).
    pub fn xstate_size(&self) -> usize {
        self.xstate_size as usize
    }
    /// How many system calls came to this process.
    pub fn system_calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
    /// How many requests a spinning worker took, without a doorbell.
    pub fn spun(&self) -> u64 {
        self.spinner.taken.load(Ordering::Relaxed)
    }
    /// How many system call sites were patched.
    pub fn patched(&self) -> u64 {
        self.patcher.patched.load(Ordering::Relaxed)
    }
    /// How often the spinner started.
    pub fn spins(&self) -> u64 {
        self.spinner.starts.load(Ordering::Relaxed)
    }
    /// What is in use.
    pub fn usage(&self) -> Usage {
        let batches = self.batches.lock();
        Usage {
            threads: self.cores.read().iter().flatten().count(),
            processes: self.processes.lock().len(),
            batches: (batches.next as usize).saturating_sub(batches.free.len()),
            pending: self.pending.lock().len(),
        }
    }
    /// How many words of the bitmap can have bits set.
    pub(crate) fn used_words(&self) -> usize {
        self.high_water.load(Ordering::Relaxed) as usize
    }
    pub(crate) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// First index of a free batch of slots; `EAGAIN` if the sandbox has no more.
    pub(crate) fn take_batch(&self) -> Result<u32, Errno> {
        let mut batches = self.batches.lock();
        // Batches rest a while: a dying process may still touch its slots.
        if batches.free.len() > 32
            && let Some(first) = batches.free.pop_front()
        {
            return Ok(first);
        }
        if (batches.next as usize + 1) * BATCH <= MAX_SLOTS {
            batches.next += 1;
            return Ok((batches.next - 1) * BATCH as u32);
        }
        batches.free.pop_front().ok_or(Errno::EAGAIN)
    }
    /// Takes a batch back; its memory is given to the host.
    pub(crate) fn return_batch(&self, first: u32) {
        self.slots.discard_batch(first as usize);
        self.batches.lock().free.push_back(first);
    }

    /// The thread at a slot.
    pub(crate) fn core(&self, index: u64) -> Option<Arc<Core>> {
        self.cores.read().get(usize::try_from(index).ok()?)?.clone()
    }
    /// Makes a thread known at its slot.
    pub(crate) fn add_core(&self, core: &Arc<Core>) {
        let mut cores = self.cores.write();
        let index = core.index as usize;
        if cores.len() <= index {
            cores.resize_with(index + 1, || None);
        }
        if let Some(slot) = cores.get_mut(index) {
            *slot = Some(core.clone());
        }
        drop(cores);
        core.process.threads.lock().push(Arc::downgrade(core));
        // One that joins its process after the end of it would never hear.
        if core.process.is_gone() {
            core.set_gone();
        }
        self.high_water.fetch_max(core.index / 64 + 1, Ordering::Relaxed);
        self.set_listening(core.index, true);
    }
    /// Whether the spinner looks at a slot.
    pub(crate) fn set_listening(&self, index: u32, on: bool) {
        let Some(word) = self.active.get(index as usize / 64) else { return };
        let bit = 1 << (index % 64);
        if on {
            word.fetch_or(bit, Ordering::SeqCst)
        } else {
            word.fetch_and(!bit, Ordering::SeqCst)
        };
    }
    /// Forgets a thread, once.
    pub(crate) fn remove_core(&self, core: &Arc<Core>) {
        {
            let mut cores = self.cores.write();
            let Some(slot) = cores.get_mut(core.index as usize) else { return };
            if !slot.as_ref().is_some_and(|c| Arc::ptr_eq(c, core)) {
                return;
            }
            *slot = None;
            self.set_listening(core.index, false);
        }
        self.native.forget(core);
        {
            let mut announced = core.announced.lock();
            let mut kept = core.process.kept.lock();
            kept.heard(&std::mem::take(&mut announced.kept));
            kept.heard(&std::mem::take(&mut announced.pinned));
        }
        core.process.threads.lock().retain(|w| w.upgrade().is_some_and(|c| !Arc::ptr_eq(&c, core)));
        core.process.space.release(core.local);
        core.process.end_if_deserted();
    }

    pub(crate) fn make_core(
        &self,
        index: u32,
        local: u32,
        process: &Arc<ProcessCore>,
        owns_process: bool,
    ) -> Result<Arc<Core>, Errno> {
        let slot = self.slots.slot(index as usize).ok_or(Errno::EAGAIN)?;
        Ok(Arc::new(Core {
            index,
            local,
            slot,
            process: process.clone(),
            tid: AtomicI32::new(0),
            state: Mutex::new(CoreState {
                phase: Phase::Guest,
                notification: None,
                request: None,
                waker: None,
                gone: false,
            }),
            announced: Mutex::default(),
            owns_process,
            interrupted: AtomicBool::new(false),
            gone_observer: Mutex::new(None),
            parked: AtomicBool::new(false),
            stillborn: AtomicBool::new(false),
            in_clone: AtomicBool::new(false),
            in_vfork: AtomicBool::new(false),
            advised: AtomicBool::new(false),
            owes_exit: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            called: AtomicU32::new(0),
            turn: AtomicU32::new(0),
        }))
    }

    /// Takes the request in a slot, if there is one; a doorbell that came with it waits for the answer.
    pub(crate) fn take(&self, core: &Arc<Core>, notification: Option<u64>) -> bool {
        let (waker, unneeded) = {
            let mut state = core.state.lock();
            let mut unneeded = None;
            let requested = is_request(core.slot.state().load(Ordering::Acquire));
            if state.phase == Phase::Guest && !requested {
                // The answer came before the doorbell.
                unneeded = notification;
                (None, unneeded)
            } else {
                if let Some(id) = notification {
                    // Two bells for one slot: the guest's own trick; the first goes on.
                    unneeded = state.notification.replace(id);
                }
                if state.phase == Phase::Guest {
                    // The word stays as it is: a write would take its cache line from the guest.
                    self.set_listening(core.index, false);
                    let request = core.slot.request();
                    state.request = Some(request);
                    state.phase = Phase::Ready;
                    if core.owes_exit.load(Ordering::Relaxed) {
                        core.owes_exit.store(false, Ordering::Relaxed);
                    }
                    (state.waker.take(), unneeded)
                } else {
                    (None, unneeded)
                }
            }
        };
        if let Some(id) = unneeded {
            // The caller looks at its slot again; if it has died there is nobody to tell.
            let _ = host::notify::answer(self.listener(), id, 0);
        }
        match waker {
            Some(waker) => {
                waker.wake();
                true
            }
            None => false,
        }
    }

    pub(crate) fn set_zygote(&self, guest: GuestThread) {
        *self.zygote.lock() = Some(guest);
        self.zygote_queue.wake_all(Events::IN);
    }

    /// A new, empty address space with one parked thread: a fork of the zygote.
    pub async fn new_process(self: &Arc<Self>) -> Result<GuestThread, Errno> {
        let waiter = Waiter::new();
        let mut zygote = loop {
            waiter.reset();
            let listener = self.zygote_queue.listen(&waiter, Events::IN, true);
            if let Some(zygote) = self.zygote.lock().take() {
                break zygote;
            }
            waiter.wait().await;
            drop(listener);
        };
        let request = CloneRequest {
            thread: false,
            share_memory: false,
            vfork: false,
            regs: Regs::default(),
            tls: None,
            tid: 0,
            set_child_tid: None,
        };
        // Its first exit says that it has come up; an answer before that would be lost.
        if !zygote.has_exited() {
            zygote.next_exit().await;
        }
        let child = zygote.begin_clone(request);
        let result = match &child {
            Ok(_) => zygote.next_exit().await,
            Err(errno) => Exit::NativeDone(errno.to_ret()),
        };
        self.set_zygote(zygote);
        let mut child = child?;
        match result {
            Exit::NativeDone(ret) if ret > 0 => {}
            Exit::NativeDone(ret) => return Err(Errno::from_raw(i32::try_from(-ret).unwrap_or(0))),
            _ => return Err(Errno::EAGAIN),
        }
        match child.next_exit().await {
            Exit::NativeDone(_) => Ok(child),
            _ => Err(Errno::EAGAIN),
        }
    }

    /// A space and a process core for a forked child at the same local index as its parent.
    pub(crate) fn forked(self: &Arc<Self>, parent: &Core) -> Result<(Arc<ProcessCore>, u32), Errno> {
        let (space, index) = Space::new(self, parent.local)?;
        let of_parent = &parent.process.space;
        let alone = of_parent.threads() <= 1;
        *space.sites.lock() = of_parent.sites.lock().fork(&self.patcher, alone);
        Ok((parent.process.child(space, self.fresh_nonce()), index))
    }

    /// A nonce that no slot index equals.
    pub(crate) fn fresh_nonce(&self) -> u32 {
        let mut bytes = [0; 4];
        // Without randomness a guess still needs a process of the same sandbox.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        u32::from_ne_bytes(bytes) | 0x8000_0000
    }
}
