//! The kernel process's side of the slots. Every field is read once, by volatile access, and never believed.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use host::shared::SharedFile;
use linux_abi::Errno;
use slot::layout::{
    COUNTS_OFFSET, COUNTS_SIZE, DATA_OFFSET, DATA_SIZE, GRANTS_OFFSET, MAX_SLOTS, POSTED_OFFSET, POSTED_SIZE,
    PREFETCHED_OFFSET, PREFETCHED_SIZE, SLOT_SIZE,
};
use slot::{COUNTS, Control, Count, GRANTS, Grant, IN_RECORDS, Op, RECORDS, Record, Slot, reg};

/// A request as it was when taken: a private copy. What few requests need is read when they need it, once.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub kind: u8,
    /// Number and arguments of a call, in the order of `slot::reg`.
    pub call: [u64; reg::CALL],
    pub native_ret: i64,
    pub site: u64,
    pub in_records: [Record; IN_RECORDS],
    pub in_count: usize,
}

/// One slot in shared memory.
#[derive(Clone, Copy)]
pub(crate) struct SlotRef {
    at: *mut Slot,
}

// SAFETY: the mapping lives as long as the process and is only accessed by volatile and atomic means.
unsafe impl Send for SlotRef {}
// SAFETY: as above.
unsafe impl Sync for SlotRef {}

/// Reads a field once.
macro_rules! load {
    ($slot:expr, $field:ident) => {
        // SAFETY: the slot is mapped; any bit pattern is valid for these types.
        unsafe { (&raw const (*$slot.at).$field).read_volatile() }
    };
}
/// Writes a field.
macro_rules! store {
    ($slot:expr, $field:ident, $value:expr) => {
        // SAFETY: the slot is mapped and ours to write.
        unsafe { (&raw mut (*$slot.at).$field).write_volatile($value) }
    };
}

