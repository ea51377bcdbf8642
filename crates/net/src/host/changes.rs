//! Which changes of the network namespace guests may ask the host for (rtnetlink(7)), where it is the sandbox's own and
//! the guest has `CAP_NET_ADMIN`.
//!
//! What is here sets plain values of interfaces, addresses, routes, rules and neighbours. Left out on purpose: new
//! interfaces, encapsulations, congestion control and queueing, each of which is a module that the host would load, and
//! whatever names another namespace, a descriptor or a program.

use linux_abi::socket::{AF_INET, AF_INET6};

use crate::inet::interfaces::attributes;

/// The create flag of a request.
const NLM_F_CREATE: u16 = 0x400;
/// The bits of an attribute's type that are not flags.
const TYPE_MASK: u16 = 0x3fff;

/// Whether a request for a change goes to the host: its type, flags, and what follows the header.
pub(super) fn may_ask(kind: u16, flags: u16, body: &[u8]) -> bool {
    let internet = body.first().is_some_and(|family| matches!(u16::from(*family), AF_INET | AF_INET6));
    let only = |header: usize, allowed: fn(u16) -> bool| {
        body.get(header..).is_some_and(|rest| attributes(rest).all(|(kind, _)| allowed(kind & TYPE_MASK)))
    };
    match kind {
        // RTM_NEWLINK, RTM_SETLINK of an interface that there is: ADDRESS, BROADCAST, IFNAME, MTU, TXQLEN, OPERSTATE,
        // LINKMODE, IFALIAS, GROUP, EXT_MASK, CARRIER
        16 | 19 => {
            let makes_none = kind == 19 || flags & NLM_F_CREATE == 0;
            makes_none && only(16, |a| matches!(a, 1..=4 | 13 | 16 | 17 | 20 | 27 | 29 | 33))
        }
        // RTM_DELLINK: IFNAME, EXT_MASK
        17 => only(16, |a| matches!(a, 3 | 29)),
        // RTM_NEWADDR, RTM_DELADDR: ADDRESS, LOCAL, LABEL, BROADCAST, ANYCAST, CACHEINFO, FLAGS, RT_PRIORITY, PROTO
        20 | 21 => internet && only(8, |a| matches!(a, 1..=6 | 8 | 9 | 11)),
        // RTM_NEWROUTE, RTM_DELROUTE: DST, SRC, IIF, OIF, GATEWAY, PRIORITY, PREFSRC, METRICS, FLOW, CACHEINFO, TABLE,
        // MARK, PREF, EXPIRES
        24 | 25 => {
            internet
                && only(12, |a| matches!(a, 1..=8 | 11 | 12 | 15 | 16 | 20 | 23))
                && metrics_are_plain(body)
        }
        // RTM_NEWNEIGH, RTM_DELNEIGH: DST, LLADDR, CACHEINFO, PROBES, IFINDEX, PROTOCOL
        28 | 29 => internet && only(12, |a| matches!(a, 1..=4 | 8 | 12)),
        // RTM_NEWRULE, RTM_DELRULE: DST, SRC, IIFNAME, GOTO, PRIORITY, FWMARK, FLOW, SUPPRESS_IFGROUP,
        // SUPPRESS_PREFIXLEN, TABLE, FWMASK, OIFNAME, PROTOCOL, IP_PROTO, SPORT_RANGE, DPORT_RANGE. Not UID_RANGE: to
        // the host all sockets belong to one user.
        32 | 33 => internet && only(12, |a| matches!(a, 1..=4 | 6 | 10 | 11 | 13..=17 | 21..=24)),
        _ => false,
    }
}

/// Whether a route's metrics are numbers: `RTAX_CC_ALGO` names a module.
fn metrics_are_plain(body: &[u8]) -> bool {
    const RTA_METRICS: u16 = 8;
    const RTAX_CC_ALGO: u16 = 16;
    let rest = body.get(12..).unwrap_or_default();
    attributes(rest)
        .filter(|(kind, _)| kind & TYPE_MASK == RTA_METRICS)
        .all(|(_, metrics)| attributes(metrics).all(|(kind, _)| kind & TYPE_MASK != RTAX_CC_ALGO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(header: &[u8], list: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = header.to_vec();
        for (kind, data) in list {
            out.extend_from_slice(&(4 + data.len() as u16).to_ne_bytes());
            out.extend_from_slice(&kind.to_ne_bytes());
            out.extend_from_slice(data);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out
    }

    #[test]
    fn plain_values_pass() {
        assert!(may_ask(16, 5, &body(&[0; 16], &[(4, &[0, 5, 0, 0])])));
        assert!(may_ask(20, 0x605, &body(&[2; 8], &[(2, &[10, 0, 0, 1]), (8, &[0; 4])])));
        assert!(may_ask(24, 0x605, &body(&[2; 12], &[(1, &[10, 0, 0, 0]), (4, &[1, 0, 0, 0])])));
        let metrics = body(&[], &[(2, &[0; 4])]);
        assert!(may_ask(24, 0x605, &body(&[10; 12], &[(8 | 0x8000, &metrics)])));
        assert!(may_ask(32, 0x605, &body(&[2; 12], &[(15, &[0; 4])])));
    }

    #[test]
    fn modules_and_namespaces_do_not() {
        // A new interface; its kind; another namespace by process and by descriptor; a program.
        assert!(!may_ask(16, 0x605, &body(&[0; 16], &[(3, b"x\0")])));
        for attribute in [18, 19, 28, 43, 18 | 0x8000] {
            assert!(!may_ask(16, 5, &body(&[0; 16], &[(4, &[0; 4]), (attribute, &[0; 4])])), "{attribute}");
        }
        let metrics = body(&[], &[(2, &[0; 4]), (16, b"bbr\0")]);
        assert!(!may_ask(24, 0x605, &body(&[2; 12], &[(8, &metrics)])));
        // RTA_ENCAP, RTA_MULTIPATH; bridges' neighbours; queues and filters.
        for attribute in [22, 9] {
            assert!(!may_ask(24, 0x605, &body(&[2; 12], &[(attribute, &[0; 4])])));
        }
        assert!(!may_ask(28, 0x605, &body(&[7; 12], &[])));
        for kind in [36, 40, 44, 48, 67, 72, 86, 104] {
            assert!(!may_ask(kind, 5, &body(&[2; 20], &[])));
        }
        assert!(!may_ask(24, 5, &[2; 11]));
    }
}
