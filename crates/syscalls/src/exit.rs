//! exit(2), exit_group(2).

use kernel::process::ExitStatus;

use crate::context::Resume;
use crate::{Cx, SysResult};

/// exit(2): ends the thread; the last one's code becomes that of the process.
pub fn exit(cx: &mut Cx<'_>, code: i32) -> SysResult {
    cx.local.resume = Resume::Exited;
    Ok(i64::from(code))
}

/// exit_group(2): ends the process.
pub fn exit_group(cx: &mut Cx<'_>, code: i32) -> SysResult {
    cx.process().begin_exit(ExitStatus::Exited(code & 0xff));
    cx.local.resume = Resume::Exited;
    Ok(i64::from(code))
}
