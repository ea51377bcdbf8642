//! Calls on files of the host whose device may keep them waiting. Each step of a call first does what can be done at once;
//! where that is not enough it goes on in the blocking pool, and keeps no other call waiting.

use linux_abi::Errno;
use vfs::{OpenFile, PositionGuard};

use crate::SysResult;

/// What is there at once is so by pages.
pub(crate) const PAGE: u64 = 4096;

/// How long a call may take where it is.
pub(crate) struct Patience {
    /// The file may keep it waiting, and others with it.
    at_once: bool,
    /// The program itself asked for what is there at once: a part is an answer.
    takes_part: bool,
}

impl Patience {
    /// Of a call that reads, with `RWF_NOWAIT` or not.
    pub(crate) async fn reading(file: &OpenFile, nowait: bool) -> Patience {
        let mut patience = Patience { at_once: file.ops().may_sleep(), takes_part: nowait };
        if patience.at_once && Patience::that_reads(file).is_none() {
            patience.step_aside().await;
        }
        patience
    }

    /// Of a call that writes; one that is `synchronous` waits for the device in any case.
    pub(crate) async fn writing(file: &OpenFile, synchronous: bool) -> Patience {
        let mut patience = Patience { at_once: file.ops().may_sleep(), takes_part: false };
        if patience.at_once && (synchronous || Patience::that_writes(file).is_none()) {
            patience.step_aside().await;
        }
        patience
    }

    /// Of a request that reads what is there at once; none if it is to step aside.
    pub(crate) fn that_reads(file: &OpenFile) -> Option<Patience> {
        let slow = executor::is_short() || !file.ops().reads_at_once() && file.is_slow();
        (!slow).then_some(Patience { at_once: true, takes_part: false })
    }

    /// Of a request that writes, and does not wait for the device; none if it is to step aside.
    pub(crate) fn that_writes(file: &OpenFile) -> Option<Patience> {
        let slow = executor::is_short() || file.is_slow();
        (!slow).then_some(Patience { at_once: true, takes_part: false })
    }

    /// Whether a step is to do what can be done at once, and say `EAGAIN` where that is nothing.
    pub(crate) fn is_at_once(&self) -> bool {
        self.at_once
    }

    /// From now on the call may wait.
    pub(crate) async fn step_aside(&mut self) {
        self.at_once = false;
        executor::step_aside().await;
    }

    /// The file's position. `EAGAIN`: another call has it, which may be waiting.
    pub(crate) fn position<'a>(&self, file: &'a OpenFile) -> SysResult<PositionGuard<'a>> {
        if self.at_once { file.pos().try_lock().ok_or(Errno::EAGAIN.into()) } else { Ok(file.pos().lock()) }
    }

    /// A step was made: if others had to take over from it, the next calls of the file step aside.
    pub(crate) fn learn(&self, file: &OpenFile) {
        if self.at_once && executor::is_relieved() {
            file.set_slow();
        }
    }

    /// Reads what a step may.
    pub(crate) fn read(&self, file: &OpenFile, buf: &mut [u8], pos: u64) -> SysResult<usize> {
        let ops = file.ops();
        Ok(if self.at_once { ops.read_at_once(file, buf, pos) } else { ops.read(file, buf, pos) }?)
    }

    /// What a step found of `size` bytes at the file's position, which it holds. `EAGAIN` for a part that others could
    /// read on behind before the rest is there: a read is one step.
    pub(crate) fn whole(&self, file: &OpenFile, pos: u64, size: usize, found: usize) -> vfs::Result<usize> {
        let end = pos.saturating_add(found as u64);
        let may_be_part =
            self.at_once && !self.takes_part && (1..size).contains(&found) && end.is_multiple_of(PAGE);
        if may_be_part && !file.inode().metadata().is_ok_and(|meta| meta.size <= end) {
            return Err(Errno::EAGAIN);
        }
        Ok(found)
    }
}
