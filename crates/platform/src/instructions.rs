//! Lengths of the common x86-64 instructions, and padding between functions.
//!
//! Not a disassembler: what it does not know ends the search, which only costs speed.

/// Farther than a short jump reaches.
const FAR: usize = 144;
/// How many places are looked at closely for padding that lies far away.
const MOST_LOOKS: usize = 64;

/// What comes after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Maybe the next one.
    Next,
    /// Never the next one: ret, jmp, ud2, hlt.
    Stop,
}

/// Length of the instruction at the start of `code`; `None` if it is unknown or cut off.
pub(crate) fn decode(code: &[u8]) -> Option<(usize, Flow)> {
    let mut at = 0;
    let mut short = false;
    while let 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x66 | 0xf0 | 0xf2 | 0xf3 = *code.get(at)? {
        short |= code.get(at) == Some(&0x66);
        at += 1;
        if at > 8 {
            return None;
        }
    }
    let wide = match *code.get(at)? {
        rex @ 0x40..=0x4f => {
            at += 1;
            rex & 8 != 0
        }
        _ => false,
    };
    let opcode = *code.get(at)?;
    at += 1;
    let word = if short && !wide { 2 } else { 4 };
    let next = |at: usize, extra: usize| Some((at + extra, Flow::Next));
    let (len, flow) = match opcode {
        0x0f => return two_bytes(code, at),
        0x00..=0x3f => match opcode & 7 {
            0..=3 => next(modrm(code, at)?, 0),
            4 => next(at, 1),
            5 => next(at, word),
            _ => None,
        },
        0x50..=0x5f | 0x90..=0x99 | 0x9b..=0x9f | 0xa4..=0xa7 | 0xaa..=0xaf | 0xc9 | 0xcc => next(at, 0),
        0x63 | 0x84..=0x8f | 0xd0..=0xd3 | 0xfe => next(modrm(code, at)?, 0),
        0x68 | 0xa9 => next(at, word),
        0x6a | 0xa8 | 0xb0..=0xb7 | 0x70..=0x7f | 0xe0..=0xe3 => next(at, 1),
        0x69 | 0x81 | 0xc7 => next(modrm(code, at)?, word),
        0x6b | 0x80 | 0x83 | 0xc0 | 0xc1 | 0xc6 => next(modrm(code, at)?, 1),
        0xb8..=0xbf => next(at, if wide { 8 } else { word }),
        0xc3 | 0xf4 => Some((at, Flow::Stop)),
        0xc2 => Some((at + 2, Flow::Stop)),
        0xe8 => next(at, 4),
        0xe9 => Some((at + 4, Flow::Stop)),
        0xeb => Some((at + 1, Flow::Stop)),
        0xf6 | 0xf7 => {
            let test = code.get(at)? >> 3 & 7 < 2;
            let imm = if opcode == 0xf6 { 1 } else { word };
            next(modrm(code, at)?, if test { imm } else { 0 })
        }
        0xff => {
            let jump = matches!(code.get(at)? >> 3 & 7, 4 | 5);
            Some((modrm(code, at)?, if jump { Flow::Stop } else { Flow::Next }))
        }
        _ => None,
    }?;
    (len <= code.len()).then_some((len, flow))
}

fn two_bytes(code: &[u8], at: usize) -> Option<(usize, Flow)> {
    let opcode = *code.get(at)?;
    let at = at + 1;
    let (len, flow) = match opcode {
        0x0b => (at, Flow::Stop),
        0x05 | 0x31 | 0xa2 | 0xc8..=0xcf => (at, Flow::Next),
        0x80..=0x8f => (at + 4, Flow::Next),
        0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6 => (modrm(code, at)? + 1, Flow::Next),
        0x10..=0x1f | 0x28..=0x2f | 0x40..=0x6f | 0x74..=0x76 | 0x7e | 0x7f => (modrm(code, at)?, Flow::Next),
        0x90..=0x9f | 0xa3 | 0xa5 | 0xab | 0xad..=0xb1 | 0xb3 | 0xb6 | 0xb7 => (modrm(code, at)?, Flow::Next),
        0xbb..=0xc1 | 0xc3 | 0xc7 | 0xd0..=0xfe => (modrm(code, at)?, Flow::Next),
        _ => return None,
    };
    (len <= code.len()).then_some((len, flow))
}