impl SlotRef {
    /// The state word.
    pub(crate) fn state(&self) -> &AtomicU32 {
        // SAFETY: an atomic may be shared with another process.
        unsafe { &(*self.at).state }
    }
    /// The word that holds the host's thread id while the thread lives.
    pub(crate) fn host_tid(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { &(*self.at).host_tid }
    }
    /// The host's thread id while the thread lives, 0 before and after.
    pub(crate) fn live_tid(&self) -> u32 {
        match self.host_tid().load(Ordering::Acquire) {
            ended if ended & slot::OWNER_DIED != 0 => 0,
            tid => tid & 0x3fff_ffff,
        }
    }
    /// The interrupt flag; also the zygote's "ready" mark.
    pub(crate) fn intr(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { &(*self.at).intr }
    }
    /// Copies the request.
    pub(crate) fn request(&self) -> Request {
        let mut request = Request {
            kind: load!(self, kind),
            call: [0; reg::CALL],
            native_ret: 0,
            site: 0,
            in_records: [Record::default(); IN_RECORDS],
            in_count: usize::from(load!(self, pieces)).min(IN_RECORDS),
        };
        for (i, to) in request.call.iter_mut().enumerate() {
            // SAFETY: the slot is mapped, and there are more registers than this.
            *to = unsafe { (&raw const (*self.at).regs).cast::<u64>().add(i).read_volatile() };
        }
        if request.in_count > 0 {
            // The pieces begin there, which is on its way while the records come.
            // SAFETY: nothing is read; the address is in the slot's own part of the mapping.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.at.cast::<i8>().add(DATA_OFFSET as usize)) };
            for (i, to) in request.in_records.iter_mut().take(request.in_count).enumerate() {
                // SAFETY: the slot is mapped, and there are as many records.
                *to = unsafe { (&raw const (*self.at).in_records).cast::<Record>().add(i).read_volatile() };
            }
        }
        if request.kind == slot::kind::NATIVE_DONE {
            request.native_ret = self.native_ret();
        }
        if load!(self, via) == slot::via::SIGNAL {
            request.site = load!(self, site);
        }
        request
    }
    /// All registers.
    pub(crate) fn regs(&self) -> [u64; reg::COUNT] {
        load!(self, regs)
    }
    /// What the host told of a fault.
    pub(crate) fn fault(&self) -> [u64; 6] {
        load!(self, fault)
    }
    /// The result of native operations.
    pub(crate) fn native_ret(&self) -> i64 {
        load!(self, native_ret)
    }
    /// See `native_ret`.
    pub(crate) fn set_native_ret(&self, ret: i64) {
        store!(self, native_ret, ret);
    }
    /// The size of the extended state in the host's frames: what the zygote has found, before any guest ran.
    pub(crate) fn xstate_size(&self) -> u32 {
        load!(self, xstate_size)
    }
    /// Where the shim says that the host's frame keeps the extended state.
    pub(crate) fn fpstate(&self) -> u64 {
        load!(self, fpstate)
    }
    /// Prepares a slot for a new thread.
    pub(crate) fn prepare(&self, index: u32, this: u64, stack: u64, nonce: u32) {
        self.state().store(slot::state::IDLE, Ordering::Relaxed);
        self.intr().store(0, Ordering::Relaxed);
        self.host_tid().store(0, Ordering::Relaxed);
        store!(self, index, index);
        store!(self, this, this);
        store!(self, stack, stack);
        store!(self, nonce, nonce);
        store!(self, site, 0);
        store!(self, xstate_size, 0);
        store!(self, pieces, 0);
        self.set_identity([0; slot::identity::COUNT]);
        // Most threads never post: their memory for it stays untouched.
        if self.granted().swap(0, Ordering::Relaxed) != 0 {
            for grant in self.grants() {
                grant.fd.store(0, Ordering::Relaxed);
            }
        }
        self.tail().store(0, Ordering::Relaxed);
    }
    /// Not 0 while the thread is granted something.
    pub(crate) fn granted(&self) -> &AtomicU32 {
        // SAFETY: an atomic may be shared with another process.
        unsafe { &(*self.at).granted }
    }
    /// How many bytes of records there are.
    pub(crate) fn tail(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { &(*self.at).marks.tail }
    }
    /// How often prefetched bytes were read.
    pub(crate) fn taken(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { &(*self.at).marks.taken }
    }
    /// What the thread is granted.
    pub(crate) fn grants(&self) -> &[Grant; GRANTS] {
        // SAFETY: within the slot's own part of the mapping; all of it are atomics.
        unsafe { &*self.at.cast::<u8>().add(GRANTS_OFFSET as usize).cast() }
    }
    /// Copies from the records of posted writes; `EFAULT` outside of them.
    pub(crate) fn read_posted(&self, offset: u32, to: &mut [u8]) -> Result<(), Errno> {
        let offset = offset as usize;
        let end = offset.checked_add(to.len()).filter(|end| *end <= POSTED_SIZE);
        end.ok_or(Errno::EFAULT)?;
        // SAFETY: the range is within the slot's own part of the mapping; bytes that change meanwhile are the guest's
        // own loss.
        unsafe {
            let from = self.at.cast::<u8>().add(POSTED_OFFSET as usize + offset);
            std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len());
        }
        Ok(())
    }
    /// Copies to where reads find bytes; `EFAULT` outside of it.
    pub(crate) fn write_prefetched(&self, offset: usize, from: &[u8]) -> Result<(), Errno> {
        let end = offset.checked_add(from.len()).filter(|end| *end <= PREFETCHED_SIZE);
        end.ok_or(Errno::EFAULT)?;
        // SAFETY: as above.
        unsafe {
            let to = self.at.cast::<u8>().add(PREFETCHED_OFFSET as usize + offset);
            std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len());
        }
        Ok(())
    }
    /// What the shim may answer itself.
    pub(crate) fn set_identity(&self, values: [u64; slot::identity::COUNT]) {
        store!(self, identity, values);
    }
    /// Of it the signals: those without an action, those whose action is told.
    pub(crate) fn set_signals(&self, untouched: u64, told: u64) {
        // SAFETY: within the array of the mapped slot.
        unsafe {
            let identity = (&raw mut (*self.at).identity).cast::<u64>();
            identity.add(slot::identity::UNTOUCHED_SIGNALS).write_volatile(untouched);
            identity.add(slot::identity::TOLD_SIGNALS).write_volatile(told);
        }
    }
    /// The action of a signal, from 0 on.
    pub(crate) fn set_action(&self, index: usize, action: [u64; slot::ACTION_WORDS]) {
        if index < 64 {
            // SAFETY: within the array of the mapped slot.
            unsafe {
                (&raw mut (*self.at).actions)
                    .cast::<[u64; slot::ACTION_WORDS]>()
                    .add(index)
                    .write_volatile(action)
            };
        }
    }
    /// Of it whether paths are known.
    pub(crate) fn set_names(&self, on: bool) {
        // SAFETY: within the array of the mapped slot.
        unsafe {
            let names = (&raw mut (*self.at).identity).cast::<u64>().add(slot::identity::NAMES);
            names.write_volatile(u64::from(on));
        }
    }
    /// Writes the registers.
    pub(crate) fn set_regs(&self, regs: [u64; reg::COUNT]) {
        store!(self, regs, regs);
    }
    /// Writes a plain answer, and which pieces are to be copied out; the state is set by the caller.
    pub(crate) fn set_return(&self, ret: i64, records: &[Record]) {
        for (i, record) in records.iter().take(RECORDS).enumerate() {
            // SAFETY: within the array of the mapped slot.
            unsafe { (&raw mut (*self.at).out_records).cast::<Record>().add(i).write_volatile(*record) };
        }
        store!(self, pieces, records.len().min(RECORDS) as u8);
        store!(self, action, slot::action::RETURN);
        // SAFETY: the slot is mapped and ours to write.
        unsafe { (&raw mut (*self.at).regs).cast::<u64>().add(reg::RAX).write_volatile(ret as u64) };
    }
    /// Writes another answer; the state is set by the caller.
    pub(crate) fn set_answer(&self, action: u8, a: [u64; 8], count: u32) {
        store!(self, pieces, 0);
        store!(self, action, action);
        store!(self, a, a);
        store!(self, count, count);
    }
    /// The address of data; `None` outside of it.
    fn data(&self, offset: usize, len: usize) -> Option<*mut u8> {
        let end = offset.checked_add(len)?;
        // SAFETY: within the slot's own part of the mapping.
        (end <= DATA_SIZE).then(|| unsafe { self.at.cast::<u8>().add(DATA_OFFSET as usize + offset) })
    }
    /// Copies from the data; `EFAULT` outside of it.
    pub(crate) fn read_data(&self, offset: usize, to: &mut [u8]) -> Result<(), Errno> {
        let from = self.data(offset, to.len()).ok_or(Errno::EFAULT)?;
        // SAFETY: `data` checked the range; the guest may change the bytes meanwhile, which only garbles them.
        unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        Ok(())
    }
    /// pread(2) into the data, `at_once` without sleeping (`RWF_NOWAIT`); `EFAULT` outside of it.
    pub(crate) fn read_file(
        &self,
        offset: usize,
        len: usize,
        fd: BorrowedFd<'_>,
        pos: u64,
        at_once: bool,
    ) -> Result<usize, Errno> {
        let to = self.data(offset, len).ok_or(Errno::EFAULT)?;
        // SAFETY: `data` checked the range; slots are never referred to by Rust references to plain data.
        unsafe { host::files::read_at(fd, to, len, pos, at_once) }
    }
    /// pwrite(2) from the data; `EFAULT` outside of it.
    pub(crate) fn write_file(
        &self,
        offset: usize,
        len: usize,
        fd: BorrowedFd<'_>,
        pos: u64,
    ) -> Result<usize, Errno> {
        let from = self.data(offset, len).ok_or(Errno::EFAULT)?;
        // SAFETY: as above; the guest may change the bytes meanwhile, which only garbles them.
        unsafe { host::files::write_at(fd, from, len, pos) }
    }
    /// Copies into the data; `EFAULT` outside of it.
    pub(crate) fn write_data(&self, offset: usize, from: &[u8]) -> Result<(), Errno> {
        let to = self.data(offset, from.len()).ok_or(Errno::EFAULT)?;
        // SAFETY: `data` checked the range.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        Ok(())
    }
    /// Writes one native operation of the list at the start of the data.
    pub(crate) fn write_op(&self, index: usize, op: &Op) -> Result<(), Errno> {
        let size = std::mem::size_of::<Op>();
        let to = index.checked_mul(size).and_then(|at| self.data(at, size)).ok_or(Errno::EFAULT)?;
        // SAFETY: `data` checked the range; the data area is page aligned and Op a multiple of 8.
        unsafe { to.cast::<Op>().write_volatile(*op) };
        Ok(())
    }
}

