//! Sets of CPUs as the kernel prints them: masks and lists of cpuset(7).

/// A mask over `count` CPUs in groups of 32 bits, the highest first.
pub(crate) fn mask(cpus: &[usize], count: usize) -> String {
    let count = cpus.iter().max().map_or(1, |last| last.saturating_add(1)).max(count);
    let mut words = vec![0u32; count.div_ceil(32)];
    for cpu in cpus {
        if let Some(word) = words.get_mut(cpu / 32) {
            *word |= 1 << (cpu % 32);
        }
    }
    // The highest group is as wide as it must be.
    let mut width = (count - 1) % 32 / 4 + 1;
    let mut parts = Vec::new();
    for word in words.iter().rev() {
        parts.push(format!("{word:0width$x}"));
        width = 8;
    }
    parts.join(",")
}

/// `0-2,5`, of CPUs in order.
pub(crate) fn list(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*cpu) => *last = *cpu,
            _ => ranges.push((*cpu, *cpu)),
        }
    }
    let text = |(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::{list, mask};

    #[test]
    fn as_linux_prints_them() {
        assert_eq!(mask(&[0, 1], 2), "3");
        assert_eq!(mask(&[1], 6), "02");
        assert_eq!(mask(&[0], 64), "00000000,00000001");
        assert_eq!(mask(&[33], 34), "2,00000000");
        assert_eq!(mask(&[40], 4), "100,00000000");
        assert_eq!(mask(&[], 0), "0");
        assert_eq!(list(&[0, 1, 2, 5]), "0-2,5");
        assert_eq!(list(&[3]), "3");
        assert_eq!(list(&[]), "");
    }
}
