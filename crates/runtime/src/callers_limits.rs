//! The limits that `sallet` was started with, as `ulimit` sets them: programs get them. The kernel process
//! works for all programs of a sandbox, and that of `sallet do` would not even start with some of them.

use anyhow::{Context, Error, Result};
use control::Rlimit;

/// Limits of getrlimit(2) that would bound the kernel process: the number, from where on none is felt, ulimit's flag.
const FELT: [(u32, u64, &str); 4] =
    [(1, u64::MAX, "-f"), (2, u64::MAX, "-d"), (7, 1024, "-n"), (9, u64::MAX, "-v")];

/// RLIM_NLIMITS.
const RESOURCES: u32 = 16;
const CORE: u32 = 4;
const NOFILE: u32 = 7;
/// No process of a sandbox has more descriptors.
const MOST_FILES: u64 = 1 << 20;

/// Adds the limits that config.json does not name: the caller's, as under runc. Core files alone are written into the
/// container's own folders, where the host's kernel may take them elsewhere: those are only made where it is asked for.
pub(crate) fn inherit(named: &mut Vec<Rlimit>) -> Result<()> {
    for resource in (0..RESOURCES).filter(|resource| *resource != CORE) {
        if named.iter().any(|limit| limit.resource == resource) {
            continue;
        }
        let (mut soft, mut hard) = host::process::limit(0, resource).context("getrlimit")?;
        if resource == NOFILE {
            (soft, hard) = (soft.min(MOST_FILES), hard.min(MOST_FILES));
        }
        named.push(Rlimit { resource, soft, hard });
    }
    Ok(())
}

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
