//! `cargo xtask compatibility`: writes docs/compatibility.md from the table that the binary prints.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::run;

const HEAD: &str = "# Compatibility

Every system call of x86-64 that Sallet answers, from its own table (`sallet syscalls`); written by
`cargo xtask compatibility`. Every other number answers `ENOSYS` and is named once in the debug log, but for
those that the host always answers and the table has not: `munlockall`, `membarrier`,
`pkey_alloc`, `pkey_free`, `rseq`, `futex_waitv`, `futex_wake`, `futex_wait`, `futex_requeue`.
What differs from Linux today, with the test that shows it, is in `guest-tests/known-failures.txt`
and `tests/known-failures.txt`.

| number | name | support | note |
|---:|---|---|---|
";

/// Writes the document.
pub(crate) fn run(words: &[&str]) -> Result<bool> {
    let sallet = match words {
        [] => run::target_dir().join("release/sallet"),
        ["--sallet", path] => PathBuf::from(path),
        other => bail!("unknown options {other:?}"),
    };
    let mut command = Command::new(&sallet);
    command.arg("syscalls");
    let finished = run::limited(command, Duration::from_secs(20))
        .with_context(|| format!("{}: cargo build --release first", sallet.display()))?;
    ensure!(finished.status.is_some_and(|s| s.success()), "sallet syscalls: {}", finished.stderr);
    let mut text = HEAD.to_owned();
    let mut rows = 0;
    for line in finished.stdout.lines() {
        let mut words = line.split_whitespace();
        let (Some(number), Some(name), Some(support)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if number.parse::<u32>().is_err() {
            continue;
        }
        let note: Vec<&str> = words.collect();
        text.push_str(&format!(
            "| {number} | {name} | {support} | {} |\n",
            note.join(" ").replace('|', "\\|")
        ));
        rows += 1;
    }
    std::fs::write(run::workspace().join("docs/compatibility.md"), text)?;
    println!("{rows} system calls");
    Ok(rows > 0)
}
