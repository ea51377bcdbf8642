//! From registers to typed arguments.

use linux_abi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{Cx, SysResult};

/// A register's value as a handler wants it. Narrow integers take the low bits, as Linux does.
pub trait FromArg {
    /// Decodes the register.
    fn from_arg(raw: u64) -> Self;
}

macro_rules! int_args {
    ($($t:ty)*) => { $(impl FromArg for $t {
        fn from_arg(raw: u64) -> $t { raw as $t }
    })* };
}
int_args!(u64 i64 u32 i32 usize);

/// An address in the guest, not believed until copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ptr(pub u64);

impl FromArg for Ptr {
    fn from_arg(raw: u64) -> Ptr {
        Ptr(raw)
    }
}

impl Ptr {
    /// Whether it is NULL.
    pub fn is_null(self) -> bool {
        self.0 == 0
    }
    /// This many bytes further on; `EFAULT` on wrap.
    #[expect(clippy::should_implement_trait, reason = "it may fail")]
    pub fn add(self, bytes: u64) -> SysResult<Ptr> {
        Ok(Ptr(self.0.checked_add(bytes).ok_or(Errno::EFAULT)?))
    }
}

impl Cx<'_> {
    /// Reads a plain structure of the guest; `EFAULT`.
    pub fn read<T: FromBytes + IntoBytes + Default>(&mut self, ptr: Ptr) -> SysResult<T> {
        let mut value = T::default();
        self.guest.copy_in(ptr.0, value.as_mut_bytes())?;
        Ok(value)
    }
    /// Writes a plain structure to the guest; `EFAULT`.
    pub fn write<T: IntoBytes + Immutable>(&mut self, ptr: Ptr, value: &T) -> SysResult<()> {
        self.guest.copy_out(ptr.0, value.as_bytes())?;
        Ok(())
    }
    /// Reads `len` bytes; `EFAULT`. The caller has bounded `len`.
    pub fn read_bytes(&mut self, ptr: Ptr, len: usize) -> SysResult<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.guest.copy_in(ptr.0, &mut bytes)?;
        Ok(bytes)
    }
    /// Reads a structure that grows from one Linux to the next: `size` is the caller's, of at least `least`
    /// bytes (`EINVAL`); what is beyond ours must be zero, and all is within a page (`E2BIG`). `EFAULT`.
    pub fn read_extensible<T: FromBytes + IntoBytes + Default>(
        &mut self,
        ptr: Ptr,
        size: usize,
        least: usize,
    ) -> SysResult<T> {
        if size < least {
            return Err(Errno::EINVAL.into());
        }
        if size > 4096 {
            return Err(Errno::E2BIG.into());
        }
        let bytes = self.read_bytes(ptr, size)?;
        if bytes.iter().skip(size_of::<T>()).any(|b| *b != 0) {
            return Err(Errno::E2BIG.into());
        }
        let mut value = T::default();
        for (to, from) in value.as_mut_bytes().iter_mut().zip(&bytes) {
            *to = *from;
        }
        Ok(value)
    }
    /// Writes bytes; `EFAULT`.
    pub fn write_bytes(&mut self, ptr: Ptr, bytes: &[u8]) -> SysResult<()> {
        self.guest.copy_out(ptr.0, bytes)?;
        Ok(())
    }
    /// Reads a NUL-terminated string of at most `max` bytes with its NUL; `None` if it is longer. `EFAULT`.
    pub fn read_cstr(&mut self, ptr: Ptr, max: usize) -> SysResult<Option<Vec<u8>>> {
        // What the shim sent along saves a host call.
        if let Some(mut sent) = self.guest.copy_in_travelled(ptr.0, max)
            && let Some(nul) = sent.iter().position(|b| *b == 0)
        {
            sent.truncate(nul);
            return Ok(Some(sent));
        }
        let mut out = Vec::new();
        let mut at = ptr.0;
        while out.len() < max {
            // Up to the end of the page, so that a string before an unmapped page is read whole.
            let room = 4096 - (at % 4096) as usize;
            let mut chunk = vec![0; room.min(max - out.len()).min(if out.is_empty() { 256 } else { 4096 })];
            self.guest.copy_in(at, &mut chunk)?;
            if let Some(nul) = chunk.iter().position(|b| *b == 0) {
                chunk.truncate(nul);
                out.extend_from_slice(&chunk);
                return Ok(Some(out));
            }
            at = at.checked_add(chunk.len() as u64).ok_or(Errno::EFAULT)?;
            out.extend_from_slice(&chunk);
        }
        Ok(None)
    }
    /// Reads a path; `EFAULT`, `ENAMETOOLONG`. An empty path is given as such.
    pub fn read_path(&mut self, ptr: Ptr) -> SysResult<Vec<u8>> {
        Ok(self.read_cstr(ptr, linux_abi::fs::PATH_MAX)?.ok_or(Errno::ENAMETOOLONG)?)
    }
}
