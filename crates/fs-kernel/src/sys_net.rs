//! /sys/class/net and the devices it leads to: the interfaces of the network namespace.

use std::sync::Arc;

use linux_abi::fs::DirentType;
use net::links::{Link, list};

use crate::synthetic::{Directory, Fixed, Kind, Node, ino_of};

/// Names of IF_OPER_*.
const STATES: [&str; 7] = ["unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"];
/// The counters in the order of `struct rtnl_link_stats64`.
const COUNTERS: [&str; 24] = [
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
    "multicast",
    "collisions",
    "rx_length_errors",
    "rx_over_errors",
    "rx_crc_errors",
    "rx_frame_errors",
    "rx_fifo_errors",
    "rx_missed_errors",
    "tx_aborted_errors",
    "tx_carrier_errors",
    "tx_fifo_errors",
    "tx_heartbeat_errors",
    "tx_window_errors",
    "rx_compressed",
    "tx_compressed",
    "rx_nohandler",
];
/// Files of an interface that are one line, beside `statistics`.
type Line = fn(&Link) -> String;
const LINES: [(&str, Line); 19] = [
    ("addr_assign_type", |_| "0".into()),
    ("addr_len", |l| l.address.len().to_string()),
    ("address", |l| hex(&l.address)),
    ("broadcast", |l| hex(&l.broadcast)),
    ("carrier", |l| u8::from(l.carrier).to_string()),
    ("dev_id", |_| "0x0".into()),
    ("dev_port", |_| "0".into()),
    ("dormant", |_| "0".into()),
    ("flags", |l| format!("0x{:x}", l.flags)),
    ("ifalias", |_| String::new()),
    ("ifindex", |l| l.index.to_string()),
    ("iflink", |l| l.below.to_string()),
    ("link_mode", |l| l.link_mode.to_string()),
    ("mtu", |l| l.mtu.to_string()),
    ("netdev_group", |l| l.group.to_string()),
    ("operstate", |l| STATES.get(usize::from(l.state)).copied().unwrap_or("unknown").into()),
    ("tx_queue_len", |l| l.queue_length.to_string()),
    ("type", |l| l.kind.to_string()),
    ("uevent", |l| format!("INTERFACE={}\nIFINDEX={}", l.name, l.index)),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

/// The links as they are now, each as a node.
struct Links(fn(&str) -> Arc<Node>);

impl Directory for Links {
    fn lookup(&self, name: &[u8]) -> Option<Arc<Node>> {
        let name = std::str::from_utf8(name).ok()?;
        list().iter().any(|link| link.name == name).then(|| (self.0)(name))
    }
    fn list(&self) -> Vec<(Vec<u8>, DirentType, u64)> {
        let node = |link: Link| {
            let node = (self.0)(&link.name);
            (link.name.into_bytes(), node.dirent_type(), node.ino())
        };
        list().into_iter().map(node).collect()
    }
    fn still(&self, name: &[u8]) -> bool {
        list().iter().any(|link| link.name.as_bytes() == name)
    }
}

/// A file whose line is made from the interface as it is when it is read; empty once it is gone.
fn line(name: &str, path: &str, make: impl Fn(&Link) -> String + Send + Sync + 'static) -> Arc<Node> {
    let interface = name.to_owned();
    let text = move |_: &mut dyn vfs::Caller| {
        let link = list().into_iter().find(|link| link.name == interface);
        Ok(link.map_or_else(Vec::new, |link| format!("{}\n", make(&link)).into_bytes()))
    };
    Node::new(ino_of(7, path.as_bytes()), 0o444, None, Kind::File(Box::new(text), None))
}

fn directory(path: &str, contents: Fixed) -> Arc<Node> {
    Node::new(ino_of(8, path.as_bytes()), 0o555, None, Kind::Directory(Box::new(contents)))
}

/// /sys/devices/virtual/net/NAME.
fn device(name: &str) -> Arc<Node> {
    let mut counters = Fixed::default();
    for (index, counter) in COUNTERS.iter().enumerate() {
        let value = move |link: &Link| link.statistics.get(index).copied().unwrap_or(0).to_string();
        counters = counters.with(counter, line(name, &format!("{name}/statistics/{counter}"), value));
    }
    let mut all = Fixed::default();
    for (file, make) in LINES {
        all = all.with(file, line(name, &format!("{name}/{file}"), make));
    }
    let subsystem = Kind::Link(Box::new(|_| Ok(b"../../../../class/net".to_vec())));
    let subsystem = Node::new(ino_of(7, format!("{name}/subsystem").as_bytes()), 0o777, None, subsystem);
    let all = all
        .with("statistics", directory(&format!("{name}/statistics"), counters))
        .with("subsystem", subsystem);
    directory(name, all)
}

/// /sys/class/net/NAME.
fn class_entry(name: &str) -> Arc<Node> {
    let target = format!("../../devices/virtual/net/{name}").into_bytes();
    let kind = Kind::Link(Box::new(move |_| Ok(target.clone())));
    Node::new(ino_of(9, name.as_bytes()), 0o777, None, kind)
}

/// /sys/devices/virtual/net.
pub(crate) fn devices() -> Arc<Node> {
    let kind = Kind::Directory(Box::new(Links(device)));
    Node::new(ino_of(5, b"devices/virtual/net"), 0o555, None, kind)
}

/// /sys/class/net.
pub(crate) fn class() -> Arc<Node> {
    let kind = Kind::Directory(Box::new(Links(class_entry)));
    Node::new(ino_of(5, b"class/net"), 0o555, None, kind)
}
