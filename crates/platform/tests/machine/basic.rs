//! Exits, answers, clone, interrupts, faults.

use crate::common::{CODE, call, guest, run};
use platform::{CloneRequest, Exit};

#[test]
fn a_call_reaches_us_and_its_answer_the_guest() {
    run(async {
        let mut code = call(39);
        code.extend([0x89, 0xc7]); // mov edi, eax
        code.extend(call(60));
        let mut guest = guest(&code).await;
        guest.resume_regs();
        assert!(matches!(guest.next_exit().await, Exit::Syscall));
        assert_eq!(guest.regs().rax, 39);
        guest.resume_syscall(1234);
        assert!(matches!(guest.next_exit().await, Exit::Syscall));
        assert_eq!((guest.regs().rax, guest.regs().rdi), (60, 1234));
        guest.handle().kill_process();
        assert!(matches!(guest.next_exit().await, Exit::Gone(_)));
    });
}

#[test]
fn fork_gives_a_child_with_its_own_memory() {
    run(async {
        let mut code = call(57);
        code.extend([0x89, 0xc7]); // mov edi, eax
        code.extend(call(60));
        let mut parent = guest(&code).await;
        parent.resume_regs();
        assert!(matches!(parent.next_exit().await, Exit::Syscall));
        let mut regs = *parent.regs();
        regs.rax = 0;
        let request = CloneRequest {
            thread: false,
            share_memory: false,
            vfork: false,
            regs,
            tls: None,
            tid: 7,
            set_child_tid: None,
        };
        let mut child = parent.begin_clone(request).expect("a child");
        assert!(matches!(parent.next_exit().await, Exit::NativeDone(ret) if ret > 0));
        parent.resume_syscall(7);
        assert!(matches!(child.next_exit().await, Exit::Syscall));
        assert_eq!((child.regs().rax, child.regs().rdi), (60, 0));
        assert!(matches!(parent.next_exit().await, Exit::Syscall));
        assert_eq!((parent.regs().rax, parent.regs().rdi), (60, 7));
        assert_ne!(parent.address_space().host_pid(), child.address_space().host_pid());
        child.handle().kill_process();
        parent.handle().kill_process();
    });
}

#[test]
fn a_thread_shares_memory_and_ends_alone() {
    run(async {
        let mut code = call(56);
        code.extend([0x89, 0xc7]); // mov edi, eax
        code.extend(call(60));
        let mut parent = guest(&code).await;
        parent.resume_regs();
        assert!(matches!(parent.next_exit().await, Exit::Syscall));
        let mut regs = *parent.regs();
        regs.rax = 0;
        regs.rsp = CODE + 0x4000;
        let request = CloneRequest {
            thread: true,
            share_memory: true,
            vfork: false,
            regs,
            tls: Some(0x1234_5000),
            tid: 9,
            set_child_tid: Some(CODE + 0x9000),
        };
        let mut child = parent.begin_clone(request).expect("a thread");
        assert!(matches!(parent.next_exit().await, Exit::NativeDone(ret) if ret > 0));
        assert!(matches!(child.next_exit().await, Exit::Syscall));
        assert_eq!((child.regs().rax, child.regs().rdi, child.regs().rsp), (60, 0, CODE + 0x4000));
        let mut tid = [0; 4];
        assert_eq!(parent.address_space().read(CODE + 0x9000, &mut tid), Ok(4));
        assert_eq!(u32::from_ne_bytes(tid), 9);
        child.exit_thread(Some(CODE + 0x9000), None, 9, 0);
        parent.resume_syscall(9);
        assert!(matches!(parent.next_exit().await, Exit::Syscall));
        for _ in 0..1000 {
            parent.address_space().read(CODE + 0x9000, &mut tid).expect("readable");
            if tid == [0; 4] {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(tid, [0; 4]);
        parent.handle().kill_process();
    });
}

#[test]
fn running_code_is_interrupted_and_goes_on() {
    run(async {
        let mut guest = guest(&[0xeb, 0xfe]).await; // jmp .
        guest.resume_regs();
        for _ in 0..100 {
            std::thread::sleep(std::time::Duration::from_micros(300));
            guest.handle().interrupt();
            assert!(matches!(guest.next_exit().await, Exit::Interrupted));
            assert_eq!(guest.regs().rip, CODE);
            guest.resume_regs();
        }
        guest.handle().kill_process();
    });
}

#[test]
fn an_interrupt_at_the_start_is_not_lost() {
    run(async {
        for pause in [0, 0, 0, 5, 10, 20, 40, 80, 100, 200] {
            let mut guest = guest(&[0xeb, 0xfe]).await; // jmp .
            guest.resume_regs();
            let until = std::time::Instant::now() + std::time::Duration::from_micros(pause);
            while std::time::Instant::now() < until {
                std::hint::spin_loop();
            }
            guest.handle().interrupt();
            assert!(matches!(guest.next_exit().await, Exit::Interrupted));
            assert_eq!(guest.regs().rip, CODE);
            guest.handle().kill_process();
        }
    });
}

#[test]
fn faults_come_with_their_address() {
    run(async {
        // mov rax, [0x1000]
        let mut guest = guest(&[0x48, 0x8b, 0x04, 0x25, 0x00, 0x10, 0x00, 0x00]).await;
        guest.resume_regs();
        match guest.next_exit().await {
            Exit::Fault(fault) => assert_eq!((fault.signo, fault.addr, fault.cr2), (11, 0x1000, 0x1000)),
            other => panic!("{other:?}"),
        }
        guest.handle().kill_process();
    });
}

#[test]
fn many_processes_come_and_go() {
    run(async {
        for _ in 0..300 {
            let mut guest = guest(&call(39)).await;
            guest.resume_regs();
            assert!(matches!(guest.next_exit().await, Exit::Syscall));
            guest.handle().kill_process();
            assert!(matches!(guest.next_exit().await, Exit::Gone(_)));
        }
    });
}

#[test]
fn unmapping_the_shim_is_refused() {
    run(async {
        // mov rdi, 0x7e0000000000; mov esi, 0x1000; munmap -> trapped, not done
        let mut code = vec![0x48, 0xbf];
        code.extend(0x7e00_0000_0000u64.to_le_bytes());
        code.extend([0xbe, 0x00, 0x10, 0x00, 0x00]);
        code.extend(call(11));
        let mut guest = guest(&code).await;
        guest.resume_regs();
        assert!(matches!(guest.next_exit().await, Exit::Syscall));
        assert_eq!(guest.regs().rax, 11);
        guest.handle().kill_process();
    });
}
