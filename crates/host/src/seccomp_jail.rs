//! The last wall around the kernel process: an allow-list of host calls.
//!
//! Installed after the zygote was started, so that stubs (which have a filter
//! of their own) do not inherit it. A call that is not listed fails with
//! EPERM; one of another architecture kills the process. See seccomp(2).

use std::io;

mod connector;
mod program;
mod rules;

pub use rules::{Check, If, RULES, Rule};

/// The rules, with or without packet(7) sockets.
fn rules(packets: bool) -> impl Iterator<Item = &'static Rule> {
    let with = &rules::SOCKETS_WITH_PACKETS;
    RULES.iter().map(move |rule| if packets && rule.number == with.number { with } else { rule })
}

/// Locks every thread of the calling process in. Needs `no_new_privs`. `packets`: it may make packet(7) sockets.
pub fn install(packets: bool) -> io::Result<()> {
    load(rules(packets))
}

/// Locks the connector in, which is another process: see [`crate::connector`].
pub(crate) fn install_for_connector(binds: bool) -> io::Result<()> {
    let binding = if binds { connector::BINDING } else { &[] };
    load(connector::RULES.iter().chain(binding))
}

fn load<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> io::Result<()> {
    let filter = program::assemble(rules)
        .ok_or_else(|| io::Error::other("the filter of the kernel process is too long"))?;
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program is valid for its length and only read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    match result {
        0 => Ok(()),
        thread if thread > 0 => Err(io::Error::other(format!("thread {thread} has another filter"))),
        _ => Err(io::Error::last_os_error()),
    }
}
