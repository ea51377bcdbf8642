//! OCI hooks: programs of the host run at points of a container's life.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::oci::Hook;

/// Runs hooks one after the other with the OCI state on standard input; the
/// first that fails ends the row.
pub(crate) fn run(kind: &str, hooks: &[Hook], state: &str) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state).with_context(|| format!("error running {kind} hook #{index}"))?;
    }
    Ok(())
}

fn run_one(hook: &Hook, state: &str) -> Result<()> {
    if !hook.path.is_absolute() {
        bail!("hook path {} is not absolute", hook.path.display());
    }
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command
        .env_clear()
        .envs(hook.env.iter().filter_map(|entry| entry.split_once('=')))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {}", hook.path.display()))?;
    if let Some(mut input) = child.stdin.take() {
        // A hook need not read its input.
        let _ = input.write_all(state.as_bytes());
    }
    if let Some(timeout) = hook.timeout.and_then(|s| u64::try_from(s).ok()) {
        // One that is too late to be told never comes.
        let deadline = Instant::now().checked_add(Duration::from_secs(timeout));
        while child.try_wait()?.is_none() {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                child.kill()?;
                child.wait()?;
                bail!("{} ran past its timeout of {timeout} s", hook.path.display());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let mut output = String::new();
    if let Some(stderr) = child.stderr.take() {
        // A daemon left behind may keep the pipe open: read what fits.
        let _ = stderr.take(64 * 1024).read_to_string(&mut output);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{status}, stdout: , stderr: {}", output.trim_end());
    }
    Ok(())
}
