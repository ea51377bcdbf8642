//! Random path operations on a file system of ours and on the host's tmpfs: every errno and the
//! resulting files must be the same.

mod support;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFIFO};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, openat, renameat_with};
use vfs::ops::open::Opened;
use vfs::{RenameFlags, Result, WalkFlags, ops};

use support::World;

/// Directories above the one under test, so that `..` never meets a root.
const ABOVE: [&str; 10] = ["u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8", "u9"];

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
    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
    fn path(&mut self) -> String {
        let mut path = String::new();
        for _ in 0..=self.below(3) {
            if !path.is_empty() {
                path.push_str(self.one(&["/", "/", "/", "//"]));
            }
            path.push_str(self.one(&["a", "a", "b", "b", "c", "d", "e", ".", ".."]));
        }
        path.push_str(self.one(&["", "", "", "", "", "", "/", "//", "/."]));
        path
    }
}

/// One call.
#[derive(Debug)]
enum Call {
    Open(String, OpenFlags),
    Mkdir(String),
    Mknod(String),
    Symlink(String, String),
    Link(String, String, bool),
    Unlink(String),
    Rmdir(String),
    Rename(String, String, RenameFlags),
    Truncate(String, u64),
    Readlink(String),
    Stat(String, bool),
    Chmod(String, u32),
    Chown(String, Option<u32>, Option<u32>),
    Access(String, u32),
    /// The calls after it are this user's.
    Become(u32),
}

/// What matters when users differ.
fn call_of_users(random: &mut Random) -> Call {
    let path = random.path();
    match random.below(16) {
        0..=2 => Call::Chmod(
            path,
            random.one(&[0o755, 0o700, 0o777, 0o1775, 0o2775, 0o644, 0o6775, 0o070, 0o2711]),
        ),
        3 => {
            let ids = [None, Some(0), Some(1000), Some(1001)];
            Call::Chown(path, random.one(&ids), random.one(&ids))
        }
        4 => Call::Access(path, random.below(8) as u32),
        5..=6 => Call::Become(random.one(&[0, 1000, 1000, 1001])),
        _ => call(random),
    }
}

fn call(random: &mut Random) -> Call {
    let path = random.path();
    match random.below(20) {
        0..=3 => {
            let mut flags = OpenFlags::from_bits_retain(random.one(&[0, 1, 2]));
            for flag in [OpenFlags::CREAT, OpenFlags::CREAT, OpenFlags::EXCL, OpenFlags::TRUNC] {
                if random.below(3) == 0 {
                    flags |= flag;
                }
            }
            for flag in [OpenFlags::NOFOLLOW, OpenFlags::DIRECTORY, OpenFlags::APPEND, OpenFlags::PATH] {
                if random.below(8) == 0 {
                    flags |= flag;
                }
            }
            Call::Open(path, flags | OpenFlags::NONBLOCK)
        }
        4..=6 => Call::Mkdir(path),
        7 => Call::Mknod(path),
        8..=9 => Call::Symlink(random.path(), path),
        10..=11 => Call::Link(random.path(), path, random.below(2) == 0),
        12 => Call::Unlink(path),
        13 => Call::Rmdir(path),
        14..=16 => {
            let flags = random.one(&[0, 0, 0, 1, 2, 3]);
            Call::Rename(random.path(), path, RenameFlags::from_bits_retain(flags))
        }
        17 => Call::Truncate(path, random.below(10000)),
        18 => Call::Readlink(path),
        _ => Call::Stat(path, random.below(2) == 0),
    }
}

/// What a call gave, as far as both sides should agree.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Done,
    Text(Vec<u8>),
    Stat { mode: u32, nlink: u64, size: u64, uid: u32, gid: u32 },
}

