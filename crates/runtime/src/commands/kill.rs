//! `sallet kill`

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use crate::cli::Globals;
use crate::container::Container;

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Send to every process of the container
    #[arg(long, short)]
    all: bool,
    /// Name of the container
    id: String,
    /// Name or number of the signal
    #[arg(default_value = "SIGTERM")]
    signal: String,
}

impl Kill {
    pub(crate) fn run(&self, globals: &Globals) -> Result<ExitCode> {
        let signal = parse_signal(&self.signal)?;
        Container::load(&globals.root(), &self.id)?.kill(signal, self.all)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Signals 1 to 31 of x86-64 in order.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A number, or a name with or without SIG. 0 asks whether there is somebody to signal.
fn parse_signal(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse::<i32>() {
        if (0..=64).contains(&number) {
            return Ok(number);
        }
        bail!("unknown signal {text:?}");
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = match name {
        "IOT" => Some(6),
        "CLD" => Some(17),
        "POLL" => Some(29),
        "RTMIN" => Some(34),
        "RTMAX" => Some(64),
        name => NAMES.iter().position(|known| *known == name).and_then(|index| i32::try_from(index + 1).ok()),
    };
    let realtime = || {
        if let Some(offset) = name.strip_prefix("RTMIN+") {
            return offset.parse::<i32>().ok().map(|offset| 34 + offset);
        }
        let offset = name.strip_prefix("RTMAX-")?;
        offset.parse::<i32>().ok().map(|offset| 64 - offset)
    };
    match named.or_else(realtime) {
        Some(number) if (1..=64).contains(&number) => Ok(number),
        _ => bail!("unknown signal {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("0", 0),
            ("9", 9),
            ("SIGKILL", 9),
            ("term", 15),
            ("SIGWINCH", 28),
            ("SYS", 31),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
        ] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for text in ["65", "-1", "SIGNOPE", "", "RTMIN+99"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
