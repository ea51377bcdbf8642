//! Making a fresh address space show a prepared program.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use identity::Credentials;
use kernel::limits::{Limits, resource};
use kernel::mm::{Brk, FileMapping, Layout};
use kernel::{Kernel, Mm};
use linux_abi::Errno;
use platform::{Exit, GuestThread, HostLayout, NativeOp, Platform, Regs};
use vfs::{DenyWrite, MapRequest, MapSource, OpenFile};

use crate::elf::{Program, ProgramHeader};
use crate::exec::Prepared;
use crate::mm::{PAGE, flag};
use crate::stack::{self, at};

/// A program in its own address space, ready to run: registers are set.
pub struct Loaded {
    /// Its first thread, parked.
    pub guest: GuestThread,
    /// Its memory.
    pub mm: Mm,
    /// Who it acts as.
    pub credentials: Arc<Credentials>,
    /// Its name.
    pub comm: Vec<u8>,
    /// Keeps writers from its file.
    pub executing: Arc<DenyWrite>,
}

/// Position-independent programs are put from here on, as Linux does.
const PIE_BASE: u64 = 0x5555_5555_4000;
/// Loaders are put from here on where the host maps upwards.
const LOADER_BASE: u64 = 0x7f00_0000_0000;
/// The stack ends below this plus a random part.
const STACK_BASE: u64 = 0x7ffc_0000_0000;
/// Of the stack this much is mapped beyond what is written; it grows by itself.
const STACK_SLACK: u64 = 128 << 10;
/// Nothing lies in so many bytes below the end of a stack, into which it may grow.
const STACK_ROOM: u64 = 1 << 30;

/// The vDSO lies in so many bytes above a stack.
const VDSO_BITS: u32 = 21;

/// A program's libraries lie up to `1 << GAP_BITS` bytes below where the host's mmap(2) would begin.
const GAP_BITS: u32 = 39;
/// `ADDR_NO_RANDOMIZE` of personality(2).
pub(super) const ADDR_NO_RANDOMIZE: u32 = 0x4_0000;

/// Where things lie, by chance or not.
struct Places {
    randomize: bool,
    /// Taken from the top of the host's mmap area, with what the vDSO leaves there, so that mmap(2) begins below it.
    gap: Range<u64>,
}

impl Places {
    fn new(platform: &Platform, randomize: bool) -> Places {
        let top = platform.mmap_top().unwrap_or(0);
        let floor = platform::shim::RANGES[0].end;
        let mut places = Places { randomize, gap: top..top };
        // Half of what is above the shim at most: all but the largest mappings still go there.
        let most = (top.saturating_sub(floor) / 2).next_multiple_of(PAGE);
        let size = places.random(GAP_BITS).checked_rem(most).unwrap_or(0);
        places.gap.start -= size;
        // What the vDSO has left would be taken first, by the same things in all programs.
        if let Some(left) = platform.vdso().old_place().filter(|left| left.start == top) {
            places.gap.end = left.end;
        }
        places
    }
    /// Random page-aligned bytes below `1 << bits`, or none.
    fn random(&self, bits: u32) -> u64 {
        if self.randomize { random(bits) } else { 0 }
    }
    /// The bias of a loader: where mmap(2) would put the first mapping.
    fn loader(&self, program: &Program) -> u64 {
        let (start, end) = program.span();
        match self.gap.end {
            0 => place(program, LOADER_BASE + self.random(38)),
            _ => {
                let base = self.gap.start.saturating_sub(end - start);
                (base & !(program.alignment() - 1)).wrapping_sub(start)
            }
        }
    }
    /// The end of a stack that grows into nothing: the one of the zygote lies somewhere in the same range.
    fn stack_top(&self, initial: u64) -> u64 {
        loop {
            let top = STACK_BASE + self.random(33) + PAGE;
            let taken = (top - STACK_ROOM..top + STACK_SLACK + (2 << VDSO_BITS)).contains(&initial);
            if !taken || !self.randomize {
                return top;
            }
        }
    }
    /// Takes the gap; distinct from what the guest may map beside it.
    fn ops(&self) -> Vec<NativeOp> {
        let (addr, len) = (self.gap.start, self.gap.end - self.gap.start);
        if len == 0 {
            return Vec::new();
        }
        const MADV_WIPEONFORK: u32 = 18;
        let flags = flag::MAP_PRIVATE | flag::MAP_ANONYMOUS | flag::MAP_NORESERVE | flag::MAP_FIXED_NOREPLACE;
        vec![
            NativeOp::Mmap { addr, len, prot: 0, flags, file: None },
            NativeOp::Madvise { addr, len, advice: MADV_WIPEONFORK },
        ]
    }
}