fn ours(world: &mut World, call: &Call) -> Result<Seen> {
    match call {
        Call::Open(path, flags) => {
            let opened =
                ops::open::open(&mut world.walker(WalkFlags::empty()), path.as_bytes(), *flags, 0o644)?;
            match opened {
                Opened::Special { .. } if flags.bits() & 3 == 1 => return Err(Errno::ENXIO),
                Opened::File(file) if flags.writable() => {
                    file.ops().append(&file, b"hello")?;
                    ops::attributes::written(&world.user.0, file.inode().as_ref())?;
                }
                _ => {}
            }
        }
        Call::Mkdir(path) => world.mkdir(path).map(drop)?,
        Call::Mknod(path) => {
            let parent = world.parent(path)?;
            ops::create::mknod(&world.user, &parent, S_IFIFO | 0o600, 0)?;
        }
        Call::Symlink(target, path) => world.symlink(target, path).map(drop)?,
        Call::Link(old, new, follow) => {
            let flags = if *follow { WalkFlags::FOLLOW } else { WalkFlags::empty() };
            let old = world.resolve_with(old, flags)?;
            let parent = world.parent(new)?;
            ops::create::link(&world.user, &old, &parent)?;
        }
        Call::Unlink(path) => world.unlink(path)?,
        Call::Rmdir(path) => world.rmdir(path)?,
        Call::Rename(old, new, flags) => {
            if flags.bits() == 3 {
                return Err(Errno::EINVAL);
            }
            let (from, to) = (world.parent(old)?, world.parent(new)?);
            ops::rename::rename(&world.user, &from, &to, *flags)?;
        }
        Call::Truncate(path, size) => {
            let place = world.resolve(path)?;
            ops::attributes::truncate(&world.user, &place, *size)?;
        }
        Call::Readlink(path) => {
            let place = world.resolve_with(path, WalkFlags::empty())?;
            return place.inode()?.readlink(&mut world.user).map(Seen::Text);
        }
        Call::Stat(path, follow) => {
            let flags = if *follow { WalkFlags::FOLLOW } else { WalkFlags::empty() };
            let meta = world.resolve_with(path, flags)?.inode()?.metadata()?;
            let size = if meta.kind() == linux_abi::fs::S_IFDIR { 0 } else { meta.size };
            return Ok(Seen::Stat { mode: meta.mode, nlink: meta.nlink, size, uid: meta.uid, gid: meta.gid });
        }
        Call::Chmod(path, mode) => {
            let place = world.resolve(path)?;
            ops::attributes::chmod(&world.user, &place, *mode)?;
        }
        Call::Chown(path, uid, gid) => {
            let place = world.resolve_with(path, WalkFlags::empty())?;
            ops::attributes::chown(&world.user, &place, *uid, *gid)?;
        }
        Call::Access(path, want) => {
            let place = world.resolve(path)?;
            ops::attributes::access(&world.user.0, &place, *want)?;
        }
        Call::Become(0) => world.user.0 = identity::Credentials::root(),
        Call::Become(uid) => world.become_user(*uid),
    }
    Ok(Seen::Done)
}

