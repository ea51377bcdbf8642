//! Structures of the guest as strace(1) writes them.

use std::net::{Ipv4Addr, Ipv6Addr};

use linux_abi::fs::S_IFMT;

use super::calls::Kind;
use super::names;
use super::values::{Memory, SHOWN, address, buffer, named, octal, quoted, signal};

/// The greatest socket address.
const MAX_SOCKET: usize = 128;

fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    if let Some(part) = at.checked_add(N).and_then(|end| from.get(at..end)) {
        value.copy_from_slice(part);
    }
    value
}

/// 64 bits at an offset, 0 past the end.
pub(super) fn word(from: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(from, at))
}
/// 32 bits, likewise.
pub(super) fn half(from: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(from, at))
}
fn quarter(from: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(from, at))
}

/// What the call takes; none where it cannot be read.
pub(super) fn taken(
    kind: Kind,
    addr: u64,
    counted: &dyn Fn(usize) -> u64,
    memory: &mut Memory<'_, '_>,
) -> Option<String> {
    match kind {
        Kind::Signals => Some(signals(memory.word(addr)?)),
        Kind::Action => action(addr, memory),
        Kind::Time => time(addr, memory),
        Kind::Limit => limit(addr, memory),
        Kind::Polls(place) => list(addr, counted(place), 8, memory, |entry, _| {
            let events = names::flags(u64::from(quarter(entry, 4)), &names::POLL);
            Some(format!("{{fd={}, events={events}}}", half(entry, 0) as i32))
        }),
        Kind::Socket(place) => socket(addr, counted(place), memory),
        Kind::Vectors(place) => vectors(addr, counted(place), None, memory),
        Kind::Message => message(addr, None, memory),
        Kind::OptionValue(place) => match counted(place) {
            4 => Some(format!("[{}]", half(&memory.read(addr, 4)?, 0) as i32)),
            length => buffer(addr, length, memory),
        },
        Kind::Event => event(&memory.read(addr, 12)?),
        Kind::CloneArgs => {
            let args = memory.read(addr, 64)?;
            Some(format!(
                "{{flags={}, child_tid={}, parent_tid={}, exit_signal={}, stack={}, stack_size={:#x}, tls={}}}",
                names::flags(word(&args, 0), &names::CLONE),
                address(word(&args, 16)),
                address(word(&args, 24)),
                signal(word(&args, 32)),
                address(word(&args, 40)),
                word(&args, 48),
                address(word(&args, 56)),
            ))
        }
        _ => None,
    }
}

/// What the call has given; `length` is its value.
pub(super) fn given(
    kind: Kind,
    addr: u64,
    length: u64,
    counted: &dyn Fn(usize) -> u64,
    memory: &mut Memory<'_, '_>,
) -> Option<String> {
    match kind {
        Kind::SignalsOut => Some(signals(memory.word(addr)?)),
        Kind::ActionOut => action(addr, memory),
        Kind::TimeOut => time(addr, memory),
        Kind::LimitOut => limit(addr, memory),
        Kind::StatOut => {
            let stat = memory.read(addr, 144)?;
            Some(format!(
                "{{{}, ...}}",
                file("st", half(&stat, 24), word(&stat, 48), device(word(&stat, 40)))
            ))
        }
        Kind::StatxOut => {
            let stat = memory.read(addr, 256)?;
            let rdev = (half(&stat, 128), half(&stat, 132));
            let file = file("stx", u32::from(quarter(&stat, 28)), word(&stat, 40), rdev);
            Some(format!("{{stx_mask={:#x}, {file}, ...}}", half(&stat, 0)))
        }
        Kind::SocketOut(place) => {
            let length = half(&memory.read(counted(place), 4)?, 0);
            socket(addr, length.into(), memory)
        }
        Kind::OptionOut(place) => match half(&memory.read(counted(place), 4)?, 0) {
            4 => Some(format!("[{}]", half(&memory.read(addr, 4)?, 0) as i32)),
            length => buffer(addr, length.into(), memory),
        },
        Kind::VectorsOut(place) => vectors(addr, counted(place), Some(length), memory),
        Kind::MessageOut => message(addr, Some(length), memory),
        Kind::PairOut => {
            let pair = memory.read(addr, 8)?;
            Some(format!("[{}, {}]", half(&pair, 0) as i32, half(&pair, 4) as i32))
        }
        // Of waitpid with WNOHANG that found nobody.
        Kind::StatusOut if length == 0 => None,
        Kind::StatusOut => Some(format!("[{{{}}}]", status(half(&memory.read(addr, 4)?, 0)))),
        Kind::EventsOut => list(addr, length, 12, memory, |entry, _| event(entry)),
        Kind::UtsOut => {
            let names = memory.read(addr, 130)?;
            let field = |at: usize| {
                let text = names.get(at..at + 65).unwrap_or_default();
                let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
                quoted(text.get(..end).unwrap_or_default(), true)
            };
            Some(format!("{{sysname={}, nodename={}, ...}}", field(0), field(65)))
        }
        _ => None,
    }
}

