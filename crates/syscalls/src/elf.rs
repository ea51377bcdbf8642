//! ELF headers of a program: elf(5). Everything in them is the attacker's.

use linux_abi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::mm::PAGE;

/// Addresses of guest programs end below this: the top of the user half on x86-64, less the last page.
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;

/// Bytes of the header.
pub const HEADER: usize = size_of::<Header>();

/// `Elf64_Ehdr`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Header {
    ident: [u8; 16],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    phoff: u64,
    shoff: u64,
    flags: u32,
    ehsize: u16,
    phentsize: u16,
    phnum: u16,
    shentsize: u16,
    shnum: u16,
    shstrndx: u16,
}

/// `Elf64_Phdr`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[expect(missing_docs, reason = "the fields of elf(5)")]
pub struct ProgramHeader {
    pub kind: u32,
    pub flags: u32,
    pub offset: u64,
    pub vaddr: u64,
    pub paddr: u64,
    pub filesz: u64,
    pub memsz: u64,
    pub align: u64,
}

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;
const PT_GNU_STACK: u32 = 0x6474_e551;

/// A checked program or interpreter.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its own address to start at, before the bias.
    pub entry: u64,
    /// Position independent.
    pub dynamic: bool,
    /// `PT_LOAD` segments in ascending order, checked.
    pub segments: Vec<ProgramHeader>,
    /// Where the interpreter's path is in the file: offset and length.
    pub interpreter: Option<(u64, usize)>,
    /// Whether the stack is to be executable.
    pub exec_stack: bool,
    /// Where the program headers are in memory before the bias (AT_PHDR), 0 if in no segment.
    pub phdr: u64,
    /// How many program headers (AT_PHNUM).
    pub phnum: u64,
}

/// Reads part of the file at an offset; fewer bytes at its end.
pub type ReadAt<'a> = dyn FnMut(u64, &mut [u8]) -> Result<usize, Errno> + 'a;

fn read_exact(read_at: &mut ReadAt<'_>, offset: u64, buf: &mut [u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset.checked_add(done as u64).ok_or(Errno::EINVAL)?;
        let n = read_at(at, buf.get_mut(done..).unwrap_or_default())?;
        if n == 0 {
            return Err(Errno::EIO);
        }
        done += n;
    }
    Ok(())
}

/// Checks headers: `ENOEXEC` for what is no x86-64 program, or only a part of one; `EINVAL` and `ENOMEM` as Linux gives.
pub fn parse(read_at: &mut ReadAt<'_>) -> Result<Program, Errno> {
    let mut header = Header::default();
    read_exact(read_at, 0, header.as_mut_bytes()).map_err(|_| Errno::ENOEXEC)?;
    if !header.ident.starts_with(b"\x7fELF") {
        return Err(Errno::ENOEXEC);
    }
    const EM_X86_64: u16 = 62;
    const ET_EXEC: u16 = 2;
    const ET_DYN: u16 = 3;
    let (class64, little) = (header.ident[4] == 2, header.ident[5] == 1);
    if !class64 || !little || header.machine != EM_X86_64 || !matches!(header.kind, ET_EXEC | ET_DYN) {
        return Err(Errno::ENOEXEC);
    }
    let size = std::mem::size_of::<ProgramHeader>();
    if usize::from(header.phentsize) != size || header.phnum == 0 || usize::from(header.phnum) * size > 65_536
    {
        return Err(Errno::ENOEXEC);
    }
    let mut headers = vec![ProgramHeader::default(); usize::from(header.phnum)];
    read_exact(read_at, header.phoff, headers.as_mut_bytes()).map_err(|_| Errno::ENOEXEC)?;

    let mut program = Program {
        entry: header.entry,
        dynamic: header.kind == ET_DYN,
        segments: Vec::new(),
        interpreter: None,
        exec_stack: false,
        phdr: 0,
        phnum: u64::from(header.phnum),
    };
    let mut explicit_phdr = None;
    for ph in headers {
        match ph.kind {
            PT_LOAD => {
                check_segment(&ph, program.segments.last())?;
                // Linux: the segment that covers e_phoff tells where the headers are.
                if program.phdr == 0 && header.phoff >= ph.offset && header.phoff - ph.offset < ph.filesz {
                    program.phdr = header.phoff - ph.offset + ph.vaddr;
                }
                if ph.memsz > 0 {
                    program.segments.push(ph);
                }
            }
            PT_INTERP if program.interpreter.is_none() => {
                let len = usize::try_from(ph.filesz).map_err(|_| Errno::ENOEXEC)?;
                if !(2..=linux_abi::fs::PATH_MAX).contains(&len) {
                    return Err(Errno::ENOEXEC);
                }
                program.interpreter = Some((ph.offset, len));
            }
            PT_PHDR => explicit_phdr = Some(ph.vaddr),
            PT_GNU_STACK => program.exec_stack = ph.flags & 1 != 0,
            _ => {}
        }
    }
    if program.phdr == 0 {
        program.phdr = explicit_phdr.unwrap_or(0);
    }
    if program.segments.is_empty() {
        return Err(Errno::ENOEXEC);
    }
    Ok(program)
}

