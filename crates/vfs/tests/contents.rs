//! Random reads, writes, holes and mappings of files of ours and of the host's tmpfs: every byte,
//! count and errno must be the same.

mod support;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use fs_tmp::TmpFs;
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use rustix::fs::{FallocateFlags, MemfdFlags, SeekFrom};
use vfs::{FileSystem, MapRequest, MapSource, OpenFile, Result, Whence, ops};

use support::World;

/// xorshift64: the same run for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    /// Offsets near the edges of pages, and lengths.
    fn offset(&mut self) -> u64 {
        let page = self.below(40) * 4096;
        let largest = if self.below(200) == 0 { 2 << 20 } else { 0 };
        match self.below(3) {
            0 => page + largest,
            1 => page + largest + self.below(4096),
            _ => (page + self.below(3)).saturating_sub(1),
        }
    }
}

/// One call on the file.
#[derive(Clone, Copy, Debug)]
enum Call {
    Read(u64, u64),
    Write(u64, u64, u8),
    Append(u64, u8),
    Resize(u64),
    Allocate(u32, u64, u64),
    Seek(Whence, i64),
    Size,
    /// Asks for a mapping, and reads through what is to be mapped.
    Map(bool, u64, u64),
}

fn call(random: &mut Random) -> Call {
    let length = random.offset() / (1 + random.below(8));
    match random.below(16) {
        0..=3 => Call::Read(random.offset(), length),
        4..=7 => Call::Write(random.offset(), length, 1 + random.below(255) as u8),
        8 => Call::Append(length / 4, 1 + random.below(255) as u8),
        9 => Call::Resize(random.offset()),
        10 | 11 => {
            let modes = [0, 1, 3, 3, 3, 2, 0x80, 0x20];
            Call::Allocate(modes[random.below(modes.len() as u64) as usize], random.offset(), length)
        }
        12 => Call::Seek(Whence::Data, random.offset() as i64 - 5),
        13 => Call::Seek(Whence::Hole, random.offset() as i64 - 5),
        14 => Call::Size,
        _ if random.below(8) == 0 => Call::Map(random.below(2) == 0, random.below(40) * 4096, 8192),
        _ => Call::Seek(Whence::End, -(random.below(9000) as i64)),
    }
}

/// What a call gave.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Done,
    Number(u64),
    Bytes(Vec<u8>),
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

fn read_host(fd: &OwnedFd, pos: u64, length: u64) -> Result<Seen> {
    let mut buffer = vec![0; length as usize];
    let n = rustix::io::pread(fd, &mut buffer, pos).map_err(errno)?;
    buffer.truncate(n);
    Ok(Seen::Bytes(buffer))
}

fn ours(world: &World, file: &Arc<OpenFile>, call: Call) -> Result<Seen> {
    let ops = file.ops();
    match call {
        Call::Read(pos, length) => {
            let mut buffer = vec![0; length as usize];
            let n = ops.read(file, &mut buffer, pos)?;
            buffer.truncate(n);
            Ok(Seen::Bytes(buffer))
        }
        Call::Write(pos, length, byte) => {
            ops.write(file, &vec![byte; length as usize], pos).map(|n| Seen::Number(n as u64))
        }
        Call::Append(length, byte) => {
            ops.append(file, &vec![byte; length as usize]).map(|(n, _)| Seen::Number(n as u64))
        }
        Call::Resize(size) => {
            let metadata = file.inode().metadata()?;
            ops::attributes::set_size(&world.user.0, file.place(), &metadata, size)?;
            Ok(Seen::Done)
        }
        Call::Allocate(mode, offset, len) => ops.fallocate(file, mode, offset, len).map(|()| Seen::Done),
        Call::Seek(whence, offset) => ops.seek(file, offset, whence).map(Seen::Number),
        Call::Size => Ok(Seen::Number(file.inode().metadata()?.size)),
        Call::Map(shared, offset, length) => {
            let request = MapRequest { offset, length, prot: 1, shared };
            match ops.mmap(file, &request)? {
                MapSource::Host { fd, offset, .. } => read_host(&fd, offset, length),
                MapSource::Anonymous => Ok(Seen::Done),
            }
        }
    }
}

