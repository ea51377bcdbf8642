//! From rules to a classic BPF program.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W,
    sock_filter,
};

use super::{Check, If, Rule};

/// `AUDIT_ARCH_X86_64` of linux/audit.h.
const ARCH: u32 = 0xc000_003e;
/// Numbers from here on are x32 calls.
const X32: u32 = 0x4000_0000;
/// Offsets in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
/// The C library falls back to older calls it finds missing.
const MISSING: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// The filter for a list of rules, or nothing if it is too long for the host.
pub(super) fn assemble<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Option<Vec<sock_filter>> {
    let mut filter = vec![
        load(ARCH_AT),
        jump(BPF_JEQ, ARCH, 1, 0),
        ret(KILL),
        load(NUMBER_AT),
        // x32: any number with that bit.
        jump(BPF_JSET, X32, 0, 1),
        ret(KILL),
    ];
    for rule in rules {
        let body = body(rule);
        let skip = u8::try_from(body.len()).ok()?;
        filter.push(jump(BPF_JEQ, u32::try_from(rule.number).ok()?, 0, skip));
        filter.extend(body);
    }
    filter.push(ret(REFUSE));
    (filter.len() <= libc::BPF_MAXINSNS as usize).then_some(filter)
}

/// What is done for a call once its number has matched.
fn body(rule: &Rule) -> Vec<sock_filter> {
    let mut body = Vec::new();
    for check in rule.checks {
        match check {
            Check::Missing => return vec![ret(MISSING)],
            Check::Equals(argument, value) => {
                body.extend([low(*argument), jump(BPF_JEQ, *value, 1, 0), ret(REFUSE)]);
            }
            Check::OneOf(argument, values) => {
                body.push(low(*argument));
                let count = values.len();
                for (index, value) in values.iter().enumerate() {
                    // Over the rest of the list and the refusal.
                    let over = u8::try_from(count - index).unwrap_or(u8::MAX);
                    body.push(jump(BPF_JEQ, *value, over, 0));
                }
                body.push(ret(REFUSE));
            }
            Check::IfOneOf(condition, argument, values) => {
                let mut then = vec![low(*argument)];
                for (index, value) in values.iter().enumerate() {
                    let over = u8::try_from(values.len() - index).unwrap_or(u8::MAX);
                    then.push(jump(BPF_JEQ, *value, over, 0));
                }
                then.push(ret(REFUSE));
                body.extend(only_if(condition, then));
            }
            Check::IfNoneOf(condition, argument, values) => {
                let mut then = vec![low(*argument)];
                for value in *values {
                    then.extend([jump(BPF_JEQ, *value, 0, 1), ret(REFUSE)]);
                }
                body.extend(only_if(condition, then));
            }
            Check::IfBelow(condition, argument, value) => {
                let then = vec![low(*argument), jump(BPF_JGE, *value, 0, 1), ret(REFUSE)];
                body.extend(only_if(condition, then));
            }
            Check::Without(argument, bits) => {
                body.extend([low(*argument), jump(BPF_JSET, *bits, 0, 1), ret(REFUSE)]);
            }
            Check::With(argument, bits) => body.extend([
                low(*argument),
                statement(BPF_ALU | BPF_AND | BPF_K, *bits),
                jump(BPF_JEQ, *bits, 1, 0),
                ret(REFUSE),
            ]),
            Check::Positive(argument) => body.extend([
                low(*argument),
                // Negative numbers and 0 name groups of processes.
                jump(BPF_JSET, 0x8000_0000, 1, 0),
                jump(BPF_JEQ, 0, 0, 1),
                ret(REFUSE),
            ]),
        }
    }
    body.push(ret(ALLOW));
    body
}

/// Instructions that are passed over where a condition does not hold.
fn only_if(condition: &If, then: Vec<sock_filter>) -> Vec<sock_filter> {
    let over = u8::try_from(then.len()).unwrap_or(u8::MAX);
    let mut all = vec![
        low(condition.argument),
        statement(BPF_ALU | BPF_AND | BPF_K, condition.mask),
        jump(BPF_JEQ, condition.equals, 0, over),
    ];
    all.extend(then);
    all
}

