//! The kernel process tries to get out of its jail, and fails.

use std::process::Command;

#[test]
fn no_attempt_to_escape_succeeds() {
    let uid = rustix::process::geteuid();
    let state = std::env::temp_dir().join(format!("sallet-jail-{}", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_sallet"))
        .args(["--root".as_ref(), state.as_os_str()])
        .args(["--jail", "probe", "do", "--all-files", "--", "true"])
        .output()
        .unwrap();
    let _ = std::fs::remove_dir_all(state);
    let message = String::from_utf8_lossy(&output.stderr);
    if !uid.is_root() && message.contains("the host forbids") {
        eprintln!("skipped: {message}");
        return;
    }
    assert!(message.contains("jail: 0 escapes"), "{message}");
}
