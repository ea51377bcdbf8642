//! What files of the whole sandbox share: pipes of FIFOs and the like.

use std::sync::Arc;

use crate::file_systems::FileSystems;
use crate::locks::Locks;
use crate::pipe::Fifos;

/// Tables of one kernel, by subject.
#[derive(Default)]
pub struct IoTables {
    /// FIFOs that are open.
    pub fifos: Fifos,
    /// File system types for mount(2).
    pub file_systems: FileSystems,
    /// File locks.
    pub locks: Arc<Locks>,
    /// Requests of io_setup(2).
    pub aio: Arc<crate::aio::Quota>,
    /// The network that guests see.
    pub network: net::Network,
}
