//! The vDSO of guest processes. A fork of the zygote has it where the host put the zygote's; exec moves it, together
//! with the data that it reads, so that it lies elsewhere in each program.

use std::ops::Range;

use crate::types::NativeOp;

/// Where the zygote has it.
#[derive(Clone, Debug, Default)]
pub struct Vdso {
    /// `AT_SYSINFO_EHDR`; 0 if there is none.
    address: u64,
    /// Its mappings, one behind the other; none if it has to stay where it is.
    parts: Vec<Range<u64>>,
}

impl Vdso {
    /// That of a host process, which says that it is at `address`, and whether the host has sealed it (Linux 6.16 may).
    pub(crate) fn of(pid: i32, address: u64, sealed: bool) -> Vdso {
        let maps = if sealed { None } else { host::proc_fs::read(&format!("{pid}/maps")).ok() };
        let parts = maps.and_then(|text| parts(&text, address));
        if parts.is_none() {
            tracing::debug!("the vDSO stays where the host has put it");
        }
        Vdso { address, parts: parts.unwrap_or_default() }
    }

    /// What it leaves free when it is moved.
    pub fn old_place(&self) -> Option<Range<u64>> {
        Some(self.parts.first()?.start..self.parts.last()?.end)
    }

    /// What moves it to `to` in a new process, and its address (`AT_SYSINFO_EHDR`) from then on.
    pub fn moved(&self, to: u64) -> (Vec<NativeOp>, u64) {
        const MAYMOVE_FIXED: u32 = 3;
        let Some(first) = self.parts.first() else { return (Vec::new(), self.address) };
        let there = |at: u64| at.wrapping_sub(first.start).wrapping_add(to);
        let op = |part: &Range<u64>| {
            let len = part.end - part.start;
            let (addr, new_addr) = (part.start, there(part.start));
            NativeOp::Mremap { addr, old_len: len, new_len: len, flags: MAYMOVE_FIXED, new_addr }
        };
        (self.parts.iter().map(op).collect(), there(self.address))
    }
}

/// The mappings of the vDSO in /proc/PID/maps, none if they are not side by side.
fn parts(maps: &str, address: u64) -> Option<Vec<Range<u64>>> {
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let mut parts: Vec<Range<u64>> = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let span = words.next().and_then(|span| span.split_once('-'));
        if !matches!(words.nth(4), Some("[vdso]" | "[vvar]" | "[vvar_vclock]")) {
            continue;
        }
        let (start, end) = span.and_then(|(start, end)| hex(start).zip(hex(end)))?;
        if parts.last().is_some_and(|last| last.end != start) {
            return None;
        }
        parts.push(start..end);
    }
    parts.iter().any(|part| part.contains(&address)).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
7e0300000000-7e0300001000 r--p 00000000 00:00 0 
7f20d5fbb000-7f20d5fbf000 r--p 00000000 00:00 0                          [vvar]
7f20d5fbf000-7f20d5fc1000 r--p 00000000 00:00 0                          [vvar_vclock]
7f20d5fc1000-7f20d5fc3000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";
    const ADDRESS: u64 = 0x7f20_d5fc_1000;

    #[test]
    fn all_parts_move_by_the_same_way() {
        let vdso = Vdso { address: ADDRESS, parts: parts(MAPS, ADDRESS).unwrap() };
        let (ops, address) = vdso.moved(0x7ffd_0000_0000);
        assert_eq!(address, 0x7ffd_0000_6000);
        let places: Vec<_> = ops
            .iter()
            .map(|op| match op {
                NativeOp::Mremap { addr, old_len, new_len, flags: 3, new_addr } if old_len == new_len => {
                    (*addr, *old_len, *new_addr)
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            places,
            [
                (0x7f20_d5fb_b000, 0x4000, 0x7ffd_0000_0000),
                (0x7f20_d5fb_f000, 0x2000, 0x7ffd_0000_4000),
                (0x7f20_d5fc_1000, 0x2000, 0x7ffd_0000_6000),
            ]
        );
    }

    #[test]
    fn sealed_or_unknown_it_stays() {
        assert_eq!(Vdso::of(0, ADDRESS, true).parts, []);
        assert_eq!(parts(MAPS, ADDRESS + 0x2000), None);
        assert_eq!(parts("", ADDRESS), None);
        assert_eq!(
            parts(&MAPS.replace("7f20d5fbb000-7f20d5fbf000", "7f20d5fba000-7f20d5fbe000"), ADDRESS),
            None
        );
        let vdso = Vdso { address: ADDRESS, parts: Vec::new() };
        let (ops, address) = vdso.moved(0x7ffd_0000_0000);
        assert_eq!((ops.len(), address), (0, ADDRESS));
    }
}
