//! Names of getrlimit(2).

/// The number of `RLIMIT_NAME` on x86-64.
pub(crate) fn number(name: &str) -> Option<u32> {
    const NAMES: [&str; 16] = [
        "CPU",
        "FSIZE",
        "DATA",
        "STACK",
        "CORE",
        "RSS",
        "NPROC",
        "NOFILE",
        "MEMLOCK",
        "AS",
        "LOCKS",
        "SIGPENDING",
        "MSGQUEUE",
        "NICE",
        "RTPRIO",
        "RTTIME",
    ];
    let short = name.strip_prefix("RLIMIT_")?;
    let position = NAMES.iter().position(|known| *known == short)?;
    u32::try_from(position).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_become_numbers() {
        assert_eq!(super::number("RLIMIT_NOFILE"), Some(7));
        assert_eq!(super::number("RLIMIT_RTTIME"), Some(15));
        assert_eq!(super::number("NOFILE"), None);
    }
}
