//! Guest memory: what came with a request, what goes with the answer, and the rest.

use std::os::fd::BorrowedFd;

use linux_abi::Errno;
use slot::layout::DATA_SIZE;
use slot::{RECORDS, Record};

use super::GuestThread;
use crate::process::{read_process, to_fault, touches_reserved};

/// Reads from a host file, or writes to it, at a position there; a read may have to do with what is there at once.
type AtHostFile<'a> = dyn FnMut(BorrowedFd<'_>, u64, bool) -> Result<usize, Errno> + 'a;

impl GuestThread {
    /// Copies from guest memory; `EFAULT`.
    pub fn copy_in(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
        if buf.is_empty() {
            return Ok(());
        }
        if let Some(offset) = self.travelled(addr, buf.len()) {
            return self.core.slot.read_data(offset, buf);
        }
        let n = read_process(&self.core.process, addr, buf)?;
        if n == buf.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// The bytes at `addr` that came with the request, at most `max`: a hint, to save a host call.
    pub fn copy_in_travelled(&mut self, addr: u64, max: usize) -> Option<Vec<u8>> {
        let request = self.request.as_ref()?;
        let record = request.in_records.iter().take(request.in_count).find(|r| r.addr == addr)?;
        let len = (record.len as usize).min(max).min(DATA_SIZE);
        let mut bytes = vec![0; len];
        self.core.slot.read_data(record.offset as usize, &mut bytes).ok()?;
        Some(bytes)
    }

    /// Copies from guest memory as it will be once the answer has arrived; `EFAULT`.
    pub fn copy_in_answered(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
        if read_process(&self.core.process, addr, buf)? != buf.len() {
            return Err(Errno::EFAULT);
        }
        let end = addr.checked_add(buf.len() as u64).ok_or(Errno::EFAULT)?;
        for record in &self.out {
            let first = addr.max(record.addr);
            let last = end.min(record.addr.saturating_add(u64::from(record.len)));
            let at = |from: u64| usize::try_from(first.saturating_sub(from)).map_err(|_| Errno::EFAULT);
            let len = usize::try_from(last.saturating_sub(first)).map_err(|_| Errno::EFAULT)?;
            if len == 0 {
                continue;
            }
            let (to, from) = (at(addr)?, at(record.addr)?.saturating_add(record.offset as usize));
            let part = buf.get_mut(to..).and_then(|rest| rest.get_mut(..len)).ok_or(Errno::EFAULT)?;
            self.core.slot.read_data(from, part)?;
        }
        Ok(())
    }

    fn travelled(&self, addr: u64, len: usize) -> Option<usize> {
        let request = self.request.as_ref()?;
        request.in_records.iter().take(request.in_count).find_map(|r| {
            let skip = addr.checked_sub(r.addr)?;
            let end = skip.checked_add(len as u64)?;
            (end <= u64::from(r.len))
                .then(|| (r.offset as usize).checked_add(usize::try_from(skip).ok()?))
                .flatten()
        })
    }

    /// Copies to guest memory with the answer where it fits (a bad address then gives `EFAULT` as the call's
    /// result), else at once; `EFAULT`.
    pub fn copy_out(&mut self, addr: u64, buf: &[u8]) -> Result<(), Errno> {
        if buf.is_empty() {
            return Ok(());
        }
        if addr == 0 || touches_reserved(addr, buf.len() as u64) {
            return Err(Errno::EFAULT);
        }
        let end = self.used.checked_add(buf.len());
        let fits = self.request.is_some() && self.out.len() < RECORDS && end.is_some_and(|e| e <= DATA_SIZE);
        if fits {
            self.core.slot.write_data(self.used, buf)?;
            self.out.push(Record { addr, len: buf.len() as u32, offset: self.used as u32 });
            self.used = (self.used + buf.len()).next_multiple_of(16);
            return Ok(());
        }
        self.copy_out_now(addr, buf)
    }

    /// As `copy_out` of up to `len` bytes that `read` has read from a host file: it is given what reads them to where
    /// they go along with the answer. None if they do not fit there, or `read` gives none.
    pub fn copy_out_file(
        &mut self,
        addr: u64,
        len: usize,
        read: impl FnOnce(&mut AtHostFile<'_>) -> Option<Result<usize, Errno>>,
    ) -> Option<Result<usize, Errno>> {
        let fits = self.used.checked_add(len).is_some_and(|end| end <= DATA_SIZE);
        let bad = addr == 0 || touches_reserved(addr, len as u64);
        if bad || self.request.is_none() || self.out.len() >= RECORDS || !fits {
            return None;
        }
        let (slot, offset) = (self.core.slot, self.used);
        let result = read(&mut |fd, pos, at_once| slot.read_file(offset, len, fd, pos, at_once))?;
        if let Ok(count @ 1..) = result {
            let count = count.min(len);
            self.out.push(Record { addr, len: count as u32, offset: offset as u32 });
            self.used = (offset + count).next_multiple_of(16);
        }
        Some(result)
    }

    /// Has `write` write `len` bytes at `addr` to a host file: it is given what does so. None if they did not come with
    /// the request, or `write` gives none.
    pub fn copy_in_file(
        &mut self,
        addr: u64,
        len: usize,
        write: impl FnOnce(&mut AtHostFile<'_>) -> Option<Result<usize, Errno>>,
    ) -> Option<Result<usize, Errno>> {
        let (slot, offset) = (self.core.slot, self.travelled(addr, len)?);
        write(&mut |fd, pos, _| slot.write_file(offset, len, fd, pos))
    }

    /// Copies to guest memory at once; `EFAULT`.
    pub fn copy_out_now(&mut self, addr: u64, buf: &[u8]) -> Result<(), Errno> {
        let pid = self.core.process.pid();
        if pid == 0 || touches_reserved(addr, buf.len() as u64) {
            return Err(Errno::EFAULT);
        }
        let n = host::process::write_memory(pid, addr, buf).map_err(to_fault)?;
        if n == buf.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Copies out now what waits for a plain return: somebody else is about to look.
    pub fn flush_out(&mut self) {
        self.flush();
    }
    /// Copies out what waits for a plain return.
    pub(super) fn flush(&mut self) {
        for record in std::mem::take(&mut self.out) {
            let mut bytes = vec![0; record.len as usize];
            if self.core.slot.read_data(record.offset as usize, &mut bytes).is_ok() {
                // The call has succeeded already; Linux would have faulted earlier.
                let _ = self.copy_out_now(record.addr, &bytes);
            }
        }
        self.used = 0;
    }
}
