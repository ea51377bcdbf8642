//! A guest that tests the kernel below it.
//!
//! The host's Linux is the oracle: every case passes natively first, then inside a sandbox.
//! `guest-tests list`, `guest-tests run NAME...`, `guest-tests run-all [--filter TEXT]`.
//! A case prints `ok NAME`, `skip NAME: reason` or `FAIL NAME: reason`; the exit status is 0 when
//! nothing failed, 1 when something did, 2 for bad usage and 77 when one named case was skipped.

mod bench;
mod cases;
mod harness;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["list"] => {
            for case in cases::all() {
                println!("{}", case.name());
            }
            ExitCode::SUCCESS
        }
        ["run", names @ ..] if !names.is_empty() => harness::run_named(names),
        ["run-all"] => harness::run_filtered(""),
        ["run-all", "--filter", text] => harness::run_filtered(text),
        ["bench", words @ ..] => bench::run(words),
        _ => {
            eprintln!(
                "usage: guest-tests list | run NAME... | run-all [--filter TEXT] | bench [--time MS] [--step] all | ROW..."
            );
            ExitCode::from(2)
        }
    }
}
