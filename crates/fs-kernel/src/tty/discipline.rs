//! The line discipline: what typed bytes become, and what written bytes look like. Pure: no signals,
//! no waiting.

use std::collections::VecDeque;

use linux_abi::signal::Signo;

use super::termios::{Termios, cc, input, local, output};

/// Longest line and most bytes that wait for a reader, as Linux's N_TTY_BUF_SIZE.
const INPUT_BYTES: usize = 4096;

/// State of one terminal.
#[derive(Default)]
pub(super) struct Discipline {
    pub(super) termios: Termios,
    /// The line being typed (canonical mode).
    line: Vec<u8>,
    /// Complete lines; an empty one is end of file.
    lines: VecDeque<Vec<u8>>,
    /// Bytes for a reader in raw mode.
    raw: VecDeque<u8>,
    /// The next byte is literal (after `VLNEXT`).
    literal: bool,
    /// Output column, for tabs and erasing.
    column: usize,
    /// Output is stopped by `VSTOP`.
    pub(super) stopped: bool,
}

/// What typed bytes led to.
#[derive(Default)]
pub(super) struct Effects {
    /// To be shown.
    pub(super) echo: Vec<u8>,
    /// For the foreground process group.
    pub(super) signals: Vec<Signo>,
    /// There is more to read: a line, or in raw mode any byte.
    pub(super) arrived: bool,
}

impl Discipline {
    /// Whether whole lines are read.
    pub(super) fn termios_canonical(&self) -> bool {
        self.canonical()
    }

    fn canonical(&self) -> bool {
        self.termios.is(local::ICANON)
    }

    /// Typed bytes come in.
    pub(super) fn receive(&mut self, bytes: &[u8], effects: &mut Effects) {
        for &byte in bytes {
            self.receive_byte(byte, effects);
        }
    }

    fn receive_byte(&mut self, mut byte: u8, effects: &mut Effects) {
        let t = self.termios;
        if std::mem::take(&mut self.literal) {
            return self.accept(byte, effects);
        }
        if t.iflag & input::ISTRIP != 0 {
            byte &= 0x7f;
        }
        match byte {
            b'\r' if t.iflag & input::IGNCR != 0 => return,
            b'\r' if t.iflag & input::ICRNL != 0 => byte = b'\n',
            b'\n' if t.iflag & input::INLCR != 0 => byte = b'\r',
            _ => {}
        }
        if t.iflag & input::IXON != 0 {
            if t.is_char(cc::VSTOP, byte) {
                self.stopped = true;
                return;
            }
            if t.is_char(cc::VSTART, byte) {
                self.stopped = false;
                return;
            }
        }
        if t.is(local::ISIG) {
            let signals =
                [(cc::VINTR, Signo::SIGINT), (cc::VQUIT, Signo::SIGQUIT), (cc::VSUSP, Signo::SIGTSTP)];
            if let Some((_, signal)) = signals.into_iter().find(|(index, _)| t.is_char(*index, byte)) {
                if !t.is(local::NOFLSH) {
                    self.flush_input();
                }
                self.stopped = false;
                self.echo(byte, effects);
                effects.signals.push(signal);
                return;
            }
        }
        if self.canonical() { self.edit(byte, effects) } else { self.accept(byte, effects) }
    }

    /// Canonical mode: line editing.
    fn edit(&mut self, byte: u8, effects: &mut Effects) {
        let t = self.termios;
        if t.is_char(cc::VERASE, byte) {
            return self.erase(effects);
        }
        if t.is_char(cc::VKILL, byte) {
            while !self.line.is_empty() {
                self.erase(effects);
            }
            return;
        }
        if t.is(local::IEXTEN) {
            if t.is_char(cc::VWERASE, byte) {
                while self.line.last().is_some_and(u8::is_ascii_whitespace) {
                    self.erase(effects);
                }
                while self.line.last().is_some_and(|b| !b.is_ascii_whitespace()) {
                    self.erase(effects);
                }
                return;
            }
            if t.is_char(cc::VLNEXT, byte) {
                self.literal = true;
                return;
            }
            if t.is_char(cc::VREPRINT, byte) {
                self.echo(byte, effects);
                self.show(b"\n", effects);
                let line = self.line.clone();
                line.into_iter().for_each(|b| self.echo(b, effects));
                return;
            }
        }
        if t.is_char(cc::VEOF, byte) {
            // Empty lines take room too.
            if self.lines.len() < INPUT_BYTES {
                self.lines.push_back(std::mem::take(&mut self.line));
                effects.arrived = true;
            }
            return;
        }
        let ends = byte == b'\n' || t.is_char(cc::VEOL, byte) || t.is_char(cc::VEOL2, byte);
        self.accept(byte, effects);
        if ends {
            self.lines.push_back(std::mem::take(&mut self.line));
            effects.arrived = true;
        }
    }

