//! Native operations: what the shim does to its guest's memory, and what of it is announced.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use slot::layout::{DATA_OFFSET, FILE_FD, KEPT_FDS, SLOT_SIZE, SLOT_VA};
use slot::{Op, action, op};

use super::GuestThread;
use crate::kept::MAP_KEPT;
use crate::machine::{Announced, FileMap, Showing};
use crate::native;
use crate::types::NativeOp;
use linux_abi::sysno::nr;

impl GuestThread {
    /// One operation by the shim; then `Exit::NativeDone`.
    pub fn native(&mut self, op: NativeOp) {
        self.native_batch(vec![op]);
    }
    /// Several operations by the shim, stopping at the first failure; then `Exit::NativeDone`.
    pub fn native_batch(&mut self, ops: Vec<NativeOp>) {
        self.flush();
        let count = self.write_ops(ops);
        self.answer(action::NATIVE, [0; 8], count);
    }
    /// One operation whose result is the guest's result of the present call; no further exit. See also
    /// [`crate::ThreadHandle::native_result`].
    pub fn resume_native(&mut self, op: NativeOp) {
        self.resume_native_batch(vec![op]);
    }
    fn resume_native_batch(&mut self, ops: Vec<NativeOp>) {
        self.flush();
        self.core.slot.set_native_ret(0);
        let count = self.write_ops(ops);
        self.answer(action::NATIVE_RETURN, [0; 8], count);
    }

    /// As `resume_native` of [`NativeOp::MmapKept`]. `grant` is told the descriptor by which the file is mapped, if it
    /// stays, and says whether the thread may use that without an answer from now on.
    pub fn resume_mapping(&mut self, op: NativeOp, grant: impl FnOnce(u32) -> bool) {
        self.flush();
        self.core.slot.set_native_ret(0);
        let count = self.write_ops(vec![op]);
        let number = self.core.announced.lock().kept.first().copied();
        if let Some(fd) = number.filter(|fd| grant(*fd)) {
            self.core.announced.lock().pin(fd, &mut self.core.process.kept.lock());
        }
        self.answer(action::NATIVE_RETURN, [0; 8], count);
    }
    /// The descriptor of a file that stays in the process, for the thread to read by without an answer from now on. None:
    /// [`NativeOp::Keep`] may bring it there.
    pub fn keep_reading(&mut self, id: u64, file: &Arc<OwnedFd>) -> Option<u32> {
        let process = &self.core.process;
        if !self.platform.native.keeps_files() || process.is_showing() {
            return None;
        }
        let mut announced = self.core.announced.lock();
        let mut kept = process.kept.lock();
        let fd = kept.there(id, file)?;
        announced.pin(fd, &mut kept);
        self.announced = true;
        Some(fd)
    }
    /// As [`GuestThread::resume_syscall`] with 0, after the guest has closed what it had open as these; false, and nothing
    /// is done, if nothing of them stays in its process.
    pub fn resume_closed(&mut self, ids: impl IntoIterator<Item = u64>) -> bool {
        let ops: Vec<_> = {
            let kept = self.core.process.kept.lock();
            ids.into_iter().filter(|id| kept.has(*id)).map(|id| NativeOp::LetGo { id }).collect()
        };
        let here = !ops.is_empty();
        if here {
            self.resume_native_batch(ops);
        }
        here
    }
    /// As `resume_closed` where there is another answer to give: what stays is no longer mapped, and closed when its
    /// place is needed.
    pub fn leave_kept(&mut self, id: u64) {
        self.core.process.kept.lock().leave(id);
    }

    /// The descriptor by which the shim maps a file, as it is to pass it.
    fn descriptor(&mut self, announced: &mut Announced, file: &Arc<OwnedFd>, id: Option<u64>) -> u64 {
        let process = &self.core.process;
        let own = u64::from(self.core.index) << 32;
        let keeps = |_: &u64| self.platform.native.keeps_files() && !process.is_showing();
        let number = id.filter(keeps).and_then(|id| process.kept.lock().use_of(id, file, &announced.kept));
        let Some(number) = number else { return own | (FILE_FD as u64 + u64::from(self.core.local)) };
        if !announced.kept.contains(&number.fd) {
            announced.kept.push(number.fd);
        }
        if !number.fresh {
            return number.fd.into();
        }
        announced.fetched.push((number.fd, file.clone()));
        if self.sent.is_none() {
            self.sent = Some((number.fd, file.clone()));
        }
        own | u64::from(number.fd)
    }

