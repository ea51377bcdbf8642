//! Which options of host sockets guests may use.
//!
//! What is here changes only the one socket and carries plain values. Left out on purpose: filters
//! (programs run by the host), pointers, protocol modules.

use linux_abi::Errno;
use linux_abi::socket::{AF_INET, AF_INET6, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, SOL_SOCKET, so};

use crate::Result;
use crate::socket::int_option;

const IP: i32 = 0;
const TCP: i32 = 6;
const UDP: i32 = 17;
const IPV6: i32 = 41;
/// `IPV6_ADDRFORM`, which makes an IPv4 socket of one that is connected to a mapped address.
pub(crate) const ADDRFORM: (i32, i32) = (IPV6, 1);
const ICMPV6: i32 = 58;
const UDPLITE: i32 = 136;
const RAW: i32 = 255;
pub(super) const PACKET: i32 = 263;
const NETLINK: i32 = 270;

/// Whether getsockopt(2) goes to the host.
pub(super) fn may_get(kind: (u16, u32, i32), level: i32, name: i32) -> bool {
    may_set(kind, level, name)
        || match level {
            SOL_SOCKET => matches!(
                name,
                so::TYPE
                    | so::ERROR
                    | so::ACCEPTCONN
                    | so::DOMAIN
                    | so::PROTOCOL
                    | so::INCOMING_CPU
                    | so::INCOMING_NAPI_ID
                    | so::COOKIE
                    | so::SNDLOWAT
                    | so::PEERCRED
                    // SO_MEMINFO, SO_TXTIME, SO_PREFER_BUSY_POLL
                    | 55
                    | 61
                    | 69
            ),
            // TCP_INFO, TCP_CC_INFO, TCP_SAVE_SYN, TCP_SAVED_SYN.
            TCP => matches!(name, 11 | 26 | 27 | 28),
            // HDRINCL, OPTIONS, ROUTER_ALERT, RETOPTS, MTU, PASSSEC, NODEFRAG, PROTOCOL
            IP => matches!(name, 3 | 4 | 5 | 7 | 14 | 18 | 22 | 52),
            // ROUTER_ALERT, MTU, PATHMTU
            IPV6 => matches!(name, 22 | 24 | 61),
            _ => false,
        }
}

/// What getsockopt(2) says of an option that is not there: IPv4's sockets tell levels apart that they do not have.
pub(crate) fn unknown(kind: (u16, u32, i32), level: i32) -> Errno {
    let own = match kind.1 {
        SOCK_STREAM => TCP,
        SOCK_DGRAM if kind.2 == UDPLITE => UDPLITE,
        SOCK_DGRAM => UDP,
        _ => RAW,
    };
    if kind.0 == AF_INET && !matches!(level, SOL_SOCKET | IP) && level != own {
        Errno::EOPNOTSUPP
    } else {
        Errno::ENOPROTOOPT
    }
}

/// Whether an option wants `CAP_NET_RAW` or `CAP_NET_ADMIN` of whoever sets it: the host asks for those of the kernel
/// process, which are the container's.
pub(super) fn is_privileged(family: u16, level: i32, name: i32, value: &[u8]) -> Result<bool> {
    let is_on = || value.iter().take(4).any(|byte| *byte != 0);
    Ok(match (level, name) {
        (SOL_SOCKET, so::MARK) => {
            int_option(value)?;
            true
        }
        (SOL_SOCKET, so::PRIORITY) => !(0..=6).contains(&int_option(value)?),
        // TRANSPARENT, which takes a byte as well.
        (IP, 19) => is_on(),
        (IPV6, 75) => family == AF_INET6 && is_on(),
        _ => false,
    })
}

/// `IP_OPTIONS`, of which the host refuses some without `CAP_NET_RAW`.
pub(super) const IP_OPTIONS: (i32, i32) = (IP, 4);

