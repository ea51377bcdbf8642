//! Compiles the shim with rustc directly: no freestanding target is needed.

use std::path::Path;
use std::process::Command;

fn main() {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let rustc = std::env::var("RUSTC").expect("cargo sets RUSTC");
    let root = Path::new(&manifest);
    let slot = root.join("../slot/src/lib.rs");
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-changed=../slot/src");

    let common = [
        "--edition=2024",
        "--target=x86_64-unknown-linux-gnu",
        "-Cpanic=abort",
        "-Copt-level=2",
        "-Ccodegen-units=1",
        "-Cdebuginfo=0",
        "-Coverflow-checks=off",
        "-Cdebug-assertions=off",
        "-Crelocation-model=pic",
        "-Cforce-unwind-tables=no",
        // Vector registers are the guest's.
        "-Ctarget-feature=-mmx,-sse,-sse2,-sse3,-ssse3,-sse4.1,-sse4.2,-avx,-avx2,+soft-float",
        "-Cno-redzone=yes",
        "--cap-lints=allow",
    ];
    let slot_rlib = format!("{out}/libslot.rlib");
    run(Command::new(&rustc)
        .args(common)
        .args(["--crate-type=rlib", "--crate-name=slot"])
        .arg(&slot)
        .arg("-o")
        .arg(&slot_rlib));
    run(Command::new(&rustc)
        .args(common)
        .args(["--crate-type=bin", "--crate-name=shim"])
        .arg(format!("--extern=slot={slot_rlib}"))
        .args([
            "-Clink-arg=-nostartfiles",
            "-Clink-arg=-nostdlib",
            "-Clink-arg=-static",
            "-Clink-arg=-no-pie",
        ])
        .args([
            "-Clink-arg=-Wl,--no-relax",
            "-Clink-arg=-Wl,--build-id=none",
            "-Clink-arg=-Wl,-z,noexecstack",
        ])
        .args(["-Clink-arg=-Wl,-z,max-page-size=4096", "-Clink-arg=-Wl,--gc-sections"])
        .arg(format!("-Clink-arg=-Wl,-T,{}", root.join("shim/stub.ld").display()))
        .arg(root.join("shim/main.rs"))
        .arg("-o")
        .arg(format!("{out}/stub")));
}

fn run(command: &mut Command) {
    let output = command.output().expect("rustc starts");
    assert!(output.status.success(), "the shim does not build:\n{}", String::from_utf8_lossy(&output.stderr));
}
