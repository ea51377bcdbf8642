//! The waiter: what stays of `sallet exec --detach`, in as little memory as can be.
//!
//! Descriptor 3 is the control connection over which the guest process was started, 4 the terminal, if
//! it has one; the first argument is the guest's process id. All signals are blocked. Signals go to the
//! guest process, a new terminal size too, and the waiter ends as the guest process does. Its own death
//! closes the connection, upon which the kernel process kills the guest's.
#![no_std]
#![no_main]

#[path = "../bare.rs"]
mod bare;

use bare::{call, exit};

const CHANNEL: u64 = 3;
const TERMINAL: u64 = 4;

const SIGKILL: u32 = 9;
const SIGWINCH: u32 = 28;
const POLLIN: u64 = 1;
const EINTR: i64 = -4;
const EAGAIN: i64 = -11;

mod nr {
    pub const READ: u64 = 0;
    pub const POLL: u64 = 7;
    pub const RT_SIGACTION: u64 = 13;
    pub const RT_SIGPROCMASK: u64 = 14;
    pub const IOCTL: u64 = 16;
    pub const GETPID: u64 = 39;
    pub const SENDTO: u64 = 44;
    pub const KILL: u64 = 62;
    pub const PRCTL: u64 = 157;
    pub const SIGNALFD4: u64 = 289;
}

/// Ends by a signal, so that whoever waits sees the same death.
fn die_by(signal: u32) -> ! {
    const SIG_UNBLOCK: u64 = 1;
    const PR_SET_DUMPABLE: u64 = 4;
    call(nr::PRCTL, [PR_SET_DUMPABLE, 0, 0, 0, 0, 0]);
    // SIG_DFL, no flags, no mask.
    let action = [0u64; 4];
    call(nr::RT_SIGACTION, [u64::from(signal), action.as_ptr() as u64, 0, 8, 0, 0]);
    let pid = call(nr::GETPID, [0; 6]) as u64;
    call(nr::KILL, [pid, u64::from(signal), 0, 0, 0, 0]);
    let mask = 1u64 << (signal.wrapping_sub(1) & 63);
    call(nr::RT_SIGPROCMASK, [SIG_UNBLOCK, (&raw const mask) as u64, 0, 8, 0, 0]);
    // A signal that ends nobody by itself.
    exit(u64::from(signal.wrapping_add(128) & 0xff))
}

extern "C" fn start(stack: *const u64) -> ! {
    // SAFETY: the host puts the count and the arguments there.
    let pid = unsafe { if *stack < 2 { exit(125) } else { Text::of_c(*stack.add(2) as *const u8) } };
    call(nr::PRCTL, [15, c"sallet-waiter".as_ptr() as u64, 0, 0, 0, 0]);
    // All but SIGKILL and SIGSTOP can come here.
    let all = !0u64;
    let signals = call(nr::SIGNALFD4, [!0, (&raw const all) as u64, 8, 0o4000, 0, 0]);
    if signals < 0 {
        exit(125);
    }
    let mut waiter = Waiter { pid, size: size().map(|_| [u16::MAX; 2]), replies: Replies::default() };
    // It may have changed since the guest process was started, and before the terminal was ours.
    waiter.resize();
    loop {
        let mut fds = [CHANNEL | POLLIN << 32, signals as u64 | POLLIN << 32];
        call(nr::POLL, [fds.as_mut_ptr() as u64, 2, !0, 0, 0, 0]);
        if fds[1] >> 48 != 0 {
            waiter.take_signals(signals as u64);
        }
        if fds[0] >> 48 != 0 {
            waiter.take_replies();
        }
    }
}

/// Rows and columns of the terminal; none without one.
fn size() -> Option<[u16; 2]> {
    const TIOCGWINSZ: u64 = 0x5413;
    let mut size = [0u16; 4];
    let result = call(nr::IOCTL, [TERMINAL, TIOCGWINSZ, size.as_mut_ptr() as u64, 0, 0, 0]);
    (result == 0).then_some([size[0], size[1]])
}

struct Waiter {
    pid: Text,
    size: Option<[u16; 2]>,
    replies: Replies,
}

impl Waiter {
    fn take_signals(&mut self, signals: u64) {
        // struct signalfd_siginfo: number, errno, code, ...
        let mut info = [0u32; 32];
        while call(nr::READ, [signals, info.as_mut_ptr() as u64, 128, 0, 0, 0]) == 128 {
            let [number, _, code, ..] = info;
            // From the terminal, not from a process.
            if number == SIGWINCH && self.size.is_some() && code as i32 > 0 {
                self.resize();
            } else {
                self.forward(number);
            }
        }
    }

