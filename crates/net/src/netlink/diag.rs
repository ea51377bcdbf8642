//! sock_diag(7): what `ss` asks.

use std::collections::HashMap;
use std::net::IpAddr;

use linux_abi::Errno;
use linux_abi::socket::{AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM};

use super::{Answer, NLM_F_DUMP, NLM_F_MULTI, Request, u16_at, u32_at};
use crate::Result;
use crate::inet::endpoint::Endpoint;
use crate::registry::{Description, UnixDescription, list};
use crate::tables::{Row, rows};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_SHUTDOWN: u16 = 8;
const INET_DIAG_SKV6ONLY: u16 = 11;
/// Sizes of `struct inet_diag_req_v2` and `struct unix_diag_req`.
const INET_REQUEST: usize = 56;
const UNIX_REQUEST: usize = 24;

/// tcp_states.h.
const ESTABLISHED: u8 = 1;
const CLOSE: u8 = 7;
const LISTEN: u8 = 10;

/// Adds the answer to a request. `EINVAL` for a malformed one, `ENOENT` for a family without lists or no such
/// socket, `EOPNOTSUPP` for a filter: `ss` then reads /proc/net.
pub(super) fn answer(request: &Request<'_>, answer: &mut Answer) -> Result<()> {
    if request.kind != SOCK_DIAG_BY_FAMILY {
        return Err(Errno::EINVAL);
    }
    let family = u16::from(*request.body.first().ok_or(Errno::EINVAL)?);
    match family {
        AF_INET | AF_INET6 => inet(request, family, answer),
        AF_UNIX => unix(request, answer),
        _ => Err(Errno::ENOENT),
    }
}

fn inet(request: &Request<'_>, family: u16, answer: &mut Answer) -> Result<()> {
    let body = request.body;
    if body.len() < INET_REQUEST {
        return Err(Errno::EINVAL);
    }
    let protocol = body.get(1).copied().unwrap_or(0);
    let table = match (protocol, family) {
        (6, AF_INET) => "tcp",
        (6, _) => "tcp6",
        (17, AF_INET) => "udp",
        (17, _) => "udp6",
        (136, AF_INET) => "udplite",
        (136, _) => "udplite6",
        (255, AF_INET) => "raw",
        (255, _) => "raw6",
        // DCCP, SCTP and the like.
        _ => return Err(Errno::ENOENT),
    };
    if attribute(body.get(INET_REQUEST..).unwrap_or_default(), INET_DIAG_REQ_BYTECODE) {
        return Err(Errno::EOPNOTSUPP);
    }
    let states = u32_at(body, 4).unwrap_or(0);
    if request.flags & NLM_F_DUMP != 0 {
        for row in rows(table) {
            if states & 1_u32.checked_shl(u32::from(row.state)).unwrap_or(0) != 0 {
                answer.push(SOCK_DIAG_BY_FAMILY, NLM_F_MULTI, &message(family, &row));
            }
        }
        return Ok(());
    }
    let (local, remote) = asked(body, family).ok_or(Errno::EINVAL)?;
    let found = rows(table).into_iter().find(|row| row.local == local && row.remote == remote);
    answer.push(SOCK_DIAG_BY_FAMILY, 0, &message(family, &found.ok_or(Errno::ENOENT)?));
    Ok(())
}

/// Whether an attribute of this type is among them.
fn attribute(mut bytes: &[u8], wanted: u16) -> bool {
    while let (Some(length), Some(kind)) = (u16_at(bytes, 0), u16_at(bytes, 2)) {
        if kind & 0x3fff == wanted {
            return true;
        }
        let step = usize::from(length).max(4).next_multiple_of(4);
        bytes = bytes.get(step..).unwrap_or_default();
    }
    false
}

