//! Which host calls the connector ([`crate::connector`]) may make, and why.

use libc::AF_UNIX;

use super::rules::{Check, Rule, any, checked};

/// The list. It has no memory calls with rights to execute, opens nothing, and makes no process.
pub(super) const RULES: &[Rule] = &[
    // Requests, each with the descriptor of a socket file; from the kernel process alone.
    any(libc::SYS_recvmsg),
    // Answers, with a connected socket; to the kernel process alone.
    any(libc::SYS_sendmsg),
    // Whether it is a socket, and on a mount that was granted; read-only.
    any(libc::SYS_statx),
    // Sockets of files: its network namespace is empty, so that there are no abstract names.
    checked(libc::SYS_socket, &[Check::Equals(0, AF_UNIX as u32)]),
    // By a path below the folder of its own descriptors; its root is empty.
    any(libc::SYS_connect),
    // Ends what it has handed on.
    any(libc::SYS_close),
    // The allocator; memory that is not executable.
    any(libc::SYS_brk),
    // The same.
    checked(libc::SYS_mmap, &[Check::Without(2, libc::PROT_EXEC as u32)]),
    // Gives its own memory back.
    any(libc::SYS_munmap),
    // The same.
    any(libc::SYS_madvise),
    // A lock of the library that was taken; on its own memory.
    any(libc::SYS_futex),
    // The host goes on with a wait after a stop.
    any(libc::SYS_restart_syscall),
    // The end of a handler; itself alone.
    any(libc::SYS_rt_sigreturn),
    // It ends; itself alone.
    any(libc::SYS_exit_group),
];

/// What it may besides where it binds sockets, too.
pub(super) const BINDING: &[Rule] = &[
    // A new name in a folder on a mount that was granted, the current one for the moment.
    any(libc::SYS_bind),
    // Enters such a folder, and that of its own descriptors again.
    any(libc::SYS_fchdir),
    // Permissions of the new file; itself alone.
    any(libc::SYS_umask),
];