/// Where the operand that starts with the ModRM byte at `at` ends.
fn modrm(code: &[u8], at: usize) -> Option<usize> {
    let byte = *code.get(at)?;
    let (mode, rm) = (byte >> 6, byte & 7);
    let mut end = at + 1;
    if mode == 3 {
        return Some(end);
    }
    if rm == 4 {
        let base = code.get(end)? & 7;
        end += 1;
        if mode == 0 && base == 5 {
            return Some(end + 4);
        }
    }
    Some(match mode {
        0 if rm == 5 => end + 4,
        0 => end,
        1 => end + 1,
        _ => end + 4,
    })
}

/// Offset of `room` bytes of padding that no path reaches, within the first `reach` bytes of `code`. The code
/// starts at an instruction, at address `addr`. Padding follows a jump or return and ends at a multiple of 16.
pub(crate) fn find_padding(code: &[u8], addr: u64, room: usize, reach: usize) -> Option<usize> {
    let mut at = 0;
    let mut stopped = false;
    while at <= reach {
        let rest = code.get(at..)?;
        if stopped {
            let len = padding(rest, addr.wrapping_add(at as u64));
            if len >= room {
                return Some(at);
            }
        }
        let (len, flow) = decode(rest)?;
        stopped = flow == Flow::Stop;
        at += len;
    }
    None
}

/// The same before `addr`, where `code` ends; how far before it the padding starts, at most 120. Where instructions
/// start there is not known: paths from each byte before the padding must agree that it is not reached.
pub(crate) fn find_padding_before(code: &[u8], addr: u64, room: usize) -> Option<usize> {
    // Any closer, and the padding were the site's own.
    (8..=code.len().min(120)).find(|back| {
        let start = code.len() - back;
        let Some(rest) = code.get(start..) else { return false };
        padding(rest, addr.wrapping_sub(*back as u64)) >= room && is_behind_stop(code, start)
    })
}

/// The same for padding that a site cannot reach by itself: none that another system call might want.
pub(crate) fn find_far_padding(code: &[u8], addr: u64, room: usize) -> Option<usize> {
    let first = usize::try_from(addr.next_multiple_of(16) - addr).ok()?;
    // Others wait meanwhile: code may be made to cost as much as it can.
    let mut looks = 0..MOST_LOOKS;
    (first..code.len()).step_by(16).find_map(|end| {
        let around = code.get(end.checked_sub(FAR)?..end + FAR)?;
        if around.windows(2).any(|call| call == [0x0f, 0x05]) {
            return None;
        }
        (end - 15..=end - room).find(|start| {
            code.get(*start..end).is_some_and(|rest| padding(rest, addr + *start as u64) >= room)
                && looks.next().is_some()
                && is_behind_stop(code, *start)
        })
    })
}

/// Whether what is at `end` follows a jump or a return, by all ways to read the code before it.
fn is_behind_stop(code: &[u8], end: usize) -> bool {
    let mut ways = 0;
    for start in end.saturating_sub(64)..end {
        let (mut at, mut stopped) = (start, false);
        while at < end {
            let Some((len, flow)) = code.get(at..).and_then(decode) else { break };
            at += len;
            stopped = flow == Flow::Stop;
        }
        // A way that does not end there had a wrong start.
        if at == end {
            if !stopped {
                return false;
            }
            ways += 1;
        }
    }
    ways >= 8
}

/// Bytes of padding at the start of `code` up to the next multiple of 16; 0 if something else is there.
fn padding(code: &[u8], addr: u64) -> usize {
    let mut at = 0;
    loop {
        let end = addr.wrapping_add(at as u64);
        if at > 0 && end.is_multiple_of(16) {
            // Up to 32 and 64 where functions are aligned so.
            if code.get(at..).is_none_or(|rest| nop(rest).is_none()) || at >= 7 {
                return at;
            }
        }
        match code.get(at..).and_then(nop) {
            Some(len) => at += len,
            None => return 0,
        }
    }
}

