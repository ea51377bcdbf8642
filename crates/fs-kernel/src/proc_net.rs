//! /proc/net: tables of the network namespace.

use crate::synthetic::Fixed;

/// The files.
pub(crate) fn files() -> Fixed {
    let mut all = Fixed::default();
    let own = ["unix", "sockstat"];
    for name in net::tables::HOST_TABLES.into_iter().chain(net::tables::SOCKET_TABLES).chain(own) {
        all = all.with_made(name, move || net::tables::text(name).unwrap_or_default());
    }
    all
}