/// Random page-aligned bytes below `1 << bits`.
fn random(bits: u32) -> u64 {
    let mut bytes = [0; 8];
    // Without randomness programs run all the same.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes) & ((1 << bits) - 1) & !(PAGE - 1)
}

/// Why a program does not run.
#[derive(Clone, Copy, Debug)]
pub enum NotLoaded {
    /// The caller goes on.
    Early(Errno),
    /// Linux would have let go of the caller's memory by then: it dies of SIGSEGV.
    Late(Errno),
}

impl From<Errno> for NotLoaded {
    fn from(errno: Errno) -> NotLoaded {
        NotLoaded::Early(errno)
    }
}

/// Maps a prepared program into a new address space, at random addresses or always the same.
pub async fn load(
    kernel: &Arc<Kernel>,
    prepared: Prepared,
    randomize: bool,
    limits: &Limits,
) -> Result<Loaded, NotLoaded> {
    let Prepared { program, file, interpreter, args, env, exec_name, comm, credentials, secure, .. } =
        prepared;
    let (hidden, executing) = (prepared.hidden, prepared.executing);
    let mut mappings = Vec::new();
    let places = Places::new(&kernel.platform, randomize);
    let top = places.stack_top(kernel.platform.initial_stack());
    let (mut ops, vdso) = kernel.platform.vdso().moved(top + PAGE + places.random(VDSO_BITS));
    ops.extend(places.ops());

    let bias = match (program.dynamic, &interpreter) {
        (false, _) => 0,
        (true, Some(_)) => place(&program, PIE_BASE + places.random(40)),
        (true, None) => places.loader(&program),
    };
    segments(&program, &file, bias, &mut ops, &mut mappings)?;
    let mut entry = program.entry.wrapping_add(bias);
    let mut loader_base = 0;
    if let Some((loader, loader_file, _executing)) = &interpreter {
        loader_base = if loader.dynamic { places.loader(loader) } else { 0 };
        segments(loader, loader_file, loader_base, &mut ops, &mut mappings)?;
        entry = loader.entry.wrapping_add(loader_base);
    }

    let auxv = auxiliary(vdso, &program, bias, loader_base, &credentials, secure);
    let mut random16 = [0; 16];
    let _ = rustix::rand::getrandom(&mut random16, rustix::rand::GetRandomFlags::empty());
    let contents =
        stack::Contents { args: &args, env: &env, exec_name: &exec_name, random: random16, auxv: &auxv };
    let image = stack::build(top, 8 << 20, &contents)?;
    let used = image.sp & !(PAGE - 1);
    let lowest = top.saturating_sub(limits.soft(resource::STACK)).next_multiple_of(PAGE);
    if used < lowest {
        return Err(NotLoaded::Late(Errno::ENOMEM));
    }
    let stack_start = used.saturating_sub(STACK_SLACK).max(lowest);
    let mut stack_prot = flag::PROT_READ | flag::PROT_WRITE;
    if program.exec_stack {
        stack_prot |= flag::PROT_EXEC;
    }
    ops.push(NativeOp::Mmap {
        addr: stack_start,
        len: top - stack_start,
        prot: stack_prot,
        flags: flag::MAP_PRIVATE
            | flag::MAP_ANONYMOUS
            | flag::MAP_FIXED_NOREPLACE
            | flag::MAP_GROWSDOWN
            | flag::MAP_STACK,
        file: None,
    });

    let (_, end) = program.span();
    let brk_start = end.wrapping_add(bias).wrapping_add(places.random(25)) & !(PAGE - 1);
    let code = program.segments.iter().find(|s| s.flags & 1 != 0);
    let data = program.segments.iter().rev().find(|s| s.flags & 2 != 0);
    let layout = Layout {
        start_code: code.map_or(0, |s| s.vaddr.wrapping_add(bias)),
        end_code: code.map_or(0, |s| (s.vaddr + s.filesz).wrapping_add(bias)),
        start_data: data.map_or(0, |s| s.vaddr.wrapping_add(bias)),
        end_data: data.map_or(0, |s| (s.vaddr + s.filesz).wrapping_add(bias)),
        start_stack: image.sp,
        stack_top: top,
        arg_start: image.args.0,
        arg_end: image.args.1,
        env_start: image.env.0,
        env_end: image.env.1,
        auxv: image.auxv,
    };
    // The program has none of them open.
    ops.push(NativeOp::LetGo { id: file.id() });
    ops.extend(interpreter.iter().map(|(_, file, _)| NativeOp::LetGo { id: file.id() }));
    ops.push(NativeOp::SetName { name: kernel::thread::padded_name(&comm) });
    ops.push(NativeOp::SetLayout(host_layout(&layout, brk_start)));

    let mut guest = kernel.platform.new_process().await?;
    let gap = places.gap.end - places.gap.start;
    guest.handle().limit_memory(&kernel::limits::of_memory(limits, &credentials, gap));
    guest.native_batch(ops);
    match guest.next_exit().await {
        Exit::NativeDone(ret) if (-4095..0).contains(&ret) => {
            guest.handle().kill_process();
            let errno = Errno::from_raw(-(ret as i32));
            return Err(match errno {
                Errno::ENOMEM => NotLoaded::Late(errno),
                Errno::EEXIST => NotLoaded::Early(Errno::ENOMEM),
                _ => NotLoaded::Early(errno),
            });
        }
        Exit::NativeDone(_) => {}
        _ => return Err(Errno::EAGAIN.into()),
    }
    if let Err(errno) = guest.copy_out_now(image.sp, &image.bytes) {
        guest.handle().kill_process();
        return Err(errno.into());
    }
    *guest.regs_mut() = Regs { rip: entry, rsp: image.sp, rflags: 0x202, ..Regs::default() };

    let mm = Mm::new(guest.address_space(), places.gap);
    *mm.brk.lock() = Brk { start: brk_start, current: brk_start };
    *mm.layout.write() = layout;
    *mm.exe.write() = Some(file);
    mm.dumpable.store(!hidden, Ordering::Relaxed);
    for mapping in mappings {
        mm.note_file(mapping);
    }
    Ok(Loaded { guest, mm, credentials, comm, executing: Arc::new(executing) })
}

