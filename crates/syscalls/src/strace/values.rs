//! Arguments as strace(1) writes them.

use std::fmt::Write;

use linux_abi::fs::{AT_FDCWD, PATH_MAX};

use super::calls::Kind;
use super::names::{self, Bits, Names};
use super::{failed, structures};
use crate::Cx;

/// Bytes of a string, and elements of a list, that are shown.
pub(super) const SHOWN: usize = 32;
/// Most strings that are counted.
const MAX_COUNTED: u64 = 4096;
const PAGE: u64 = 4096;

/// What became of an argument.
pub(super) enum Written {
    /// It is written.
    Done,
    /// It is not shown with these values.
    Nothing,
    /// It is known after the call.
    Later,
}

/// The guest's memory, before a call or with its answer.
pub(super) struct Memory<'a, 'b> {
    cx: &'a mut Cx<'b>,
    /// The value of the call.
    pub(super) value: Option<i64>,
    /// The length that the call takes and gives, as it was.
    pub(super) length: Option<u32>,
}

impl<'a, 'b> Memory<'a, 'b> {
    /// As the guest made the call.
    pub(super) fn before(cx: &'a mut Cx<'b>) -> Memory<'a, 'b> {
        Memory { cx, value: None, length: None }
    }
    /// As the guest will find it.
    pub(super) fn after(cx: &'a mut Cx<'b>, value: i64, length: Option<u32>) -> Memory<'a, 'b> {
        Memory { cx, value: Some(value), length }
    }
    /// Bytes of the guest, at most a page's worth.
    pub(super) fn read(&mut self, addr: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len.min(PAGE as usize)];
        let read = match self.value {
            None => self.cx.guest.copy_in(addr, &mut bytes),
            Some(_) => self.cx.guest.copy_in_answered(addr, &mut bytes),
        };
        (addr != 0 && read.is_ok()).then_some(bytes)
    }
    /// A number of 64 bits.
    pub(super) fn word(&mut self, addr: u64) -> Option<u64> {
        Some(structures::word(&self.read(addr, 8)?, 0))
    }
    /// A string without its NUL, at most `max` bytes of it, and whether that is all.
    pub(super) fn text(&mut self, addr: u64, max: usize) -> Option<(Vec<u8>, bool)> {
        let mut text = Vec::new();
        let mut at = addr;
        while text.len() <= max {
            // Up to the end of the page: the next one may not be there.
            let room = usize::try_from(PAGE - at % PAGE).ok()?.min(max + 1 - text.len()).min(256);
            let chunk = self.read(at, room)?;
            if let Some(end) = chunk.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(chunk.get(..end)?);
                let all = text.len() <= max;
                text.truncate(max);
                return Some((text, all));
            }
            text.extend_from_slice(&chunk);
            if text.len() > max {
                break;
            }
            at = at.checked_add(room as u64)?;
        }
        text.truncate(max);
        Some((text, false))
    }
}

/// Writes one argument.
pub(super) fn argument(
    kind: Kind,
    index: usize,
    args: &[u64; 6],
    memory: &mut Memory<'_, '_>,
    out: &mut String,
) -> Written {
    let value = args.get(index).copied().unwrap_or(0);
    let counted = |place: usize| args.get(place).copied().unwrap_or(0);
    if is_out(kind) {
        let Some(result) = memory.value else { return Written::Later };
        // Nothing was given: the buffer is as it was.
        let text = if matches!(kind, Kind::LengthOut) {
            structures::length(value, memory)
        } else if failed(result) {
            None
        } else {
            given(kind, value, result, args, memory)
        };
        out.push_str(&text.unwrap_or_else(|| address(value)));
        return Written::Done;
    }
    let text = match kind {
        Kind::Int | Kind::Fd => Some((value as i32).to_string()),
        Kind::Long => Some((value as i64).to_string()),
        Kind::Unsigned => Some(value.to_string()),
        Kind::Hex => Some(if value < 10 { value.to_string() } else { format!("{value:#x}") }),
        Kind::DirFd if value as i32 == AT_FDCWD => Some("AT_FDCWD".into()),
        Kind::DirFd => Some((value as i32).to_string()),
        Kind::Mode => Some(octal(value)),
        Kind::OpenMode(flags) => {
            const O_CREAT: u64 = 0o100;
            const TMPFILE: u64 = 0o20_000_000;
            if counted(flags) & (O_CREAT | TMPFILE) == 0 {
                return Written::Nothing;
            }
            Some(octal(value))
        }
        Kind::Path => memory.text(value, PATH_MAX - 1).map(|(text, all)| quoted(&text, all)),
        Kind::Bytes(place) => buffer(value, counted(place), memory),
        Kind::Flags(table) => Some(names::flags(u64::from(value as u32), table)),
        Kind::Name(table) => Some(named(u64::from(value as u32), table)),
        Kind::Signal => Some(signal(value)),
        Kind::Futex => Some(futex(value)),
        Kind::Labelled(label, flags) => {
            if flags != u64::MAX && counted(1) & flags == 0 {
                return Written::Nothing;
            }
            Some(format!("{label}={}", address(value)))
        }
        Kind::Clone => Some(format!("flags={}", clone_flags(value))),
        Kind::Control => match control(counted(1), value) {
            None => return Written::Nothing,
            text => text,
        },
        Kind::Protocol if matches!(args[0], 2 | 10) => Some(named(u64::from(value as u32), names::PROTOCOL)),
        Kind::Protocol => Some((value as i32).to_string()),
        Kind::Option => Some(named(u64::from(value as u32), options(counted(1)))),
        Kind::Strings => strings(value, memory),
        Kind::Environment => {
            count(value, memory).map(|n| format!("{value:#x} /* {n} var{} */", if n == 1 { "" } else { "s" }))
        }
        _ => structures::taken(kind, value, &counted, memory),
    };
    out.push_str(&text.unwrap_or_else(|| address(value)));
    Written::Done
}