/// The shared files of a sandbox.
pub(crate) struct Slots {
    pub(crate) slots: SharedFile,
    pub(crate) control: SharedFile,
}

impl Slots {
    pub(crate) fn new() -> Result<Slots, Errno> {
        Ok(Slots {
            slots: SharedFile::new("sallet-slots", (COUNTS_OFFSET + COUNTS_SIZE) as usize, false)?,
            control: SharedFile::new("sallet-control", slot::layout::CONTROL_SIZE as usize, true)?,
        })
    }
    /// A slot by its index in the sandbox.
    pub(crate) fn slot(&self, index: usize) -> Option<SlotRef> {
        let at = index.checked_mul(SLOT_SIZE as usize).filter(|_| index < MAX_SLOTS)?;
        let at = self.slots.at(at, SLOT_SIZE as usize)?;
        Some(SlotRef { at: at.cast() })
    }
    /// How often the shims have posted, by the index of a count; 0 outside of them.
    pub(crate) fn count(&self, index: u16) -> u32 {
        let size = std::mem::size_of::<Count>();
        let at = self.slots.at(COUNTS_OFFSET as usize + usize::from(index) % COUNTS * size, size);
        // SAFETY: within the mapping; an atomic may be shared with another process.
        at.map_or(0, |at| unsafe { &*at.cast::<Count>() }.0.load(Ordering::SeqCst))
    }
    /// The control page.
    pub(crate) fn control(&self) -> &Control {
        let at = self.control.at(0, std::mem::size_of::<Control>()).unwrap_or(std::ptr::null_mut());
        // SAFETY: the control file is larger than the page; its fields are atomics.
        unsafe { &*at.cast::<Control>() }
    }
    /// What is known of paths.
    pub(crate) fn names(&self) -> &slot::names::Table {
        let size = std::mem::size_of::<slot::names::Table>();
        let at = self.control.at(slot::layout::NAMES_OFFSET as usize, size).unwrap_or(std::ptr::null_mut());
        // SAFETY: the control file has room for it, page aligned; all of it are atomics, which stubs only read.
        unsafe { &*at.cast::<slot::names::Table>() }
    }
    /// Writes to the control file; `None` outside of it.
    pub(crate) fn write_control(&self, offset: u64, bytes: &[u8]) -> Option<()> {
        let to = self.control.at(usize::try_from(offset).ok()?, bytes.len())?;
        // SAFETY: `at` checked the range; stubs only read it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Some(())
    }
    /// Gives the memory of a batch back.
    pub(crate) fn discard_batch(&self, first: usize) {
        self.slots.discard(first * SLOT_SIZE as usize, slot::layout::BATCH * SLOT_SIZE as usize);
    }
}
