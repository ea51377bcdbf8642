//! The tables of /proc/net: the host's, with the sandbox's own sockets under the inode numbers that it knows.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use linux_abi::socket::AF_INET6;

use crate::inet::endpoint::Endpoint;
use crate::inet::udp_counts::counts;
use crate::registry::{Description, ListenerDescription, Open, TcpDescription, UnixDescription, list};

/// Tables that are the host's as they are: they tell of the network namespace alone.
pub const HOST_TABLES: [&str; 21] = [
    "arp",
    "dev",
    "dev_mcast",
    "fib_trie",
    "fib_triestat",
    "icmp",
    "icmp6",
    "if_inet6",
    "igmp",
    "igmp6",
    "ipv6_route",
    "netlink",
    "netstat",
    "packet",
    "protocols",
    "ptype",
    "route",
    "snmp",
    "snmp6",
    "softnet_stat",
    "sockstat6",
];

/// Tables with the sockets' inode numbers in a column.
pub const SOCKET_TABLES: [&str; 8] = ["tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6"];

/// Column of the inode number in those.
const INODE_COLUMN: usize = 9;
/// That of the owner, who is the kernel process to the host.
const UID_COLUMN: usize = 7;
/// Those of what waits to be sent and to be read, and of what was lost.
const QUEUES_COLUMN: usize = 4;
const DROPS_COLUMN: usize = 12;
const TCP_HEADER: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
/// Rows of /proc/net/tcp are filled up to this.
const TCP_WIDTH: usize = 149;

fn host_table(name: &str) -> String {
    host::proc_fs::read(&format!("self/net/{name}")).unwrap_or_default()
}

/// The text of a table; none if there is no such one.
pub fn text(name: &str) -> Option<Vec<u8>> {
    if SOCKET_TABLES.contains(&name) {
        return Some(sockets(name, &list()).into_bytes());
    }
    match name {
        "unix" => Some(unix(&list())),
        "snmp" => Some(snmp().into_bytes()),
        "snmp6" => Some(snmp6().into_bytes()),
        "sockstat" => Some(sockstat(&list()).into_bytes()),
        _ if HOST_TABLES.contains(&name) => Some(host_table(name).into_bytes()),
        _ => None,
    }
}

/// What is to be changed of the host's row for a socket.
#[derive(Clone, Copy, Default)]
struct Own {
    ino: u64,
    uid: u32,
    unread: usize,
    lost: u64,
}

/// The guest's sockets by the host's inode numbers.
fn inodes(all: &[Open]) -> HashMap<u64, Own> {
    let known = all.iter().filter_map(|open| {
        let own = Own { ino: open.ino, uid: open.uid, ..Own::default() };
        match open.what {
            Description::Host(host) => Some((host, own)),
            Description::Listener(listener) => Some((listener.host, Own { unread: listener.pending, ..own })),
            Description::Udp(udp) => Some((udp.host, Own { unread: udp.unread, lost: udp.lost, ..own })),
            Description::Tcp(_) | Description::Unix(_) => None,
        }
    });
    known.collect()
}

/// A line with the inode number in a column replaced; others' sockets have none. Lines keep their width if they can.
fn translated(line: &str, inodes: &HashMap<u64, Own>) -> String {
    let Some(word) = line.split_ascii_whitespace().nth(INODE_COLUMN) else { return line.to_owned() };
    let own = word.parse().ok().and_then(|host: u64| inodes.get(&host)).copied();
    let is_own = own.is_some();
    let own = own.unwrap_or_default();
    let mut line = replaced(line, INODE_COLUMN, |_| Some(own.ino.to_string()));
    if is_own {
        line = replaced(&line, UID_COLUMN, |old| Some(format!("{:>1$}", own.uid, old.len())));
    }
    if own.unread > 0 {
        line = replaced(&line, QUEUES_COLUMN, |word| {
            let (unsent, unread) = word.split_once(':')?;
            let unread = u64::from_str_radix(unread, 16).ok()?.saturating_add(own.unread as u64);
            Some(format!("{unsent}:{unread:08X}"))
        });
    }
    if own.lost > 0 {
        let more = |word: &str| Some(word.parse::<u64>().ok()?.saturating_add(own.lost).to_string());
        line = replaced(&line, DROPS_COLUMN, more);
    }
    line
}

