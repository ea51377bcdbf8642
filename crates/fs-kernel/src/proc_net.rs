//! /proc/net: tables of the network namespace.

use crate::synthetic::Fixed;

/// The files.
pub(crate) fn files() -> Fixed {
    let inet =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
    Fixed::default()
        .with_text("tcp", inet)
        .with_text("tcp6", inet)
        .with_text("udp", inet)
        .with_text("udp6", inet)
        .with_text("unix", "Num       RefCount Protocol Flags    Type St Inode Path\n")
        .with_text(
            "dev",
            "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n",
        )
        .with_text("route", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n")
        .with_text("if_inet6", "00000000000000000000000000000001 01 80 10 80       lo\n")
        .with_text("snmp", "")
        .with_text("netstat", "")
        .with_text("sockstat", "sockets: used 0\nTCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0\nUDP: inuse 0 mem 0\n")
        .with_text("arp", "IP address       HW type     Flags       HW address            Mask     Device\n")
        .with_text("protocols", "")
        .with_text("packet", "sk       RefCnt Type Proto  Iface R Rmem   User   Inode\n")
}
