//! Core dumps: core(5), elf(5). Of the threads only the one that got the signal is in the file; its vector
//! registers are not.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kernel::limits::resource;
use kernel::{Mm, Process};
use linux_abi::fs::{AT_FDCWD, OpenFlags, S_IFREG};
use linux_abi::signal::SigInfo;
use platform::{AddressSpace, Regs};
use vfs::ops::open::Opened;
use vfs::{OpenFile, WalkFlags};
use zerocopy::IntoBytes;

use crate::path::walk;
use crate::{Cx, SysResult};

const PAGE: u64 = 4096;
/// Pages looked at, and copied if they are there, in one step.
const STEP: u64 = 64;
/// Most mappings in a dump: the count is a 16-bit number.
const MAX_MAPPINGS: usize = 65_000;

/// One mapping of the process.
struct Mapping {
    start: u64,
    end: u64,
    /// `PF_R`, `PF_W`, `PF_X`.
    flags: u32,
    /// How many of its bytes are in the file.
    dumped: u64,
}

/// Writes the dump of a process that dies of `info`, if it may have one: whether it was written.
pub async fn dump(cx: &mut Cx<'_>, info: &SigInfo) -> bool {
    let process = cx.process().clone();
    let mm = cx.mm();
    let limit = process.limit(resource::CORE).min(process.limit(resource::FSIZE));
    if limit < PAGE || !mm.dumpable.load(Ordering::Relaxed) {
        return false;
    }
    let file = match create(cx) {
        Ok(file) => file,
        Err(err) => {
            tracing::debug!(?err, pid = process.pid(), "no core file");
            return false;
        }
    };
    let maps = host::proc_fs::read(&format!("{}/maps", mm.space.host_pid())).unwrap_or_default();
    let mut mappings: Vec<Mapping> =
        maps.lines().filter_map(|line| mapping(&mm, line)).take(MAX_MAPPINGS).collect();
    for mapping in mappings.iter_mut().filter(|m| m.dumped == PAGE) {
        // The first page of a program or library tells which one it is.
        let mut magic = [0; 4];
        if mm.space.read(mapping.start, &mut magic).is_err() || magic != *b"\x7fELF" {
            mapping.dumped = 0;
        }
    }
    let notes = notes(cx, info);
    let head = head(&mappings, &notes);
    let space = mm.space.clone();
    executor::blocking(move || write(&process, &space, &file, &head, &mappings, limit)).await
}

/// The file: `core.PID` in the current folder, a fresh or plain one of the caller.
fn create(cx: &mut Cx<'_>) -> SysResult<Arc<OpenFile>> {
    let name = format!("core.{}", cx.process().pid()).into_bytes();
    let flags = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::NOFOLLOW;
    let opened = walk(cx, AT_FDCWD, &name, WalkFlags::empty(), |walker, path| {
        vfs::ops::open::open(walker, path, flags, 0o600)
    })?;
    let Opened::File(file) = opened else { return Err(linux_abi::Errno::EPERM.into()) };
    let meta = file.inode().metadata()?;
    if meta.kind() != S_IFREG || meta.nlink != 1 || meta.uid != cx.credentials.fsuid {
        return Err(linux_abi::Errno::EPERM.into());
    }
    file.inode().set_attributes(&vfs::SetAttr { size: Some(0), ..Default::default() })?;
    Ok(file)
}

/// A line of the host's maps; none for what is not the guest's.
fn mapping(mm: &Mm, line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    let rights = fields.next()?;
    if mm.is_reserved(start, end, rights) {
        return None;
    }
    let rights = rights.as_bytes();
    let has = |at: usize, letter: u8| rights.get(at) == Some(&letter);
    let flags = u32::from(has(0, b'r')) << 2 | u32::from(has(1, b'w')) << 1 | u32::from(has(2, b'x'));
    let offset = fields.next()?;
    let inode = fields.nth(1)?;
    let name = fields.next().unwrap_or_default();
    // As coredump_filter 0x33 has it: anonymous and private memory, first pages of programs.
    let dumped = if flags & 4 == 0 || name.starts_with("[vvar") {
        0
    } else if inode == "0"
        || (has(3, b'p') && flags & 2 != 0)
        || (has(3, b's') && name.starts_with("/dev/zero"))
    {
        end - start
    } else if offset.bytes().all(|b| b == b'0') {
        PAGE
    } else {
        0
    };
    Some(Mapping { start, end, flags, dumped })
}