/// A length that is taken and given, before and after.
pub(super) fn length(addr: u64, memory: &mut Memory<'_, '_>) -> Option<String> {
    let now = half(&memory.read(addr, 4)?, 0);
    Some(match memory.length {
        Some(before) if before != now => format!("[{before} => {now}]"),
        _ => format!("[{now}]"),
    })
}

/// What poll(2) found, as it is told behind its value.
pub(super) fn polled(addr: u64, count: u64, memory: &mut Memory<'_, '_>) -> Option<String> {
    let mut parts = Vec::new();
    for index in 0..count.min(SHOWN as u64) {
        let entry = memory.read(addr.checked_add(index * 8)?, 8)?;
        let events = u64::from(quarter(&entry, 6));
        if events != 0 {
            let events = names::flags(events, &names::POLL);
            parts.push(format!("{{fd={}, revents={events}}}", half(&entry, 0) as i32));
        }
    }
    Some(format!("[{}]", parts.join(", ")))
}

/// Elements of `size` bytes.
fn list(
    addr: u64,
    count: u64,
    size: u64,
    memory: &mut Memory<'_, '_>,
    mut one: impl FnMut(&[u8], &mut Memory<'_, '_>) -> Option<String>,
) -> Option<String> {
    if addr == 0 {
        return None;
    }
    let mut parts = Vec::new();
    for index in 0..count.min(SHOWN as u64) {
        let entry = memory.read(addr.checked_add(index * size)?, usize::try_from(size).ok()?)?;
        parts.push(one(&entry, memory)?);
    }
    if count > SHOWN as u64 {
        parts.push("...".into());
    }
    Some(format!("[{}]", parts.join(", ")))
}

/// Buffers; with `filled`, as many bytes of them as the call has filled.
fn vectors(addr: u64, count: u64, filled: Option<u64>, memory: &mut Memory<'_, '_>) -> Option<String> {
    let mut left = filled;
    list(addr, count, 16, memory, |entry, memory| {
        let (base, len) = (word(entry, 0), word(entry, 8));
        let used = left.map_or(len, |left| left.min(len));
        left = left.map(|left| left.saturating_sub(used));
        let text = buffer(base, used, memory).unwrap_or_else(|| address(base));
        Some(format!("{{iov_base={text}, iov_len={len}}}"))
    })
}

fn message(addr: u64, filled: Option<u64>, memory: &mut Memory<'_, '_>) -> Option<String> {
    let header = memory.read(addr, 56)?;
    let (name, name_len) = (word(&header, 0), half(&header, 8));
    let shown = socket(name, name_len.into(), memory).unwrap_or_else(|| address(name));
    let (vector, count) = (word(&header, 16), word(&header, 24));
    let parts = vectors(vector, count, filled, memory).unwrap_or_else(|| address(vector));
    Some(format!(
        "{{msg_name={shown}, msg_namelen={name_len}, msg_iov={parts}, msg_iovlen={count}, msg_controllen={}, msg_flags={}}}",
        word(&header, 40),
        names::flags(half(&header, 48).into(), &names::MSG),
    ))
}

fn signals(set: u64) -> String {
    // All but a few are shown by those few.
    let (sign, shown) = if set.count_ones() > 32 { ("~", !set) } else { ("", set) };
    let names: Vec<String> =
        (0..64).filter(|bit| shown >> bit & 1 == 1).filter_map(|bit| names::signal(bit + 1)).collect();
    format!("{sign}[{}]", names.join(" "))
}

fn action(addr: u64, memory: &mut Memory<'_, '_>) -> Option<String> {
    const SA_RESTORER: u64 = 0x0400_0000;
    let raw = memory.read(addr, 32)?;
    let handler = match word(&raw, 0) {
        0 => "SIG_DFL".into(),
        1 => "SIG_IGN".into(),
        other => format!("{other:#x}"),
    };
    let flags = word(&raw, 8);
    let restorer =
        if flags & SA_RESTORER == 0 { String::new() } else { format!(", sa_restorer={:#x}", word(&raw, 16)) };
    Some(format!(
        "{{sa_handler={handler}, sa_mask={}, sa_flags={}{restorer}}}",
        signals(word(&raw, 24)),
        names::flags(flags, &names::SIGACTION),
    ))
}

fn time(addr: u64, memory: &mut Memory<'_, '_>) -> Option<String> {
    let raw = memory.read(addr, 16)?;
    Some(format!("{{tv_sec={}, tv_nsec={}}}", word(&raw, 0) as i64, word(&raw, 8) as i64))
}

fn limit(addr: u64, memory: &mut Memory<'_, '_>) -> Option<String> {
    let raw = memory.read(addr, 16)?;
    let show = |n: u64| match n {
        u64::MAX => "RLIM64_INFINITY".to_owned(),
        n if n >= 1024 && n.is_multiple_of(1024) => format!("{}*1024", n / 1024),
        n => n.to_string(),
    };
    Some(format!("{{rlim_cur={}, rlim_max={}}}", show(word(&raw, 0)), show(word(&raw, 8))))
}

/// Major and minor number.
fn device(number: u64) -> (u32, u32) {
    let major = (number >> 8 & 0xfff) | (number >> 32 & !0xfff);
    let minor = (number & 0xff) | (number >> 12 & !0xff);
    (major as u32, minor as u32)
}

