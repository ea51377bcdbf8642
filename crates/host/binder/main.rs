//! The binder: does with sockets what takes a right over a network namespace over which the kernel process has none. It
//! binds ports below 1024, and opens raw and packet sockets of the namespace that it lives in.
//!
//! Descriptor 3 is a socket to the kernel process. Over it come sockets, each with the address that it shall have, and
//! families, types and protocols of sockets to open; the answer is an errno, and what was opened. It ends when the kernel
//! process does. Nobody is trusted who sends: the filter that it sets for itself leaves it nothing else to do, and of
//! capabilities it holds at most `CAP_NET_BIND_SERVICE` and `CAP_NET_RAW`, those that the container was granted.
#![no_std]
#![no_main]

#[path = "../bare.rs"]
mod bare;

use bare::{call, exit};

const CHANNEL: u64 = 3;
/// What says in a control message that a descriptor comes: `SOL_SOCKET`, `SCM_RIGHTS`.
const RIGHTS: u64 = 1 | 1 << 32;
const EINTR: i64 = -4;
const EACCES: i64 = -13;
const EINVAL: i64 = -22;

mod nr {
    pub const CLOSE: u64 = 3;
    pub const SOCKET: u64 = 41;
    pub const SENDMSG: u64 = 46;
    pub const RECVMSG: u64 = 47;
    pub const BIND: u64 = 49;
    pub const PRCTL: u64 = 157;
    pub const EXIT_GROUP: u64 = 231;
}

/// `struct sock_filter`: code, jt, jf, k.
#[repr(C)]
struct Step(u16, u8, u8, u32);
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: Step = Step(RETURN, 0, 0, 0x7fff_0000);
const KILL: Step = Step(RETURN, 0, 0, 0x8000_0000);
/// Offsets in `struct seccomp_data`: the number, the architecture, the low halves of the first and second argument.
const NUMBER: Step = Step(LOAD, 0, 0, 0);
const ARCHITECTURE: Step = Step(LOAD, 0, 0, 4);
const FIRST: Step = Step(LOAD, 0, 0, 16);
const SECOND: Step = Step(LOAD, 0, 0, 24);

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_PACKET: u32 = 17;
const SOCK_DGRAM: u32 = 2;
const SOCK_RAW: u32 = 3;
/// `SOCK_NONBLOCK`, `SOCK_CLOEXEC`.
const SOCK_FLAGS: u32 = 0x8_0800;

/// bind(2), close(2) and exit_group(2) of anything; messages over the channel; raw and packet sockets.
static FILTER: [Step; 25] = [
    ARCHITECTURE,
    Step(EQUAL, 1, 0, 0xc000_003e),
    KILL,
    NUMBER,
    Step(EQUAL, 19, 0, nr::BIND as u32),
    Step(EQUAL, 18, 0, nr::CLOSE as u32),
    Step(EQUAL, 17, 0, nr::EXIT_GROUP as u32),
    Step(EQUAL, 3, 0, nr::SENDMSG as u32),
    Step(EQUAL, 2, 0, nr::RECVMSG as u32),
    Step(EQUAL, 4, 0, nr::SOCKET as u32),
    KILL,
    FIRST,
    Step(EQUAL, 11, 0, CHANNEL as u32),
    KILL,
    FIRST,
    Step(EQUAL, 3, 0, AF_PACKET),
    Step(EQUAL, 4, 0, AF_INET),
    Step(EQUAL, 3, 0, AF_INET6),
    KILL,
    SECOND,
    Step(EQUAL, 3, 0, SOCK_DGRAM | SOCK_FLAGS),
    SECOND,
    Step(EQUAL, 1, 0, SOCK_RAW | SOCK_FLAGS),
    KILL,
    ALLOW,
];

