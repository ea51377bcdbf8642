//! The shim keeps every vector and x87 register of the guest: no instruction of its image touches them.

use std::process::Command;

#[test]
fn no_instruction_touches_vector_registers() {
    let path = std::env::temp_dir().join(format!("sallet-stub-image-{}", std::process::id()));
    std::fs::write(&path, stub::IMAGE).expect("the image is written");
    let output = Command::new("objdump").args(["-d", "--no-show-raw-insn"]).arg(&path).output();
    std::fs::remove_file(&path).expect("the image was there");
    // No binutils here: CI has them.
    let Ok(output) = output else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut instructions = 0;
    for line in text.lines() {
        let Some((_, instruction)) = line.split_once(":\t") else { continue };
        instructions += 1;
        let mnemonic = instruction.split_whitespace().next().unwrap_or_default();
        // These load what the host saved of the guest's own state, before a clone.
        if matches!(mnemonic, "xrstor64" | "fxrstor64") {
            continue;
        }
        let registers = ["%xmm", "%ymm", "%zmm", "%mm", "%st", "%k0", "%k1", "%k2", "%tmm"];
        assert!(!registers.iter().any(|r| instruction.contains(r)), "{line}");
        let state = ["emms", "ldmxcsr", "stmxcsr", "vzero", "xrstor", "xsave", "fxsave", "fxrstor", "fninit"];
        assert!(!state.iter().any(|s| mnemonic.starts_with(s)), "{line}");
        assert!(!mnemonic.starts_with('f'), "x87: {line}");
    }
    assert!(instructions > 500, "{instructions} instructions");
}
