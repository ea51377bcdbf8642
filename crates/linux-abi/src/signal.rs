//! Signals: numbers, sets, actions, siginfo (signal(7), sigaction(2)).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A signal number, 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signo(u8);

macro_rules! signals {
    ($($name:ident = $value:literal;)*) => {
        #[expect(missing_docs, reason = "named in signal(7)")]
        impl Signo {
            $(pub const $name: Signo = Signo($value);)*

            /// The name such as `SIGTERM`; real-time signals have none.
            pub fn name(self) -> Option<&'static str> {
                match self.0 { $($value => Some(stringify!($name)),)* _ => None }
            }
        }
    };
}

signals! {
    SIGHUP = 1; SIGINT = 2; SIGQUIT = 3; SIGILL = 4; SIGTRAP = 5; SIGABRT = 6; SIGBUS = 7; SIGFPE = 8;
    SIGKILL = 9; SIGUSR1 = 10; SIGSEGV = 11; SIGUSR2 = 12; SIGPIPE = 13; SIGALRM = 14; SIGTERM = 15;
    SIGSTKFLT = 16; SIGCHLD = 17; SIGCONT = 18; SIGSTOP = 19; SIGTSTP = 20; SIGTTIN = 21; SIGTTOU = 22;
    SIGURG = 23; SIGXCPU = 24; SIGXFSZ = 25; SIGVTALRM = 26; SIGPROF = 27; SIGWINCH = 28; SIGIO = 29;
    SIGPWR = 30; SIGSYS = 31;
}

impl Signo {
    /// The first real-time signal.
    pub const RTMIN: u8 = 32;
    /// The last signal.
    pub const MAX: u8 = 64;

    /// A valid number (1 to 64), or none.
    pub fn new(n: i32) -> Option<Signo> {
        match u8::try_from(n) {
            Ok(n) if (1..=Signo::MAX).contains(&n) => Some(Signo(n)),
            _ => None,
        }
    }

    /// The number.
    pub fn raw(self) -> i32 {
        i32::from(self.0)
    }

    /// Its bit in a set.
    pub fn bit(self) -> u64 {
        1u64 << (self.0 - 1)
    }

    /// Queued, one entry for each sending.
    pub fn is_realtime(self) -> bool {
        self.0 >= Signo::RTMIN
    }
}

impl core::fmt::Debug for Signo {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "SIG{}", self.0),
        }
    }
}

/// A set of signals: bit n-1 is signal n.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);
    /// `SIGKILL` and `SIGSTOP`: never blocked, caught or ignored.
    pub const UNBLOCKABLE: SigSet = SigSet((1 << 8) | (1 << 18));

    /// Whether the signal is in the set.
    pub fn contains(self, sig: Signo) -> bool {
        self.0 & sig.bit() != 0
    }

    /// With the signal added.
    pub fn with(self, sig: Signo) -> SigSet {
        SigSet(self.0 | sig.bit())
    }

    /// With the signal removed.
    pub fn without(self, sig: Signo) -> SigSet {
        SigSet(self.0 & !sig.bit())
    }

    /// Without those that can never be blocked.
    pub fn blockable(self) -> SigSet {
        SigSet(self.0 & !SigSet::UNBLOCKABLE.0)
    }

    /// The lowest signal of the set.
    pub fn first(self) -> Option<Signo> {
        if self.0 == 0 { None } else { Signo::new(self.0.trailing_zeros() as i32 + 1) }
    }
}

/// The kernel's `struct sigaction` of x86-64.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SigAction {
    /// Address of the handler, or `SIG_DFL` (0) or `SIG_IGN` (1).
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// Blocked while the handler runs.
    pub mask: SigSet,
}

impl SigAction {
    /// Its words, as they lie in memory.
    pub fn words(&self) -> [u64; 4] {
        [self.handler, self.flags, self.restorer, self.mask.0]
    }
}

/// Default action.
pub const SIG_DFL: u64 = 0;
/// Ignored.
pub const SIG_IGN: u64 = 1;

/// `SA_*` flags of sigaction(2).
#[expect(missing_docs, reason = "named in sigaction(2)")]
pub mod sa {
    pub const NOCLDSTOP: u64 = 1;
    pub const NOCLDWAIT: u64 = 2;
    pub const SIGINFO: u64 = 4;
    pub const UNSUPPORTED: u64 = 0x400;
    pub const EXPOSE_TAGBITS: u64 = 0x800;
    pub const RESTORER: u64 = 0x0400_0000;
    pub const ONSTACK: u64 = 0x0800_0000;
    pub const RESTART: u64 = 0x1000_0000;
    pub const NODEFER: u64 = 0x4000_0000;
    pub const RESETHAND: u64 = 0x8000_0000;
}