extern "C" fn start(_stack: *const u64) -> ! {
    const PR_SET_DUMPABLE: u64 = 4;
    const PR_SET_NAME: u64 = 15;
    const PR_SET_SECCOMP: u64 = 22;
    const PR_SET_NO_NEW_PRIVS: u64 = 38;
    const SECCOMP_MODE_FILTER: u64 = 2;
    call(nr::PRCTL, [PR_SET_NAME, c"sallet-binder".as_ptr() as u64, 0, 0, 0, 0]);
    // struct sock_fprog: the length, the place.
    let program = [FILTER.len() as u64, FILTER.as_ptr() as u64];
    let failed = call(nr::PRCTL, [PR_SET_DUMPABLE, 0, 0, 0, 0, 0]) < 0
        || call(nr::PRCTL, [PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0]) < 0
        || call(nr::PRCTL, [PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program.as_ptr() as u64, 0, 0, 0]) < 0;
    if failed {
        exit(125);
    }
    loop {
        serve();
    }
}

/// Takes one request and answers it.
fn serve() {
    // The longest address is a struct sockaddr_in6; one more byte shows what is too long.
    let mut address = [0u8; 29];
    // Room for a struct cmsghdr with one descriptor: what comes besides is not delivered.
    let mut control = [0u64; 3];
    let vector = [address.as_mut_ptr() as u64, 29];
    // struct msghdr: name, its length, vector, its length, control, its length, flags.
    let mut header = [0, 0, (&raw const vector) as u64, 1, (&raw mut control) as u64, 20, 0];
    let read = call(nr::RECVMSG, [CHANNEL, header.as_mut_ptr() as u64, 0, 0, 0, 0]);
    let length = match read {
        EINTR => return,
        1.. => read as usize,
        // The kernel process has ended.
        _ => exit(0),
    };
    let [size, level_and_kind, descriptor] = control;
    // One descriptor has come.
    let came = header[5] != 0 && size == 20 && level_and_kind == RIGHTS;
    if !came {
        return match wanted(&address, length) {
            Err(errno) => answer(errno, None),
            Ok([family, kind, protocol]) => {
                let kind = u64::from(kind | SOCK_FLAGS);
                match call(nr::SOCKET, [family.into(), kind, protocol.into(), 0, 0, 0]) {
                    errno @ ..0 => answer(errno, None),
                    socket => answer(0, Some(socket as u64)),
                }
            }
        };
    }
    let socket = descriptor & 0xffff_ffff;
    let result = match may_have(&address, length) {
        Err(errno) => errno,
        Ok(()) => call(nr::BIND, [socket, address.as_ptr() as u64, length as u64, 0, 0, 0]),
    };
    call(nr::CLOSE, [socket, 0, 0, 0, 0, 0]);
    answer(result, None);
}

/// Sends an errno, and a descriptor, which is closed here.
fn answer(result: i64, opened: Option<u64>) {
    const MSG_NOSIGNAL: u64 = 0x4000;
    let errno = result.wrapping_neg() as i32;
    let vector = [(&raw const errno) as u64, 4];
    let control = [20, RIGHTS, opened.unwrap_or(0)];
    let control_at = (&raw const control) as u64;
    let (control_at, control_size) = if opened.is_some() { (control_at, 24) } else { (0, 0) };
    let header = [0, 0, (&raw const vector) as u64, 1, control_at, control_size, 0];
    while call(nr::SENDMSG, [CHANNEL, header.as_ptr() as u64, MSG_NOSIGNAL, 0, 0, 0]) == EINTR {}
    if let Some(socket) = opened {
        call(nr::CLOSE, [socket, 0, 0, 0, 0, 0]);
    }
}

/// The family, type and protocol of a socket to open.
fn wanted(request: &[u8; 29], length: usize) -> Result<[u32; 3], i64> {
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *request;
    let words = [[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(u32::from_ne_bytes);
    match words {
        _ if length != 12 => Err(EINVAL),
        [AF_INET | AF_INET6, SOCK_RAW, _] | [AF_PACKET, SOCK_RAW | SOCK_DGRAM, _] => Ok(words),
        _ => Err(EACCES),
    }
}

/// Whether an address is one of IPv4 or IPv6 with a port below 1024.
fn may_have(address: &[u8; 29], length: usize) -> Result<(), i64> {
    let [a, b, c, d, ..] = *address;
    match (u32::from(u16::from_ne_bytes([a, b])), length, u16::from_be_bytes([c, d])) {
        (AF_INET, 16, 1..1024) | (AF_INET6, 28, 1..1024) => Ok(()),
        (AF_INET, 16, _) | (AF_INET6, 28, _) => Err(EACCES),
        _ => Err(EINVAL),
    }
}
