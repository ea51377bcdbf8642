//! Sockets: socket(2), socket(7), recv(2), cmsg(3), unix(7).

use bitflags::bitflags;

/// Not specified; connect(2) to it dissolves an association.
pub const AF_UNSPEC: u16 = 0;
/// Local sockets.
pub const AF_UNIX: u16 = 1;
/// IPv4.
pub const AF_INET: u16 = 2;
/// IPv6.
pub const AF_INET6: u16 = 10;
/// Kernel user interface.
pub const AF_NETLINK: u16 = 16;
/// Packets of an interface.
pub const AF_PACKET: u16 = 17;

/// Byte stream.
pub const SOCK_STREAM: u32 = 1;
/// Datagrams.
pub const SOCK_DGRAM: u32 = 2;
/// Raw protocol access.
pub const SOCK_RAW: u32 = 3;
/// Connected datagrams that keep their order.
pub const SOCK_SEQPACKET: u32 = 5;
/// The bits of the type that are not flags.
pub const SOCK_TYPE_MASK: u32 = 0xf;
/// Close-on-exec.
pub const SOCK_CLOEXEC: u32 = 0o2000000;
/// Non-blocking.
pub const SOCK_NONBLOCK: u32 = 0o4000;

/// Longest address (`struct sockaddr_storage`).
pub const SOCKADDR_MAX: usize = 128;
/// Size of `struct sockaddr_un`.
pub const SOCKADDR_UN: usize = 110;
/// The most that listen(2) takes as backlog (/proc/sys/net/core/somaxconn).
pub const SOMAXCONN: i32 = 4096;

/// Level of socket(7) options.
pub const SOL_SOCKET: i32 = 1;

#[expect(missing_docs, reason = "named in socket(7)")]
pub mod so {
    pub const DEBUG: i32 = 1;
    pub const REUSEADDR: i32 = 2;
    pub const TYPE: i32 = 3;
    pub const ERROR: i32 = 4;
    pub const DONTROUTE: i32 = 5;
    pub const BROADCAST: i32 = 6;
    pub const SNDBUF: i32 = 7;
    pub const RCVBUF: i32 = 8;
    pub const KEEPALIVE: i32 = 9;
    pub const OOBINLINE: i32 = 10;
    pub const NO_CHECK: i32 = 11;
    pub const PRIORITY: i32 = 12;
    pub const LINGER: i32 = 13;
    pub const REUSEPORT: i32 = 15;
    pub const PASSCRED: i32 = 16;
    pub const PEERCRED: i32 = 17;
    pub const RCVLOWAT: i32 = 18;
    pub const SNDLOWAT: i32 = 19;
    pub const RCVTIMEO: i32 = 20;
    pub const SNDTIMEO: i32 = 21;
    pub const BINDTODEVICE: i32 = 25;
    pub const ATTACH_FILTER: i32 = 26;
    pub const DETACH_FILTER: i32 = 27;
    pub const TIMESTAMP: i32 = 29;
    pub const ACCEPTCONN: i32 = 30;
    pub const SNDBUFFORCE: i32 = 32;
    pub const RCVBUFFORCE: i32 = 33;
    pub const TIMESTAMPNS: i32 = 35;
    pub const MARK: i32 = 36;
    pub const TIMESTAMPING: i32 = 37;
    pub const PROTOCOL: i32 = 38;
    pub const DOMAIN: i32 = 39;
    pub const RXQ_OVFL: i32 = 40;
    pub const PEEK_OFF: i32 = 42;
    pub const LOCK_FILTER: i32 = 44;
    pub const BUSY_POLL: i32 = 46;
    pub const BPF_EXTENSIONS: i32 = 48;
    pub const INCOMING_CPU: i32 = 49;
    pub const INCOMING_NAPI_ID: i32 = 56;
    pub const COOKIE: i32 = 57;
    pub const PEERGROUPS: i32 = 59;
    pub const ZEROCOPY: i32 = 60;
    pub const BINDTOIFINDEX: i32 = 62;
    pub const TIMESTAMP_NEW: i32 = 63;
    pub const TIMESTAMPNS_NEW: i32 = 64;
    pub const TIMESTAMPING_NEW: i32 = 65;
    pub const PASSPIDFD: i32 = 76;
    pub const PEERPIDFD: i32 = 77;
}

/// Control message of file descriptors (unix(7)).
pub const SCM_RIGHTS: i32 = 1;
/// Control message of the sender's credentials (unix(7)).
pub const SCM_CREDENTIALS: i32 = 2;
/// Control message of the sender as a pidfd (unix(7)).
pub const SCM_PIDFD: i32 = 4;
/// The most descriptors in one message.
pub const SCM_MAX_FD: usize = 253;

bitflags! {
    /// Flags of send(2) and recv(2). Unknown bits are kept.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MsgFlags: u32 {
        const OOB = 0x1;
        const PEEK = 0x2;
        const DONTROUTE = 0x4;
        const CTRUNC = 0x8;
        const TRUNC = 0x20;
        const DONTWAIT = 0x40;
        const EOR = 0x80;
        const WAITALL = 0x100;
        const CONFIRM = 0x800;
        const ERRQUEUE = 0x2000;
        const NOSIGNAL = 0x4000;
        const MORE = 0x8000;
        const WAITFORONE = 0x10000;
        const ZEROCOPY = 0x400_0000;
        const FASTOPEN = 0x2000_0000;
        const CMSG_CLOEXEC = 0x4000_0000;
        const _ = !0;
    }
}
