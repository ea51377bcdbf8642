//! OCI hooks: programs of the host run at points of a container's life.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

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
    let output = match wait(hook, &mut child) {
        Ok(output) => output,
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
    };
    let status = child.wait()?;
    if !status.success() {
        bail!("{status}, stdout: , stderr: {}", String::from_utf8_lossy(&output).trim_end());
    }
    Ok(())
}

/// So much of what a hook writes is kept for its error. It may write more.
const MAX_OUTPUT: usize = 64 << 10;

/// Waits until a hook has ended. Gives what it wrote to standard error.
fn wait(hook: &Hook, child: &mut Child) -> Result<Vec<u8>> {
    let timeout = hook.timeout.and_then(|seconds| u64::try_from(seconds).ok());
    // One that is too late to be told never comes.
    let deadline = timeout.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut stderr = child.stderr.take();
    if let Some(pipe) = &stderr {
        rustix::io::ioctl_fionbio(pipe, true)?;
    }
    let mut output = Vec::new();
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let wait = left.map(Timespec::try_from).transpose()?;
        let mut fds = vec![PollFd::new(&ended, PollFlags::IN)];
        fds.extend(stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        match rustix::event::poll(&mut fds, wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let has_ended = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        if stderr.as_mut().is_some_and(|pipe| !drain(pipe, &mut output)) {
            stderr = None;
        }
        if has_ended {
            // A daemon left behind may keep the pipe open.
            return Ok(output);
        }
        if left.is_some_and(|left| left.is_zero()) {
            bail!("{} ran past its timeout of {} s", hook.path.display(), timeout.unwrap_or(0));
        }
    }
}

/// Takes what is in the pipe, a pipe's worth of it at most; false at its end.
fn drain(pipe: &mut ChildStderr, output: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    for _ in 0..32 {
        match pipe.read(&mut buffer) {
            Ok(0) => return false,
            Ok(read) => {
                let room = MAX_OUTPUT.saturating_sub(output.len()).min(read);
                output.extend_from_slice(buffer.get(..room).unwrap_or_default());
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<i64>) -> (Result<()>, Duration) {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        let env = vec!["PATH=/usr/bin:/bin".to_owned()];
        let hook = Hook { path: "/bin/sh".into(), args, env, timeout };
        let begin = Instant::now();
        (run_one(&hook, "{}"), begin.elapsed())
    }

    #[test]
    fn a_hook_may_write_as_much_as_it_likes() {
        for timeout in [None, Some(20)] {
            let (result, _) = shell("echo first >&2; head -c 1000000 /dev/zero >&2", timeout);
            result.unwrap();
            let (result, _) = shell("echo first >&2; head -c 1000000 /dev/zero >&2; exit 3", timeout);
            let text = result.unwrap_err().to_string();
            assert!(text.starts_with("exit status: 3, stdout: , stderr: first\n"), "{:.80}", text);
            assert!(text.len() <= MAX_OUTPUT + 100);
        }
        let (result, _) = shell("printf '\\377oh' >&2; exit 1", None);
        assert_eq!(result.unwrap_err().to_string(), "exit status: 1, stdout: , stderr: \u{fffd}oh");
    }

    #[test]
    fn what_it_leaves_behind_keeps_nobody_waiting() {
        let (result, time) = shell("sleep 30 & exit 0", Some(20));
        result.unwrap();
        assert!(time < Duration::from_secs(10));
    }

    #[test]
    fn a_hook_that_takes_too_long_is_killed() {
        let (result, time) = shell("exec sleep 30", Some(1));
        assert!(result.unwrap_err().to_string().contains("timeout of 1 s"));
        assert!(time < Duration::from_secs(10));
        // Also one that never ceases to write.
        let (result, time) = shell("exec cat /dev/zero >&2", Some(1));
        assert!(result.unwrap_err().to_string().contains("timeout of 1 s"));
        assert!(time < Duration::from_secs(10));
    }
}
