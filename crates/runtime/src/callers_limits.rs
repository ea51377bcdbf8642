//! The limits that `sallet do` was started with, as `ulimit` sets them: its program gets them. The kernel process
//! works for all programs of a sandbox and would not even start with some of them.

use anyhow::{Context, Error, Result};
use control::Rlimit;

/// Limits of getrlimit(2) that would bound the kernel process: the number, from where on none is felt, ulimit's flag.
const FELT: [(u32, u64, &str); 4] =
    [(1, u64::MAX, "-f"), (2, u64::MAX, "-d"), (7, 1024, "-n"), (9, u64::MAX, "-v")];

/// What was taken off this process.
#[derive(Debug)]
pub(crate) struct Taken {
    /// For the program.
    pub(crate) rlimits: Vec<Rlimit>,
    /// Flags of ulimit whose hard limits remain, as only root may raise them.
    remaining: Vec<&'static str>,
}

/// Takes the limits off this process.
pub(crate) fn take() -> Result<Taken> {
    let mut taken = Taken { rlimits: Vec::new(), remaining: Vec::new() };
    for (resource, unfelt, flag) in FELT {
        let (soft, hard) = host::process::limit(0, resource).context("getrlimit")?;
        if soft >= unfelt {
            continue;
        }
        taken.rlimits.push(Rlimit { resource, soft, hard });
        let wanted = hard.max(unfelt);
        if host::process::set_limit(0, resource, wanted, wanted).is_err() {
            host::process::set_limit(0, resource, hard, hard).context("setrlimit")?;
            taken.remaining.push(flag);
        }
    }
    Ok(taken)
}

impl Taken {
    /// Why a sandbox may not start.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match self.remaining.join(" ").as_str() {
            "" => error,
            flags => {
                error.context(format!("under the hard limit of ulimit {flags} (a soft one, -S, would do)"))
            }
        }
    }
}
