//! Project chores, run as `cargo xtask NAME`.
//!
//! * `test`: installs what the tests need and runs them all.
//! * `scripts FOLDER [--yardstick] [--sallet PATH] [--filter TEXT] [--limit SECONDS]`: the scripts of `tests/FOLDER`.
//! * `contest FOLDER [--sallet PATH] [--filter TEXT]`: youki's OCI validation suite, built elsewhere.
//! * `apps [NAME...] [--quick] [--runs N] [--sallet PATH]`: applications of `tests/apps` beside runc.
//! * `bench [--quick] [--runs N] [--row NAME] [--sallet PATH]`: the host beside Sallet, in one table.
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
mod run;
mod scripts;
mod test;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["apps", options @ ..] => apps::run(options),
        ["bench", options @ ..] => bench::run(options),
        ["contest", options @ ..] => contest::run(options),
        ["compatibility", options @ ..] => compatibility::run(options),
        ["test"] => test::run(),
        ["tidy"] => tidy::run(),
        ["scripts", options @ ..] => scripts::run(options),
        ["guest-tests", options @ ..] => guest_tests::run(options),
        _ => {
            eprintln!(
                "usage: cargo xtask test | apps [NAME...] [--quick] [--runs N] [--sallet PATH] | compatibility [--sallet PATH] | contest FOLDER [--sallet PATH] [--filter TEXT] | bench [--quick] [--runs N] [--row NAME] [--sallet PATH] | tidy | guest-tests [--native | --sandbox] [--sallet PATH] [--program PATH] [--filter TEXT] \
                 | scripts FOLDER [--yardstick] [--sallet PATH] [--filter TEXT] [--limit SECONDS]"
            );
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