/// A line with one of its words replaced, if there is such a word.
fn replaced(line: &str, column: usize, by: impl Fn(&str) -> Option<String>) -> String {
    let start = |word: &str| word.as_ptr() as usize - line.as_ptr() as usize;
    let found = line.split_ascii_whitespace().nth(column).and_then(|word| Some((word, by(word)?)));
    let Some((word, new)) = found else { return line.to_owned() };
    let (before, after) = (line.get(..start(word)), line.get(start(word) + word.len()..));
    format!("{}{new}{}", before.unwrap_or_default(), after.unwrap_or_default())
}

/// /proc/net/snmp with the datagrams that stayed inside: pairs of lines, names and numbers.
fn snmp() -> String {
    let (mut out, mut names) = (String::new(), Vec::new());
    for line in host_table("snmp").lines() {
        match line.split_once(": ") {
            Some(("Udp", rest)) if names.is_empty() => {
                names = rest.split(' ').map(str::to_owned).collect();
                out.push_str(line);
            }
            Some(("Udp", rest)) => {
                out.push_str("Udp:");
                for (number, name) in rest.split(' ').zip(&names) {
                    let _ = write!(out, " {}", more(number, counts(false).named(name)));
                }
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// /proc/net/snmp6 with the same: a name and a number on each line.
fn snmp6() -> String {
    let mut out = String::new();
    for line in host_table("snmp6").lines() {
        let name = line.split_ascii_whitespace().next().and_then(|name| name.strip_prefix("Udp6"));
        match name.map(|name| counts(true).named(name)) {
            Some(own) if own > 0 => out.push_str(&replaced(line, 1, |number| Some(more(number, own)))),
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

fn more(number: &str, own: u64) -> String {
    number.parse::<u64>().map_or_else(|_| number.to_owned(), |host| host.saturating_add(own).to_string())
}

fn sockets(name: &str, all: &[Open]) -> String {
    let inodes = inodes(all);
    let host = host_table(name);
    let mut lines = host.lines();
    let mut out = lines.next().map_or_else(|| format!("{TCP_HEADER:<TCP_WIDTH$}"), str::to_owned);
    out.push('\n');
    let mut count = 0;
    for line in lines {
        out.push_str(&translated(line, &inodes));
        out.push('\n');
        count += 1;
    }
    let six = match name {
        "tcp" => false,
        "tcp6" => true,
        _ => return out,
    };
    for open in all {
        let Description::Tcp(tcp) = &open.what else { continue };
        if (tcp.family == AF_INET6) == six {
            let row = tcp_row(count, tcp, open);
            let _ = writeln!(out, "{row:<TCP_WIDTH$}");
            count += 1;
        }
    }
    out
}

/// Address and port as the tables print them: words of the machine's order.
fn hex(address: &[u8], six: bool) -> String {
    let Some((_, end)) = Endpoint::parse(address) else { return String::new() };
    let octets: [u8; 16] = match end.ip {
        IpAddr::V4(ip) if six => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            return format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), end.port);
        }
    };
    let mut out = String::new();
    for word in octets.as_chunks::<4>().0 {
        let _ = write!(out, "{:08X}", u32::from_ne_bytes(*word));
    }
    let _ = write!(out, ":{:04X}", end.port);
    out
}

fn tcp_row(index: usize, tcp: &TcpDescription, open: &Open) -> String {
    let six = tcp.family == AF_INET6;
    format!(
        "{index:4}: {} {} {:02X} {:08X}:{:08X} 00:00000000 00000000 {:5} {:8} {} 1 0000000000000000 20 4 0 10 -1",
        hex(&tcp.local, six),
        hex(&tcp.remote, six),
        tcp.state,
        tcp.unsent,
        tcp.unread,
        open.uid,
        0,
        open.ino
    )
}

fn unix(all: &[Open]) -> Vec<u8> {
    let mut out = b"Num       RefCount Protocol Flags    Type St Inode Path\n".to_vec();
    for open in all {
        let Description::Unix(unix) = &open.what else { continue };
        // __SO_ACCEPTCON; SS_CONNECTED, SS_UNCONNECTED.
        let flags = if unix.listening { 0x10000 } else { 0 };
        let state = if unix.connected { 3 } else { 1 };
        let line =
            format!("{:016x}: 00000002 00000000 {flags:08X} {:04X} {state:02X} {:5}", 0, unix.kind, open.ino);
        out.extend_from_slice(line.as_bytes());
        if !unix.name.is_empty() {
            out.push(b' ');
            out.extend(printed_name(unix));
        }
        out.push(b'\n');
    }
    out
}

/// A path without its end, or an abstract name with `@` for each NUL.
fn printed_name(unix: &UnixDescription) -> Vec<u8> {
    if unix.name.first() == Some(&0) {
        return unix.name.iter().map(|b| if *b == 0 { b'@' } else { *b }).collect();
    }
    unix.name.iter().copied().take_while(|b| *b != 0).collect()
}

/// /proc/net/sockstat, with the connections that the host does not know.
fn sockstat(all: &[Open]) -> String {
    let own = all.iter().filter(|open| matches!(open.what, Description::Tcp(_))).count();
    let mut out = String::new();
    for line in host_table("sockstat").lines() {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match words.first().map(String::as_str) {
            Some("sockets:") => add(&mut words, 2, all.len().saturating_sub(inodes(all).len())),
            Some("TCP:") => {
                add(&mut words, 2, own);
                add(&mut words, 8, own);
            }
            _ => {}
        }
        out.push_str(&words.join(" "));
        out.push('\n');
    }
    out
}

fn add(words: &mut [String], at: usize, n: usize) {
    if let Some(word) = words.get_mut(at)
        && let Ok(old) = word.parse::<usize>()
    {
        *word = (old + n).to_string();
    }
}

/// A socket as sock_diag(7) tells of it.
pub(crate) struct Row {
    pub(crate) local: Endpoint,
    pub(crate) remote: Endpoint,
    pub(crate) state: u8,
    pub(crate) unsent: u32,
    pub(crate) unread: u32,
    pub(crate) uid: u32,
    pub(crate) ino: u64,
    /// More of a listener.
    pub(crate) listener: Option<ListenerDescription>,
}

/// The rows of one of the tables of sockets.
pub(crate) fn rows(name: &str) -> Vec<Row> {
    let all = list();
    let listeners: HashMap<u64, ListenerDescription> = (all.iter())
        .filter_map(|open| match open.what {
            Description::Listener(listener) => Some((open.ino, listener)),
            _ => None,
        })
        .collect();
    let text = sockets(name, &all);
    let rows = text.lines().skip(1).filter_map(row);
    rows.map(|row| Row { listener: listeners.get(&row.ino).copied(), ..row }).collect()
}

fn row(line: &str) -> Option<Row> {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let number = |at: usize, radix| u64::from_str_radix(words.get(at)?, radix).ok();
    let (unsent, unread) = words.get(4)?.split_once(':')?;
    Some(Row {
        local: unhex(words.get(1)?)?,
        remote: unhex(words.get(2)?)?,
        state: u8::try_from(number(3, 16)?).ok()?,
        unsent: u32::from_str_radix(unsent, 16).ok()?,
        unread: u32::from_str_radix(unread, 16).ok()?,
        uid: u32::try_from(number(7, 10)?).ok()?,
        ino: number(INODE_COLUMN, 10)?,
        listener: None,
    })
}

fn unhex(word: &str) -> Option<Endpoint> {
    let (ip, port) = word.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut octets = Vec::new();
    for at in (0..ip.len()).step_by(8) {
        octets.extend(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let ip = match octets.len() {
        4 => IpAddr::from(*octets.first_chunk::<4>()?),
        16 => IpAddr::from(*octets.first_chunk::<16>()?),
        _ => return None,
    };
    Some(Endpoint { ip, port, scope: 0 })
}

#[cfg(test)]
mod tests {
    use super::{Own, hex, row, translated, unhex};
    use std::collections::HashMap;

    #[test]
    fn rows_are_read_as_they_are_written() {
        let line = "   0: 0100007F:1B58 00000000:0000 0A 00000001:00000002 00:00000000 00000000    33        0 1581 1 000000007f107fbc 100 0 0 10 0";
        let got = row(&translated(
            line,
            &HashMap::from([(1581, Own { ino: 7, uid: 1000, unread: 0x10, lost: 3 })]),
        ))
        .unwrap();
        assert_eq!(
            (got.local.port, got.state, got.unsent, got.unread, got.uid, got.ino),
            (7000, 10, 1, 0x12, 1000, 7)
        );
        assert_eq!(row(&translated(line, &HashMap::new())).unwrap().ino, 0);
        let six = unhex("00000000000000000000000001000000:0050").unwrap();
        assert_eq!(six.ip, std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST));
        assert_eq!(hex(&six.render(10), true), "00000000000000000000000001000000:0050");
        assert!(row("").is_none() && unhex("zz:1").is_none());
    }
}
