//! What the arguments of each call are.

use super::names::{self, Bits, Names};

/// What one argument is. A number in a kind is the place of the argument that counts its elements.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A signed number of 32 bits.
    Int,
    /// A signed number of 64 bits.
    Long,
    /// An unsigned number.
    Unsigned,
    /// A number by its bits.
    Hex,
    /// An address, whatever is there.
    Address,
    /// A descriptor.
    Fd,
    /// A descriptor of a folder, or `AT_FDCWD`.
    DirFd,
    /// Permission bits.
    Mode,
    /// The same, of an open that may make a file: the flags are this argument.
    OpenMode(usize),
    /// A path.
    Path,
    /// A path that the call gives: its value counts the bytes.
    PathOut,
    /// Bytes that the call takes.
    Bytes(usize),
    /// Bytes that the call gives: its value counts them.
    BytesOut,
    /// Flags.
    Flags(&'static Bits),
    /// One of several.
    Name(Names),
    /// A signal.
    Signal,
    /// A set of signals.
    Signals,
    /// The same, from the call.
    SignalsOut,
    /// `struct sigaction`.
    Action,
    /// The same, from the call.
    ActionOut,
    /// `struct stat` from the call.
    StatOut,
    /// `struct statx` from the call.
    StatxOut,
    /// `struct timespec`.
    Time,
    /// The same, from the call.
    TimeOut,
    /// A list of strings.
    Strings,
    /// A list of strings, of which only the number is shown.
    Environment,
    /// `struct pollfd`s.
    Polls(usize),
    /// `struct sockaddr` of so many bytes.
    Socket(usize),
    /// The same, from the call; the argument points to the length.
    SocketOut(usize),
    /// A length that is given and taken.
    LengthOut,
    /// The protocol of socket(2).
    Protocol,
    /// `struct iovec`s that the call takes.
    Vectors(usize),
    /// `struct iovec`s that the call fills.
    VectorsOut(usize),
    /// `struct msghdr` that the call takes.
    Message,
    /// `struct msghdr` that the call fills.
    MessageOut,
    /// Two descriptors from the call.
    PairOut,
    /// The status of a child.
    StatusOut,
    /// `struct rlimit`.
    Limit,
    /// The same, from the call.
    LimitOut,
    /// The operation of futex(2).
    Futex,
    /// The third argument of fcntl(2).
    Control,
    /// An option of the level of the argument before.
    Option,
    /// Its value.
    OptionValue(usize),
    /// The same, from the call; the argument points to the length.
    OptionOut(usize),
    /// `struct epoll_event`.
    Event,
    /// The same from the call, as many as its value.
    EventsOut,
    /// `struct clone_args`.
    CloneArgs,
    /// Flags and signal of clone(2).
    Clone,
    /// An address of clone(2) with its label, shown where one of these flags (the second argument) is set.
    Labelled(&'static str, u64),
    /// `struct utsname` from the call.
    UtsOut,
}

use Kind::*;

const GENERIC: [&[Kind]; 7] = [&[], &[Hex; 1], &[Hex; 2], &[Hex; 3], &[Hex; 4], &[Hex; 5], &[Hex; 6]];

/// The arguments of a call.
pub(super) fn kinds(nr: u32, name: &str) -> &'static [Kind] {
    if let Some((_, kinds)) = CALLS.iter().find(|(known, _)| *known == name) {
        return kinds;
    }
    let row = crate::table::TABLE.iter().find(|row| row.nr == nr);
    row.and_then(|row| GENERIC.get(usize::from(row.args))).copied().unwrap_or(GENERIC[6])
}