fn hosts(fd: &OwnedFd, call: Call) -> Result<Seen> {
    let size = || rustix::fs::fstat(fd).map(|s| s.st_size as u64).map_err(errno);
    match call {
        Call::Read(pos, length) | Call::Map(_, pos, length) => read_host(fd, pos, length),
        Call::Write(pos, length, byte) => rustix::io::pwrite(fd, &vec![byte; length as usize], pos)
            .map(|n| Seen::Number(n as u64))
            .map_err(errno),
        Call::Append(length, byte) => rustix::io::pwrite(fd, &vec![byte; length as usize], size()?)
            .map(|n| Seen::Number(n as u64))
            .map_err(errno),
        Call::Resize(size) => rustix::fs::ftruncate(fd, size).map(|()| Seen::Done).map_err(errno),
        Call::Allocate(mode, offset, len) => {
            let mode = FallocateFlags::from_bits_retain(mode);
            rustix::fs::fallocate(fd, mode, offset, len).map(|()| Seen::Done).map_err(errno)
        }
        Call::Seek(whence, offset) => {
            let from = u64::try_from(offset).map_err(|_| Errno::ENXIO);
            let to = match whence {
                Whence::Data => SeekFrom::Data(from?),
                Whence::Hole => SeekFrom::Hole(from?),
                _ => SeekFrom::End(offset),
            };
            rustix::fs::seek(fd, to).map(Seen::Number).map_err(errno)
        }
        Call::Size => size().map(Seen::Number),
    }
}

/// Both gave the same; but where holes are is a file system's own matter, as long as none has data.
fn agree(host: &OwnedFd, call: Call, mine: &Result<Seen>, theirs: &Result<Seen>) -> bool {
    let size = rustix::fs::fstat(host).expect("a memfd").st_size as u64;
    let zeros = |from: u64, to: u64| match read_host(host, from, to - from) {
        Ok(Seen::Bytes(bytes)) => bytes.iter().all(|&byte| byte == 0),
        _ => false,
    };
    match (call, mine) {
        (Call::Seek(Whence::Data | Whence::Hole, from), _) if from < 0 || from as u64 >= size => {
            mine == theirs
        }
        (Call::Seek(Whence::Data, from), Err(Errno::ENXIO)) => zeros(from as u64, size),
        (Call::Seek(Whence::Data, from), Ok(Seen::Number(to))) => {
            (from as u64..size).contains(to) && zeros(from as u64, *to)
        }
        (Call::Seek(Whence::Hole, from), Ok(Seen::Number(to))) => (from as u64..=size).contains(to),
        _ => mine == theirs,
    }
}

fn short(seen: &Result<Seen>) -> String {
    match seen {
        Ok(Seen::Bytes(bytes)) => {
            let runs = bytes.chunk_by(|a, b| a == b).take(8).map(|run| (run[0], run.len()));
            format!("{} bytes: {:?}", bytes.len(), runs.collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    }
}

#[expect(clippy::panic, reason = "the failure of the test")]
fn compare(fs: Arc<dyn FileSystem>, steps: u32) {
    // SEED=n tries another run.
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x1234_5678_9abc_def1);
    let mut random = Random(seed);
    let mut world = World::on(fs);
    for file in 0..20 {
        let name = format!("/file{file}");
        let file = world.open(&name, OpenFlags::CREAT | OpenFlags::RDWR, 0o600).expect("set-up");
        let host = rustix::fs::memfd_create("like", MemfdFlags::CLOEXEC).expect("set-up");
        let mut history = Vec::new();
        for step in 0..steps {
            let call = call(&mut random);
            let mine = ours(&world, &file, call);
            let theirs = hosts(&host, call);
            history.push(format!("{call:?} = {}", short(&theirs)));
            if !agree(&host, call, &mine, &theirs) {
                let before = history.iter().rev().take(15).rev().cloned().collect::<Vec<_>>().join("\n");
                let (mine, theirs) = (short(&mine), short(&theirs));
                panic!(
                    "{name} step {step}: {call:?}: ours {mine}, Linux {theirs}; the calls before:\n{before}"
                );
            }
        }
        world.unlink(&name).expect("it is there");
        drop(file);
    }
    let metadata = world.root.inode().and_then(|inode| inode.metadata());
    assert!(metadata.is_ok());
}

#[test]
fn contents_of_a_tmpfs() {
    let fs: Arc<TmpFs> = support::tmpfs();
    compare(fs.clone(), 300);
    // All of it is given back.
    let free = fs.statfs().expect("it has");
    assert_eq!(free.blocks, free.blocks_free);
}
