//! Readiness bits of poll(2) and epoll(7).

use bitflags::bitflags;

bitflags! {
    /// Readiness, with the bit values of poll(2); epoll uses the same low bits.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Events: u32 {
        /// Data to read.
        const IN = 0x001;
        /// Urgent data.
        const PRI = 0x002;
        /// Room to write.
        const OUT = 0x004;
        /// Error; always reported.
        const ERR = 0x008;
        /// Hang-up; always reported.
        const HUP = 0x010;
        /// Not an open descriptor; poll only.
        const NVAL = 0x020;
        /// As `IN`.
        const RDNORM = 0x040;
        /// Priority band data.
        const RDBAND = 0x080;
        /// As `OUT`.
        const WRNORM = 0x100;
        /// Priority data may be written.
        const WRBAND = 0x200;
        /// Unused by Linux.
        const MSG = 0x400;
        /// The peer closed its writing half.
        const RDHUP = 0x2000;
    }
}

impl Events {
    /// What is always reported, asked for or not.
    pub const ALWAYS: Events = Events::ERR.union(Events::HUP);
    /// `IN` with its synonym.
    pub const READABLE: Events = Events::IN.union(Events::RDNORM);
    /// `OUT` with its synonym.
    pub const WRITABLE: Events = Events::OUT.union(Events::WRNORM);
}
