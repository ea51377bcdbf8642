//! Addresses of internet sockets: `struct sockaddr_in` and `struct sockaddr_in6`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use linux_abi::socket::{AF_INET, AF_INET6};

/// Address and port. IPv4 addresses mapped to IPv6 are IPv4 here, whatever the socket's family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Endpoint {
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
    /// `sin6_scope_id`.
    pub(crate) scope: u32,
}

impl Endpoint {
    pub(crate) fn new(ip: IpAddr, port: u16) -> Endpoint {
        Endpoint { ip, port, scope: 0 }
    }

    /// The family of an address and what it says; none for other families and short ones.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(u16, Endpoint)> {
        let family = bytes.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b))?;
        let port = bytes.get(2..)?.first_chunk::<2>().map(|b| u16::from_be_bytes(*b))?;
        match family {
            AF_INET if bytes.len() >= 16 => {
                let ip = *bytes.get(4..)?.first_chunk::<4>()?;
                Some((family, Endpoint::new(Ipv4Addr::from(ip).into(), port)))
            }
            AF_INET6 if bytes.len() >= 24 => {
                let ip = Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?);
                let scope =
                    bytes.get(24..).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_ne_bytes(*b));
                let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
                Some((family, Endpoint { ip, port, scope }))
            }
            _ => None,
        }
    }

    /// As a socket of `family` names it.
    pub(crate) fn render(self, family: u16) -> Vec<u8> {
        let mut out = family.to_ne_bytes().to_vec();
        out.extend_from_slice(&self.port.to_be_bytes());
        if family == AF_INET {
            let ip = if let IpAddr::V4(ip) = self.ip { ip } else { Ipv4Addr::UNSPECIFIED };
            out.extend_from_slice(&ip.octets());
            out.resize(16, 0);
            return out;
        }
        out.extend_from_slice(&[0; 4]);
        let ip = match self.ip {
            // The wildcard of a socket that is bound to nothing.
            IpAddr::V4(ip) if ip.is_unspecified() && self.port == 0 => Ipv6Addr::UNSPECIFIED,
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        out.extend_from_slice(&ip.octets());
        out.extend_from_slice(&self.scope.to_ne_bytes());
        out
    }

    /// Where a connection to this address really goes: the wildcards are loopback.
    pub(crate) fn target(self) -> Endpoint {
        let ip = match self.ip {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Endpoint { ip, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;
    use linux_abi::socket::{AF_INET, AF_INET6};

    #[test]
    fn addresses_survive_both_families() {
        let four = [2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let (family, endpoint) = Endpoint::parse(&four).unwrap();
        assert_eq!((family, endpoint.port), (AF_INET, 8080));
        assert_eq!(endpoint.render(AF_INET), four);
        let (family, mapped) = Endpoint::parse(&endpoint.render(AF_INET6)).unwrap();
        assert_eq!((family, mapped), (AF_INET6, endpoint));
        assert!(Endpoint::parse(&four[..15]).is_none() && Endpoint::parse(&[1, 0, 0, 0]).is_none());
    }
}
