//! The joined tree against a plain one with the same contents: both must answer alike.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fs_tmp::{Options, TmpFs};
use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFDIR, S_IFREG};
use vfs::{DirEntry, FileSystem, Inode, NewNode, RenameFlags, Result, SetAttr};

use crate::OverlayFs;
use crate::copy_up::opened;

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn node(mode: u32) -> NewNode {
    NewNode { mode, uid: 1, gid: 2, rdev: 0 }
}

fn tmp() -> Arc<TmpFs> {
    TmpFs::new(Options { mode: 0o755, device: 9, ..Options::default() })
}

fn write(inode: &Arc<dyn Inode>, pos: u64, data: &[u8]) -> Result<usize> {
    let file = opened(inode, OpenFlags::RDWR)?;
    file.ops().write(&file, data, pos)
}

fn read(inode: &Arc<dyn Inode>) -> Vec<u8> {
    let file = opened(inode, OpenFlags::empty()).unwrap();
    let mut buf = vec![0; inode.metadata().unwrap().size as usize];
    let count = file.ops().read(&file, &mut buf, 0).unwrap();
    buf.truncate(count);
    buf
}

fn list(inode: &Arc<dyn Inode>) -> Vec<(Vec<u8>, u64)> {
    let file = opened(inode, OpenFlags::DIRECTORY).unwrap();
    let (mut pos, mut names) = (0, Vec::new());
    loop {
        let mut sink = |entry: DirEntry<'_>| {
            names.push((entry.name.to_vec(), entry.ino));
            true
        };
        let next = file.ops().readdir(&file, pos, &mut sink).unwrap();
        if next == pos {
            return names;
        }
        pos = next;
    }
}

/// A tree that tests begin with: hard links, an empty and a full directory, a symbolic link.
fn fill(fs: &TmpFs) {
    let root = fs.root().unwrap();
    let dir = root.mkdir(b"a", &node(0o755)).unwrap();
    root.mkdir(b"b", &node(0o700)).unwrap();
    let below = dir.mkdir(b"c", &node(0o755)).unwrap();
    let file = below.create(b"d", &node(S_IFREG | 0o644)).unwrap();
    write(&file, 0, b"lower").unwrap();
    root.link(b"c", &file).unwrap();
    let file = dir.create(b"d", &node(S_IFREG | 0o600)).unwrap();
    write(&file, 70_000, b"far").unwrap();
    dir.symlink(b"b", b"../c", &node(0o777)).unwrap();
}

/// Type, permissions, links (not of directories) and contents by path; and that listings agree with
/// look-ups.
fn dump(fs: &dyn FileSystem) -> BTreeMap<Vec<u8>, (u32, u64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut left = vec![(Vec::new(), fs.root().unwrap())];
    while let Some((path, inode)) = left.pop() {
        let metadata = inode.metadata().unwrap();
        let is_directory = metadata.kind() == S_IFDIR;
        let mut contents = if metadata.kind() == S_IFREG { read(&inode) } else { Vec::new() };
        // Enough to tell them apart, and to read in a failure.
        contents.retain(|&byte| byte != 0);
        let nlink = if is_directory { 0 } else { metadata.nlink };
        found.insert(path.clone(), (metadata.mode, nlink, contents));
        if !is_directory {
            continue;
        }
        for (name, ino) in list(&inode).into_iter().filter(|(name, _)| name != b"." && name != b"..") {
            let child = inode.lookup(&name).unwrap();
            assert_eq!(child.metadata().unwrap().ino, ino, "{:?}", String::from_utf8_lossy(&name));
            left.push(([&path[..], b"/", &name].concat(), child));
        }
    }
    found
}

fn walk(fs: &dyn FileSystem, path: &[u64]) -> Result<Arc<dyn Inode>> {
    let mut at = fs.root()?;
    for &part in path {
        at = at.lookup(name(part))?;
    }
    Ok(at)
}

fn name(n: u64) -> &'static [u8] {
    [&b"a"[..], b"b", b"c", b"d"][(n % 4) as usize]
}

