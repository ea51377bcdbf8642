//! Compiles the waiter and the binder with rustc directly: no freestanding target is needed.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=bare.rs");
    for program in ["waiter", "binder"] {
        compile(program);
    }
}

fn compile(program: &str) {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let rustc = std::env::var("RUSTC").expect("cargo sets RUSTC");
    println!("cargo::rerun-if-changed={program}");
    let output = Command::new(&rustc)
        .args(["--edition=2024", "--target=x86_64-unknown-linux-gnu", "--crate-type=bin"])
        .arg(format!("--crate-name={program}"))
        .args(["-Cpanic=abort", "-Copt-level=s", "-Ccodegen-units=1", "-Cdebuginfo=0", "-Cstrip=symbols"])
        .args(["-Coverflow-checks=off", "-Cdebug-assertions=off", "-Crelocation-model=static"])
        .args(["-Cforce-unwind-tables=no", "--cap-lints=allow"])
        .args([
            "-Clink-arg=-nostartfiles",
            "-Clink-arg=-nostdlib",
            "-Clink-arg=-static",
            "-Clink-arg=-no-pie",
        ])
        .args([
            "-Clink-arg=-Wl,--build-id=none",
            "-Clink-arg=-Wl,-z,noexecstack",
            "-Clink-arg=-Wl,--gc-sections",
        ])
        .args(["-Clink-arg=-Wl,-z,max-page-size=4096", "-Clink-arg=-Wl,-z,norelro"])
        .arg(Path::new(&manifest).join(program).join("main.rs"))
        .arg("-o")
        .arg(format!("{out}/{program}"))
        .output()
        .expect("rustc starts");
    assert!(
        output.status.success(),
        "the {program} does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