/// `si_code` values.
#[expect(missing_docs, reason = "named in sigaction(2)")]
pub mod si {
    pub const USER: i32 = 0;
    pub const KERNEL: i32 = 0x80;
    pub const QUEUE: i32 = -1;
    pub const TIMER: i32 = -2;
    pub const MESGQ: i32 = -3;
    pub const ASYNCIO: i32 = -4;
    pub const SIGIO: i32 = -5;
    pub const TKILL: i32 = -6;
    pub const CLD_EXITED: i32 = 1;
    pub const CLD_KILLED: i32 = 2;
    pub const CLD_DUMPED: i32 = 3;
    pub const CLD_TRAPPED: i32 = 4;
    pub const CLD_STOPPED: i32 = 5;
    pub const CLD_CONTINUED: i32 = 6;
    pub const SEGV_MAPERR: i32 = 1;
    pub const SEGV_ACCERR: i32 = 2;
    pub const BUS_ADRERR: i32 = 2;
}

/// `siginfo_t`: 128 bytes, the head in fields, the union as bytes.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SigInfo {
    /// Signal number.
    pub signo: i32,
    /// Error number, mostly 0.
    pub errno: i32,
    /// Where it comes from, `SI_*` and others.
    pub code: i32,
    /// Alignment.
    pub pad: i32,
    /// The union, from offset 16.
    pub fields: [u8; 112],
}

impl core::fmt::Debug for SigInfo {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SigInfo {{ signo {}, code {} }}", self.signo, self.code)
    }
}

impl SigInfo {
    /// A bare siginfo.
    pub fn new(sig: Signo, code: i32) -> SigInfo {
        SigInfo { signo: sig.raw(), errno: 0, code, pad: 0, fields: [0; 112] }
    }

    /// Sent by kill(2), tgkill(2): `si_pid` and `si_uid`.
    pub fn from_user(sig: Signo, code: i32, pid: i32, uid: u32) -> SigInfo {
        SigInfo::new(sig, code).with_i32(0, pid).with_i32(4, uid as i32)
    }

    /// Sent by sigqueue(3): `si_value` as well.
    pub fn queued(sig: Signo, code: i32, pid: i32, uid: u32, value: u64) -> SigInfo {
        SigInfo::from_user(sig, code, pid, uid).with_u64(8, value)
    }

    /// `SIGCHLD` of a child: `si_status`, `si_utime`, `si_stime` (clock ticks).
    pub fn child(code: i32, pid: i32, uid: u32, status: i32, utime: u64, stime: u64) -> SigInfo {
        SigInfo::new(Signo::SIGCHLD, code)
            .with_i32(0, pid)
            .with_i32(4, uid as i32)
            .with_i32(8, status)
            .with_u64(16, utime)
            .with_u64(24, stime)
    }

    /// A fault: `si_addr`.
    pub fn fault(sig: Signo, code: i32, addr: u64) -> SigInfo {
        SigInfo::new(sig, code).with_u64(0, addr)
    }

    /// With an i32 at an offset within the union; out of range leaves it unchanged.
    pub fn with_i32(mut self, offset: usize, value: i32) -> SigInfo {
        if let Some(to) = self.fields.get_mut(offset..offset + 4) {
            to.copy_from_slice(&value.to_ne_bytes());
        }
        self
    }

    /// The i32 at an offset within the union; 0 out of range.
    pub fn i32_at(&self, offset: usize) -> i32 {
        let bytes = self.fields.get(offset..offset + 4).and_then(|b| b.try_into().ok());
        bytes.map_or(0, i32::from_ne_bytes)
    }

    /// The u64 at an offset within the union; 0 out of range.
    pub fn u64_at(&self, offset: usize) -> u64 {
        let bytes = self.fields.get(offset..offset + 8).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    }

    /// With a u64 at an offset within the union; out of range leaves it unchanged.
    pub fn with_u64(mut self, offset: usize, value: u64) -> SigInfo {
        if let Some(to) = self.fields.get_mut(offset..offset + 8) {
            to.copy_from_slice(&value.to_ne_bytes());
        }
        self
    }
}