    /// Keeps a byte for readers and shows it.
    fn accept(&mut self, byte: u8, effects: &mut Effects) {
        let kept = if self.canonical() {
            let waiting: usize = self.lines.iter().map(Vec::len).sum();
            // Room is left for the end of the line.
            let fits = self.line.len() + waiting < INPUT_BYTES - usize::from(byte != b'\n');
            if fits {
                self.line.push(byte);
            }
            fits
        } else {
            let fits = self.raw.len() < INPUT_BYTES;
            if fits {
                self.raw.push_back(byte);
            }
            effects.arrived |= fits;
            fits
        };
        if kept {
            self.echo(byte, effects);
        }
    }

    fn echo(&mut self, byte: u8, effects: &mut Effects) {
        let t = self.termios;
        if !t.is(local::ECHO) {
            if byte == b'\n' && t.is(local::ECHONL) && t.is(local::ICANON) {
                self.show(b"\n", effects);
            }
            return;
        }
        let is_control = (byte < 32 && byte != b'\n' && byte != b'\t') || byte == 127;
        if is_control && t.is(local::ECHOCTL) {
            self.show(&[b'^', byte ^ 0x40], effects);
        } else {
            self.show(&[byte], effects);
        }
    }

    /// Takes the last character (all its bytes) off the line and off the screen.
    fn erase(&mut self, effects: &mut Effects) {
        let Some(mut last) = self.line.pop() else { return };
        if self.termios.iflag & input::IUTF8 != 0 {
            while last & 0xc0 == 0x80 {
                let Some(before) = self.line.pop() else { break };
                last = before;
            }
        }
        if !self.termios.is(local::ECHO) {
            return;
        }
        if !self.termios.is(local::ECHOE) {
            let character = self.termios.cc.get(cc::VERASE).copied().unwrap_or(127);
            return self.echo(character, effects);
        }
        let is_control = (last < 32 && last != b'\t') || last == 127;
        let width = if is_control && self.termios.is(local::ECHOCTL) { 2 } else { 1 };
        for _ in 0..width {
            self.show(b"\x08 \x08", effects);
        }
    }

    fn show(&mut self, bytes: &[u8], effects: &mut Effects) {
        self.write(bytes, &mut effects.echo);
    }

