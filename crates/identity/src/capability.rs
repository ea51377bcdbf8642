//! Capabilities: capabilities(7), `linux/capability.h`.

macro_rules! capabilities {
    ($($name:ident = $value:literal;)*) => {
        /// One capability, by its bit number.
        #[expect(non_camel_case_types, missing_docs, reason = "named as in capabilities(7)")]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Capability { $($name = $value,)* }

        impl Capability {
            /// Every capability in ascending order.
            pub const ALL: &[Capability] = &[$(Capability::$name,)*];

            /// The capability of a bit number, if there is one.
            pub fn from_number(number: u64) -> Option<Capability> {
                Capability::ALL.get(usize::try_from(number).ok()?).copied()
            }

            /// The name as OCI writes it, such as `CAP_CHOWN`.
            pub fn name(self) -> &'static str {
                match self { $(Capability::$name => concat!("CAP_", stringify!($name)),)* }
            }
        }
    };
}

capabilities! {
    CHOWN = 0; DAC_OVERRIDE = 1; DAC_READ_SEARCH = 2; FOWNER = 3; FSETID = 4; KILL = 5; SETGID = 6;
    SETUID = 7; SETPCAP = 8; LINUX_IMMUTABLE = 9; NET_BIND_SERVICE = 10; NET_BROADCAST = 11;
    NET_ADMIN = 12; NET_RAW = 13; IPC_LOCK = 14; IPC_OWNER = 15; SYS_MODULE = 16; SYS_RAWIO = 17;
    SYS_CHROOT = 18; SYS_PTRACE = 19; SYS_PACCT = 20; SYS_ADMIN = 21; SYS_BOOT = 22; SYS_NICE = 23;
    SYS_RESOURCE = 24; SYS_TIME = 25; SYS_TTY_CONFIG = 26; MKNOD = 27; LEASE = 28; AUDIT_WRITE = 29;
    AUDIT_CONTROL = 30; SETFCAP = 31; MAC_OVERRIDE = 32; MAC_ADMIN = 33; SYSLOG = 34; WAKE_ALARM = 35;
    BLOCK_SUSPEND = 36; AUDIT_READ = 37; PERFMON = 38; BPF = 39; CHECKPOINT_RESTORE = 40;
}

/// A set of capabilities, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CapabilitySet(pub u64);

impl CapabilitySet {
    /// None.
    pub const EMPTY: CapabilitySet = CapabilitySet(0);
    /// All that this kernel knows.
    pub const FULL: CapabilitySet = CapabilitySet((1 << 41) - 1);

    /// Whether it is in the set.
    pub fn has(self, cap: Capability) -> bool {
        self.0 & (1 << cap as u8) != 0
    }

    /// With one added.
    pub fn with(self, cap: Capability) -> CapabilitySet {
        CapabilitySet(self.0 | (1 << cap as u8))
    }

    /// With one removed.
    pub fn without(self, cap: Capability) -> CapabilitySet {
        CapabilitySet(self.0 & !(1 << cap as u8))
    }

    /// What is in both.
    pub fn and(self, other: CapabilitySet) -> CapabilitySet {
        CapabilitySet(self.0 & other.0)
    }

    /// What is in either.
    pub fn or(self, other: CapabilitySet) -> CapabilitySet {
        CapabilitySet(self.0 | other.0)
    }
}

impl FromIterator<Capability> for CapabilitySet {
    fn from_iter<I: IntoIterator<Item = Capability>>(iter: I) -> Self {
        iter.into_iter().fold(CapabilitySet::EMPTY, CapabilitySet::with)
    }
}
