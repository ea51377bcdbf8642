//! Who calls a file operation: credentials and guest memory, for `ioctl` and permission checks.

use std::any::Any;

use identity::Credentials;

use crate::Result;

/// The calling guest thread as a file sees it. `kernel::Thread`'s context implements it; file
/// systems above the kernel (devpts, proc) downcast `as_any` for more.
pub trait Caller: Send {
    /// Credentials of the thread.
    fn credentials(&self) -> &Credentials;
    /// The permissions that its new files do not get: umask(2).
    fn umask(&self) -> u32 {
        0
    }
    /// Process id (tgid) of the caller.
    fn pid(&self) -> i32;
    /// Reads guest memory; `EFAULT`.
    fn read_memory(&mut self, addr: u64, buf: &mut [u8]) -> Result<()>;
    /// Writes guest memory; `EFAULT`.
    fn write_memory(&mut self, addr: u64, buf: &[u8]) -> Result<()>;
    /// The concrete type.
    fn as_any(&self) -> &dyn Any;
}