/// Loads the low half of an argument: all that are checked are C ints.
fn low(argument: u8) -> sock_filter {
    load(ARGUMENTS_AT + 8 * u32::from(argument))
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn ret(value: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, value)
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(condition: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | condition | BPF_K) as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp_jail::RULES;

    /// Runs a filter as the host would.
    fn run(filter: &[sock_filter], arch: u32, number: u32, arguments: [u32; 6]) -> u32 {
        let word = |offset: u32| match offset {
            NUMBER_AT => number,
            ARCH_AT => arch,
            offset => arguments[((offset - ARGUMENTS_AT) / 8) as usize],
        };
        let (mut pc, mut a) = (0usize, 0u32);
        loop {
            let step = filter[pc];
            pc += 1;
            match u32::from(step.code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => a = word(step.k),
                code if code == BPF_RET | BPF_K => return step.k,
                code if code == BPF_ALU | BPF_AND | BPF_K => a &= step.k,
                code if code == BPF_JMP | BPF_JEQ | BPF_K => {
                    pc += usize::from(if a == step.k { step.jt } else { step.jf });
                }
                code if code == BPF_JMP | BPF_JGE | BPF_K => {
                    pc += usize::from(if a >= step.k { step.jt } else { step.jf });
                }
                code if code == BPF_JMP | BPF_JSET | BPF_K => {
                    pc += usize::from(if a & step.k != 0 { step.jt } else { step.jf });
                }
                other => panic!("code {other:#x}"),
            }
        }
    }

    fn verdict(number: i64, arguments: [u32; 6]) -> u32 {
        let filter = assemble(RULES).unwrap();
        run(&filter, ARCH, number as u32, arguments)
    }

    #[test]
    fn listed_calls_pass_and_others_do_not() {
        assert_eq!(verdict(libc::SYS_read, [0; 6]), ALLOW);
        assert_eq!(verdict(libc::SYS_exit_group, [0; 6]), ALLOW);
        for number in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_init_module,
            libc::SYS_setuid,
            libc::SYS_open_tree,
            libc::SYS_userfaultfd,
            libc::SYS_keyctl,
            999,
        ] {
            assert_eq!(verdict(number, [0; 6]), REFUSE, "{number}");
        }
    }

    #[test]
    fn arguments_are_checked() {
        let exec = libc::PROT_EXEC as u32;
        assert_eq!(verdict(libc::SYS_mmap, [0, 0, 3, 0, 0, 0]), ALLOW);
        assert_eq!(verdict(libc::SYS_mmap, [0, 0, exec, 0, 0, 0]), REFUSE);
        assert_eq!(verdict(libc::SYS_mprotect, [0, 0, exec | 1, 0, 0, 0]), REFUSE);
        assert_eq!(verdict(libc::SYS_kill, [5, 9, 0, 0, 0, 0]), ALLOW);
        assert_eq!(verdict(libc::SYS_kill, [u32::MAX, 9, 0, 0, 0, 0]), REFUSE);
        assert_eq!(verdict(libc::SYS_kill, [0, 9, 0, 0, 0, 0]), REFUSE);
        let thread = libc::CLONE_THREAD as u32 | libc::CLONE_VM as u32 | libc::CLONE_SIGHAND as u32;
        assert_eq!(verdict(libc::SYS_clone, [thread, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(verdict(libc::SYS_clone, [libc::SIGCHLD as u32, 0, 0, 0, 0, 0]), REFUSE);
        let user = libc::CLONE_NEWUSER as u32;
        assert_eq!(verdict(libc::SYS_clone, [thread | user, 0, 0, 0, 0, 0]), REFUSE);
        assert_eq!(verdict(libc::SYS_clone3, [0; 6]), MISSING);
        assert_eq!(verdict(libc::SYS_socket, [libc::AF_INET as u32, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(verdict(libc::SYS_socket, [libc::AF_VSOCK as u32, 0, 0, 0, 0, 0]), REFUSE);
    }

    #[test]
    fn what_capabilities_over_the_network_would_open_stays_closed() {
        let (netlink, packet) = (libc::AF_NETLINK as u32, libc::AF_PACKET as u32);
        let socket = |family, protocol| verdict(libc::SYS_socket, [family, 3, protocol, 0, 0, 0]);
        assert_eq!(socket(netlink, libc::NETLINK_ROUTE as u32), ALLOW);
        assert_eq!(socket(netlink, libc::NETLINK_NETFILTER as u32), REFUSE);
        assert_eq!(socket(packet, 0), REFUSE);
        let rules = crate::seccomp_jail::rules(true);
        let with_packets = assemble(rules).unwrap();
        let socket = |family| run(&with_packets, ARCH, libc::SYS_socket as u32, [family, 3, 12, 0, 0, 0]);
        assert_eq!((socket(packet), socket(libc::AF_INET as u32), socket(netlink)), (ALLOW, ALLOW, REFUSE));
        let set = |level, name| verdict(libc::SYS_setsockopt, [9, level, name, 0, 0, 0]);
        let (ip, six, ring) = (0, 41, 263);
        // IP_HDRINCL; IPV6_RECVTCLASS; PACKET_ADD_MEMBERSHIP.
        assert_eq!((set(ip, 3), set(six, 66), set(ring, 1)), (ALLOW, ALLOW, ALLOW));
        // IPT_SO_SET_REPLACE and IPv6's, MRT_INIT, SO_ATTACH_FILTER.
        for (level, name) in [(ip, 64), (six, 64), (ip, 200), (six, 200), (1, 26)] {
            assert_eq!(set(level, name), REFUSE, "{level} {name}");
        }
        // IP_XFRM_POLICY and IPv6's, TCP_REPAIR, TCP_ULP; beside them IP_RECVERR, IPV6_V6ONLY, TCP_INFO.
        for (level, name) in [(ip, 17), (six, 35), (6, 19), (6, 31)] {
            assert_eq!(set(level, name), REFUSE, "{level} {name}");
        }
        assert_eq!((set(ip, 11), set(six, 26), set(6, 11)), (ALLOW, ALLOW, ALLOW));
        // PACKET_RX_RING, PACKET_TX_RING, PACKET_VNET_HDR, PACKET_FANOUT.
        for name in [5, 13, 15, 18] {
            assert_eq!(set(ring, name), REFUSE, "{name}");
        }
        let ioctl = |request| verdict(libc::SYS_ioctl, [9, request, 0, 0, 0, 0]);
        // FIONREAD, SIOCGIFINDEX, a request of seccomp(2).
        assert_eq!((ioctl(0x541b), ioctl(0x8933), ioctl(0xc050_2100)), (ALLOW, ALLOW, ALLOW));
        // SIOCBRADDBR, SIOCADDTUNNEL, SIOCDEVPRIVATE.
        for request in [0x89a0, 0x89f1, 0x89f0] {
            assert_eq!(ioctl(request), REFUSE, "{request:#x}");
        }
    }

    #[test]
    fn other_architectures_are_killed() {
        let filter = assemble(RULES).unwrap();
        assert_eq!(run(&filter, 0x4000_0003, 0, [0; 6]), KILL);
        assert_eq!(run(&filter, ARCH, X32, [0; 6]), KILL);
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut numbers: Vec<i64> = RULES.iter().map(|rule| rule.number).collect();
        numbers.sort_unstable();
        let before = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), before);
    }
}