/// Known ones; others are shown as numbers.
const CALLS: &[(&str, &[Kind])] = &[
    ("read", &[Fd, BytesOut, Unsigned]),
    ("write", &[Fd, Bytes(2), Unsigned]),
    ("pread64", &[Fd, BytesOut, Unsigned, Long]),
    ("pwrite64", &[Fd, Bytes(2), Unsigned, Long]),
    ("readv", &[Fd, VectorsOut(2), Int]),
    ("writev", &[Fd, Vectors(2), Int]),
    ("open", &[Path, Flags(&names::OPEN), OpenMode(1)]),
    ("openat", &[DirFd, Path, Flags(&names::OPEN), OpenMode(2)]),
    ("creat", &[Path, Mode]),
    ("close", &[Fd]),
    ("stat", &[Path, StatOut]),
    ("lstat", &[Path, StatOut]),
    ("fstat", &[Fd, StatOut]),
    ("newfstatat", &[DirFd, Path, StatOut, Flags(&names::AT)]),
    ("statx", &[DirFd, Path, Flags(&names::AT), Hex, StatxOut]),
    ("access", &[Path, Flags(&names::ACCESS)]),
    ("faccessat", &[DirFd, Path, Flags(&names::ACCESS)]),
    ("faccessat2", &[DirFd, Path, Flags(&names::ACCESS), Flags(&names::AT)]),
    ("lseek", &[Fd, Long, Name(names::SEEK)]),
    ("readlink", &[Path, PathOut, Unsigned]),
    ("readlinkat", &[DirFd, Path, PathOut, Unsigned]),
    ("getcwd", &[PathOut, Unsigned]),
    ("chdir", &[Path]),
    ("fchdir", &[Fd]),
    ("chroot", &[Path]),
    ("mkdir", &[Path, Mode]),
    ("mkdirat", &[DirFd, Path, Mode]),
    ("rmdir", &[Path]),
    ("unlink", &[Path]),
    ("unlinkat", &[DirFd, Path, Flags(&names::AT_REMOVE)]),
    ("rename", &[Path, Path]),
    ("renameat", &[DirFd, Path, DirFd, Path]),
    ("renameat2", &[DirFd, Path, DirFd, Path, Flags(&names::RENAME)]),
    ("link", &[Path, Path]),
    ("linkat", &[DirFd, Path, DirFd, Path, Flags(&names::AT)]),
    ("symlink", &[Path, Path]),
    ("symlinkat", &[Path, DirFd, Path]),
    ("chmod", &[Path, Mode]),
    ("fchmod", &[Fd, Mode]),
    ("fchmodat", &[DirFd, Path, Mode]),
    ("chown", &[Path, Int, Int]),
    ("lchown", &[Path, Int, Int]),
    ("fchown", &[Fd, Int, Int]),
    ("fchownat", &[DirFd, Path, Int, Int, Flags(&names::AT)]),
    ("umask", &[Mode]),
    ("truncate", &[Path, Long]),
    ("ftruncate", &[Fd, Long]),
    ("setxattr", &[Path, Path, Bytes(3), Unsigned, Flags(&names::XATTR)]),
    ("lsetxattr", &[Path, Path, Bytes(3), Unsigned, Flags(&names::XATTR)]),
    ("fsetxattr", &[Fd, Path, Bytes(3), Unsigned, Flags(&names::XATTR)]),
    ("setxattrat", &[DirFd, Path, Flags(&names::AT), Path, Address, Unsigned]),
    ("getxattr", &[Path, Path, BytesOut, Unsigned]),
    ("lgetxattr", &[Path, Path, BytesOut, Unsigned]),
    ("fgetxattr", &[Fd, Path, BytesOut, Unsigned]),
    ("getxattrat", &[DirFd, Path, Flags(&names::AT), Path, Address, Unsigned]),
    ("listxattr", &[Path, BytesOut, Unsigned]),
    ("llistxattr", &[Path, BytesOut, Unsigned]),
    ("flistxattr", &[Fd, BytesOut, Unsigned]),
    ("listxattrat", &[DirFd, Path, Flags(&names::AT), BytesOut, Unsigned]),
    ("removexattr", &[Path, Path]),
    ("lremovexattr", &[Path, Path]),
    ("fremovexattr", &[Fd, Path]),
    ("removexattrat", &[DirFd, Path, Flags(&names::AT), Path]),
    ("getdents64", &[Fd, Address, Unsigned]),
    ("dup", &[Fd]),
    ("dup2", &[Fd, Fd]),
    ("dup3", &[Fd, Fd, Flags(&names::OPEN_BITS)]),
    ("fcntl", &[Fd, Name(names::FCNTL), Control]),
    ("ioctl", &[Fd, Name(names::IOCTL), Address]),
    ("flock", &[Fd, Flags(&names::LOCK)]),
    ("fsync", &[Fd]),
    ("fdatasync", &[Fd]),
    ("pipe", &[PairOut]),
    ("pipe2", &[PairOut, Flags(&names::OPEN_BITS)]),
    ("mount", &[Path, Path, Path, Hex, Address]),
    ("umount2", &[Path, Hex]),
    ("mount_setattr", &[DirFd, Path, Hex, Address, Unsigned]),
    ("mmap", &[Address, Unsigned, Flags(&names::PROT), Flags(&names::MAP), Fd, Hex]),
    ("mprotect", &[Address, Unsigned, Flags(&names::PROT)]),
    ("munmap", &[Address, Unsigned]),
    ("mremap", &[Address, Unsigned, Unsigned, Hex, Address]),
    ("madvise", &[Address, Unsigned, Int]),
    ("brk", &[Address]),
    ("execve", &[Path, Strings, Environment]),
    ("execveat", &[DirFd, Path, Strings, Environment, Flags(&names::AT)]),
    ("exit", &[Int]),
    ("exit_group", &[Int]),
    (
        "clone",
        &[
            Labelled("child_stack", u64::MAX),
            Clone,
            Labelled("parent_tid", 0x10_1000),
            Labelled("tls", 0x8_0000),
            Labelled("child_tidptr", 0x120_0000),
        ],
    ),
    ("clone3", &[CloneArgs, Unsigned]),
    ("wait4", &[Int, StatusOut, Flags(&names::WAIT), Address]),
    ("waitid", &[Int, Int, Address, Flags(&names::WAIT), Address]),
    ("kill", &[Int, Signal]),
    ("tkill", &[Int, Signal]),
    ("tgkill", &[Int, Int, Signal]),
    ("rt_sigaction", &[Signal, Action, ActionOut, Unsigned]),
    ("rt_sigprocmask", &[Name(names::SIGPROCMASK), Signals, SignalsOut, Unsigned]),
    ("rt_sigpending", &[SignalsOut, Unsigned]),
    ("rt_sigsuspend", &[Signals, Unsigned]),
    ("rt_sigtimedwait", &[Signals, Address, Time, Unsigned]),
    ("sigaltstack", &[Address, Address]),
    ("futex", &[Address, Futex, Int, Address]),
    ("set_tid_address", &[Address]),
    ("set_robust_list", &[Address, Unsigned]),
    ("getuid", &[]),
    ("setuid", &[Int]),
    ("setgid", &[Int]),
    ("setpgid", &[Int, Int]),
    ("getpgid", &[Int]),
    ("getsid", &[Int]),
    ("prctl", &[Name(names::PRCTL), Hex, Hex, Hex, Hex]),
    ("arch_prctl", &[Name(names::ARCH_PRCTL), Address]),
    ("getrlimit", &[Name(names::RLIMIT), LimitOut]),
    ("setrlimit", &[Name(names::RLIMIT), Limit]),
    ("prlimit64", &[Int, Name(names::RLIMIT), Limit, LimitOut]),
    ("uname", &[UtsOut]),
    ("getrandom", &[BytesOut, Unsigned, Hex]),
    ("nanosleep", &[Time, Address]),
    ("clock_nanosleep", &[Name(names::CLOCK), Flags(&names::TIMER), Time, Address]),
    ("clock_gettime", &[Name(names::CLOCK), TimeOut]),
    ("clock_getres", &[Name(names::CLOCK), TimeOut]),
    ("poll", &[Polls(1), Unsigned, Int]),
    ("ppoll", &[Polls(1), Unsigned, Time, Signals, Unsigned]),
    ("epoll_create1", &[Flags(&names::EPOLL_CREATE)]),
    ("epoll_ctl", &[Fd, Name(names::EPOLL_CTL), Fd, Event]),
    ("epoll_wait", &[Fd, EventsOut, Int, Int]),
    ("epoll_pwait", &[Fd, EventsOut, Int, Int, Signals, Unsigned]),
    ("eventfd2", &[Unsigned, Flags(&names::EVENTFD)]),
    ("socket", &[Name(names::FAMILY), Flags(&names::SOCKET), Protocol]),
    ("socketpair", &[Name(names::FAMILY), Flags(&names::SOCKET), Protocol, PairOut]),
    ("bind", &[Fd, Socket(2), Unsigned]),
    ("connect", &[Fd, Socket(2), Unsigned]),
    ("listen", &[Fd, Int]),
    ("accept", &[Fd, SocketOut(2), LengthOut]),
    ("accept4", &[Fd, SocketOut(2), LengthOut, Flags(&names::SOCKET_BITS)]),
    ("getsockname", &[Fd, SocketOut(2), LengthOut]),
    ("getpeername", &[Fd, SocketOut(2), LengthOut]),
    ("shutdown", &[Fd, Name(names::SHUTDOWN)]),
    ("sendto", &[Fd, Bytes(2), Unsigned, Flags(&names::MSG), Socket(5), Unsigned]),
    ("recvfrom", &[Fd, BytesOut, Unsigned, Flags(&names::MSG), SocketOut(5), LengthOut]),
    ("sendmsg", &[Fd, Message, Flags(&names::MSG)]),
    ("recvmsg", &[Fd, MessageOut, Flags(&names::MSG)]),
    ("setsockopt", &[Fd, Name(names::LEVEL), Option, OptionValue(4), Unsigned]),
    ("getsockopt", &[Fd, Name(names::LEVEL), Option, OptionOut(4), LengthOut]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_a_call_with_its_arguments() {
        for (index, (name, kinds)) in CALLS.iter().enumerate() {
            let row = crate::table::TABLE.iter().find(|row| row.name == *name);
            let row = row.unwrap_or_else(|| panic!("{name} is no call"));
            // Some handlers need fewer than Linux has.
            assert!(kinds.len() >= usize::from(row.args) || *name == "futex", "{name}");
            assert!(CALLS.iter().skip(index + 1).all(|(other, _)| other != name), "{name} is there twice");
        }
    }
}
