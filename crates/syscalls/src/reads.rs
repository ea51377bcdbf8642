//! Files that are read at offsets so often that the host reads them for the guest's process directly.

use std::sync::Arc;

use kernel::posting::{reads_by, reads_often};
use platform::NativeOp;
use vfs::OpenFile;

use crate::{Cx, SysError, SysResult};

/// Called before each read of a file at an offset.
pub(crate) async fn reads_at(cx: &mut Cx<'_>, fd: i32, file: &Arc<OpenFile>) -> SysResult<()> {
    if reads_often(cx.thread, fd, file) && !bring(cx, fd, file).await? {
        // Not tried again at once.
        file.forget_reads_at();
    }
    Ok(())
}

/// Whether the thread reads it by itself from now on.
async fn bring(cx: &mut Cx<'_>, fd: i32, file: &Arc<OpenFile>) -> SysResult<bool> {
    let Some(host) = file.ops().read_only_host(file) else { return Ok(false) };
    // Who closes it has the process let it go.
    file.set_kept();
    let id = file.id();
    if cx.guest.keep_reading(id, &host).is_none() {
        match cx.native(NativeOp::Keep { file: host.clone(), id }).await {
            Ok(_) => {}
            // It is the guest's word.
            Err(SysError::Errno(_)) => return Ok(false),
            Err(err) => return Err(err),
        }
    }
    let number = cx.guest.keep_reading(id, &host);
    Ok(number.is_some_and(|number| reads_by(cx.thread, fd, file, number)))
}