/// Whether the call fills it.
fn is_out(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::PathOut
            | Kind::BytesOut
            | Kind::SignalsOut
            | Kind::ActionOut
            | Kind::StatOut
            | Kind::StatxOut
            | Kind::TimeOut
            | Kind::SocketOut(_)
            | Kind::LengthOut
            | Kind::OptionOut(_)
            | Kind::VectorsOut(_)
            | Kind::MessageOut
            | Kind::PairOut
            | Kind::StatusOut
            | Kind::LimitOut
            | Kind::EventsOut
            | Kind::UtsOut
    )
}

fn given(
    kind: Kind,
    value: u64,
    result: i64,
    args: &[u64; 6],
    memory: &mut Memory<'_, '_>,
) -> Option<String> {
    let length = u64::try_from(result).unwrap_or(0);
    match kind {
        Kind::BytesOut => buffer(value, length, memory),
        // getcwd(2) counts the NUL, readlink(2) has none.
        Kind::PathOut => {
            let bytes = memory.read(value, usize::try_from(length).ok()?)?;
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            Some(quoted(bytes.get(..end)?, true))
        }
        _ => structures::given(kind, value, length, &|place| args.get(place).copied().unwrap_or(0), memory),
    }
}

/// What strace writes behind the value of a call.
pub(super) fn told_with_result(
    kinds: &[Kind],
    args: &[u64; 6],
    memory: &mut Memory<'_, '_>,
) -> Option<String> {
    let result = memory.value?;
    if let [_, _, Kind::Control] = kinds {
        let flags = u64::try_from(result).ok()?;
        return match names::name(args[1], names::FCNTL)? {
            "F_GETFL" => Some(format!(" (flags {})", names::flags(flags, &names::OPEN))),
            "F_GETFD" if flags != 0 => Some(format!(" (flags {})", names::flags(flags, &names::FD))),
            _ => None,
        };
    }
    match kinds.first()? {
        Kind::Polls(_) if result == 0 => Some(" (Timeout)".into()),
        Kind::Polls(place) if result > 0 => {
            let ready = structures::polled(args[0], args.get(*place).copied().unwrap_or(0), memory)?;
            Some(format!(" ({ready})"))
        }
        _ => None,
    }
}

/// `NULL`, or the number.
pub(super) fn address(value: u64) -> String {
    if value == 0 { "NULL".into() } else { format!("{value:#x}") }
}

/// `0644`.
pub(super) fn octal(value: u64) -> String {
    format!("0{:o}", value & 0o7777).replace("00", if value & 0o7777 == 0 { "0" } else { "00" })
}

/// A name, or the number.
pub(super) fn named(value: u64, table: Names) -> String {
    names::name(value, table).map_or_else(|| format!("{value:#x}"), str::to_owned)
}

/// `SIGTERM`, or the number.
pub(super) fn signal(value: u64) -> String {
    let number = u64::from(value as u32);
    names::signal(number).map_or_else(|| number.to_string(), |name| format!("SIG{name}"))
}

/// The beginning of a buffer.
pub(super) fn buffer(addr: u64, len: u64, memory: &mut Memory<'_, '_>) -> Option<String> {
    let shown = usize::try_from(len).unwrap_or(usize::MAX).min(SHOWN);
    let bytes = if shown == 0 { (addr != 0).then(Vec::new)? } else { memory.read(addr, shown)? };
    Some(quoted(&bytes, len <= SHOWN as u64))
}