    fn forward(&self, signal: u32) {
        let mut text = Text::default();
        text.push(br#"{"Signal":{"pid":"#);
        text.push(self.pid.bytes());
        text.push(br#","signal":"#);
        text.number(signal);
        text.push(br#","all":false}}"#);
        send(&text);
    }

    fn resize(&mut self) {
        let now = size();
        if now == self.size {
            return;
        }
        self.size = now;
        let Some([rows, columns]) = now else { return };
        let mut text = Text::default();
        text.push(br#"{"WindowSize":{"pid":"#);
        text.push(self.pid.bytes());
        text.push(br#","size":{"rows":"#);
        text.number(u32::from(rows));
        text.push(br#","columns":"#);
        text.number(u32::from(columns));
        text.push(b"}}}");
        send(&text);
    }

    fn take_replies(&mut self) {
        let mut bytes = [0u8; 256];
        let read = call(nr::READ, [CHANNEL, bytes.as_mut_ptr() as u64, 256, 0, 0, 0]);
        match read {
            EINTR | EAGAIN => {}
            1..=256 => {
                for byte in bytes.iter().take(read as usize) {
                    self.replies.take(*byte);
                }
            }
            // The sandbox is gone, and everything in it was killed.
            _ => die_by(SIGKILL),
        }
    }
}

/// A frame: length and number of descriptors, then the text.
fn send(text: &Text) {
    const MSG_NOSIGNAL: u64 = 0x4000;
    let mut frame = [0u8; 8 + Text::MOST];
    let length = text.bytes().len();
    for (to, from) in frame.iter_mut().zip((length as u32).to_le_bytes()) {
        *to = from;
    }
    for (to, from) in frame.iter_mut().skip(8).zip(text.bytes()) {
        *to = *from;
    }
    let (mut sent, total) = (0, 8 + length as u64);
    while sent < total {
        let from = frame.as_ptr() as u64 + sent;
        match call(nr::SENDTO, [CHANNEL, from, total - sent, MSG_NOSIGNAL, 0, 0]) {
            EINTR => {}
            n if n > 0 => sent += n as u64,
            // The end of the connection is seen when it is read.
            _ => return,
        }
    }
}

/// Cuts the stream of replies into frames and looks for the one that matters.
#[derive(Default)]
struct Replies {
    header: [u8; 8],
    /// Bytes of the header that are there.
    known: usize,
    /// Bytes of the body that are still to come.
    left: u32,
    body: Text,
}

impl Replies {
    fn take(&mut self, byte: u8) {
        if let Some(place) = self.header.get_mut(self.known) {
            *place = byte;
            self.known += 1;
            let [a, b, c, d, ..] = self.header;
            self.left = u32::from_le_bytes([a, b, c, d]);
            self.body = Text::default();
        } else {
            self.body.push(&[byte]);
            self.left = self.left.saturating_sub(1);
        }
        if self.known == 8 && self.left == 0 {
            self.known = 0;
            self.judge();
        }
    }

    fn judge(&self) {
        let body = self.body.bytes();
        if let Some(code) = body.strip_prefix(br#"{"Exited":{"Exited":"#) {
            exit(u64::from(number(code)));
        }
        if let Some(signal) = body.strip_prefix(br#"{"Exited":{"Signaled":"#) {
            die_by(number(signal));
        }
    }
}

/// The decimal number that a text begins with.
fn number(text: &[u8]) -> u32 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0u32, |sum, byte| sum.wrapping_mul(10).wrapping_add(u32::from(byte - b'0')))
}

/// A short text; what is too long is cut.
#[derive(Clone, Copy)]
struct Text {
    bytes: [u8; Text::MOST],
    length: usize,
}

impl Default for Text {
    fn default() -> Text {
        Text { bytes: [0; Text::MOST], length: 0 }
    }
}

impl Text {
    const MOST: usize = 120;

    /// # Safety
    /// `text` must be a C string.
    unsafe fn of_c(text: *const u8) -> Text {
        let mut copy = Text::default();
        for index in 0..Text::MOST {
            // SAFETY: not past the end of the string.
            match unsafe { *text.add(index) } {
                0 => break,
                byte => copy.push(&[byte]),
            }
        }
        copy
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn push(&mut self, text: &[u8]) {
        for byte in text {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = *byte;
                self.length += 1;
            }
        }
    }

    fn number(&mut self, number: u32) {
        if number >= 10 {
            self.number(number / 10);
        }
        self.push(&[b'0' + (number % 10) as u8]);
    }
}
