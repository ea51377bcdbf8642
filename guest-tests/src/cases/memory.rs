//! mmap, munmap, mprotect, mremap, madvise, brk, msync: what the host does for the guest.

use crate::harness::{
    End, Temp, cases, close, fails, file, fork, in_child, is_root, ok, pipe, read, sleep_ms, sys, wait,
    write, zeroed,
};

cases!("memory": anonymous_is_zero, unmap_faults, protect_faults, fault_address, fixed_replaces, fixed_noreplace,
    shared_after_fork, private_after_fork, file_private, file_shared, file_beyond_end, file_grown, file_offset, remap_grows, remap_moves,
    dontneed_zeroes, break_moves, unaligned, zero_length, mincore_call, msync_call, mlock_call, reserve_terabyte,
    stack_grows, stack_overflow, huge_length, exec_pages, maps_show_mapping, shared_anonymous_zero_file, mapping_outlives_descriptor,
    madvise_unknown, maps_device_zero, process_vm_self, process_vm_between, process_vm_of_others, many_mappings,
    low_hints, files_mapped_under_signals, allocation_beside_others, freeing_beside_others);

const PAGE: usize = 4096;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const ANON: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

fn map(pages: usize) -> *mut u8 {
    ok!(libc::mmap(std::ptr::null_mut(), pages * PAGE, RW, ANON, -1, 0)).cast()
}

fn get(at: *const u8) -> u8 {
    // SAFETY: volatile read of a mapping of this case (or a fault that the case expects).
    unsafe { at.read_volatile() }
}

fn put(at: *mut u8, value: u8) {
    // SAFETY: volatile write to a mapping of this case (or a fault that the case expects).
    unsafe { at.write_volatile(value) }
}

fn dies_of(signal: i32, body: impl FnOnce()) {
    let pid = fork(|| {
        ok!(libc::setrlimit(libc::RLIMIT_CORE, &zeroed()));
        body();
        0
    });
    assert_eq!(wait(pid), End::Killed(signal));
}

fn anonymous_is_zero() {
    let at = map(3);
    for i in 0..3 * PAGE {
        assert_eq!(get(at.wrapping_add(i)), 0);
    }
    put(at, 1);
    assert_eq!(get(at), 1);
}

fn unmap_faults() {
    let at = map(3);
    ok!(libc::munmap(at.wrapping_add(PAGE).cast(), PAGE));
    put(at, 1);
    put(at.wrapping_add(2 * PAGE), 1);
    dies_of(libc::SIGSEGV, || put(at.wrapping_add(PAGE), 1));
}

fn protect_faults() {
    let at = map(2);
    put(at, 7);
    ok!(libc::mprotect(at.cast(), PAGE, libc::PROT_READ));
    assert_eq!(get(at), 7);
    dies_of(libc::SIGSEGV, || put(at, 1));
    ok!(libc::mprotect(at.cast(), PAGE, libc::PROT_NONE));
    dies_of(libc::SIGSEGV, || assert_eq!(get(at), 0));
    ok!(libc::mprotect(at.cast(), PAGE, RW));
    assert_eq!(get(at), 7);
    fails!(libc::ENOMEM, {
        libc::munmap(at.wrapping_add(PAGE).cast(), PAGE);
        libc::mprotect(at.cast(), 2 * PAGE, libc::PROT_READ)
    });
}

static mut SEEN: (usize, i32) = (0, 0);

fn fault_address() {
    extern "C" fn handler(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel passes a siginfo; this process has one thread.
        unsafe {
            SEEN = ((*info).si_addr() as usize, (*info).si_code);
            libc::_exit(if (*info).si_code == SEEN.1 { 5 + (*info).si_code } else { 0 });
        }
    }
    let at = map(1);
    let install = || {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = handler as extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO;
        ok!(libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()));
    };
    // SEGV_ACCERR is 2, SEGV_MAPERR is 1.
    let pid = fork(|| {
        install();
        ok!(libc::mprotect(at.cast(), PAGE, libc::PROT_READ));
        put(at.wrapping_add(5), 1);
        0
    });
    assert_eq!(wait(pid), End::Exited(7));
    let pid = fork(|| {
        install();
        ok!(libc::munmap(at.cast(), PAGE));
        put(at, 1);
        0
    });
    assert_eq!(wait(pid), End::Exited(6));
}