    /// Written bytes as the terminal gets them.
    pub(super) fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let flags = self.termios.oflag;
        if flags & output::OPOST == 0 {
            out.extend_from_slice(bytes);
            return;
        }
        for &byte in bytes {
            match byte {
                b'\n' if flags & output::ONLCR != 0 => {
                    out.extend_from_slice(b"\r\n");
                    self.column = 0;
                }
                b'\r' if flags & output::OCRNL != 0 => out.push(b'\n'),
                b'\r' => {
                    out.push(byte);
                    self.column = 0;
                }
                b'\t' => {
                    let width = 8 - self.column % 8;
                    if flags & output::TABDLY == output::XTABS {
                        out.extend(std::iter::repeat_n(b' ', width));
                    } else {
                        out.push(byte);
                    }
                    self.column += width;
                }
                b'\x08' => {
                    out.push(byte);
                    self.column = self.column.saturating_sub(1);
                }
                _ => {
                    out.push(byte);
                    if byte >= 32 && byte & 0xc0 != 0x80 {
                        self.column = self.column.saturating_add(1);
                    }
                }
            }
        }
    }

    /// Whether a read would return now.
    pub(super) fn readable(&self) -> bool {
        if self.canonical() {
            return !self.lines.is_empty();
        }
        let timed = self.termios.cc.get(cc::VTIME).is_some_and(|time| *time != 0);
        let least = usize::from(self.termios.cc.get(cc::VMIN).copied().unwrap_or(1));
        self.raw.len() >= if timed { 1 } else { least.max(1) }
    }

    /// Bytes that a read could give.
    pub(super) fn available(&self) -> usize {
        if self.canonical() { self.lines.iter().map(Vec::len).sum() } else { self.raw.len() }
    }

    /// How long a raw read that found too little waits, nanoseconds (`VTIME`): from its start without
    /// `VMIN`, else from the first byte on.
    pub(super) fn patience(&self) -> Option<u64> {
        const TENTH_NS: u64 = 100_000_000;
        let time = self.termios.cc.get(cc::VTIME).copied().filter(|time| *time != 0)?;
        let least = self.termios.cc.get(cc::VMIN).copied().unwrap_or(1);
        let counts = !self.canonical() && (least == 0 || !self.raw.is_empty());
        counts.then_some(u64::from(time) * TENTH_NS)
    }

    /// Reads; none when a reader has to wait. `expired`: it has waited as long as `VTIME` says.
    pub(super) fn read(&mut self, buf: &mut [u8], expired: bool) -> Option<usize> {
        if self.canonical() {
            let line = self.lines.front_mut()?;
            let n = line.len().min(buf.len());
            buf.get_mut(..n)?.copy_from_slice(line.get(..n)?);
            line.drain(..n);
            if line.is_empty() {
                self.lines.pop_front();
            }
            return Some(n);
        }
        let least = usize::from(self.termios.cc.get(cc::VMIN).copied().unwrap_or(1));
        let timed = self.termios.cc.get(cc::VTIME).is_some_and(|time| *time != 0);
        let enough = if least == 0 && timed && !expired { 1 } else { least };
        let done = expired && (least == 0 || !self.raw.is_empty());
        if !done && self.raw.len() < enough.min(buf.len()) {
            return None;
        }
        let n = self.raw.len().min(buf.len());
        for (to, from) in buf.iter_mut().zip(self.raw.drain(..n)) {
            *to = from;
        }
        Some(n)
    }

    /// Forgets what was typed and not read.
    pub(super) fn flush_input(&mut self) {
        self.line.clear();
        self.lines.clear();
        self.raw.clear();
    }

    /// New settings; what waits stays readable when the mode changes.
    pub(super) fn set(&mut self, termios: Termios) {
        let was = self.canonical();
        self.termios = termios;
        if was && !self.canonical() {
            let lines = std::mem::take(&mut self.lines);
            self.raw.extend(lines.into_iter().flatten());
            self.raw.extend(std::mem::take(&mut self.line));
        } else if !was && self.canonical() && !self.raw.is_empty() {
            let waiting: Vec<u8> = self.raw.drain(..).collect();
            self.lines.push_back(waiting);
        }
        if termios.iflag & input::IXON == 0 {
            self.stopped = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(discipline: &mut Discipline, text: &[u8]) -> (Vec<u8>, Vec<Signo>) {
        let mut effects = Effects::default();
        discipline.receive(text, &mut effects);
        (effects.echo, effects.signals)
    }

    fn read(discipline: &mut Discipline) -> Option<Vec<u8>> {
        let mut buf = [0; 64];
        discipline.read(&mut buf, false).map(|n| buf[..n].to_vec())
    }

    #[test]
    fn a_line_is_edited_and_echoed() {
        let mut d = Discipline::default();
        let (echo, _) = typed(&mut d, b"cax\x7fr");
        assert_eq!(echo, b"cax\x08 \x08r");
        assert_eq!(read(&mut d), None);
        assert_eq!(typed(&mut d, b"\r").0, b"\r\n");
        assert_eq!(read(&mut d).unwrap(), b"car\n");
    }

    #[test]
    fn words_and_lines_are_erased() {
        let mut d = Discipline::default();
        typed(&mut d, "one two é\x7f\x17three\n".as_bytes());
        assert_eq!(read(&mut d).unwrap(), b"one three\n");
        typed(&mut d, b"gone\x15kept\n");
        assert_eq!(read(&mut d).unwrap(), b"kept\n");
    }

    #[test]
    fn end_of_file_ends_a_read() {
        let mut d = Discipline::default();
        typed(&mut d, b"ab\x04");
        assert_eq!(read(&mut d).unwrap(), b"ab");
        typed(&mut d, b"\x04");
        assert_eq!(read(&mut d).unwrap(), b"");
        assert_eq!(read(&mut d), None);
    }

    #[test]
    fn control_characters_raise_signals() {
        let mut d = Discipline::default();
        let (echo, signals) = typed(&mut d, b"lost\x03");
        assert_eq!(echo, b"lost^C");
        assert_eq!(signals, [Signo::SIGINT]);
        typed(&mut d, b"\n");
        assert_eq!(read(&mut d).unwrap(), b"\n");
        assert_eq!(typed(&mut d, b"\x1a\x1c").1, [Signo::SIGTSTP, Signo::SIGQUIT]);
    }

    #[test]
    fn raw_mode_gives_bytes_at_once() {
        let mut d = Discipline::default();
        let mut raw = d.termios;
        raw.lflag = 0;
        raw.iflag = 0;
        raw.oflag = 0;
        d.set(raw);
        assert_eq!(typed(&mut d, b"\x03\r").0, b"");
        assert_eq!(read(&mut d).unwrap(), b"\x03\r");
        let mut out = Vec::new();
        d.write(b"a\n", &mut out);
        assert_eq!(out, b"a\n");
    }

    #[test]
    fn written_lines_get_a_return() {
        let mut d = Discipline::default();
        let mut out = Vec::new();
        d.write(b"a\tb\n", &mut out);
        assert_eq!(out, b"a\tb\r\n");
    }

    #[test]
    fn input_is_bounded() {
        let mut d = Discipline::default();
        typed(&mut d, &vec![b'x'; 3 * INPUT_BYTES]);
        typed(&mut d, b"\n");
        let mut buf = vec![0; 2 * INPUT_BYTES];
        assert_eq!(d.read(&mut buf, false), Some(INPUT_BYTES));
    }
}
