//! Finding a program: the file, `#!` scripts, the ELF interpreter, credentials. Nothing is changed yet.

use std::sync::Arc;

use identity::Credentials;
use kernel::FsContext;
use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFREG};
use vfs::ops::open::{Opened, open, open_place};
use vfs::{Caller, DenyWrite, MountFlags, OpenFile, WalkFlags, Walker};

use crate::elf::{self, Program};

/// Scripts that name scripts, at most.
const MAX_SCRIPTS: usize = 5;
/// How much of a file's head tells what it is.
const HEAD: usize = 256;

/// A program with all its parts found and checked.
pub struct Prepared {
    /// The ELF program.
    pub program: Program,
    /// Its file.
    pub file: Arc<OpenFile>,
    /// Keeps writers from it.
    pub executing: DenyWrite,
    /// Its interpreter (the dynamic loader), which can be written to again once it is mapped.
    pub interpreter: Option<(Program, Arc<OpenFile>, DenyWrite)>,
    /// Arguments, after scripts have added theirs.
    pub args: Vec<Vec<u8>>,
    /// Environment.
    pub env: Vec<Vec<u8>>,
    /// AT_EXECFN.
    pub exec_name: Vec<u8>,
    /// The name for comm.
    pub comm: Vec<u8>,
    /// Credentials after exec.
    pub credentials: Arc<Credentials>,
    /// AT_SECURE.
    pub secure: bool,
    /// Its caller may not read it, or it acts as somebody else: nobody looks into it (`PR_SET_DUMPABLE` of prctl(2)).
    pub hidden: bool,
}

/// Finds and checks a program; `ENOENT`, `EACCES`, `ENOEXEC`, `ELOOP` and others as execve(2).
#[expect(clippy::too_many_arguments, reason = "what execveat has")]
pub fn prepare(
    fs: &FsContext,
    caller: &mut dyn Caller,
    start: Option<&Arc<OpenFile>>,
    path: &[u8],
    name: Vec<u8>,
    nofollow: bool,
    args: Vec<Vec<u8>>,
    env: Vec<Vec<u8>>,
) -> Result<Prepared, Errno> {
    let (mut file, mut executing) = open_program(fs, caller, start, path, nofollow)?;
    let mut hidden = is_hidden(caller, &file);
    // Linux gives an empty argument list one empty argument.
    let mut args = if args.is_empty() { vec![Vec::new()] } else { args };
    let exec_name = name.clone();
    let comm = path.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
    let mut script_path = name;
    for depth in 0.. {
        let mut head = vec![0; HEAD];
        let n = read_at(&file, 0, &mut head)?;
        head.truncate(n);
        if !head.starts_with(b"#!") {
            break;
        }
        if depth >= MAX_SCRIPTS {
            return Err(Errno::ELOOP);
        }
        let (interpreter, argument) = parse_script(&head)?;
        let mut with = vec![interpreter.clone()];
        with.extend(argument);
        with.push(script_path);
        with.extend(args.into_iter().skip(1));
        args = with;
        (file, executing) = open_program(fs, caller, None, &interpreter, false)?;
        hidden |= is_hidden(caller, &file);
        script_path = interpreter;
    }
    let program = elf::parse(&mut |offset, buf: &mut [u8]| read_at(&file, offset, buf))?;
    let interpreter = match program.interpreter {
        None => None,
        Some(place) => {
            let path = loader_path(place, &file)?;
            let (file, executing) = open_program(fs, caller, None, &path, false)?;
            hidden |= is_hidden(caller, &file);
            if read_at(&file, 0, &mut [0; elf::HEADER])? < elf::HEADER {
                return Err(Errno::EIO);
            }
            // A loader that is no program of this machine: ELIBBAD.
            let loader = elf::parse(&mut |offset, buf: &mut [u8]| read_at(&file, offset, buf))
                .map_err(|e| if e == Errno::ENOEXEC { Errno::ELIBBAD } else { e })?;
            Some((loader, file, executing))
        }
    };
    let traced = caller
        .as_any()
        .downcast_ref::<Arc<kernel::Thread>>()
        .is_some_and(|thread| thread.ptrace.keeps_rights_down());
    let (credentials, secure) = credentials(caller.credentials(), &file, traced)?;
    hidden |= credentials.euid != credentials.uid || credentials.egid != credentials.gid;
    hidden |= credentials.permitted.0 & !caller.credentials().permitted.0 != 0;
    Ok(Prepared {
        program,
        file,
        executing,
        interpreter,
        args,
        env,
        exec_name,
        comm,
        credentials: Arc::new(credentials),
        secure,
        hidden,
    })
}