fn fixed_replaces() {
    let at = map(2);
    put(at, 9);
    let again = ok!(libc::mmap(at.cast(), PAGE, RW, ANON | libc::MAP_FIXED, -1, 0)).cast::<u8>();
    assert_eq!(again, at);
    assert_eq!(get(at), 0);
}

fn fixed_noreplace() {
    let at = map(2);
    let flags = ANON | libc::MAP_FIXED_NOREPLACE;
    fails!(libc::EEXIST, libc::mmap(at.cast(), PAGE, RW, flags, -1, 0));
    ok!(libc::munmap(at.cast(), PAGE));
    assert_eq!(ok!(libc::mmap(at.cast(), PAGE, RW, flags, -1, 0)).cast::<u8>(), at);
}

fn shared_after_fork() {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let at = ok!(libc::mmap(std::ptr::null_mut(), PAGE, RW, flags, -1, 0)).cast::<u8>();
    in_child(|| put(at, 5));
    assert_eq!(get(at), 5);
}

fn private_after_fork() {
    let at = map(1);
    put(at, 1);
    in_child(|| {
        assert_eq!(get(at), 1);
        put(at, 5);
    });
    assert_eq!(get(at), 1);
}

fn mapped(temp: &Temp, length: usize, flags: i32) -> (*mut u8, i32) {
    let path = file(temp, "f", &vec![b'a'; length]);
    let fd = ok!(libc::open(path.as_ptr(), libc::O_RDWR));
    (ok!(libc::mmap(std::ptr::null_mut(), 2 * PAGE, RW, flags, fd, 0)).cast(), fd)
}

fn file_private() {
    let temp = Temp::new();
    let (at, fd) = mapped(&temp, PAGE, libc::MAP_PRIVATE);
    put(at, b'b');
    assert_eq!(crate::harness::read(fd, 2), b"aa");
}

fn file_shared() {
    let temp = Temp::new();
    let (at, fd) = mapped(&temp, PAGE, libc::MAP_SHARED);
    put(at, b'b');
    assert_eq!(crate::harness::read(fd, 2), b"ba");
    ok!(libc::pwrite(fd, b"XYZ".as_ptr().cast(), 3, 10));
    assert_eq!(get(at.wrapping_add(11)), b'Y');
    in_child(|| put(at.wrapping_add(1), b'c'));
    ok!(libc::msync(at.cast(), PAGE, libc::MS_SYNC));
    assert_eq!(&std::fs::read(temp.path().join("f")).expect("f")[..3], b"bca");
}

fn file_beyond_end() {
    let temp = Temp::new();
    let (at, _) = mapped(&temp, 100, libc::MAP_PRIVATE);
    assert_eq!(get(at.wrapping_add(99)), b'a');
    assert_eq!(get(at.wrapping_add(100)), 0);
    dies_of(libc::SIGBUS, || assert_eq!(get(at.wrapping_add(PAGE)), 0));
}

fn file_grown() {
    let temp = Temp::new();
    let (at, fd) = mapped(&temp, 100, libc::MAP_SHARED);
    ok!(libc::ftruncate(fd, 2 * PAGE as i64));
    put(at.wrapping_add(PAGE), 1);
    ok!(libc::ftruncate(fd, 10));
    dies_of(libc::SIGBUS, || assert_eq!(get(at.wrapping_add(PAGE)), 0));
}

fn file_offset() {
    let temp = Temp::new();
    let mut content = vec![b'a'; PAGE];
    content.extend(vec![b'b'; PAGE]);
    let fd = ok!(libc::open(file(&temp, "f", &content).as_ptr(), libc::O_RDONLY));
    let null = std::ptr::null_mut();
    let at = ok!(libc::mmap(null, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, fd, PAGE as i64)).cast::<u8>();
    assert_eq!(get(at), b'b');
    fails!(libc::EINVAL, libc::mmap(null, PAGE, libc::PROT_READ, libc::MAP_PRIVATE, fd, 100));
}