/// What the host's ps shall show: a program without data or code has an empty piece of some.
fn host_layout(layout: &Layout, brk: u64) -> HostLayout {
    let some = |start: u64, end: u64| if start == 0 { (brk, brk + 1) } else { (start, end.max(start + 1)) };
    let (start_code, end_code) = some(layout.start_code, layout.end_code);
    let (start_data, end_data) = some(layout.start_data, layout.end_data);
    HostLayout {
        start_code,
        end_code,
        start_data,
        end_data,
        start_brk: brk,
        brk,
        start_stack: layout.start_stack,
        arg_start: layout.arg_start,
        arg_end: layout.arg_end,
        env_start: layout.env_start,
        env_end: layout.env_end,
    }
}

/// The bias that puts a program's first segment at or above `base`, aligned as it wants.
fn place(program: &Program, base: u64) -> u64 {
    let (start, _) = program.span();
    base.next_multiple_of(program.alignment()).wrapping_sub(start)
}

/// Operations that map the segments of one ELF file.
fn segments(
    program: &Program,
    file: &Arc<OpenFile>,
    bias: u64,
    ops: &mut Vec<NativeOp>,
    mappings: &mut Vec<FileMapping>,
) -> Result<(), Errno> {
    let mut done = 0;
    for segment in &program.segments {
        let from = segment.vaddr & !(PAGE - 1);
        let start = from.wrapping_add(bias);
        let file_end = (segment.vaddr + segment.filesz).next_multiple_of(PAGE).wrapping_add(bias);
        let mem_end = (segment.vaddr + segment.memsz).next_multiple_of(PAGE).wrapping_add(bias);
        let prot = protection(segment);
        // A later segment may share its first page with the one before; Linux maps over it.
        let fixed = if start < done { flag::MAP_FIXED } else { flag::MAP_FIXED_NOREPLACE };
        if segment.filesz > 0 {
            let offset = segment.offset & !(PAGE - 1);
            let request = MapRequest { offset, length: file_end - start, prot, shared: false };
            let source = match file.ops().mmap(file, &request)? {
                MapSource::Host { fd, offset, keep } => Some(((fd, offset), keep)),
                MapSource::Anonymous => None,
            };
            let (addr, len, flags) = (start, file_end - start, flag::MAP_PRIVATE | fixed);
            ops.push(match source {
                Some((source, true)) => {
                    NativeOp::MmapKept { addr, len, prot, flags, file: source, id: file.id() }
                }
                source => NativeOp::Mmap { addr, len, prot, flags, file: source.map(|(file, _)| file) },
            });
            mappings.push(FileMapping::new(start, file_end, offset, file));
            let zero_from = (segment.vaddr + segment.filesz).wrapping_add(bias);
            if segment.memsz > segment.filesz && zero_from % PAGE != 0 && segment.flags & 2 != 0 {
                ops.push(NativeOp::Zero { addr: zero_from, len: file_end - zero_from });
            }
        }
        let bss_start = if segment.filesz > 0 { file_end } else { start };
        if mem_end > bss_start {
            ops.push(NativeOp::Mmap {
                addr: bss_start,
                len: mem_end - bss_start,
                prot,
                flags: flag::MAP_PRIVATE | flag::MAP_ANONYMOUS | fixed,
                file: None,
            });
        }
        done = mem_end.max(file_end);
    }
    Ok(())
}