/// What stat(2) is mostly asked for.
fn file(prefix: &str, mode: u32, size: u64, rdev: (u32, u32)) -> String {
    let kind = named((mode & S_IFMT).into(), names::FILE_TYPE);
    let shown = format!("{prefix}_mode={kind}|{}", octal(mode.into()));
    if kind == "S_IFCHR" || kind == "S_IFBLK" {
        format!("{shown}, {prefix}_rdev=makedev({:#x}, {:#x})", rdev.0, rdev.1)
    } else {
        format!("{shown}, {prefix}_size={size}")
    }
}

fn status(status: u32) -> String {
    let (low, high) = (u64::from(status & 0x7f), status >> 8 & 0xff);
    match (status, low) {
        (0xffff, _) => "WIFCONTINUED(s)".into(),
        (_, 0) => format!("WIFEXITED(s) && WEXITSTATUS(s) == {high}"),
        (_, 0x7f) => format!("WIFSTOPPED(s) && WSTOPSIG(s) == {}", signal(high.into())),
        _ => {
            let core = if status & 0x80 == 0 { "" } else { " && WCOREDUMP(s)" };
            format!("WIFSIGNALED(s) && WTERMSIG(s) == {}{core}", signal(low))
        }
    }
}

fn event(raw: &[u8]) -> Option<String> {
    let events = names::flags(half(raw, 0).into(), &names::EPOLL);
    let data = word(raw, 4);
    Some(format!("{{events={events}, data={{u32={}, u64={data}}}}}", data as u32))
}

fn socket(addr: u64, length: u64, memory: &mut Memory<'_, '_>) -> Option<String> {
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(MAX_SOCKET);
    if length < 2 {
        return None;
    }
    let raw = memory.read(addr, length)?;
    Some(socket_address(&raw))
}

fn socket_address(raw: &[u8]) -> String {
    let family = quarter(raw, 0);
    let port = u16::from_be_bytes(bytes(raw, 2));
    let rest = match family {
        1 => {
            let path = raw.get(2..).unwrap_or_default();
            match path.split_first() {
                None => String::new(),
                Some((0, name)) => format!(", sun_path=@{}", quoted(name, true)),
                Some(_) => {
                    let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
                    format!(", sun_path={}", quoted(path.get(..end).unwrap_or_default(), true))
                }
            }
        }
        2 => {
            let address = Ipv4Addr::from(bytes::<4>(raw, 4));
            format!(", sin_port=htons({port}), sin_addr=inet_addr(\"{address}\")")
        }
        10 => format!(
            ", sin6_port=htons({port}), sin6_flowinfo=htonl({}), inet_pton(AF_INET6, \"{}\", &sin6_addr), sin6_scope_id={}",
            u32::from_be_bytes(bytes(raw, 4)),
            Ipv6Addr::from(bytes::<16>(raw, 8)),
            half(raw, 24),
        ),
        16 => format!(", nl_pid={}, nl_groups={:08x}", half(raw, 4), half(raw, 8)),
        _ => format!(", sa_data={}", quoted(raw.get(2..).unwrap_or_default(), true)),
    };
    format!("{{sa_family={}{rest}}}", named(family.into(), names::FAMILY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_sockets() {
        assert_eq!(
            socket_address(&[2, 0, 0, 80, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            r#"{sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}"#
        );
        assert_eq!(socket_address(b"\x01\0/run/x\0\0"), r#"{sa_family=AF_UNIX, sun_path="/run/x"}"#);
        assert_eq!(socket_address(b"\x01\0\0a\nb"), r#"{sa_family=AF_UNIX, sun_path=@"a\nb"}"#);
        // Cut short by the guest.
        for length in 0..30 {
            for family in [0, 1, 2, 10, 16, 99] {
                let mut raw = vec![0xff; length];
                raw.iter_mut().zip([family, 0]).for_each(|(to, from)| *to = from);
                assert!(socket_address(&raw).is_ascii());
            }
        }
    }

    #[test]
    fn ends_of_children() {
        assert_eq!(status(3 << 8), "WIFEXITED(s) && WEXITSTATUS(s) == 3");
        assert_eq!(status(9), "WIFSIGNALED(s) && WTERMSIG(s) == SIGKILL");
        assert_eq!(status(0x8b), "WIFSIGNALED(s) && WTERMSIG(s) == SIGSEGV && WCOREDUMP(s)");
        assert_eq!(status(0x137f), "WIFSTOPPED(s) && WSTOPSIG(s) == SIGSTOP");
        assert_eq!(status(0xffff), "WIFCONTINUED(s)");
    }

    #[test]
    fn sets_and_files() {
        assert_eq!((signals(0b11), signals(!1)), ("[HUP INT]".into(), "~[HUP]".into()));
        assert_eq!(file("st", 0o100644, 5, (0, 0)), "st_mode=S_IFREG|0644, st_size=5");
        assert_eq!(
            file("st", 0o020620, 0, device(0x8801)),
            "st_mode=S_IFCHR|0620, st_rdev=makedev(0x88, 0x1)"
        );
    }
}
