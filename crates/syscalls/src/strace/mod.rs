//! `--strace`: one line for each call, in the format of strace(1).
//!
//! [`calls`] says what the arguments of each call are, [`values`] writes them, [`names`] knows the words. Nothing here
//! believes the guest: what cannot be read is shown as an address, what is long is cut, and what does not print is
//! escaped, so that no guest can write a line of its own.

mod calls;
mod names;
mod structures;
mod values;

use linux_abi::Errno;

use crate::context::Resume;
use crate::{Cx, Restart, SysError, SysResult};
use calls::Kind;
use values::{Memory, Written};

/// Where values begin, unless the arguments need more room.
const COLUMN: usize = 40;

/// A call under trace, between its start and its end.
pub struct Trace {
    /// The line so far: what is known before the call.
    line: String,
    args: [u64; 6],
    kinds: &'static [Kind],
    /// How many arguments are written.
    done: usize,
    /// The value of the call is an address.
    gives_address: bool,
    /// A length that the call may change, as it was.
    length: Option<u32>,
}

/// Begins the trace of a call, if tracing is on.
pub fn enter(cx: &mut Cx<'_>, nr: u32, args: &[u64; 6]) -> Option<Box<Trace>> {
    if !cx.kernel().config.strace {
        return None;
    }
    Some(begin(cx, nr, args))
}

#[cold]
fn begin(cx: &mut Cx<'_>, nr: u32, args: &[u64; 6]) -> Box<Trace> {
    let name = linux_abi::sysno::name(nr).map_or_else(|| format!("syscall_{nr:#x}"), str::to_owned);
    let args = match (name.as_str(), *args) {
        // strace has an order of its own.
        ("clone", [flags, stack, parent, child, tls, rest]) => [stack, flags, parent, tls, child, rest],
        (_, args) => args,
    };
    let mut trace = Box::new(Trace {
        line: format!("[pid {:5}] {name}(", cx.thread.tid()),
        args,
        kinds: calls::kinds(nr, &name),
        done: 0,
        gives_address: matches!(name.as_str(), "mmap" | "mremap" | "brk" | "shmat"),
        length: None,
    });
    let mut memory = Memory::before(cx);
    let length = trace.kinds.iter().position(|kind| matches!(kind, Kind::LengthOut));
    if let Some(addr) = length.and_then(|index| trace.args.get(index)) {
        trace.length = memory.read(*addr, 4).map(|bytes| structures::half(&bytes, 0));
    }
    trace.write(&mut memory);
    trace
}

impl Trace {
    /// Writes arguments, those that the call fills only after it.
    fn write(&mut self, memory: &mut Memory<'_, '_>) {
        while let (Some(kind), Some(_)) = (self.kinds.get(self.done), self.args.get(self.done)) {
            let at = self.line.len();
            match values::argument(*kind, self.done, &self.args, memory, &mut self.line) {
                Written::Done => {
                    if self.done > 0 {
                        self.line.insert_str(at, ", ");
                    }
                }
                Written::Nothing => {}
                Written::Later => return,
            }
            self.done += 1;
        }
    }

    /// Writes the line.
    pub fn leave(&mut self, cx: &mut Cx<'_>, result: &SysResult) {
        let exited = matches!(cx.local.resume, Resume::Exited);
        // The call may be made again, and be told of again.
        let (length, done) = (self.line.len(), self.done);
        let value = *result.as_ref().unwrap_or(&-1);
        let mut memory = Memory::after(cx, value, self.length);
        self.write(&mut memory);
        let told = values::told_with_result(self.kinds, &self.args, &mut memory).unwrap_or_default();
        let shown = match result {
            _ if exited => "?".to_owned(),
            Ok(value) if self.gives_address || told.starts_with(" (flags") => format!("{value:#x}"),
            Ok(value) => value.to_string(),
            Err(SysError::Errno(errno)) => format!("-1 {errno}"),
            Err(SysError::Interrupted(kind)) => format!("? {}", restart(*kind)),
        };
        self.line.push_str(") ");
        tracing::info!(target: "strace", "{:<COLUMN$}= {shown}{told}", self.line);
        self.line.truncate(length);
        self.done = done;
    }
}

/// What strace shows of an interrupted call: Linux's own names.
fn restart(kind: Restart) -> &'static str {
    match kind {
        Restart::IfSaRestart => "ERESTARTSYS (To be restarted if SA_RESTART is set)",
        Restart::Always => "ERESTARTNOINTR (To be restarted)",
        Restart::Never => "ERESTARTNOHAND (To be restarted if no handler)",
    }
}

/// Whether a call that gave this value has failed.
fn failed(value: i64) -> bool {
    (-4095..0).contains(&value) || value == Errno::EFAULT.to_ret()
}