/// The ends in a `struct inet_diag_sockid` at 8.
fn asked(body: &[u8], family: u16) -> Option<(Endpoint, Endpoint)> {
    let port = |at: usize| body.get(at..)?.first_chunk::<2>().map(|b| u16::from_be_bytes(*b));
    let ip = |at: usize| -> Option<IpAddr> {
        if family == AF_INET {
            return Some(IpAddr::from(*body.get(at..)?.first_chunk::<4>()?));
        }
        Some(IpAddr::from(*body.get(at..)?.first_chunk::<16>()?))
    };
    Some((Endpoint::new(ip(12)?, port(8)?), Endpoint::new(ip(28)?, port(10)?)))
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

/// `struct inet_diag_msg` and what is shut down.
fn message(family: u16, row: &Row) -> Vec<u8> {
    // The family fits: it came in a byte.
    let mut out = vec![family as u8, row.state, 0, 0];
    out.extend_from_slice(&row.local.port.to_be_bytes());
    out.extend_from_slice(&row.remote.port.to_be_bytes());
    out.extend_from_slice(&octets(row.local.ip));
    out.extend_from_slice(&octets(row.remote.ip));
    // The interface, and a cookie: the inode number does.
    out.extend_from_slice(&0_u32.to_ne_bytes());
    out.extend_from_slice(&row.ino.to_ne_bytes());
    // A listener has nothing to send: how many may wait for it.
    let backlog = row.listener.map(|listener| u32::try_from(listener.backlog).unwrap_or(u32::MAX));
    let unsent = backlog.unwrap_or(row.unsent);
    // The inode number has 32 bits here.
    for word in [0, row.unread, unsent, row.uid, row.ino as u32] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
    put(&mut out, INET_DIAG_SHUTDOWN, &[0]);
    if let Some(listener) = row.listener.filter(|_| family == AF_INET6) {
        put(&mut out, INET_DIAG_SKV6ONLY, &[u8::from(listener.v6_only)]);
    }
    out
}

/// Adds an attribute.
fn put(out: &mut Vec<u8>, kind: u16, data: &[u8]) {
    out.extend_from_slice(&u16::try_from(4 + data.len()).unwrap_or(4).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn unix(request: &Request<'_>, answer: &mut Answer) -> Result<()> {
    let body = request.body;
    if body.len() < UNIX_REQUEST {
        return Err(Errno::EINVAL);
    }
    let (states, ino, show) = (u32_at(body, 4), u32_at(body, 8), u32_at(body, 12).unwrap_or(0));
    let all = list();
    let inodes: HashMap<usize, u64> = (all.iter())
        .filter_map(|open| match &open.what {
            Description::Unix(unix) => Some((unix.id, open.ino)),
            _ => None,
        })
        .collect();
    let dump = request.flags & NLM_F_DUMP != 0;
    let mut found = dump;
    for open in &all {
        let Description::Unix(unix) = &open.what else { continue };
        let state = match unix {
            UnixDescription { listening: true, .. } => LISTEN,
            UnixDescription { connected: true, .. } => ESTABLISHED,
            _ => CLOSE,
        };
        let wanted =
            if dump { states.unwrap_or(0) & (1 << state) != 0 } else { ino == Some(open.ino as u32) };
        if !wanted {
            continue;
        }
        found = true;
        let mut out = vec![1, unix.kind as u8, state, 0];
        out.extend_from_slice(&(open.ino as u32).to_ne_bytes());
        out.extend_from_slice(&open.ino.to_ne_bytes());
        // UNIX_DIAG_NAME, _PEER, _RQLEN, as asked for; _SHUTDOWN.
        if show & 1 != 0 && !unix.name.is_empty() {
            put(&mut out, 0, &unix.name);
        }
        let peer = unix.peer.and_then(|peer| inodes.get(&peer));
        if show & 4 != 0
            && let Some(peer) = peer
        {
            put(&mut out, 2, &(*peer as u32).to_ne_bytes());
        }
        if show & 0x10 != 0 && (unix.kind != SOCK_DGRAM || unix.queued > 0) {
            let sizes = [unix.queued, unix.limit].map(|n| u32::try_from(n).unwrap_or(u32::MAX).to_ne_bytes());
            put(&mut out, 4, &sizes.concat());
        }
        put(&mut out, 6, &[0]);
        answer.push(SOCK_DIAG_BY_FAMILY, if dump { NLM_F_MULTI } else { 0 }, &out);
    }
    if found { Ok(()) } else { Err(Errno::ENOENT) }
}