fn hosts(dir: &OwnedFd, call: &Call) -> rustix::io::Result<Seen> {
    match call {
        Call::Open(path, flags) => {
            let oflags = OFlags::from_bits_retain(flags.bits());
            let fd = openat(dir, path.as_str(), oflags, Mode::from_raw_mode(0o644))?;
            if flags.writable() {
                let fifo = rustix::fs::fstat(&fd)?.st_mode & 0o170000 == S_IFIFO;
                if !fifo {
                    rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0))?;
                    rustix::io::write(&fd, b"hello")?;
                }
            }
        }
        Call::Mkdir(path) => rustix::fs::mkdirat(dir, path.as_str(), Mode::from_raw_mode(0o755))?,
        Call::Mknod(path) => {
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(dir, path.as_str(), kind, Mode::from_raw_mode(0o600), 0)?;
        }
        Call::Symlink(target, path) => rustix::fs::symlinkat(target.as_str(), dir, path.as_str())?,
        Call::Link(old, new, follow) => {
            let flags = if *follow { AtFlags::SYMLINK_FOLLOW } else { AtFlags::empty() };
            rustix::fs::linkat(dir, old.as_str(), dir, new.as_str(), flags)?;
        }
        Call::Unlink(path) => rustix::fs::unlinkat(dir, path.as_str(), AtFlags::empty())?,
        Call::Rmdir(path) => rustix::fs::unlinkat(dir, path.as_str(), AtFlags::REMOVEDIR)?,
        Call::Rename(old, new, flags) => {
            let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
            renameat_with(dir, old.as_str(), dir, new.as_str(), flags)?;
        }
        Call::Truncate(path, size) => {
            // truncate(2) has no *at form; the flags ask for what it would.
            let kind = rustix::fs::statat(dir, path.as_str(), AtFlags::empty())?.st_mode & 0o170000;
            if kind == S_IFIFO {
                return Err(rustix::io::Errno::INVAL);
            }
            let fd = openat(dir, path.as_str(), OFlags::WRONLY, Mode::empty())?;
            rustix::fs::ftruncate(fd, *size)?;
        }
        Call::Readlink(path) => {
            let text = rustix::fs::readlinkat(dir, path.as_str(), Vec::new())?;
            return Ok(Seen::Text(text.into_bytes()));
        }
        Call::Stat(path, follow) => {
            let flags = if *follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
            let stat = rustix::fs::statat(dir, path.as_str(), flags)?;
            let size = if stat.st_mode & 0o170000 == 0o040000 { 0 } else { stat.st_size as u64 };
            return Ok(Seen::Stat {
                mode: stat.st_mode,
                nlink: stat.st_nlink,
                size,
                uid: stat.st_uid,
                gid: stat.st_gid,
            });
        }
        Call::Chmod(path, mode) => {
            rustix::fs::chmodat(dir, path.as_str(), Mode::from_raw_mode(*mode), AtFlags::empty())?;
        }
        Call::Chown(path, uid, gid) => {
            let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
            rustix::fs::chownat(dir, path.as_str(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Call::Access(path, want) => {
            let want = rustix::fs::Access::from_bits_retain(*want);
            rustix::fs::accessat(dir, path.as_str(), want, AtFlags::EACCESS)?;
        }
        Call::Become(id) => {
            // Of this thread alone; the saved id stays root's.
            rustix::thread::set_thread_res_uid(None, Uid::ROOT, None)?;
            rustix::thread::set_thread_res_gid(None, Gid::from_raw(*id), None)?;
            rustix::thread::set_thread_res_uid(None, Uid::from_raw(*id), None)?;
        }
    }
    Ok(Seen::Done)
}

/// A directory of the host's, removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Temporary {
        rustix::process::umask(Mode::empty());
        let path = PathBuf::from(format!("/dev/shm/sallet-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("set-up");
        Temporary(path)
    }
    fn open(&self, path: &str) -> OwnedFd {
        openat(rustix::fs::CWD, self.0.join(path), OFlags::PATH, Mode::empty()).expect("set-up")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// SEED=n tries another run.
fn random() -> Random {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    Random(seed.unwrap_or(0x1234_5678_9abc_def1))
}

/// Makes the directories above, and opens the lowest.
fn nest(host: &Temporary) -> OwnedFd {
    let mut path = String::from(".");
    for name in ABOVE {
        path = format!("{path}/{name}");
        rustix::fs::mkdir(host.0.join(&path), Mode::from_raw_mode(0o755)).expect("set-up");
    }
    host.open(&path)
}

/// Runs the same calls on both sides. An overlay refuses to rename what is merged, and counts no
/// links of directories.
#[expect(clippy::panic, reason = "the failure of the test")]
fn compare(world: &mut World, dir: &OwnedFd, mut next: impl FnMut() -> Call, steps: u32, overlay: bool) {
    for name in ABOVE {
        world.cwd = world.mkdir(name).or_else(|_| world.resolve(name)).expect("set-up");
    }
    let mut history = Vec::new();
    for step in 0..steps {
        let call = next();
        let mut mine = ours(world, &call);
        if overlay && mine == Err(Errno::EXDEV) {
            continue;
        }
        let mut theirs = hosts(dir, &call).map_err(|e| Errno::from_raw(e.raw_os_error()));
        history.push(format!("{call:?} = {theirs:?}"));
        for seen in [&mut mine, &mut theirs] {
            if let Ok(Seen::Stat { mode, nlink, .. }) = seen
                && overlay
                && *mode & 0o170000 == 0o040000
            {
                *nlink = 1;
            }
        }
        if mine != theirs {
            let before = history.iter().rev().take(20).rev().cloned().collect::<Vec<_>>().join("\n");
            panic!("step {step}: {call:?}: ours {mine:?}, Linux {theirs:?}; the calls before:\n{before}");
        }
    }
}

#[test]
fn a_tmpfs_answers_as_linux_does() {
    let host = Temporary::new("for-tmpfs");
    let mut random = random();
    compare(&mut World::new(), &nest(&host), || call(&mut random), 40_000, false);
}

#[test]
fn users_may_on_a_tmpfs_what_they_may_on_linux() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = Temporary::new("for-users");
    let dir = nest(&host);
    // Ids are a thread's own.
    let done = std::thread::spawn(move || {
        rustix::thread::set_thread_groups(&[]).expect("set-up");
        let mut random = random();
        compare(&mut World::new(), &dir, || call_of_users(&mut random), 40_000, false);
    })
    .join();
    drop(host);
    done.expect("the same answers");
}

/// A host directory as a file system of ours.
fn host_fs(tree: &Temporary) -> Arc<fs_host::HostFs> {
    let proc_self_fd = openat(rustix::fs::CWD, "/proc/self/fd", OFlags::PATH, Mode::empty()).expect("set-up");
    let options = fs_host::Options { proc_self_fd: Some(Arc::new(proc_self_fd)), ..Default::default() };
    fs_host::HostFs::new(tree.open("."), options).expect("set-up")
}

#[test]
fn a_host_directory_answers_as_linux_does() {
    let (tree, host) = (Temporary::new("tree"), Temporary::new("for-tree"));
    let mut world = World::on(host_fs(&tree));
    let mut random = random();
    compare(&mut world, &nest(&host), || call(&mut random), 10_000, false);
}

#[test]
fn an_overlay_answers_as_linux_does() {
    let (tree, host) = (Temporary::new("lower"), Temporary::new("for-overlay"));
    let (lower, dir) = (nest(&tree), nest(&host));
    let mut random = random();
    for _ in 0..20 {
        // A lower tree that is the same on both sides; links to one file would break at the copy.
        for _ in 0..50 {
            let call = call(&mut random);
            if !matches!(call, Call::Link(..)) {
                assert_eq!(hosts(&lower, &call), hosts(&dir, &call));
            }
        }
    }
    let fs = fs_overlay::OverlayFs::new(host_fs(&tree), support::tmpfs(), 77).expect("set-up");
    compare(&mut World::on(fs), &dir, || call(&mut random), 5_000, true);
}