/// The path of a program's loader, which lies at an offset of its file.
fn loader_path((offset, len): (u64, usize), file: &OpenFile) -> Result<Vec<u8>, Errno> {
    let mut path = vec![0; len];
    let n = read_at(file, offset, &mut path)?;
    if n != len {
        return Err(Errno::EIO);
    }
    if path.last() != Some(&0) {
        return Err(Errno::ENOEXEC);
    }
    Ok(path.split(|byte| *byte == 0).next().unwrap_or_default().to_vec())
}

/// The interpreter (of a script, or an ELF program's loader) for whose sake a program cannot be run: it cannot be
/// opened. For messages alone.
pub fn failing_interpreter(fs: &FsContext, caller: &mut dyn Caller, path: &[u8]) -> Option<Vec<u8>> {
    let (mut file, _) = open_program(fs, caller, None, path, false).ok()?;
    for _ in 0..MAX_SCRIPTS {
        let mut head = vec![0; HEAD];
        let n = read_at(&file, 0, &mut head).ok()?;
        head.truncate(n);
        if !head.starts_with(b"#!") {
            break;
        }
        let (interpreter, _) = parse_script(&head).ok()?;
        match open_program(fs, caller, None, &interpreter, false) {
            Ok((next, _)) => file = next,
            Err(_) => return Some(interpreter),
        }
    }
    let program = elf::parse(&mut |offset, buf: &mut [u8]| read_at(&file, offset, buf)).ok()?;
    let loader = loader_path(program.interpreter?, &file).ok()?;
    open_program(fs, caller, None, &loader, false).is_err().then_some(loader)
}

/// Whether a program may be executed but not read.
fn is_hidden(caller: &dyn Caller, file: &OpenFile) -> bool {
    const MAY_READ: u32 = 4;
    vfs::permission::check_inode(caller.credentials(), &**file.inode(), MAY_READ).is_err()
}

fn credentials(old: &Credentials, file: &OpenFile, traced: bool) -> Result<(Credentials, bool), Errno> {
    let meta = file.inode().metadata()?;
    let nosuid = file.place().mount.has(MountFlags::NOSUID);
    let capabilities = file.inode().get_xattr(b"security.capability").ok();
    let exec = identity::ExecFile {
        uid: meta.uid,
        gid: meta.gid,
        mode: meta.mode,
        capabilities: capabilities.as_deref().and_then(identity::FileCapabilities::parse),
        nosuid,
        traced,
    };
    old.after_exec(&exec)
}

/// `#!interpreter [argument]`: the rest of the line is one argument.
fn parse_script(head: &[u8]) -> Result<(Vec<u8>, Option<Vec<u8>>), Errno> {
    let rest = head.get(2..).unwrap_or_default();
    let line = match rest.iter().position(|b| *b == b'\n') {
        Some(end) => rest.get(..end).unwrap_or_default(),
        // A longer line than the head may only be cut in the argument.
        None if head.len() < HEAD => rest,
        None if rest.iter().skip_while(|b| is_blank(**b)).any(|b| is_blank(*b)) => rest,
        None => return Err(Errno::ENOEXEC),
    };
    let line = trim(line);
    if line.is_empty() {
        return Err(Errno::ENOEXEC);
    }
    let end = line.iter().position(|b| is_blank(*b)).unwrap_or(line.len());
    let (interpreter, argument) = line.split_at(end);
    let argument = trim(argument);
    Ok((interpreter.to_vec(), (!argument.is_empty()).then(|| argument.to_vec())))
}