fn note(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    out.extend(5u32.to_ne_bytes());
    out.extend((body.len() as u32).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(b"CORE\0\0\0\0");
    out.extend(body);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// `NT_PRSTATUS`, `NT_PRPSINFO`, `NT_SIGINFO`, `NT_AUXV`, `NT_FILE`.
fn notes(cx: &mut Cx<'_>, info: &SigInfo) -> Vec<u8> {
    let regs = *cx.guest.regs();
    let process = cx.process();
    let (job, mm) = (process.job(), cx.mm());
    let ids = [cx.thread.tid(), process.parent_pid(), job.pgid, job.sid];
    let (pending, mask) = {
        let signals = cx.thread.signals.lock();
        (signals.pending.set().0, signals.mask.0)
    };
    let mut status = Vec::new();
    for word in [info.signo, info.code, info.errno, info.signo] {
        status.extend(word.to_ne_bytes());
    }
    status.extend(pending.to_ne_bytes());
    status.extend(mask.to_ne_bytes());
    ids.iter().for_each(|id| status.extend(id.to_ne_bytes()));
    let (own, waited) = *process.usage.lock();
    for ns in [own.user_ns, own.system_ns, waited.user_ns, waited.system_ns] {
        status.extend((ns / 1_000_000_000).to_ne_bytes());
        status.extend((ns % 1_000_000_000 / 1000).to_ne_bytes());
    }
    registers(&regs).iter().for_each(|word| status.extend(word.to_ne_bytes()));
    // No vector registers.
    status.extend([0; 8]);

    let mut about = vec![0, b'R', 0, cx.thread.scheduling.lock().nice as u8, 0, 0, 0, 0];
    about.extend(0u64.to_ne_bytes());
    about.extend(cx.credentials.uid.to_ne_bytes());
    about.extend(cx.credentials.gid.to_ne_bytes());
    let ids = [process.pid(), process.parent_pid(), job.pgid, job.sid];
    ids.iter().for_each(|id| about.extend(id.to_ne_bytes()));
    about.extend(cx.thread.comm());
    let layout = mm.layout.read().clone();
    let mut words = [0; 80];
    let len = usize::try_from(layout.arg_end.saturating_sub(layout.arg_start)).unwrap_or(0).min(79);
    // A process that spoiled its arguments shows none.
    let got = mm.space.read(layout.arg_start, words.get_mut(..len).unwrap_or_default()).unwrap_or(0);
    words.iter_mut().take(got.saturating_sub(1)).filter(|b| **b == 0).for_each(|b| *b = b' ');
    about.extend(words);

    let auxv: Vec<u8> =
        layout.auxv.iter().flat_map(|(k, v)| [k.to_ne_bytes(), v.to_ne_bytes()]).flatten().collect();

    mm.settle();
    let files = mm.files.lock().clone();
    let root = cx.fs().root();
    let (mut table, mut names) = (Vec::new(), Vec::new());
    for file in &files {
        table.extend([file.start, file.end, file.offset / PAGE].iter().flat_map(|word| word.to_ne_bytes()));
        names.extend(file.place.path(&root));
        names.push(0);
    }
    let mut mapped = (files.len() as u64).to_ne_bytes().to_vec();
    mapped.extend(PAGE.to_ne_bytes());
    mapped.extend(table);
    mapped.extend(names);

    let mut out = Vec::new();
    note(&mut out, 1, &status);
    note(&mut out, 3, &about);
    note(&mut out, 0x5349_4749, info.as_bytes());
    note(&mut out, 6, &auxv);
    note(&mut out, 0x4649_4c45, &mapped);
    out
}

/// `struct user_regs_struct`; the bases of the segments are not known here.
fn registers(r: &Regs) -> [u64; 27] {
    const USER_CS: u64 = 0x33;
    const USER_SS: u64 = 0x2b;
    [
        r.r15,
        r.r14,
        r.r13,
        r.r12,
        r.rbp,
        r.rbx,
        r.r11,
        r.r10,
        r.r9,
        r.r8,
        r.rax,
        r.rcx,
        r.rdx,
        r.rsi,
        r.rdi,
        u64::MAX,
        r.rip,
        USER_CS,
        r.rflags,
        r.rsp,
        USER_SS,
        0,
        0,
        0,
        0,
        0,
        0,
    ]
}

/// The ELF header, the program headers and the notes.
fn head(mappings: &[Mapping], notes: &[u8]) -> Vec<u8> {
    const HEADER: u64 = 64;
    const PROGRAM_HEADER: u64 = 56;
    let count = mappings.len() as u64 + 1;
    let notes_at = HEADER + PROGRAM_HEADER * count;
    let mut data_at = (notes_at + notes.len() as u64).next_multiple_of(PAGE);
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_CORE, EM_X86_64.
    for half in [4u16, 62] {
        out.extend(half.to_ne_bytes());
    }
    out.extend(1u32.to_ne_bytes());
    for word in [0, HEADER, 0] {
        out.extend(word.to_ne_bytes());
    }
    out.extend(0u32.to_ne_bytes());
    for half in [HEADER as u16, PROGRAM_HEADER as u16, count as u16, 0, 0, 0] {
        out.extend(half.to_ne_bytes());
    }
    let mut program_header = |kind: u32, flags: u32, words: [u64; 6]| {
        out.extend(kind.to_ne_bytes());
        out.extend(flags.to_ne_bytes());
        words.iter().for_each(|word| out.extend(word.to_ne_bytes()));
    };
    program_header(4, 0, [notes_at, 0, 0, notes.len() as u64, 0, 4]);
    for m in mappings {
        program_header(1, m.flags, [data_at, m.start, 0, m.dumped, m.end - m.start, PAGE]);
        data_at += m.dumped;
    }
    out.extend(notes);
    out.resize(out.len().next_multiple_of(PAGE as usize), 0);
    out
}

/// Writes it all, with holes for pages that are not there, up to the limit; whether it is a dump.
fn write(
    process: &Process,
    space: &AddressSpace,
    file: &OpenFile,
    head: &[u8],
    mappings: &[Mapping],
    limit: u64,
) -> bool {
    let put = |bytes: &[u8], at: u64| {
        let room = usize::try_from(limit.saturating_sub(at)).unwrap_or(usize::MAX);
        let bytes = bytes.get(..bytes.len().min(room)).unwrap_or_default();
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match file.ops().write(file, rest, at + done as u64) {
                Ok(n) if n > 0 => done += n,
                _ => return false,
            }
        }
        true
    };
    if !put(head, 0) {
        return false;
    }
    let Ok(page_map) = host::proc_fs::open(&format!("{}/pagemap", space.host_pid())) else { return true };
    let mut at = head.len() as u64;
    let mut buffer = vec![0; (STEP * PAGE) as usize];
    for m in mappings {
        let mut done = 0;
        while done < m.dumped && at + done < limit {
            // Killed meanwhile: what is there must do.
            if process.exit_status().is_some() {
                return true;
            }
            let len = (m.dumped - done).min(STEP * PAGE);
            let mut entries = [0; STEP as usize * 8];
            let wanted = entries.get_mut(..(len / PAGE) as usize * 8).unwrap_or_default();
            let known = page_map.read_at(wanted, (m.start + done) / PAGE * 8).unwrap_or(0);
            // Present, or swapped out.
            let there = wanted.chunks_exact(8).any(|e| e.last().is_some_and(|high| high & 0xc0 != 0));
            if there || known == 0 {
                let buffer = buffer.get_mut(..len as usize).unwrap_or_default();
                let got = space.read(m.start + done, buffer).unwrap_or(0);
                if !put(buffer.get(..got).unwrap_or_default(), at + done) {
                    return true;
                }
            }
            done += len;
        }
        at += m.dumped;
    }
    // The last pages may be a hole.
    let size = vfs::SetAttr { size: Some(at.min(limit)), ..Default::default() };
    let _ = file.inode().set_attributes(&size);
    true
}
