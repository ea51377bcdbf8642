//! What files of the whole sandbox share: pipes of FIFOs and the like.

use crate::pipe::Fifos;

/// Tables of one kernel, by subject.
#[derive(Default)]
pub struct IoTables {
    /// FIFOs that are open.
    pub fifos: Fifos,
}