/// The options of IPv4 for whoever lacks `CAP_NET_RAW`: `EPERM` for routes that the sender chooses, `EINVAL` for those that
/// Linux does not know. What is not whole the host refuses.
pub(super) fn check_ip_options(mut value: &[u8]) -> Result<()> {
    const NOP: u8 = 1;
    const RECORD_ROUTE: u8 = 7;
    const TIMESTAMP: u8 = 68;
    const LOOSE_ROUTE: u8 = 131;
    const COMMERCIAL: u8 = 134;
    const STRICT_ROUTE: u8 = 137;
    const ROUTER_ALERT: u8 = 148;
    while let Some(kind) = value.first().filter(|kind| **kind != 0) {
        let length = if *kind == NOP { 1 } else { value.get(1).map_or(0, |length| usize::from(*length)) };
        match *kind {
            NOP | RECORD_ROUTE | COMMERCIAL | ROUTER_ALERT => {}
            // Times alone, with addresses, of these addresses.
            TIMESTAMP if value.get(3).is_none_or(|flags| matches!(flags & 15, 0 | 1 | 3)) => {}
            LOOSE_ROUTE | STRICT_ROUTE => return Err(Errno::EPERM),
            _ => return Err(Errno::EINVAL),
        }
        match value.get(length..) {
            Some(rest) if length > 0 => value = rest,
            _ => break,
        }
    }
    Ok(())
}

