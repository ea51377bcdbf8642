//! Guests and the host change one tree at the same time; afterwards both must see the same.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use vfs::{FileSystem, Inode, NewNode, RenameFlags, SetAttr};

use crate::tests::{Folder, with_proc};

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
    fn name(&mut self) -> Vec<u8> {
        format!("n{}", self.below(8)).into_bytes()
    }
}

/// What a walk keeps: a directory, a name and what was found there.
type Dentry = (Arc<dyn Inode>, Vec<u8>, Option<Arc<dyn Inode>>);

fn guest(directories: &[Arc<dyn Inode>], seed: u64) -> Vec<Dentry> {
    let mut random = Random(seed * 77_777 + 1);
    let node = NewNode { mode: 0o100644, uid: 0, gid: 0, rdev: 0 };
    let mut known = Vec::new();
    for _ in 0..3000 {
        let (a, b) = (random.below(3) as usize, random.below(3) as usize);
        let (dir, other) = (&directories[a], &directories[b]);
        let (name, new) = (random.name(), random.name());
        match random.below(7) {
            0 => drop(dir.create(&name, &node)),
            1 => drop(dir.unlink(&name)),
            2 => drop(dir.rename(&name, other, &new, RenameFlags::empty())),
            3 => drop(dir.lookup(&name).and_then(|inode| other.link(&new, &inode))),
            4 => {
                let size = Some(random.below(100));
                let _ = dir.lookup(&name).and_then(|inode| {
                    inode.set_attributes(&SetAttr { size, ..SetAttr::default() })?;
                    inode.metadata()
                });
            }
            5 => known.push((dir.clone(), name.clone(), dir.lookup(&name).ok())),
            _ => {
                if let Some((dir, name, child)) = known.last() {
                    dir.revalidate(name, child.as_ref());
                    let _ = child.as_ref().map(|child| child.metadata());
                }
            }
        }
    }
    known
}

fn outsider(path: &Path) {
    let mut random = Random(42);
    for _ in 0..3000 {
        let part = |random: &mut Random| {
            let directory = ["", "d1", "d2"][random.below(3) as usize];
            path.join(directory).join(String::from_utf8(random.name()).unwrap())
        };
        let (a, b) = (part(&mut random), part(&mut random));
        let _ = match random.below(4) {
            0 => fs::write(&a, vec![0; random.below(50) as usize]),
            1 => fs::remove_file(&a),
            2 => fs::rename(&a, &b),
            _ => fs::File::options().append(true).open(&a).and_then(|file| file.set_len(7)),
        };
    }
}

#[test]
fn all_see_the_same_in_the_end() {
    let folder = Folder::new();
    for name in ["d1", "d2"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let fs = folder.mount(with_proc());
    let root = fs.root().unwrap();
    let directories = [root.clone(), root.lookup(b"d1").unwrap(), root.lookup(b"d2").unwrap()];
    let known: Vec<Dentry> = std::thread::scope(|scope| {
        let guests: Vec<_> = (1..4)
            .map(|seed| {
                let directories = &directories;
                scope.spawn(move || guest(directories, seed))
            })
            .collect();
        scope.spawn(|| outsider(folder.path()));
        guests.into_iter().flat_map(|guest| guest.join().unwrap()).collect()
    });
    crate::catch_up();
    let paths = [folder.path().to_path_buf(), folder.path().join("d1"), folder.path().join("d2")];
    let path_of = |dir: &Arc<dyn Inode>, name: &[u8]| {
        let index = directories.iter().position(|other| Arc::ptr_eq(other, dir)).unwrap();
        paths[index].join(std::str::from_utf8(name).unwrap())
    };
    // What old dentries believe, twice: the second answer is the remembered one.
    for (dir, name, child) in known.iter().chain(&known) {
        let host = fs::symlink_metadata(path_of(dir, name)).ok();
        let holds = dir.revalidate(name, child.as_ref());
        match (&host, child) {
            (None, None) => assert!(holds),
            (Some(host), Some(child)) if holds => {
                let metadata = child.metadata().unwrap();
                let seen = (metadata.ino, metadata.size, metadata.nlink);
                assert_eq!(seen, (host.ino(), host.size(), host.nlink()));
            }
            _ => assert!(!holds, "{:?}", path_of(dir, name)),
        }
    }
    for (directory, path) in directories.iter().zip(&paths) {
        let (seen, host) = (directory.metadata().unwrap(), fs::metadata(path).unwrap());
        assert_eq!((seen.mtime.sec, seen.mtime.nsec), (host.mtime(), host.mtime_nsec()));
    }
}