/// One change, the same for both trees.
fn step(fs: &dyn FileSystem, numbers: &[u64; 12]) -> Result<()> {
    let depth = (numbers[0] % 3) as usize;
    let dir = walk(fs, &numbers[1..1 + depth])?;
    let other = walk(fs, &numbers[4..4 + (numbers[3] % 3) as usize])?;
    let (from, to) = (name(numbers[7]), name(numbers[8]));
    match numbers[9] % 11 {
        0 => dir.create(from, &node(S_IFREG | 0o644)).map(drop),
        1 => dir.mkdir(from, &node(0o755)).map(drop),
        2 => dir.unlink(from),
        3 => dir.rmdir(from),
        4 => dir.rename(from, &other, to, RenameFlags::empty()),
        5 => dir.rename(from, &other, to, RenameFlags::EXCHANGE),
        6 => dir.rename(from, &other, to, RenameFlags::NOREPLACE),
        7 => write(&dir.lookup(from)?, numbers[10] % 100, b"written").map(drop),
        8 => {
            let size = Some(numbers[10] % 20);
            let inode = dir.lookup(from)?;
            if inode.metadata()?.kind() != S_IFREG {
                return Ok(());
            }
            inode.set_attributes(&SetAttr { size, ..SetAttr::default() })
        }
        9 => {
            let mode = Some(0o600 + (numbers[10] % 64) as u32);
            let inode = dir.lookup(from)?;
            inode.set_attributes(&SetAttr { mode, ..SetAttr::default() })
        }
        _ => other.link(to, &dir.lookup(from)?),
    }
}

#[test]
fn answers_like_a_plain_tree() {
    for seed in 1..30 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let (lower, plain) = (tmp(), tmp());
        fill(&lower);
        fill(&plain);
        let before = dump(&*lower);
        let overlay = OverlayFs::new(lower.clone(), tmp(), 77).unwrap();
        assert_eq!(dump(&*overlay), dump(&*plain));
        for i in 0..150 {
            let numbers = std::array::from_fn(|_| random.below(1000));
            let expected = step(&*plain, &numbers);
            assert_eq!(step(&*overlay, &numbers), expected, "seed {seed} step {i}: {numbers:?}");
            assert_eq!(dump(&*overlay), dump(&*plain), "seed {seed} step {i}: {numbers:?}");
        }
        assert_eq!(dump(&*lower), before);
    }
}

#[test]
fn inode_numbers_stay_over_a_copy_up() {
    let lower = tmp();
    fill(&lower);
    let overlay = OverlayFs::new(lower, tmp(), 77).unwrap();
    let root = overlay.root().unwrap();
    let inode = root.lookup(b"a").unwrap().lookup(b"d").unwrap();
    let reader = opened(&inode, OpenFlags::empty()).unwrap();
    let before = inode.metadata().unwrap();
    write(&inode, 70_000, b"new").unwrap();
    let after = inode.metadata().unwrap();
    assert_eq!((before.dev, before.ino, before.nlink), (after.dev, after.ino, after.nlink));
    assert_eq!(&read(&inode)[70_000..], b"new");
    let mut old = [0; 3];
    reader.ops().read(&reader, &mut old, 70_000).unwrap();
    assert_eq!(&old, b"far");
    let mut seen = HashMap::new();
    for (path, ..) in dump(&*overlay) {
        let mut at = root.clone();
        for part in path.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
            at = at.lookup(part).unwrap();
        }
        *seen.entry(at.metadata().unwrap().ino).or_insert(0) += 1;
    }
    // Only the hard link is there twice.
    assert_eq!(seen.values().filter(|&&count| count > 1).count(), 1);
}

#[test]
fn unlinked_files_can_still_be_changed() {
    let lower = tmp();
    fill(&lower);
    let overlay = OverlayFs::new(lower, tmp(), 77).unwrap();
    let dir = overlay.root().unwrap().lookup(b"a").unwrap();
    let inode = dir.lookup(b"d").unwrap();
    dir.unlink(b"d").unwrap();
    assert_eq!(inode.metadata().unwrap().nlink, 0);
    inode.set_attributes(&SetAttr { size: Some(1), ..SetAttr::default() }).unwrap();
    assert_eq!(read(&inode), [0]);
    assert_eq!(dir.lookup(b"d").err(), Some(Errno::ENOENT));
}