fn check_segment(ph: &ProgramHeader, before: Option<&ProgramHeader>) -> Result<(), Errno> {
    let end = ph.vaddr.checked_add(ph.memsz).ok_or(Errno::EINVAL)?;
    ph.offset.checked_add(ph.filesz).ok_or(Errno::EINVAL)?;
    if ph.filesz > ph.memsz || end > TASK_SIZE || ph.vaddr % PAGE != ph.offset % PAGE {
        return Err(Errno::EINVAL);
    }
    if before.is_some_and(|b| b.vaddr > ph.vaddr) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

impl Program {
    /// First and one-past-last address of the segments, page aligned, before the bias.
    pub fn span(&self) -> (u64, u64) {
        let start = self.segments.first().map_or(0, |s| s.vaddr & !(PAGE - 1));
        let end = self.segments.iter().map(|s| s.vaddr + s.memsz).max().unwrap_or(0);
        (start, end.next_multiple_of(PAGE))
    }
    /// The largest alignment of the segments, a power of two, at least a page.
    pub fn alignment(&self) -> u64 {
        self.segments
            .iter()
            .map(|s| s.align)
            .filter(|a| a.is_power_of_two())
            .max()
            .unwrap_or(PAGE)
            .clamp(PAGE, 1 << 30)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_bytes(bytes: &[u8]) -> Result<Program, Errno> {
        parse(&mut |offset, buf: &mut [u8]| {
            let from = bytes.get(offset as usize..).unwrap_or_default();
            let n = from.len().min(buf.len());
            buf[..n].copy_from_slice(&from[..n]);
            Ok(n)
        })
    }

    #[test]
    fn a_real_program_is_understood() {
        let program = parse_bytes(&std::fs::read("/bin/true").unwrap()).unwrap();
        assert!(program.dynamic && program.interpreter.is_some() && program.phdr == 64);
        assert!(!program.exec_stack);
    }

    #[test]
    fn truncations_and_garbage_give_errors() {
        let whole = std::fs::read("/bin/true").unwrap();
        for len in (0..2048.min(whole.len())).step_by(7) {
            let _ = parse_bytes(&whole[..len]);
        }
        assert_eq!(parse_bytes(b"#!/bin/sh\n").unwrap_err(), Errno::ENOEXEC);
        let mut bad = whole.clone();
        bad[18] = 40;
        assert_eq!(parse_bytes(&bad).unwrap_err(), Errno::ENOEXEC);
        for at in 0..512 {
            let mut bad = whole.clone();
            bad[at] = 0xff;
            let _ = parse_bytes(&bad);
        }
    }
}
