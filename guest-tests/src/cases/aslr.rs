//! Where exec puts a program: elsewhere each time, unless personality(2) forbids it.

use std::collections::HashSet;

use crate::harness::{End, c, cases, close, fork, in_child, ok, pipe, read, wait};

cases!("aslr": programs_lie_elsewhere, addresses_have_entropy, personality_keeps_addresses, nothing_reserved_shows,
    memory_below_libraries);

const ADDR_NO_RANDOMIZE: u64 = 0x4_0000;
/// Programs started for a guess at randomness.
const SAMPLES: usize = 16;

/// Where parts of one program lay.
struct Layout {
    program: u64,
    heap: u64,
    libc: u64,
    loader: u64,
    stack: u64,
    vdso: u64,
    /// Memory of the loader's own: the first that it asks for.
    memory: u64,
}

/// First address of the first mapping whose line ends so.
fn address(maps: &str, matches: impl Fn(&str) -> bool) -> u64 {
    let line = maps.lines().find(|line| matches(line)).unwrap_or_else(|| panic!("in {maps}"));
    u64::from_str_radix(line.split('-').next().expect("start"), 16).expect("address")
}

/// The maps of a fresh program; `persona` is its personality.
fn maps_of_program(persona: u64) -> String {
    let (r, w) = pipe();
    let pid = fork(|| {
        ok!(libc::dup2(w, 1));
        ok!(libc::syscall(libc::SYS_personality, persona));
        let words = [c("/bin/cat"), c("/proc/self/maps")];
        let argv = [words[0].as_ptr(), words[1].as_ptr(), std::ptr::null()];
        let envp = [std::ptr::null()];
        ok!(libc::execve(words[0].as_ptr(), argv.as_ptr(), envp.as_ptr()));
        0
    });
    close(w);
    let mut all = Vec::new();
    loop {
        let part = read(r, 65536);
        if part.is_empty() {
            break;
        }
        all.extend(part);
    }
    close(r);
    assert_eq!(wait(pid), End::Exited(0));
    String::from_utf8(all).expect("text")
}

fn layout(persona: u64) -> Layout {
    let maps = maps_of_program(persona);
    Layout {
        program: address(&maps, |line| line.ends_with("/cat")),
        heap: address(&maps, |line| line.ends_with("[heap]")),
        libc: address(&maps, |line| line.contains("/libc.so")),
        loader: address(&maps, |line| line.contains("/ld-linux")),
        stack: address(&maps, |line| line.ends_with("[stack]")),
        vdso: address(&maps, |line| line.ends_with("[vdso]")),
        memory: address(&maps, |line| line.ends_with(" 0 ") && line.contains("rw-p")),
    }
}

fn programs_lie_elsewhere() {
    let (a, b) = (layout(0), layout(0));
    assert_ne!(a.program, b.program);
    assert_ne!(a.libc, b.libc);
    assert_ne!(a.loader, b.loader);
    assert_ne!(a.stack, b.stack);
    assert_ne!(a.heap, b.heap);
    assert_ne!(a.vdso, b.vdso);
    assert_ne!(a.vdso.wrapping_sub(a.stack), b.vdso.wrapping_sub(b.stack));
}

fn addresses_have_entropy() {
    let samples: Vec<Layout> = (0..SAMPLES).map(|_| layout(0)).collect();
    let check = |what: &str, bits: u32, of: &dyn Fn(&Layout) -> u64| {
        let values: Vec<u64> = samples.iter().map(of).collect();
        let distinct: HashSet<u64> = values.iter().copied().collect();
        // A bit that is chance stays the same in all of them once in 32,768 times.
        let moved = values.iter().fold(0, |moved, value| moved | (value ^ values[0])).count_ones();
        assert!(distinct.len() >= SAMPLES - 1 && moved >= bits, "{what}: {moved} bits move: {values:x?}");
    };
    check("program", 24, &|l| l.program);
    check("libc", 24, &|l| l.libc);
    check("loader", 24, &|l| l.loader);
    check("stack", 18, &|l| l.stack);
    check("vdso", 18, &|l| l.vdso);
    check("memory", 18, &|l| l.memory);
    check("heap behind the program", 10, &|l| l.heap.wrapping_sub(l.program));
}

fn personality_keeps_addresses() {
    let (a, b) = (layout(ADDR_NO_RANDOMIZE), layout(ADDR_NO_RANDOMIZE));
    assert_eq!(a.program, 0x5555_5555_4000);
    assert_eq!((a.program, a.heap, a.libc), (b.program, b.heap, b.libc));
    assert_eq!((a.loader, a.stack, a.vdso), (b.loader, b.stack, b.vdso));
}

/// Sizes of the mappings that a process shows of itself.
fn sizes(file: &str) -> Vec<u64> {
    let text = std::fs::read_to_string(file).expect("maps");
    let lines = text.lines().filter_map(|line| line.split(' ').next()?.split_once('-'));
    lines
        .filter_map(|(start, end)| {
            Some(u64::from_str_radix(end, 16).ok()?.saturating_sub(u64::from_str_radix(start, 16).ok()?))
        })
        .collect()
}

fn kib(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = text.lines().find(|line| line.starts_with(name)).expect("line");
    line.split_ascii_whitespace().nth(1).expect("number").parse().expect("number")
}

fn nothing_reserved_shows() {
    let look = || {
        for file in ["/proc/self/maps", "/proc/self/smaps"] {
            let all = sizes(file);
            assert!(all.len() > 3 && all.iter().all(|size| *size < 1 << 30), "{file}: {all:?}");
        }
        assert!((1..1 << 20).contains(&kib("VmSize:")), "{} KiB", kib("VmSize:"));
    };
    look();
    in_child(look);
}

fn memory_below_libraries() {
    in_child(|| {
        // More than fits between the libraries and anything above them.
        let map = |size: usize| {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            ok!(libc::mmap(std::ptr::null_mut(), size, libc::PROT_NONE, flags, -1, 0)) as u64
        };
        let all: HashSet<u64> = (0..16).map(|_| map(1 << 40)).collect();
        assert_eq!(all.len(), 16);
        // It is counted, once.
        let shown = kib("VmSize:");
        assert!((16 << 30..17 << 30).contains(&shown), "{shown} KiB");
    });
}