fn remap_grows() {
    let at = map(1);
    put(at, 3);
    let more = ok!(libc::mremap(at.cast(), PAGE, 8 * PAGE, libc::MREMAP_MAYMOVE)).cast::<u8>();
    assert_eq!((get(more), get(more.wrapping_add(7 * PAGE))), (3, 0));
    let less = ok!(libc::mremap(more.cast(), 8 * PAGE, PAGE, 0)).cast::<u8>();
    assert_eq!(less, more);
    dies_of(libc::SIGSEGV, || assert_eq!(get(more.wrapping_add(PAGE)), 0));
}

fn remap_moves() {
    let (from, to) = (map(1), map(1));
    put(from, 4);
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let moved = ok!(libc::mremap(from.cast(), PAGE, PAGE, flags, to)).cast::<u8>();
    assert_eq!(moved, to);
    assert_eq!(get(to), 4);
    dies_of(libc::SIGSEGV, || assert_eq!(get(from), 0));
}

fn dontneed_zeroes() {
    let at = map(1);
    put(at, 4);
    ok!(libc::madvise(at.cast(), PAGE, libc::MADV_DONTNEED));
    assert_eq!(get(at), 0);
    ok!(libc::madvise(at.cast(), PAGE, libc::MADV_WILLNEED));
}

fn break_moves() {
    let start = ok!(libc::syscall(libc::SYS_brk, 0));
    let end = start + 16 * PAGE as i64;
    assert_eq!(ok!(libc::syscall(libc::SYS_brk, end)), end);
    put((end - 1) as *mut u8, 1);
    assert_eq!(ok!(libc::syscall(libc::SYS_brk, 1)), end);
    in_child(|| assert_eq!(ok!(libc::syscall(libc::SYS_brk, 0)), end));
    assert_eq!(ok!(libc::syscall(libc::SYS_brk, start)), start);
    dies_of(libc::SIGSEGV, || put((end - 1) as *mut u8, 1));
}

fn unaligned() {
    let at = map(1);
    let odd = at.wrapping_add(1).cast();
    fails!(libc::EINVAL, libc::munmap(odd, PAGE));
    fails!(libc::EINVAL, libc::mprotect(odd, PAGE, RW));
    fails!(libc::EINVAL, libc::mmap(odd, PAGE, RW, ANON | libc::MAP_FIXED, -1, 0));
    fails!(libc::EINVAL, libc::madvise(odd, PAGE, libc::MADV_NORMAL));
}

fn zero_length() {
    let null = std::ptr::null_mut();
    fails!(libc::EINVAL, libc::mmap(null, 0, RW, ANON, -1, 0));
    fails!(libc::EINVAL, libc::munmap(map(1).cast(), 0));
    fails!(libc::EINVAL, libc::mmap(null, PAGE, RW, libc::MAP_ANONYMOUS, -1, 0));
    fails!(libc::EBADF, libc::mmap(null, PAGE, RW, libc::MAP_PRIVATE, -1, 0));
}

fn mincore_call() {
    let at = map(2);
    put(at, 1);
    let mut state = [9u8; 2];
    ok!(libc::mincore(at.cast(), 2 * PAGE, state.as_mut_ptr()));
    assert_eq!((state[0] & 1, state[1] & 1), (1, 0));
}

fn msync_call() {
    let at = map(1);
    ok!(libc::msync(at.cast(), PAGE, libc::MS_ASYNC));
    fails!(libc::EINVAL, libc::msync(at.cast(), PAGE, libc::MS_ASYNC | libc::MS_SYNC));
    ok!(libc::munmap(at.cast(), PAGE));
    fails!(libc::ENOMEM, libc::msync(at.cast(), PAGE, libc::MS_SYNC));
}

fn mlock_call() {
    let at = map(1);
    ok!(libc::mlock(at.cast(), PAGE));
    ok!(libc::munlock(at.cast(), PAGE));
}

