//! What a system call costs that the kernel process answers at once.
//!
//! `cargo bench -p platform [-- nospin|nopatch...]`

use std::sync::Arc;
use std::time::{Duration, Instant};

use platform::{Config, Exit, GuestThread, Identity, NativeOp, Platform};

const CODE: u64 = 0x40_0000;
const CALLS: u32 = 50_000;

/// `mov eax, 110; syscall` in a loop, then exit.
fn code(padding: bool) -> Vec<u8> {
    let mut code = vec![0xbb];
    code.extend(CALLS.to_le_bytes());
    let start = code.len();
    code.extend([0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xff, 0xcb, 0x75]);
    code.push((start as i64 - code.len() as i64 - 1) as u8);
    code.extend([0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    if padding {
        // ret, then room for a jump
        code.push(0xc3);
        code.resize(code.len().next_multiple_of(16) + 16, 0xcc);
    }
    code
}

async fn guest(platform: &Arc<Platform>, code: &[u8]) -> GuestThread {
    let mut guest = platform.new_process().await.expect("a new process");
    guest.native_batch(vec![
        NativeOp::Mmap { addr: CODE, len: 0x10000, prot: 7, flags: 0x32, file: None },
        NativeOp::Copy { addr: CODE, bytes: code.to_vec() },
    ]);
    assert!(matches!(guest.next_exit().await, Exit::NativeDone(0)));
    guest.regs_mut().rip = CODE;
    guest.regs_mut().rsp = CODE + 0x8000;
    guest
}

fn measure(platform: &Arc<Platform>, padding: bool) -> Duration {
    let (send, receive) = std::sync::mpsc::channel();
    let platform = platform.clone();
    executor::spawn(async move {
        let mut guest = guest(&platform, &code(padding)).await;
        guest.resume_regs();
        let mut start = Instant::now();
        let mut calls = 0u32;
        while let Exit::Syscall = guest.next_exit().await {
            if guest.regs().rax != 110 {
                break;
            }
            calls += 1;
            if calls == CALLS / 2 {
                start = Instant::now();
            }
            guest.resume_syscall(1);
        }
        let _ = send.send(start.elapsed() / (CALLS / 2));
        guest.handle().kill_process();
    });
    receive.recv().expect("measured")
}

/// The same call answered by the shim: over the whole loop, seen from outside.
fn measure_local(platform: &Arc<Platform>) -> Duration {
    let (send, receive) = std::sync::mpsc::channel();
    let platform = platform.clone();
    executor::spawn(async move {
        let mut guest = guest(&platform, &code(false)).await;
        guest.resume_regs();
        for _ in 0..5 {
            guest.next_exit().await;
            guest.resume_syscall(1);
        }
        guest.next_exit().await;
        guest.set_identity(&Identity { ppid: Some(1), ..Identity::default() });
        let start = Instant::now();
        guest.resume_syscall(1);
        guest.next_exit().await;
        let _ = send.send(start.elapsed() / (CALLS - 6));
        guest.handle().kill_process();
    });
    receive.recv().expect("measured")
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let has = |name: &str| args.iter().any(|a| a == name);
    let config = Config { allow_spin: !has("nospin"), patching: !has("nopatch"), ..Config::default() };
    let platform = Platform::start(config.clone()).expect("the machine starts");
    for _ in 0..3 {
        for padding in [false, true] {
            let time = measure(&platform, padding);
            println!(
                "spin {} patching {} padding {padding}: {time:?} a call, {} sites patched, {:?}",
                config.allow_spin,
                config.patching,
                platform.patched(),
                platform.spins(),
            );
        }
    }
    println!("answered in the shim: {:?} a call", measure_local(&platform));
    let cpu = || {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
    };
    let before = cpu();
    std::thread::sleep(Duration::from_secs(1));
    println!("idle: {:?} of CPU in a second", cpu() - before);
}
