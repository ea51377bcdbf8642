//! Native operations: what the shim does to its guest's memory, and what of it is announced.

use slot::layout::{DATA_OFFSET, FILE_FD, SLOT_SIZE, SLOT_VA};
use slot::{Op, action, op};

use super::GuestThread;
use crate::machine::{FileMap, Showing};
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
    /// One operation whose result is the guest's result of the present call; no further exit.
    pub fn resume_native(&mut self, op: NativeOp) {
        self.flush();
        let count = self.write_ops(vec![op]);
        self.answer(action::NATIVE_RETURN, [0; 8], count);
    }

    fn write_ops(&mut self, ops: Vec<NativeOp>) -> u32 {
        let mut announced = self.core.announced.lock();
        announced.files.clear();
        announced.calls.clear();
        self.announced = true;
        // Bytes to copy lie behind the operations.
        let mut data = ops.len() * std::mem::size_of::<Op>();
        let mut count = 0;
        for (i, op) in ops.into_iter().enumerate() {
            let mut number = 0;
            let (kind, args) = match op {
                NativeOp::Mmap { addr, len, prot, flags, file } => {
                    let (fd, offset) = match file {
                        None => (u64::MAX, 0),
                        Some((file, offset)) => {
                            let fd = (u64::from(self.core.index) << 32)
                                | (FILE_FD as u64 + u64::from(self.core.local));
                            announced.files.push_back(FileMap {
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
            if self.core.slot.write_op(i, &Op { kind, number, args }).is_err() {
                break;
            }
            count += 1;
        }
        count
    }
}
