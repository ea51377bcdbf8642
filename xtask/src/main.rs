//! Project chores, run as `cargo xtask NAME`.
//!
//! * `test`: installs what the tests need and runs them all.
//! * `scripts FOLDER [--yardstick] [--sallet PATH] [--filter TEXT] [--limit SECONDS]`: the scripts of `tests/FOLDER`.
//! * `contest FOLDER [--sallet PATH] [--filter TEXT]`: youki's OCI validation suite, built elsewhere.
//! * `apps [NAME...] [--quick] [--runs N] [--sallet PATH]`: applications of `tests/apps` beside runc.
//! * `soak [--minutes N] [--sallet PATH]`: eight applications at once under load, for long.
//! * `bench [--quick] [--runs N] [--row NAME] [--sallet PATH]`: the host beside Sallet, in one table.
//! * `net [PLACE | ROW]... [--quick] [--write] [--runs N] [--seconds N] [--sallet PATH]`: network programs
//!   under runc beside Sallet.
//! * `compatibility [--sallet PATH]`: writes docs/compatibility.md from the table of system calls.
//! * `tidy`: the rules of the house that the compiler does not check.
//! * `guest-tests [--native | --sandbox] [--sallet PATH] [--program PATH] [--filter TEXT]
//!   [--limit SECONDS]`: the guest programs, natively and inside.
#![forbid(unsafe_code)]

mod apps;
mod bench;
mod compatibility;
mod contest;
mod guest_tests;
mod net;
mod run;
mod scripts;
mod soak;
mod test;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask CHORE [OPTION...]

  test            install what the tests need and run them all, as root on Debian 12
  scripts FOLDER [--yardstick] [--sallet PATH] [--filter TEXT] [--limit SECONDS]
                  the scripts of tests/FOLDER; --yardstick: under runc
  guest-tests [--native | --sandbox] [--sallet PATH] [--program PATH] [--filter TEXT] [--limit SECONDS]
                  the guest programs, natively and inside
  contest FOLDER [--sallet PATH] [--filter TEXT]
                  youki's OCI validation suite, built elsewhere
  apps [NAME...] [--quick] [--runs N] [--sallet PATH]
                  applications of tests/apps beside runc; --quick: a small load, no table
  soak [--minutes N] [--sallet PATH]
                  eight applications at once under load, for long
  bench [--quick] [--runs N] [--row NAME] [--sallet PATH]
                  the host beside Sallet, in one table
  net [PLACE | ROW]... [--quick] [--write] [--runs N] [--seconds N] [--sallet PATH]
                  network programs under runc beside Sallet; --write: into docs/network.md
  compatibility [--sallet PATH]
                  write docs/compatibility.md from the table of system calls
  tidy            the rules of the house that the compiler does not check

docs/testing.md says more.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if words.iter().any(|word| matches!(*word, "-h" | "--help" | "help")) {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let result = match words.as_slice() {
        ["apps", options @ ..] => apps::run(options),
        ["bench", options @ ..] => bench::run(options),
        ["contest", options @ ..] => contest::run(options),
        ["compatibility", options @ ..] => compatibility::run(options),
        ["net", options @ ..] => net::run(options),
        ["soak", options @ ..] => soak::run(options),
        ["test"] => test::run(),
        ["tidy"] => tidy::run(),
        ["scripts", options @ ..] => scripts::run(options),
        ["guest-tests", options @ ..] => guest_tests::run(options),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