/// Length of the no-operation (or int3) at the start of `code`.
fn nop(code: &[u8]) -> Option<usize> {
    if code.first() == Some(&0xcc) {
        return Some(1);
    }
    let prefixes = code.iter().take_while(|b| matches!(b, 0x66 | 0x2e)).count();
    match code.get(prefixes..)? {
        [0x90, ..] => Some(prefixes + 1),
        [0x0f, 0x1f, ..] => decode(code).map(|(len, _)| len),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_right() {
        let cases: [(&[u8], usize); 12] = [
            (&[0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff], 6),
            (&[0x77, 0x10], 2),
            (&[0x48, 0x89, 0x44, 0x24, 0x08], 5),
            (&[0x80, 0x3d, 1, 2, 3, 4, 0], 7),
            (&[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0], 10),
            (&[0x64, 0x89, 0x02], 3),
            (&[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8], 10),
            (&[0xf6, 0x05, 1, 2, 3, 4, 5], 7),
            (&[0xf7, 0xd8], 2),
            (&[0x0f, 0x11, 0x44, 0x24, 0x10], 5),
            (&[0x66, 0xc7, 0x00, 1, 2], 5),
            (&[0x0f, 0x84, 1, 2, 3, 4], 6),
        ];
        for (code, len) in cases {
            assert_eq!(decode(code), Some((len, Flow::Next)), "{code:x?}");
            assert_eq!(decode(&code[..len - 1]), None, "{code:x?} cut");
        }
        for code in [&[0xc3u8][..], &[0xe9, 0, 0, 0, 0], &[0xeb, 0], &[0xff, 0xe0], &[0x0f, 0x0b]] {
            assert_eq!(decode(code), Some((code.len(), Flow::Stop)));
        }
    }

    #[test]
    fn padding_is_found_behind_a_return_only() {
        // cmp rax, -4096; ja; ret; nopw (10 bytes) to a multiple of 16
        let mut code = vec![0x48, 0x3d, 0, 0xf0, 0xff, 0xff, 0x77, 0x59, 0xc3];
        code.extend([0x2e, 0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0]);
        code.extend([0x55; 32]);
        assert_eq!(find_padding(&code, 0x100d, 7, 120), Some(9));
        assert_eq!(find_padding(&code, 0x100c, 7, 120), None);
        code[8] = 0x90;
        assert_eq!(find_padding(&code, 0x100d, 7, 120), None);
    }

    /// The start of glibc's read(2), 16 bytes aligned; its second call is at 74.
    const READ: [u8; 76] = [
        0x80, 0x3d, 0x31, 0x33, 0x0e, 0x00, 0x00, 0x74, 0x17, 0x31, 0xc0, 0x0f, 0x05, 0x48, 0x3d, 0x00, 0xf0,
        0xff, 0xff, 0x77, 0x5b, 0xc3, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00, 0x48, 0x83,
        0xec, 0x28, 0x48, 0x89, 0x54, 0x24, 0x18, 0x48, 0x89, 0x74, 0x24, 0x10, 0x89, 0x7c, 0x24, 0x08, 0xe8,
        0x49, 0xd5, 0xf8, 0xff, 0x48, 0x8b, 0x54, 0x24, 0x18, 0x48, 0x8b, 0x74, 0x24, 0x10, 0x41, 0x89, 0xc0,
        0x8b, 0x7c, 0x24, 0x08, 0x31, 0xc0, 0x0f, 0x05,
    ];

    #[test]
    fn padding_is_found_before_a_call() {
        let before = |code: &[u8], at: u64| find_padding_before(code, at, 7);
        assert_eq!(before(&READ[..74], 0x1000 + 74), Some(74 - 22));
        assert_eq!(before(&READ[..74], 0x1001 + 74), None);
        // Where a path leads over it: no return, or a register's name that looks like one.
        let mut code = READ;
        code[21] = 0x90;
        assert_eq!(before(&code[..74], 0x1000 + 74), None);
        code[20..22].copy_from_slice(&[0x89, 0xc3]);
        assert_eq!(before(&code[..74], 0x1000 + 74), None);
        // Too little of the code before is known.
        assert_eq!(before(&READ[18..74], 0x1000 + 74), None);
    }

    #[test]
    fn far_padding_is_found() {
        let mut code = vec![0x50; 1024];
        code[530..544].fill(0xcc);
        assert_eq!(find_far_padding(&code, 0x1000, 7), None);
        code[529] = 0xc3;
        assert_eq!(find_far_padding(&code, 0x1000, 7), Some(530));
        assert_eq!(find_far_padding(&code, 0x100a, 7), None);
        code[600..602].copy_from_slice(&[0x0f, 0x05]);
        assert_eq!(find_far_padding(&code, 0x1000, 7), None);
        assert_eq!(find_far_padding(&code[..16], 0x1000, 7), None);
        assert_eq!(find_far_padding(&[], 0x1000, 7), None);
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut seed = 1u32;
        for _ in 0..20_000 {
            let code: Vec<u8> = (0..40)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            let _ = decode(&code);
            let _ = find_padding(&code, u64::MAX - 20, 7, 120);
            let _ = find_padding_before(&code, u64::MAX - 20, 7);
        }
    }
}
