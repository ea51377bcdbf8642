//! Standard output, whose reader may be gone.

use std::fmt::Arguments;
use std::io::{self, Write, stdout};

use anyhow::{Context, Result};

/// What a shell says of a program that SIGPIPE ended.
const READER_GONE: i32 = 128 + 13;

/// `println!` that fails where that panics.
macro_rules! say {
    ($($part:tt)*) => { $crate::output::line(format_args!($($part)*)) };
}
pub(crate) use say;

/// Prints a line. Ends this program where nobody reads, as the signal would if Rust did not ignore it.
pub(crate) fn line(text: Arguments<'_>) -> Result<()> {
    let mut out = stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(READER_GONE),
        written => written.context("write to standard output"),
    }
}