fn reserve_terabyte() {
    let size = 1usize << 40;
    let flags = ANON | libc::MAP_NORESERVE;
    let at = ok!(libc::mmap(std::ptr::null_mut(), size, libc::PROT_NONE, flags, -1, 0)).cast::<u8>();
    let middle = at.wrapping_add(size / 2);
    ok!(libc::mprotect(middle.cast(), PAGE, RW));
    put(middle, 1);
    ok!(libc::munmap(at.cast(), size));
}

#[inline(never)]
fn deep(levels: u32) -> u8 {
    let page = std::hint::black_box([1u8; PAGE]);
    if levels == 0 { page[0] } else { deep(levels - 1) + page[(levels % 4096) as usize] - 1 }
}

fn stack_grows() {
    assert_eq!(deep(1000), 1);
}

fn stack_overflow() {
    dies_of(libc::SIGSEGV, || {
        ok!(libc::signal(libc::SIGSEGV, libc::SIG_DFL) as isize);
        deep(10_000);
    });
}

fn huge_length() {
    let null = std::ptr::null_mut();
    fails!(libc::ENOMEM, libc::mmap(null, 1 << 47, RW, ANON, -1, 0));
    fails!(libc::EINVAL, libc::munmap(null, usize::MAX));
    fails!(libc::ENOMEM, libc::mmap(null, usize::MAX, RW, ANON, -1, 0));
}

fn exec_pages() {
    let at = map(1);
    // mov eax, 42; ret
    for (i, byte) in [0xb8, 42, 0, 0, 0, 0xc3].into_iter().enumerate() {
        put(at.wrapping_add(i), byte);
    }
    ok!(libc::mprotect(at.cast(), PAGE, libc::PROT_READ | libc::PROT_EXEC));
    // SAFETY: the bytes above are a function of this type.
    let function: extern "C" fn() -> i32 = unsafe { std::mem::transmute(at) };
    assert_eq!(function(), 42);
    ok!(libc::mprotect(at.cast(), PAGE, RW));
    dies_of(libc::SIGSEGV, || {
        function();
    });
}

fn maps_show_mapping() {
    let temp = Temp::new();
    let (at, _) = mapped(&temp, PAGE, libc::MAP_PRIVATE);
    ok!(libc::mprotect(at.cast(), PAGE, libc::PROT_READ));
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let start = format!("{:x}-{:x} r--p ", at as usize, at as usize + PAGE);
    let line = maps.lines().find(|l| l.starts_with(&start)).expect("the line of the mapping");
    assert!(line.ends_with(temp.path().join("f").to_str().expect("ASCII")), "{line}");
    assert!(
        maps.lines().any(|l| l.ends_with("[stack]")) && maps.contains("[vdso]") && maps.contains("[heap]")
    );
    assert!(maps.contains("guest-tests"));
}

fn shared_anonymous_zero_file() {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let at = ok!(libc::mmap(std::ptr::null_mut(), 4 * PAGE, RW, flags, -1, 0)).cast::<u8>();
    in_child(|| put(at.wrapping_add(3 * PAGE), 9));
    ok!(libc::munmap(at.cast(), PAGE));
    assert_eq!(get(at.wrapping_add(3 * PAGE)), 9);
}

fn mapping_outlives_descriptor() {
    let temp = Temp::new();
    let (at, fd) = mapped(&temp, PAGE, libc::MAP_SHARED);
    close(fd);
    ok!(libc::unlink(temp.join("f").as_ptr()));
    assert_eq!(get(at), b'a');
    put(at, b'z');
    in_child(|| assert_eq!(get(at), b'z'));
}

fn madvise_unknown() {
    let at = map(1);
    fails!(libc::EINVAL, libc::madvise(at.cast(), PAGE, 9999));
    ok!(libc::munmap(at.cast(), PAGE));
    fails!(libc::ENOMEM, libc::madvise(at.cast(), PAGE, libc::MADV_DONTNEED));
}

fn maps_device_zero() {
    let fd = ok!(libc::open(c"/dev/zero".as_ptr(), libc::O_RDWR));
    let at = ok!(libc::mmap(std::ptr::null_mut(), PAGE, RW, libc::MAP_PRIVATE, fd, 0)).cast::<u8>();
    put(at, 1);
    assert_eq!((get(at), get(at.wrapping_add(1))), (1, 0));
}