/// A string in quotes; what does not print is escaped, as strace does it.
pub(super) fn quoted(bytes: &[u8], all: bool) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            b'\r' => out.push_str("\\r"),
            0x0b => out.push_str("\\v"),
            0x0c => out.push_str("\\f"),
            b' '..=b'~' => out.push(char::from(*byte)),
            // Short, unless a digit follows.
            _ => {
                let digit = bytes.get(index + 1).is_some_and(u8::is_ascii_digit);
                let _ = if digit { write!(out, "\\{byte:03o}") } else { write!(out, "\\{byte:o}") };
            }
        }
    }
    out.push('"');
    if !all {
        out.push_str("...");
    }
    out
}

fn strings(list: u64, memory: &mut Memory<'_, '_>) -> Option<String> {
    if list == 0 {
        return None;
    }
    let mut parts = Vec::new();
    for index in 0..=SHOWN as u64 {
        let entry = memory.word(list.checked_add(index.checked_mul(8)?)?)?;
        if entry == 0 {
            return Some(format!("[{}]", parts.join(", ")));
        }
        if index == SHOWN as u64 {
            break;
        }
        let text = memory.text(entry, SHOWN).map(|(text, all)| quoted(&text, all));
        parts.push(text.unwrap_or_else(|| address(entry)));
    }
    Some(format!("[{}, ...]", parts.join(", ")))
}

/// The length of a list of pointers.
fn count(list: u64, memory: &mut Memory<'_, '_>) -> Option<u64> {
    if list == 0 {
        return None;
    }
    let mut n = 0;
    while n < MAX_COUNTED && memory.word(list.checked_add(n * 8)?)? != 0 {
        n += 1;
    }
    Some(n)
}

fn futex(operation: u64) -> String {
    const PRIVATE: u64 = 128;
    const REALTIME: u64 = 256;
    let mut word = named(operation & 0x7f, names::FUTEX);
    if operation & PRIVATE != 0 {
        word.push_str("_PRIVATE");
    }
    if operation & REALTIME != 0 {
        word.push_str("|FUTEX_CLOCK_REALTIME");
    }
    word
}

/// Flags of clone(2) with the signal in their lowest byte.
fn clone_flags(value: u64) -> String {
    let mut words = Vec::new();
    let (flags, number) = (value & !0xff, value & 0xff);
    if flags != 0 {
        words.push(names::flags(flags, &names::CLONE));
    }
    if number != 0 || words.is_empty() {
        words.push(signal(number));
    }
    words.join("|")
}

/// The third argument of fcntl(2); none where there is none.
fn control(command: u64, value: u64) -> Option<String> {
    let bits = |table: &Bits| Some(names::flags(u64::from(value as u32), table));
    match names::name(command, names::FCNTL)? {
        "F_SETFD" => bits(&names::FD),
        "F_SETFL" => bits(&names::OPEN),
        "F_DUPFD" | "F_DUPFD_CLOEXEC" | "F_SETOWN" | "F_SETSIG" | "F_SETPIPE_SZ" => {
            Some((value as i32).to_string())
        }
        "F_GETFD" | "F_GETFL" | "F_GETOWN" | "F_GETSIG" | "F_GETLEASE" | "F_GETPIPE_SZ" | "F_GET_SEALS" => {
            None
        }
        _ => Some(address(value)),
    }
}

fn options(level: u64) -> Names {
    match level {
        1 => names::SO,
        6 => names::TCP,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_cannot_break_the_line() {
        assert_eq!(quoted(b"a\"b\\c\n\t\x1b[31m", true), r#""a\"b\\c\n\t\33[31m""#);
        assert_eq!(quoted(b"\x001\x00x\xff", false), r#""\0001\0x\377"..."#);
    }

    #[test]
    fn numbers_have_names() {
        assert_eq!(futex(0x80), "FUTEX_WAIT_PRIVATE");
        assert_eq!(futex(0x189), "FUTEX_WAIT_BITSET_PRIVATE|FUTEX_CLOCK_REALTIME");
        assert_eq!(clone_flags(0x1200011), "CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD");
        assert_eq!((clone_flags(17), clone_flags(0)), ("SIGCHLD".into(), "0".into()));
        assert_eq!((octal(0o644), octal(0), octal(0o4755)), ("0644".into(), "0".into(), "04755".into()));
        assert_eq!(control(4, 0o4000).as_deref(), Some("O_RDONLY|O_NONBLOCK"));
        assert_eq!((control(2, 1).as_deref(), control(1, 9)), (Some("FD_CLOEXEC"), None));
        assert_eq!((signal(15), signal(99)), ("SIGTERM".into(), "99".into()));
    }
}