fn protection(segment: &ProgramHeader) -> u32 {
    let mut prot = 0;
    for (bit, to) in [(4, flag::PROT_READ), (2, flag::PROT_WRITE), (1, flag::PROT_EXEC)] {
        if segment.flags & bit != 0 {
            prot |= to;
        }
    }
    prot
}

fn auxiliary(
    vdso: u64,
    program: &Program,
    bias: u64,
    loader_base: u64,
    credentials: &Credentials,
    secure: bool,
) -> Vec<(u64, u64)> {
    let host = host::process::auxiliary;
    let mut auxv = Vec::new();
    if vdso != 0 {
        auxv.push((at::SYSINFO_EHDR, vdso));
    }
    let min_stack = host(at::MINSIGSTKSZ);
    if min_stack != 0 {
        auxv.push((at::MINSIGSTKSZ, min_stack));
    }
    let phdr = if program.phdr == 0 { 0 } else { program.phdr.wrapping_add(bias) };
    auxv.extend([
        (at::HWCAP, host(at::HWCAP)),
        (at::PAGESZ, PAGE),
        (at::CLKTCK, 100),
        (at::PHDR, phdr),
        (at::PHENT, 56),
        (at::PHNUM, program.phnum),
        (at::BASE, loader_base),
        (at::FLAGS, 0),
        (at::ENTRY, program.entry.wrapping_add(bias)),
        (at::UID, u64::from(credentials.uid)),
        (at::EUID, u64::from(credentials.euid)),
        (at::GID, u64::from(credentials.gid)),
        (at::EGID, u64::from(credentials.egid)),
        (at::SECURE, u64::from(secure)),
        (at::HWCAP2, host(at::HWCAP2)),
    ]);
    for key in [at::RSEQ_FEATURE_SIZE, at::RSEQ_ALIGN] {
        let value = host(key);
        if value != 0 {
            auxv.push((key, value));
        }
    }
    auxv
}

#[cfg(test)]
mod tests {
    use super::{Places, STACK_BASE, STACK_ROOM};

    #[test]
    fn a_stack_grows_into_nothing() {
        let places = Places { randomize: true, gap: 0..0 };
        for initial in (0..8).map(|i| STACK_BASE + (i << 30)) {
            for _ in 0..200 {
                let top = places.stack_top(initial);
                assert!(!(top - STACK_ROOM..=top).contains(&initial), "{top:#x} {initial:#x}");
            }
        }
        let fixed = Places { randomize: false, gap: 0..0 };
        assert_eq!(fixed.stack_top(STACK_BASE), fixed.stack_top(0));
    }
}