fn process_vm_self() {
    let (from, to) = (map(1), map(1));
    put(from, 77);
    let piece = |at: *mut u8| libc::iovec { iov_base: at.cast(), iov_len: 16 };
    let me = ok!(libc::getpid());
    assert_eq!(ok!(libc::process_vm_readv(me, &piece(to), 1, &piece(from), 1, 0)), 16);
    assert_eq!(get(to), 77);
    fails!(libc::ESRCH, libc::process_vm_readv(0x3fff_ffff, &piece(to), 1, &piece(from), 1, 0));
    fails!(libc::EFAULT, libc::process_vm_readv(me, &piece(to), 1, &piece(std::ptr::dangling_mut()), 1, 0));
}

fn process_vm_between() {
    let shared = map(2);
    let bytes: Vec<u8> = (0..PAGE).map(|i| i as u8).collect();
    // SAFETY: within the mapping of two pages.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), shared, PAGE) };
    let (ready, go) = pipe();
    let child = fork(|| {
        // The parent writes here.
        let word = shared.cast::<u32>();
        // SAFETY: volatile access to the mapping of this case.
        unsafe { word.write_volatile(1) };
        write(go, b"x");
        // SAFETY: as above.
        while unsafe { word.read_volatile() } != 0x0203_0405 {
            sleep_ms(1);
        }
        0
    });
    read(ready, 1);
    let piece = |at: *mut u8, len: usize| libc::iovec { iov_base: at.cast(), iov_len: len };
    let to = map(1);
    // The child's own copy, scattered in another way.
    let local = [piece(to, 1), piece(to, 0), piece(to.wrapping_add(1), 9)];
    let remote = [piece(shared, 4), piece(shared.wrapping_add(100), 100)];
    assert_eq!(ok!(libc::process_vm_readv(child, local.as_ptr(), 3, remote.as_ptr(), 2, 0)), 10);
    // SAFETY: ten bytes of the mapping.
    assert_eq!(unsafe { std::slice::from_raw_parts(to, 10) }, [1, 0, 0, 0, 100, 101, 102, 103, 104, 105]);
    // Up to the first bad address.
    ok!(libc::munmap(to.cast(), PAGE));
    let to = map(2);
    ok!(libc::munmap(shared.wrapping_add(PAGE).cast(), PAGE));
    let gone = piece(shared.wrapping_add(PAGE - 8), 16);
    let before = piece(to, 16);
    let n = ok!(libc::process_vm_readv(libc::getpid(), &before, 1, &gone, 1, 0));
    assert_eq!(n, 8);
    fails!(libc::EINVAL, libc::process_vm_readv(child, &before, 1, &gone, 1, 1));
    fails!(libc::EINVAL, libc::process_vm_readv(child, &before, 1025, &gone, 1, 0));
    fails!(libc::EINVAL, libc::process_vm_readv(child, &piece(to, usize::MAX), 1, &gone, 1, 0));
    fails!(libc::EFAULT, libc::process_vm_writev(child, std::ptr::dangling(), 1, &gone, 1, 0));
    assert_eq!(ok!(libc::process_vm_writev(child, &before, 0, &gone, 1, 0)), 0);
    let word = 0x0203_0405u32;
    let local = piece((&raw const word).cast_mut().cast(), 4);
    assert_eq!(ok!(libc::process_vm_writev(child, &local, 1, &piece(shared, 4), 1, 0)), 4);
    assert_eq!(wait(child), End::Exited(0));
    fails!(libc::ESRCH, libc::process_vm_writev(child, &local, 1, &piece(shared, 4), 1, 0));
}

fn process_vm_of_others() {
    if !is_root() {
        crate::harness::skip!("needs root");
    }
    let target = ok!(libc::getpid());
    let secret = map(1);
    in_child(|| {
        ok!(libc::setresuid(1234, 1234, 1234));
        let to = map(1);
        let piece = |at: *mut u8| libc::iovec { iov_base: at.cast(), iov_len: 16 };
        fails!(libc::EPERM, libc::process_vm_readv(target, &piece(to), 1, &piece(secret), 1, 0));
        fails!(libc::EPERM, libc::process_vm_writev(target, &piece(to), 1, &piece(secret), 1, 0));
        fails!(libc::EPERM, libc::syscall(libc::SYS_kcmp, target, target, 1, 0, 0));
    });
}

