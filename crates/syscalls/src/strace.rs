//! `--strace`: one line for each call in the format of strace(1).

use crate::{Cx, SysError, SysResult};

/// A call under trace, between its start and its end.
pub struct Trace {
    head: String,
}

/// Begins the trace of a call, if tracing is on.
pub fn enter(cx: &Cx<'_>, nr: u32, args: &[u64; 6]) -> Option<Trace> {
    if !cx.kernel().config.strace {
        return None;
    }
    let name = linux_abi::sysno::name(nr).map_or_else(|| format!("syscall_{nr:#x}"), str::to_owned);
    let args: Vec<String> =
        args.iter().map(|a| if *a < 4096 { a.to_string() } else { format!("{a:#x}") }).collect();
    Some(Trace { head: format!("[pid {:5}] {name}({})", cx.thread.tid(), args.join(", ")) })
}

impl Trace {
    /// Writes the line.
    pub fn leave(&self, _cx: &Cx<'_>, result: &SysResult) {
        let result = match result {
            Ok(value) if *value < 4096 => value.to_string(),
            Ok(value) => format!("{value:#x}"),
            Err(SysError::Errno(errno)) => format!("-1 {errno}"),
            Err(SysError::Interrupted(kind)) => format!("? interrupted ({kind:?})"),
        };
        tracing::info!(target: "strace", "{} = {result}", self.head);
    }
}
