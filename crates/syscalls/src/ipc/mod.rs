//! System V IPC: sysvipc(7); POSIX message queues: mq_overview(7).

pub mod mqueue;
pub mod msg;
pub mod sem;
pub mod shm;

use kernel::ipc::ThreadIpc;

use crate::{Cx, SysError, SysResult};

impl Cx<'_> {
    /// What the thread has of System V IPC.
    fn ipc(&self) -> SysResult<ThreadIpc> {
        // A thread that makes calls has not exited.
        self.thread.ipc().ok_or(SysError::Errno(linux_abi::Errno::ENOSYS))
    }
}
