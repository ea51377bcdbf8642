//! Raw code of tests, and instructions of the shim that it uses for its own ends.

/// Words that may lie between the shim's instruction and its return.
pub(crate) const WORDS: usize = 12;

/// The bytes between two labels.
macro_rules! code {
    ($start:ident, $end:ident) => {{
        unsafe extern "C" {
            static $start: u8;
            static $end: u8;
        }
        // SAFETY: both labels lie in one read-only section, the second behind the first.
        unsafe {
            let (start, end) = (&raw const $start, &raw const $end);
            std::slice::from_raw_parts(start, end as usize - start as usize)
        }
    }};
}
pub(crate) use code;

/// A `syscall` of the shim with only pops between it and a return. The very first is of no use: its calls are refused
/// unless announced.
pub(crate) fn gadget() -> u64 {
    let image = stub::IMAGE;
    let word = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().expect("eight"));
    let header = word(32) as usize;
    let (offset, address, size) = (word(header + 8), word(header + 16), word(header + 32));
    let text = &image[offset as usize..(offset + size) as usize];
    let returns = |mut code: &[u8]| {
        let mut words = 0;
        loop {
            (code, words) = match code {
                [0xc3, ..] => return words < WORDS,
                [0x58..=0x5b | 0x5d..=0x5f, rest @ ..] | [0x41, 0x58..=0x5f, rest @ ..] => (rest, words + 1),
                [0x48, 0x83, 0xc4, bytes, rest @ ..] => (rest, words + usize::from(*bytes) / 8),
                _ => return false,
            }
        }
    };
    let at =
        (1..text.len() - 2).find(|at| text[*at..].starts_with(&[0x0f, 0x05]) && returns(&text[at + 2..]));
    address + at.expect("one at least") as u64
}
