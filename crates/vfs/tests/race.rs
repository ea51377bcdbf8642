//! Many threads on one tree: nothing may deadlock or panic, and names and files must agree at the end.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use linux_abi::fs::OpenFlags;
use vfs::{Place, RenameFlags, WalkFlags, ops};

use support::World;

fn names(world: &mut World, path: &str) -> BTreeSet<Vec<u8>> {
    let directory = world.open(path, OpenFlags::DIRECTORY, 0).expect("it is there");
    let mut seen = BTreeSet::new();
    let list = &mut |entry: vfs::DirEntry<'_>| {
        assert!(seen.insert(entry.name.to_vec()), "a name twice");
        true
    };
    directory.ops().readdir(&directory, 0, list).expect("readable");
    seen
}

/// One thread's share: errors are part of the game.
fn play(mut world: World, mut seed: u64) {
    let mut random = move |n: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize % n
    };
    let paths = ["a", "b", "a/x", "a/y", "b/x", "a/x/p", "b/x/p", "a/x/p/q", "b/x/../y"];
    for _ in 0..4_000 {
        let (one, two) = (paths[random(paths.len())], paths[random(paths.len())]);
        match random(9) {
            0 | 1 => drop(world.mkdir(one)),
            2 => drop(world.rmdir(one)),
            3 => drop(world.create(one)),
            4 => drop(world.unlink(one)),
            5 => drop(world.rename(one, two)),
            6 => {
                let (Ok(from), Ok(to)) = (world.parent(one), world.parent(two)) else { continue };
                let _ = ops::rename::rename(&world.user, &from, &to, RenameFlags::EXCHANGE);
            }
            7 => drop(world.resolve(one).map(|place: Place| place.path(&world.root))),
            _ => {
                let Ok(old) = world.resolve_with(one, WalkFlags::empty()) else { continue };
                let Ok(parent) = world.parent(two) else { continue };
                drop(ops::create::link(&world.user, &old, &parent));
            }
        }
    }
}

fn race(make: impl Fn() -> World) {
    let done = Arc::new(AtomicBool::new(false));
    let watched = Arc::clone(&done);
    let watchdog = std::thread::spawn(move || {
        for _ in 0..600 {
            if watched.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        // A deadlock cannot be unwound.
        eprintln!("the threads are stuck");
        std::process::abort();
    });
    std::thread::scope(|scope| {
        for seed in 1..=4u64 {
            let world = make();
            scope.spawn(move || play(world, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        }
    });
    done.store(true, Ordering::Relaxed);
    watchdog.join().expect("the watchdog");

    // What the cache says, the file system says.
    let mut world = make();
    let mut directories = vec![String::from("/")];
    while let Some(directory) = directories.pop() {
        for name in names(&mut world, &directory) {
            if name == b"." || name == b".." {
                continue;
            }
            let path = format!("{directory}{}", String::from_utf8_lossy(&name));
            if path.len() >= 4096 {
                continue;
            }
            let place = world.resolve_with(&path, WalkFlags::empty()).expect("a listed name exists");
            assert_eq!(String::from_utf8_lossy(&place.path(&world.root)), path);
            if place.inode().and_then(|i| i.metadata()).expect("positive").kind() == 0o040000 {
                directories.push(format!("{path}/"));
            }
        }
    }
}

/// Worlds on one name space, each with its own user.
fn shared(fs: Arc<dyn vfs::FileSystem>) -> impl Fn() -> World {
    let first = World::on(fs);
    move || World {
        namespace: Arc::clone(&first.namespace),
        root: first.root.clone(),
        cwd: first.cwd.clone(),
        user: support::User(identity::Credentials::root()),
    }
}

#[test]
fn threads_on_a_tmpfs() {
    race(shared(support::tmpfs()));
}

#[test]
fn threads_on_an_overlay() {
    let lower = support::tmpfs();
    let mut world = World::on(lower.clone());
    for name in ["a", "a/x", "a/x/p", "b"] {
        world.mkdir(name).expect("a fresh tmpfs");
    }
    for name in ["a/x/p/q", "b/x"] {
        world.create(name).expect("a fresh tmpfs");
    }
    let fs = fs_overlay::OverlayFs::new(lower, support::tmpfs(), 9).expect("both are directories");
    race(shared(fs));
}

#[test]
fn mounts_moved_into_each_other_tie_no_knot() {
    let mut world = World::on(support::tmpfs());
    let namespace = Arc::clone(&world.namespace);
    let mut mounts = Vec::new();
    for name in ["a", "b"] {
        world.mkdir(name).expect("a fresh tmpfs");
        let place = world.resolve(name).expect("just made");
        mounts
            .push(namespace.mount(support::tmpfs(), &place, vfs::MountFlags::empty(), b"t").expect("mounts"));
        world.mkdir(&format!("{name}/x")).expect("a fresh tmpfs");
    }
    let homes = mounts.iter().map(|mount| mount.at().expect("mounted")).collect::<Vec<_>>();
    let below = ["a/x", "b/x"].map(|path| world.resolve(path).expect("just made"));
    for _ in 0..2_000 {
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for (mount, to) in mounts.iter().zip(below.iter().rev()) {
                let (namespace, start) = (&namespace, &start);
                scope.spawn(move || {
                    start.wait();
                    let _ = namespace.move_mount(mount, to);
                });
            }
        });
        let up = (0..4).fold(mounts[0].at(), |up, _| up.and_then(|place| place.mount.at()));
        assert!(up.is_none(), "a mount below itself");
        for (mount, home) in mounts.iter().zip(&homes) {
            if !mount.at().expect("mounted").same(home) {
                namespace.move_mount(mount, home).expect("back home");
            }
        }
    }
}