fn is_blank(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

fn trim(mut s: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = s
        && is_blank(*first)
    {
        s = rest;
    }
    while let [rest @ .., last] = s
        && is_blank(*last)
    {
        s = rest;
    }
    s
}

fn open_program(
    fs: &FsContext,
    caller: &mut dyn Caller,
    start: Option<&Arc<OpenFile>>,
    path: &[u8],
    nofollow: bool,
) -> Result<(Arc<OpenFile>, DenyWrite), Errno> {
    // Execute permission is what counts, not read permission: the place is found first.
    let place = match start {
        Some(file) if path.is_empty() => file.place().clone(),
        _ => {
            let cwd = start.map_or_else(|| fs.cwd(), |f| f.place().clone());
            let flags = if nofollow { OpenFlags::PATH | OpenFlags::NOFOLLOW } else { OpenFlags::PATH };
            let mut walker = Walker::new(fs.root(), cwd, caller, WalkFlags::FOLLOW);
            match open(&mut walker, path, flags, 0)? {
                Opened::File(file) => file.place().clone(),
                Opened::Special { place, .. } => place,
            }
        }
    };
    let inode = place.dentry.inode().ok_or(Errno::ENOENT)?;
    let meta = inode.metadata()?;
    match meta.kind() {
        S_IFREG => {}
        linux_abi::fs::S_IFLNK => return Err(Errno::ELOOP),
        _ => return Err(Errno::EACCES),
    }
    if place.mount.has(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    const MAY_EXEC: u32 = 1;
    vfs::permission::check_file(caller.credentials(), &*inode, &meta, MAY_EXEC)?;
    // Root may execute only what somebody may execute.
    if meta.mode & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    let mut reader = Reader { credentials: Credentials::root(), pid: caller.pid() };
    match open_place(&mut reader, place, OpenFlags::empty(), false)? {
        Opened::File(file) => {
            let executing = DenyWrite::new(file.inode())?;
            Ok((file, executing))
        }
        Opened::Special { .. } => Err(Errno::EACCES),
    }
}

/// The kernel itself reads a program that its user may only execute.
struct Reader {
    credentials: Credentials,
    pid: i32,
}

impl Caller for Reader {
    fn credentials(&self) -> &Credentials {
        &self.credentials
    }
    fn pid(&self) -> i32 {
        self.pid
    }
    fn read_memory(&mut self, _addr: u64, _buf: &mut [u8]) -> vfs::Result<()> {
        Err(Errno::EFAULT)
    }
    fn write_memory(&mut self, _addr: u64, _buf: &[u8]) -> vfs::Result<()> {
        Err(Errno::EFAULT)
    }
    fn as_any(&self) -> &dyn std::any::Any {
        &self.pid
    }
}

fn read_at(file: &OpenFile, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset.checked_add(done as u64).ok_or(Errno::EINVAL)?;
        let n = file.ops().read(file, buf.get_mut(done..).unwrap_or_default(), at)?;
        if n == 0 {
            break;
        }
        done += n;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_lines() {
        let parse = |s: &[u8]| parse_script(s);
        assert_eq!(parse(b"#!/bin/sh\n"), Ok((b"/bin/sh".to_vec(), None)));
        assert_eq!(
            parse(b"#! /bin/env  python3 -x \nrest"),
            Ok((b"/bin/env".to_vec(), Some(b"python3 -x".to_vec())))
        );
        assert_eq!(parse(b"#!/bin/sh"), Ok((b"/bin/sh".to_vec(), None)));
        assert_eq!(parse(b"#!\n"), Err(Errno::ENOEXEC));
        assert_eq!(parse(b"#!   \n"), Err(Errno::ENOEXEC));
    }
}
