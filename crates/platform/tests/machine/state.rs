//! The extended state of guest threads: over clone, at start, at sigreturn.

use crate::common::{CODE, Kind, call, clone_request, expect_call, guest, run};
use platform::{Exit, SignalFrame};

const MXCSR: u32 = 0x7f80;
const FCW: u16 = 0x0f7f;

/// movq rdi, xmm0; esi = MXCSR; edx = FCW; exit
fn tell() -> Vec<u8> {
    let mut code = vec![0x66, 0x48, 0x0f, 0x7e, 0xc7];
    code.extend([0x0f, 0xae, 0x5c, 0x24, 0xf0, 0x8b, 0x74, 0x24, 0xf0]);
    code.extend([0xd9, 0x7c, 0x24, 0xf8, 0x0f, 0xb7, 0x54, 0x24, 0xf8]);
    code.extend(call(60));
    code
}

/// Sets the three, with words at CODE + 0x100; movq xmm0, rbx.
fn set() -> Vec<u8> {
    let mut code = vec![0x66, 0x48, 0x0f, 0x6e, 0xc3];
    code.extend([0x0f, 0xae, 0x14, 0x25]);
    code.extend((CODE as u32 + 0x100).to_le_bytes());
    code.extend([0xd9, 0x2c, 0x25]);
    code.extend((CODE as u32 + 0x104).to_le_bytes());
    code
}

async fn cloned(kind: Kind) {
    let mut code = set();
    code.extend(call(56));
    code.extend(tell());
    code.resize(0x100, 0x90);
    code.extend(MXCSR.to_le_bytes());
    code.extend(FCW.to_le_bytes());
    let mut parent = guest(&code).await;
    parent.regs_mut().rbx = 0x1122_3344_5566_7788;
    parent.resume_regs();
    expect_call(&mut parent, 56).await;
    let mut regs = *parent.regs();
    regs.rsp = CODE + 0x4000;
    let mut child = parent.begin_clone(clone_request(kind, regs)).expect("a child");
    expect_call(&mut child, 60).await;
    let told = |r: &platform::Regs| (r.rdi, r.rsi, r.rdx);
    let expected = (0x1122_3344_5566_7788, u64::from(MXCSR), u64::from(FCW));
    assert_eq!(told(child.regs()), expected, "{kind:?}");
    if kind == Kind::Vfork {
        // The parent's host call comes back with the child's end.
        child.handle().kill_process();
    }
    match parent.next_exit().await {
        Exit::NativeDone(ret) => assert!(ret > 0, "{ret}"),
        other => panic!("{other:?}"),
    }
    parent.resume_syscall(7);
    expect_call(&mut parent, 60).await;
    assert_eq!(told(parent.regs()), expected, "{kind:?}");
    child.handle().kill_process();
    parent.handle().kill_process();
}

#[test]
fn a_child_inherits_the_extended_state() {
    run(async {
        for kind in [Kind::Fork, Kind::Vfork, Kind::Thread] {
            cloned(kind).await;
        }
    });
}

#[test]
fn a_program_starts_with_clean_state() {
    run(async {
        for _ in 0..3 {
            let mut guest = guest(&tell()).await;
            guest.resume_regs();
            expect_call(&mut guest, 60).await;
            assert_eq!((guest.regs().rdi, guest.regs().rsi, guest.regs().rdx), (0, 0x1f80, 0x37f));
            guest.handle().kill_process();
        }
    });
}

/// At a call, pushes a frame with the state to `CODE + 0xa000`, changes it by `spoil`, goes back through it.
async fn through_a_frame(at: u64, spoil: impl FnOnce(&mut [u8])) -> Result<(u64, u64, u64), platform::Fault> {
    const AT: u64 = CODE + 0xa000;
    let mut code = set();
    code.extend(call(39));
    code.extend(call(15));
    code.extend(tell());
    code.resize(0x100, 0x90);
    code.extend(MXCSR.to_le_bytes());
    code.extend(FCW.to_le_bytes());
    let mut guest = guest(&code).await;
    guest.regs_mut().rbx = 0x77;
    guest.resume_regs();
    expect_call(&mut guest, 39).await;
    let regs = *guest.regs();
    guest.signal_frame(SignalFrame { sp: CODE + 0x9000, bytes: vec![1; 64], fpstate: Some(AT), regs });
    expect_call(&mut guest, 15).await;
    let mut state = vec![0; crate::common::machine().xstate_size()];
    assert!(state.len() >= 512, "{}", state.len());
    guest.copy_in(AT, &mut state).expect("the state is there");
    spoil(&mut state);
    guest.copy_out_now(AT, &state).expect("writable");
    guest.resume_regs_with_xstate(at);
    let result = match guest.next_exit().await {
        Exit::Syscall => Ok((guest.regs().rdi, guest.regs().rsi, guest.regs().rdx)),
        Exit::Fault(fault) => Err(fault),
        other => panic!("{other:?}"),
    };
    guest.handle().kill_process();
    result
}

#[test]
fn sigreturn_takes_the_state_from_the_frame() {
    run(async {
        let at = CODE + 0xa000;
        let set = (0x77, u64::from(MXCSR), u64::from(FCW));
        assert_eq!(through_a_frame(at, |_| {}).await.ok(), Some(set));
        // A changed xmm0 (at 160) and FCW (at 0).
        let changed = through_a_frame(at, |s| {
            s[160] = 0x99;
            s[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
        });
        assert_eq!(changed.await.ok(), Some((0x99, u64::from(MXCSR), 0x37f)));
        // Without the mark, and with header bits that claim nothing is there: the legacy part counts.
        let legacy = through_a_frame(at, |s| {
            s[464..472].fill(0);
            if let Some(header) = s.get_mut(512..520) {
                header.fill(0);
            }
        });
        assert_eq!(legacy.await.ok(), Some(set));
        assert_eq!(through_a_frame(0, |_| {}).await.ok(), Some((0, 0x1f80, 0x37f)));
    });
}

#[test]
fn a_bad_frame_is_a_fault() {
    run(async {
        for at in [0x1000, CODE + 0x10000 - 64, 0x7e00_0000_0000 - 64, u64::MAX - 63, 1 << 62] {
            let fault = through_a_frame(at, |_| {}).await.expect_err("no state there");
            assert_eq!((fault.signo, fault.code), (11, 0x80), "{at:x}");
        }
    });
}
