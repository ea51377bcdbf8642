//! The binder: binds ports below 1024 of a network namespace over which the kernel process has no right.
//!
//! Descriptor 3 is a socket to the kernel process, over which sockets come, each with the address that it shall have; the
//! answer is an errno. It ends when the kernel process does. Nobody is trusted who sends: the filter that it sets for
//! itself leaves it nothing else to do, and it holds `CAP_NET_BIND_SERVICE` alone.
#![no_std]
#![no_main]

#[path = "../bare.rs"]
mod bare;

use bare::{call, exit};

const CHANNEL: u64 = 3;
const EINTR: i64 = -4;
const EACCES: i64 = -13;
const EINVAL: i64 = -22;

mod nr {
    pub const CLOSE: u64 = 3;
    pub const SENDTO: u64 = 44;
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
/// Offsets in `struct seccomp_data`: the number, the architecture, the low half of the first argument.
const NUMBER: Step = Step(LOAD, 0, 0, 0);
const ARCHITECTURE: Step = Step(LOAD, 0, 0, 4);
const FIRST: Step = Step(LOAD, 0, 0, 16);

/// bind(2), close(2) and exit_group(2) of anything; messages over the channel.
static FILTER: [Step; 14] = [
    ARCHITECTURE,
    Step(EQUAL, 1, 0, 0xc000_003e),
    KILL,
    NUMBER,
    Step(EQUAL, 8, 0, nr::BIND as u32),
    Step(EQUAL, 7, 0, nr::CLOSE as u32),
    Step(EQUAL, 6, 0, nr::EXIT_GROUP as u32),
    Step(EQUAL, 2, 0, nr::SENDTO as u32),
    Step(EQUAL, 1, 0, nr::RECVMSG as u32),
    KILL,
    FIRST,
    Step(EQUAL, 1, 0, CHANNEL as u32),
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
    // SOL_SOCKET, SCM_RIGHTS: one descriptor has come.
    let came = header[5] != 0 && size == 20 && level_and_kind == 1 | 1 << 32;
    let socket = descriptor & 0xffff_ffff;
    let result = match may_have(&address, length) {
        _ if !came => EINVAL,
        Err(errno) => errno,
        Ok(()) => call(nr::BIND, [socket, address.as_ptr() as u64, length as u64, 0, 0, 0]),
    };
    if came {
        call(nr::CLOSE, [socket, 0, 0, 0, 0, 0]);
    }
    let errno = (result.wrapping_neg() as i32).to_ne_bytes();
    const MSG_NOSIGNAL: u64 = 0x4000;
    while call(nr::SENDTO, [CHANNEL, errno.as_ptr() as u64, 4, MSG_NOSIGNAL, 0, 0]) == EINTR {}
}

/// Whether an address is one of IPv4 or IPv6 with a port below 1024.
fn may_have(address: &[u8; 29], length: usize) -> Result<(), i64> {
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    let [a, b, c, d, ..] = *address;
    match (u16::from_ne_bytes([a, b]), length, u16::from_be_bytes([c, d])) {
        (AF_INET, 16, 1..1024) | (AF_INET6, 28, 1..1024) => Ok(()),
        (AF_INET, 16, _) | (AF_INET6, 28, _) => Err(EACCES),
        _ => Err(EINVAL),
    }
}
