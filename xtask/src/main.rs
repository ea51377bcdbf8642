//! Project chores, run as `cargo xtask NAME`.
//!
//! * `tidy`: the rules of the house that the compiler does not check.
//! * `guest-tests [--native | --sandbox] [--sallet PATH] [--filter TEXT]`: the guest programs, natively and inside.
#![forbid(unsafe_code)]

mod guest_tests;
mod run;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["tidy"] => tidy::run(),
        ["guest-tests", options @ ..] => guest_tests::run(options),
        _ => {
            eprintln!(
                "usage: cargo xtask tidy | guest-tests [--native | --sandbox] [--sallet PATH] [--filter TEXT]"
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
