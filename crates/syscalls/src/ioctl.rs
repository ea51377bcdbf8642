//! ioctl(2): what it asks of every file; the rest is the file's own.

use kernel::FdFlags;
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;

use crate::args::Ptr;
use crate::{Cx, SysResult};

/// ioctl(2).
pub async fn ioctl(cx: &mut Cx<'_>, fd: i32, cmd: u32, arg: u64) -> SysResult {
    const FIONCLEX: u32 = 0x5450;
    const FIOCLEX: u32 = 0x5451;
    const FIONBIO: u32 = 0x5421;
    const FIOASYNC: u32 = 0x5452;
    let file = cx.file(fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Errno::EBADF.into());
    }
    match cmd {
        FIOCLEX | FIONCLEX => {
            cx.files().set_flags(fd, FdFlags { cloexec: cmd == FIOCLEX })?;
            Ok(0)
        }
        FIONBIO | FIOASYNC => {
            let on: i32 = cx.read(Ptr(arg))?;
            let bit = if cmd == FIONBIO { OpenFlags::NONBLOCK } else { OpenFlags::ASYNC };
            let flags = if on != 0 { file.flags() | bit } else { file.flags() - bit };
            if cmd == FIOASYNC && file.ops().fasync().is_none() {
                return Err(Errno::ENOTTY.into());
            }
            crate::file_owner::set_flags(cx, &file, fd, flags);
            Ok(0)
        }
        _ => {
            if let Some(value) = crate::file_owner::ioctl(cx, &file, fd, cmd, arg)? {
                return Ok(value);
            }
            if let Some(listener) = kernel::guest_filter::listener_of(&file) {
                return Box::pin(crate::user_notification::ioctl(cx, &listener, &file, fd, cmd, arg)).await;
            }
            let ops = file.ops().clone();
            let value = ops.ioctl(&file, cx, cmd, arg)?;
            kernel::posting::asked(cx.thread, fd, &file, cmd);
            Ok(value)
        }
    }
}
