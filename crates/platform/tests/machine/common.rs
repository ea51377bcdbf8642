//! Raw guest code on the machine, without a kernel.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use platform::{CloneRequest, Config, Exit, GuestThread, NativeOp, Platform, Regs};

/// How long a guest may owe the machine something in these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Where the code lies; a stack ends at `CODE + 0x8000`.
pub(crate) const CODE: u64 = 0x40_0000;

/// The one machine of a test program: it reaps all children.
pub(crate) fn machine() -> Arc<Platform> {
    static PLATFORM: OnceLock<Arc<Platform>> = OnceLock::new();
    // A second run of the tests does without newer features of the host.
    let old_host = std::env::var_os("SALLET_TEST_OLD_HOST").is_some();
    let config = Config { old_host, sealing: !old_host, patience: PATIENCE, ..Config::default() };
    PLATFORM.get_or_init(|| Platform::start(config).expect("the machine starts")).clone()
}

/// A process that is about to run `code`.
pub(crate) async fn guest(code: &[u8]) -> GuestThread {
    let mut guest = machine().new_process().await.expect("a new process");
    guest.native_batch(vec![
        NativeOp::Mmap { addr: CODE, len: 0x10000, prot: 7, flags: 0x32, file: None },
        NativeOp::Copy { addr: CODE, bytes: code.to_vec() },
    ]);
    assert!(matches!(guest.next_exit().await, Exit::NativeDone(0)));
    guest.regs_mut().rip = CODE;
    guest.regs_mut().rsp = CODE + 0x8000;
    guest.regs_mut().rflags = 0x202;
    guest
}

/// The next exit, which must be this system call.
pub(crate) async fn expect_call(guest: &mut GuestThread, nr: u64) {
    match guest.next_exit().await {
        Exit::Syscall => {
            let regs = *guest.regs();
            assert_eq!(regs.rax, nr, "{regs:x?}");
        }
        other => panic!("{other:?} instead of call {nr}: {:x?}", guest.regs()),
    }
}

/// What a clone of each kind asks for; the child goes on with `regs`.
pub(crate) fn clone_request(kind: Kind, regs: Regs) -> CloneRequest {
    CloneRequest {
        thread: kind == Kind::Thread,
        share_memory: kind != Kind::Fork,
        vfork: kind == Kind::Vfork,
        regs: Regs { rax: 0, ..regs },
        tls: None,
        tid: 7,
        set_child_tid: None,
    }
}

/// Kinds of clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Own memory.
    Fork,
    /// A process with the parent's memory, which waits for it.
    Vfork,
    /// A thread.
    Thread,
}

/// Runs on the test's thread.
pub(crate) fn run<F: Future + Send + 'static>(future: F) -> F::Output
where
    F::Output: Send,
{
    executor::block_on(future)
}

/// mov eax, nr; syscall
pub(crate) fn call(nr: u32) -> Vec<u8> {
    let mut code = vec![0xb8];
    code.extend(nr.to_le_bytes());
    code.extend([0x0f, 0x05]);
    code
}
