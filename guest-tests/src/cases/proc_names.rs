//! Names in /proc that need not be text: proc(5).

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use libc::*;

use crate::harness::{Temp, cases, close, fork, ok, sleep_ms, wait};

cases!("proc_names": mapped_file, thread, zombie);

fn bytes(path: &str) -> Vec<u8> {
    fs::read(path).expect("a file of /proc")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Linux writes names as they are, but for what would end a line or a word.
fn mapped_file() {
    let temp = Temp::new();
    let path = temp.path().join(OsStr::from_bytes(b"n\xff\xc3 a\nb"));
    fs::write(&path, [7; 4096]).expect("write");
    let name = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
    let fd = ok!(open(name.as_ptr(), O_RDONLY));
    // SAFETY: a fresh mapping.
    let at = unsafe { mmap(ptr::null_mut(), 4096, PROT_READ, MAP_PRIVATE, fd, 0) };
    assert_ne!(at, MAP_FAILED);
    // SAFETY: the mapping just made.
    assert_eq!(unsafe { *at.cast::<u8>() }, 7);
    for file in ["maps", "smaps"] {
        let text = bytes(&format!("/proc/self/{file}"));
        assert!(contains(&text, b"/n\xff\xc3 a\\012b\n"), "{}", String::from_utf8_lossy(&text));
    }
    // The others are there as ever.
    assert!(contains(&bytes("/proc/self/smaps_rollup"), b"[rollup]"));
    if let Ok(text) = fs::read("/proc/self/numa_maps") {
        assert!(contains(&text, b"/n\xff\xc3\\040a\\012b"), "{}", String::from_utf8_lossy(&text));
    }
    close(fd);
    // SAFETY: the mapping just made.
    ok!(unsafe { munmap(at, 4096) });
}

const NAME: &[u8] = b"a\xff\\b\nc";

fn take_name() {
    let name = CString::new(NAME).expect("no NUL");
    ok!(prctl(PR_SET_NAME, name.as_ptr()));
}

fn shown(pid: &str) {
    assert!(bytes(&format!("/proc/{pid}/status")).starts_with(b"Name:\ta\xff\\\\b\\nc\n"));
    assert!(contains(&bytes(&format!("/proc/{pid}/stat")), b" (a\xff\\b\nc) "));
    assert_eq!(bytes(&format!("/proc/{pid}/comm")), [NAME, b"\n"].concat());
}

fn thread() {
    take_name();
    shown("self");
}

fn zombie() {
    let pid = fork(|| {
        take_name();
        0
    });
    while !contains(&bytes(&format!("/proc/{pid}/stat")), b") Z ") {
        sleep_ms(1);
    }
    shown(&pid.to_string());
    wait(pid);
}
