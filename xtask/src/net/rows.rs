//! What is measured, and from where.

/// Where the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// In the server's own container, over loopback.
    Inside,
    /// In a container of runc on the same bridge.
    Container,
    /// On the host, through a published port.
    Published,
}

pub(super) const PLACES: [Place; 3] = [Place::Inside, Place::Container, Place::Published];

impl Place {
    pub(super) fn name(self) -> &'static str {
        match self {
            Place::Inside => "inside",
            Place::Container => "container",
            Place::Published => "published",
        }
    }

    /// The least share of runc's work that is to be done.
    pub(super) fn goal(self) -> f64 {
        if self == Place::Inside { 1.0 } else { 0.7 }
    }
}

/// One kind of load: a case of `tests/apps/net/load.sh`.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// The server's port in its container.
    pub(super) port: u16,
    /// The unit of work.
    pub(super) unit: &'static str,
    /// About how many units are done in a second, for the first run.
    pub(super) guess: f64,
}

impl Row {
    /// Whether it can be measured from there: a unix socket is only inside.
    pub(super) fn from(&self, place: Place) -> bool {
        place == Place::Inside || self.name != "pgbench-unix"
    }
}

const fn redis(name: &'static str, guess: f64) -> Row {
    Row { name, port: 6379, unit: "request", guess }
}

const fn other(name: &'static str, port: u16, unit: &'static str) -> Row {
    Row { name, port, unit, guess: 0.0 }
}

pub(super) const ROWS: [Row; 23] = [
    redis("SET-1", 15e3),
    redis("SET-50", 40e3),
    redis("SET-500", 40e3),
    redis("SET-1-P16", 200e3),
    redis("SET-50-P16", 400e3),
    redis("SET-500-P16", 300e3),
    redis("GET-1", 15e3),
    redis("GET-50", 40e3),
    redis("GET-500", 40e3),
    redis("GET-1-P16", 200e3),
    redis("GET-50-P16", 400e3),
    redis("GET-500-P16", 300e3),
    other("nginx-0", 80, "request"),
    other("nginx-1K", 80, "request"),
    other("nginx-100K", 80, "request"),
    other("pgbench-tcp", 5432, "transaction"),
    other("pgbench-unix", 5432, "transaction"),
    other("pgbench-write", 5432, "transaction"),
    other("iperf3", 5201, "MB"),
    other("iperf3-reverse", 5201, "MB"),
    other("TCP_RR", 7001, "round trip"),
    other("TCP_RR-32", 7001, "round trip"),
    other("TCP_CRR", 7002, "connection"),
];