fn many_mappings() {
    for _ in 0..3 {
        let all: Vec<*mut u8> = (0..500).map(|_| map(2)).collect();
        for at in &all {
            put(*at, 1);
            ok!(libc::mprotect(at.cast(), PAGE, libc::PROT_READ));
        }
        for at in &all {
            ok!(libc::munmap(at.cast(), 2 * PAGE));
        }
    }
    let _ = sys!(libc::getppid());
}

/// What a low hint gives can be replaced: the JVM looks for a low place, then commits it.
fn low_hints() {
    for hint in [0x1000usize, 0x23000, 0x5f000, 0x60000, 0x6f000, 0x70000, 0x80000] {
        let flags = ANON | libc::MAP_NORESERVE;
        let place = ok!(libc::mmap(hint as *mut _, PAGE, libc::PROT_NONE, flags, -1, 0));
        let again = ok!(libc::mmap(place.cast(), PAGE, RW, flags | libc::MAP_FIXED, -1, 0));
        assert_eq!(again, place, "hint {hint:#x}");
        // SAFETY: the page was just mapped for writing.
        unsafe { again.cast::<u8>().write_volatile(1) };
        ok!(libc::munmap(again.cast(), PAGE));
    }
}

fn files_mapped_under_signals() {
    let temp = Temp::new();
    let path = file(&temp, "f", &[7; 2 * PAGE]);
    super::signal::on(libc::SIGALRM, libc::SA_RESTART);
    let often = libc::timeval { tv_sec: 0, tv_usec: 200 };
    let timer = libc::itimerval { it_interval: often, it_value: often };
    let fd = ok!(libc::open(path.as_ptr(), libc::O_RDONLY));
    ok!(libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()));
    for _ in 0..5000 {
        let at = ok!(libc::mmap(std::ptr::null_mut(), 2 * PAGE, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0));
        // SAFETY: the page was just mapped for reading.
        assert_eq!(unsafe { at.cast::<u8>().read_volatile() }, 7);
        ok!(libc::munmap(at, 2 * PAGE));
    }
    ok!(libc::setitimer(libc::ITIMER_REAL, &zeroed(), std::ptr::null_mut()));
    close(fd);
}

fn allocation_beside_others() {
    beside_others(|step| {
        let fd = ok!(libc::memfd_create(c"big".as_ptr(), 0));
        step();
        ok!(libc::fallocate(fd, 0, 0, BIG));
        step();
        close(fd);
    });
}

fn freeing_beside_others() {
    beside_others(|step| {
        let fd = ok!(libc::memfd_create(c"big".as_ptr(), 0));
        ok!(libc::fallocate(fd, 0, 0, BIG));
        step();
        close(fd);
        step();
    });
    beside_others(|step| {
        let fd = ok!(libc::memfd_create(c"big".as_ptr(), 0));
        ok!(libc::fallocate(fd, 0, 0, BIG));
        step();
        ok!(libc::ftruncate(fd, 0));
        step();
        close(fd);
    });
}

const BIG: libc::off_t = 384 << 20;

/// Three times what `work` does between its two steps: another thread gets its turn meanwhile.
fn beside_others(work: impl Fn(&dyn Fn()) + Sync) {
    use std::sync::atomic::{AtomicU32, Ordering};
    let step = AtomicU32::new(0);
    let (r, w) = pipe();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3 {
                work(&|| {
                    step.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        let mut turns = [0; 6];
        loop {
            let at = step.load(Ordering::SeqCst) as usize;
            write(w, b"x");
            assert_eq!(read(r, 1), b"x");
            match turns.get_mut(at) {
                Some(turns) => *turns += 1,
                None => break,
            }
        }
        // Once will do: where others had to wait, each time would see a turn or two. The host may have been quick, or
        // have kept this thread from its CPU, in one of them.
        let most = turns[1].max(turns[3]).max(turns[5]);
        assert!(most >= 50, "{turns:?}");
    });
}
