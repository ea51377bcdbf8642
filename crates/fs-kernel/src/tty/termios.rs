//! Terminal settings: termios(3), in the layout of the host's `struct termios` on x86-64.

/// `c_iflag`.
pub(super) mod input {
    pub(in super::super) const ISTRIP: u32 = 0o40;
    pub(in super::super) const INLCR: u32 = 0o100;
    pub(in super::super) const IGNCR: u32 = 0o200;
    pub(in super::super) const ICRNL: u32 = 0o400;
    pub(in super::super) const IXON: u32 = 0o2000;
    pub(in super::super) const IUTF8: u32 = 0o40000;
}

/// `c_oflag`.
pub(super) mod output {
    pub(in super::super) const OPOST: u32 = 0o1;
    pub(in super::super) const ONLCR: u32 = 0o4;
    pub(in super::super) const OCRNL: u32 = 0o10;
    pub(in super::super) const TABDLY: u32 = 0o14000;
    pub(in super::super) const XTABS: u32 = 0o14000;
}

/// `c_lflag`.
pub(super) mod local {
    pub(in super::super) const ISIG: u32 = 0o1;
    pub(in super::super) const ICANON: u32 = 0o2;
    pub(in super::super) const ECHO: u32 = 0o10;
    pub(in super::super) const ECHOE: u32 = 0o20;
    pub(in super::super) const ECHOK: u32 = 0o40;
    pub(in super::super) const ECHONL: u32 = 0o100;
    pub(in super::super) const NOFLSH: u32 = 0o200;
    pub(in super::super) const TOSTOP: u32 = 0o400;
    pub(in super::super) const ECHOCTL: u32 = 0o1000;
    pub(in super::super) const ECHOKE: u32 = 0o4000;
    pub(in super::super) const IEXTEN: u32 = 0o100_000;
}

/// Indices of `c_cc`.
pub(super) mod cc {
    pub(in super::super) const VINTR: usize = 0;
    pub(in super::super) const VQUIT: usize = 1;
    pub(in super::super) const VERASE: usize = 2;
    pub(in super::super) const VKILL: usize = 3;
    pub(in super::super) const VEOF: usize = 4;
    pub(in super::super) const VTIME: usize = 5;
    pub(in super::super) const VMIN: usize = 6;
    pub(in super::super) const VSTART: usize = 8;
    pub(in super::super) const VSTOP: usize = 9;
    pub(in super::super) const VSUSP: usize = 10;
    pub(in super::super) const VEOL: usize = 11;
    pub(in super::super) const VREPRINT: usize = 12;
    pub(in super::super) const VWERASE: usize = 14;
    pub(in super::super) const VLNEXT: usize = 15;
    pub(in super::super) const VEOL2: usize = 16;
}

/// Bytes of `struct termios` as `TCGETS` gives it.
pub(super) const SIZE: usize = 36;

/// The settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Termios {
    pub(super) iflag: u32,
    pub(super) oflag: u32,
    pub(super) cflag: u32,
    pub(super) lflag: u32,
    pub(super) line: u8,
    pub(super) cc: [u8; 19],
}

impl Default for Termios {
    /// As a new terminal of Linux.
    fn default() -> Termios {
        Termios {
            iflag: input::ICRNL | input::IXON | input::IUTF8,
            oflag: output::OPOST | output::ONLCR,
            // CREAD, CS8, B38400.
            cflag: 0o277,
            lflag: local::ISIG
                | local::ICANON
                | local::ECHO
                | local::ECHOE
                | local::ECHOK
                | local::ECHOCTL
                | local::ECHOKE
                | local::IEXTEN,
            line: 0,
            // ^C ^\ ^? ^U ^D 0 1 0 ^Q ^S ^Z 0 ^R ^O ^W ^V
            cc: [3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0],
        }
    }
}

impl Termios {
    /// The bytes of `struct termios`.
    pub(super) fn to_bytes(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let words = [self.iflag, self.oflag, self.cflag, self.lflag];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes[16] = self.line;
        bytes[17..].copy_from_slice(&self.cc);
        bytes
    }

    /// From the bytes of `struct termios`.
    pub(super) fn from_bytes(bytes: &[u8; SIZE]) -> Termios {
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            u32::from_ne_bytes(word)
        };
        let mut cc = [0; 19];
        cc.copy_from_slice(&bytes[17..]);
        Termios { iflag: word(0), oflag: word(4), cflag: word(8), lflag: word(12), line: bytes[16], cc }
    }

    pub(super) fn is(&self, local_flag: u32) -> bool {
        self.lflag & local_flag != 0
    }

    /// Whether `byte` is the control character `index`; 0 switches one off.
    pub(super) fn is_char(&self, index: usize, byte: u8) -> bool {
        self.cc.get(index).is_some_and(|c| *c != 0 && *c == byte)
    }
}