/// Whether setsockopt(2) goes to the host.
pub(super) fn may_set(kind: (u16, u32, i32), level: i32, name: i32) -> bool {
    match level {
        // HDRINCL, ROUTER_ALERT, NODEFRAG, CHECKSUM: who may make such a socket writes these headers anyway.
        IP if kind.1 == SOCK_RAW && matches!(name, 3 | 5 | 22 | 23) => true,
        // OPTIONS: the host checks them word for word (ping -R).
        IP if kind.1 != SOCK_STREAM && name == 4 => true,
        // HDRINCL, ROUTER_ALERT
        IPV6 if kind.1 == SOCK_RAW && matches!(name, 36 | 22) => true,
        // ADD_MEMBERSHIP, DROP_MEMBERSHIP (also to hear all of its own interface), RECV_OUTPUT, AUXDATA, ORIGDEV,
        // IGNORE_OUTGOING. Rings are our own kernel's; groups of sockets, virtual headers and what skips the queues of
        // an interface have no use that is worth the host's code for them.
        PACKET => matches!(name, 1 | 2 | 3 | 8 | 9 | 23),
        SOL_SOCKET => matches!(
            name,
            so::DEBUG
                | so::REUSEADDR
                | so::REUSEPORT
                | so::KEEPALIVE
                | so::BROADCAST
                | so::DONTROUTE
                | so::LINGER
                | so::OOBINLINE
                | so::NO_CHECK
                | so::PRIORITY
                // Of the sandbox's own network, where rules of its own may ask for it.
                | so::MARK
                // SO_BSDCOMPAT, which does nothing.
                | 14
                | so::SNDBUF
                | so::RCVBUF
                | so::RCVLOWAT
                | so::TIMESTAMP
                | so::TIMESTAMPNS
                | so::TIMESTAMPING
                | so::TIMESTAMP_NEW
                | so::TIMESTAMPNS_NEW
                | so::TIMESTAMPING_NEW
                | so::BINDTOIFINDEX
                | so::RXQ_OVFL
                | so::PEEK_OFF
                | so::BINDTODEVICE
                // SO_MAX_PACING_RATE, SO_BUF_LOCK, SO_RCVMARK
                | 47
                | 72
                | 75
        ),
        IP => matches!(
            name,
            // TOS, TTL, RECVOPTS, RETOPTS, PKTINFO, MTU_DISCOVER, RECVERR, RECVTTL, RECVTOS, FREEBIND, RECVORIGDSTADDR
            1 | 2 | 6 | 7 | 8 | 10 | 11 | 12 | 13 | 15 | 20
            // TRANSPARENT, CHECKSUM, RECVFRAGSIZE, RECVERR_RFC4884
            | 19 | 23 | 25 | 26
            // MINTTL, BIND_ADDRESS_NO_PORT, MULTICAST_IF, -TTL, -LOOP, ADD_/DROP_MEMBERSHIP, UNBLOCK-, BLOCK_SOURCE
            | 21 | 24 | 32
                ..=38
            // ADD_/DROP_SOURCE_MEMBERSHIP, MCAST_JOIN/LEAVE_GROUP and -SOURCE_GROUP, MULTICAST_ALL, UNICAST_IF,
            // LOCAL_PORT_RANGE
            | 39 | 40 | 42 | 43 | 44 | 45 | 46 | 47 | 49 | 50 | 51
        ),
        TCP => matches!(
            name,
            // NODELAY, MAXSEG, CORK, KEEPIDLE, KEEPINTVL, KEEPCNT, SYNCNT, LINGER2, DEFER_ACCEPT, WINDOW_CLAMP
            1..=10
            // QUICKACK, CONGESTION, THIN_LINEAR_TIMEOUTS, THIN_DUPACK, USER_TIMEOUT, FASTOPEN, TIMESTAMP
            | 12 | 13 | 16 | 17 | 18 | 23 | 24
            // MD5SIG, MD5SIG_EXT
            | 14 | 38
            // NOTSENT_LOWAT, SAVE_SYN, FASTOPEN_CONNECT, FASTOPEN_NO_COOKIE, INQ, TX_DELAY
            | 25 | 27 | 30 | 34 | 36 | 37
        ),
        // CORK, NO_CHECK6_TX, NO_CHECK6_RX, SEGMENT, GRO
        UDP => matches!(name, 1 | 101 | 102 | 103 | 104),
        IPV6 => matches!(
            name,
            // ADDRFORM, CHECKSUM
            1 | 7
            // UNICAST_HOPS, MULTICAST_IF, -HOPS, -LOOP, JOIN_GROUP, LEAVE_GROUP, MTU_DISCOVER, RECVERR, V6ONLY
            | 16 | 17 | 18 | 19 | 20 | 21 | 23 | 25 | 26
            // MULTICAST_ALL, RECVERR_RFC4884, MCAST_*, RECVPKTINFO, PKTINFO, RECVHOPLIMIT, HOPLIMIT
            | 29 | 31 | 42
                ..=47 | 49 | 50 | 51 | 52
            // RECVPATHMTU, DONTFRAG, RECVTCLASS, TCLASS, AUTOFLOWLABEL, ADDR_PREFERENCES, MINHOPCOUNT, UNICAST_IF,
            // FREEBIND; RECVHOPOPTS, RECVRTHDR, RECVDSTOPTS, RECVORIGDSTADDR, TRANSPARENT, RECVFRAGSIZE
            | 53 | 56 | 58 | 74 | 75 | 77
            // 2292PKTINFO, -HOPOPTS, -DSTOPTS, -RTHDR, -HOPLIMIT, FLOWINFO, ROUTER_ALERT_ISOLATE, FLOWINFO_SEND
            | 2..=5 | 8 | 11 | 30 | 33 | 60 | 62 | 66 | 67 | 70 | 72 | 73 | 76 | 78
        ),
        // CORK, SEND_CSCOV, RECV_CSCOV
        UDPLITE => matches!(name, 1 | 10 | 11),
        // ICMPV6_FILTER, ICMP_FILTER
        ICMPV6 | RAW => name == 1,
        // ADD_MEMBERSHIP, DROP_MEMBERSHIP, PKTINFO, BROADCAST_ERROR, NO_ENOBUFS, CAP_ACK, EXT_ACK, GET_STRICT_CHK
        NETLINK => matches!(name, 1 | 2 | 3 | 4 | 5 | 10 | 11 | 12),
        _ => false,
    }
}

/// Whether a control message of sendmsg(2) goes to the host.
pub(super) fn may_send(level: i32, kind: i32) -> bool {
    match level {
        // Which time stamps this datagram has.
        SOL_SOCKET => kind == so::TIMESTAMPING,
        // TOS, TTL, PKTINFO
        IP => matches!(kind, 1 | 2 | 8),
        // PKTINFO, HOPLIMIT, TCLASS, DONTFRAG, 2292PKTINFO, 2292HOPLIMIT, FLOWINFO
        IPV6 => matches!(kind, 50 | 52 | 62 | 67 | 2 | 8 | 11),
        // UDP_SEGMENT
        UDP => kind == 103,
        _ => false,
    }
}