    fn write_ops(&mut self, ops: Vec<NativeOp>) -> u32 {
        let core = self.core.clone();
        let mut announced = core.announced.lock();
        announced.files.clear();
        announced.calls.clear();
        announced.fetched.clear();
        self.announced = true;
        // Bytes to copy lie behind the operations.
        let closes = ops.iter().filter(|op| matches!(op, NativeOp::LetGo { .. })).count() * KEPT_FDS;
        let mut data = (ops.len() + closes) * std::mem::size_of::<Op>();
        let mut count = 0;
        for op in ops {
            let mut number = 0;
            // What stays in the process is mapped as others are.
            let (op, id) = match op {
                NativeOp::MmapKept { addr, len, prot, flags, file, id } => {
                    let id = Some(id).filter(|_| flags & !MAP_KEPT == 0);
                    (NativeOp::Mmap { addr, len, prot, flags, file: Some(file) }, id)
                }
                other => (other, None),
            };
            let (kind, args) = match op {
                NativeOp::Mmap { addr, len, prot, flags, file } => {
                    let (fd, offset) = match file {
                        None => (u64::MAX, 0),
                        Some((file, offset)) => {
                            let fd = self.descriptor(&mut announced, &file, id);
                            announced.files.push(FileMap {
                                addr,
                                len,
                                prot: u64::from(prot),
                                flags: u64::from(flags),
                                offset,
                                file,
                            });
                            (fd, offset)
                        }
                    };
                    (op::MMAP, [addr, len, u64::from(prot), u64::from(flags), fd, offset])
                }
                NativeOp::MmapKept { .. } => continue,
                NativeOp::Keep { file, id } => {
                    (op::FETCH, [self.descriptor(&mut announced, &file, Some(id)), 0, 0, 0, 0, 0])
                }
                NativeOp::LetGo { id } => {
                    let closed = self.core.process.kept.lock().close(id, &mut announced.kept);
                    for fd in closed {
                        let args = [u64::from(fd), 0, 0, 0, 0, 0];
                        if self.core.slot.write_op(count, &Op { kind: op::CLOSE, number, args }).is_err() {
                            break;
                        }
                        count += 1;
                    }
                    continue;
                }
                NativeOp::Munmap { addr, len } => (op::MUNMAP, [addr, len, 0, 0, 0, 0]),
                NativeOp::Mprotect { addr, len, prot } => {
                    (op::MPROTECT, [addr, len, u64::from(prot), 0, 0, 0])
                }
                NativeOp::Mremap { addr, old_len, new_len, flags, new_addr } => {
                    (op::MREMAP, [addr, old_len, new_len, u64::from(flags), new_addr, 0])
                }
                NativeOp::Madvise { addr, len, advice } => {
                    (op::MADVISE, [addr, len, u64::from(advice), 0, 0, 0])
                }
                NativeOp::Copy { addr, bytes } => {
                    if self.core.slot.write_data(data, &bytes).is_err() {
                        break;
                    }
                    let from = data as u64;
                    data += bytes.len();
                    (op::COPY, [addr, bytes.len() as u64, from, 0, 0, 0])
                }
                NativeOp::SetName { name } => {
                    let from = data as u64;
                    if self.core.slot.write_data(data, &name).is_err() {
                        break;
                    }
                    data += name.len();
                    (op::SET_NAME, [from, 0, 0, 0, 0, 0])
                }
                NativeOp::SetLayout(layout) => {
                    let (from, bytes) = (data as u64, layout.to_bytes());
                    if self.core.slot.write_data(data, &bytes).is_err() {
                        break;
                    }
                    data += bytes.len();
                    (op::SET_MM, [from, 0, 0, 0, 0, 0])
                }
                NativeOp::Zero { addr, len } => (op::ZERO, [addr, len, 0, 0, 0, 0]),
                NativeOp::SetFsBase { base } => (op::SET_FS, [base, 0, 0, 0, 0, 0]),
                NativeOp::SetGsBase { base } => (op::SET_GS, [base, 0, 0, 0, 0, 0]),
                NativeOp::GetGsBase { addr } => (op::GET_GS, [addr, 0, 0, 0, 0, 0]),
                NativeOp::GetFsBase => (op::GET_FS, [0; 6]),
                NativeOp::FutexWake { addr, count } => (op::FUTEX_WAKE, [addr, u64::from(count), 0, 0, 0, 0]),
                NativeOp::CompareExchange { addr, expected, new } => {
                    (op::COMPARE_EXCHANGE, [addr, u64::from(expected), u64::from(new), 0, 0, 0])
                }
                NativeOp::RobustList { head, tid } => {
                    (op::ROBUST_LIST, [head, u64::from(tid as u32), 0, 0, 0, 0])
                }
                NativeOp::Call { nr, args, timeout } => {
                    number = nr;
                    let mut args = args;
                    if let Some((index, timeout)) = timeout
                        && let Some(arg) = args.get_mut(index)
                    {
                        let words = timeout.map(u64::to_ne_bytes).concat();
                        if self.core.slot.write_data(data, &words).is_err() {
                            break;
                        }
                        *arg = SLOT_VA + u64::from(self.core.local) * SLOT_SIZE + DATA_OFFSET + data as u64;
                        data += words.len();
                    }
                    (op::CALL, args)
                }
                NativeOp::ShowCalls => {
                    announced.showing = Showing::Announced;
                    (op::SHOW_CALLS, [0; 6])
                }
            };
            // Unless somebody wants to see them, all but CALL are made without a word.
            let anonymous = op::MMAP == kind && args[4] == u64::MAX;
            let call = match kind {
                op::MMAP if anonymous => Some(nr::mmap),
                op::MUNMAP => Some(nr::munmap),
                op::MPROTECT => Some(nr::mprotect),
                op::MREMAP => Some(nr::mremap),
                op::MADVISE => Some(nr::madvise),
                op::CALL => Some(number),
                _ => None,
            };
            announced.calls.extend(call.map(|number| native::AnnouncedCall { number, args }));
            if self.core.slot.write_op(count, &Op { kind, number, args }).is_err() {
                break;
            }
            count += 1;
        }
        count as u32
    }
}
