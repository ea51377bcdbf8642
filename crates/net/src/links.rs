//! The network interfaces, as rtnetlink(7) tells them: what /sys/class/net shows.

use crate::inet::interfaces::{attributes, dump};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// Size of `struct ifinfomsg`.
const HEADER: usize = 16;

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the files of /sys/class/net/NAME")]
pub struct Link {
    pub name: String,
    /// `ARPHRD_*`.
    pub kind: u16,
    pub index: i32,
    /// The other end's index, or the link's below; its own if there is none.
    pub below: i32,
    /// `IFF_*`.
    pub flags: u32,
    pub mtu: u32,
    pub queue_length: u32,
    pub group: u32,
    pub carrier: bool,
    /// `IF_OPER_*`.
    pub state: u8,
    pub link_mode: u8,
    pub address: Vec<u8>,
    pub broadcast: Vec<u8>,
    /// `struct rtnl_link_stats64`, from `rx_packets` on.
    pub statistics: Vec<u64>,
}

/// All interfaces of the network namespace.
pub fn list() -> Vec<Link> {
    let mut all = Vec::new();
    let done = dump(RTM_GETLINK, RTM_NEWLINK, HEADER, |body| all.extend(link(body)));
    if done.is_ok() { all } else { Vec::new() }
}

fn link(body: &[u8]) -> Option<Link> {
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_ne_bytes(*b))
    };
    let kind = body.get(2..)?.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b))?;
    let index = word(body, 4).cast_signed();
    let mut link = Link { kind, index, below: index, flags: word(body, 8), ..Link::default() };
    for (attribute, data) in attributes(body.get(HEADER..)?) {
        let byte = data.first().copied().unwrap_or(0);
        // IFLA_*.
        match attribute {
            1 => link.address = data.to_vec(),
            2 => link.broadcast = data.to_vec(),
            3 => {
                let name = data.split(|b| *b == 0).next().unwrap_or_default();
                link.name = String::from_utf8_lossy(name).into_owned();
            }
            4 => link.mtu = word(data, 0),
            5 => link.below = word(data, 0).cast_signed(),
            13 => link.queue_length = word(data, 0),
            16 => link.state = byte,
            17 => link.link_mode = byte,
            23 => link.statistics = data.as_chunks::<8>().0.iter().map(|b| u64::from_ne_bytes(*b)).collect(),
            27 => link.group = word(data, 0),
            33 => link.carrier = byte != 0,
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

#[cfg(test)]
mod tests {
    use super::list;

    #[test]
    fn loopback_is_listed() {
        let all = list();
        let lo = all.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!((lo.index, lo.below, lo.kind, lo.mtu), (1, 1, 772, 65_536));
        assert_eq!(lo.address, [0; 6]);
        assert!(lo.statistics.len() >= 23);
    }
}
