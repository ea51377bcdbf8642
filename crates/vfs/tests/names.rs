//! What is told of paths counts until something on the way changes, and is the same for everybody.

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vfs::names::{Leads, on_change, trace};
use vfs::ops::attributes;

use support::{World, tmpfs};

static VERSIONS: [AtomicU32; 64] = [const { AtomicU32::new(0) }; 64];

/// The versions are everybody's: one test at a time.
fn alone() -> impl Sized {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn world() -> World {
    on_change(Box::new(|buckets| {
        for (bucket, version) in VERSIONS.iter().enumerate() {
            version.fetch_add((buckets >> bucket & 1) as u32, Ordering::SeqCst);
        }
    }));
    World::new()
}

fn sum(buckets: u64) -> u32 {
    let versions = VERSIONS.iter().enumerate().filter(|(bucket, _)| buckets >> bucket & 1 != 0);
    versions.map(|(_, version)| version.load(Ordering::SeqCst)).sum()
}

/// Where a path leads: 'n'owhere, 't'here, none if that is not told; and the buckets it goes by.
fn leads(w: &mut World, path: &str) -> Option<(char, u64)> {
    let (leads, buckets) = trace(&w.root.clone(), path.as_bytes(), &mut w.user)?;
    let leads = match leads {
        Leads::Nowhere => 'n',
        Leads::NotDirectory => 'd',
        Leads::To(_) => 't',
    };
    Some((leads, buckets))
}

/// What was told of a path counts before and not after.
fn undone_by(w: &mut World, path: &str, change: impl FnOnce(&mut World)) {
    // Marked by the first look, as whoever tells does.
    leads(w, path);
    let (_, buckets) = leads(w, path).expect("it is told");
    let before = sum(buckets);
    leads(w, path);
    w.resolve(path).err();
    assert_eq!(sum(buckets), before, "{path}: looking changes nothing");
    change(w);
    assert_ne!(sum(buckets), before, "{path}");
}

#[test]
fn every_change_is_told() {
    let _alone = alone();
    let mut w = world();
    w.mkdir("/d").unwrap();
    w.symlink("d", "/l").unwrap();
    undone_by(&mut w, "/d/f", |w| drop(w.create("/d/f").unwrap()));
    undone_by(&mut w, "/d/f", |w| w.rename("/d/f", "/d/g").unwrap());
    undone_by(&mut w, "/d/g", |w| w.unlink("/d/g").unwrap());
    undone_by(&mut w, "/l/g", |w| drop(w.mkdir("/d/g").unwrap()));
    undone_by(&mut w, "/l/g/x", |w| w.rmdir("/d/g").unwrap());
    undone_by(&mut w, "/l/x", |w| w.unlink("/l").unwrap());
    undone_by(&mut w, "/l", |w| drop(w.symlink("nowhere", "/l").unwrap()));
    undone_by(&mut w, "/d/x", |w| w.rename("/d", "/e").unwrap());
    undone_by(&mut w, "/e/x", |w| {
        let place = w.resolve("/e").unwrap();
        attributes::chmod(&w.user, &place, 0o700).unwrap();
    });
    assert!(leads(&mut w, "/e/x").is_none());
    w.create("/f").unwrap();
    undone_by(&mut w, "/f/x", |w| w.unlink("/f").unwrap());
    undone_by(&mut w, "/f/x", |w| drop(w.create("/f").unwrap()));
    undone_by(&mut w, "/f/x", |w| w.rename("/f", "/g").unwrap());
    w.mkdir("/m").unwrap();
    undone_by(&mut w, "/m/x", |w| {
        let at = w.resolve("/m").unwrap();
        w.namespace.mount(tmpfs(), &at, vfs::MountFlags::empty(), b"t").unwrap();
    });
    undone_by(&mut w, "/m/x", |w| {
        let mount = w.resolve("/m").unwrap().mount;
        let holders = Arc::strong_count(&mount);
        w.namespace.umount(&mount, false, holders).unwrap();
    });
}

#[test]
fn only_what_is_the_same_for_all_is_told() {
    let _alone = alone();
    let mut w = world();
    w.mkdir("/open").unwrap();
    w.symlink("open", "/link").unwrap();
    w.symlink("link", "/second").unwrap();
    w.create("/open/file").unwrap();
    for (path, expected) in [
        ("/open", Some('t')),
        ("/open/file", Some('t')),
        ("/second/./../open/file", Some('t')),
        ("/second/file", Some('t')),
        ("/second/nothing/more", Some('n')),
        ("/nothing", Some('n')),
        ("/..", Some('t')),
        // Followed or not, it is another answer.
        ("/link", None),
        ("/open/", None),
        ("/open/file/x", Some('d')),
        ("/link/file/x/y", Some('d')),
        ("open", None),
        ("", None),
        ("/", None),
    ] {
        assert_eq!(leads(&mut w, path).map(|(leads, _)| leads), expected, "{path}");
    }
    assert!(leads(&mut w, &format!("/{}", "x".repeat(256))).is_none());
    for mode in [0o700, 0o711, 0o710, 0o701, 0o666, 0o733, 0o555, 0o755, 0o777] {
        let place = w.resolve("/open").unwrap();
        attributes::chmod(&w.user, &place, mode).unwrap();
        assert_eq!(leads(&mut w, "/open/file").is_some(), mode & 0o555 == 0o555, "{mode:o}");
    }
    // In a circle.
    w.symlink("b", "/a").unwrap();
    w.symlink("a", "/b").unwrap();
    assert!(leads(&mut w, "/a/x").is_none());
}

/// A directory that nobody knows any more tells of no change: what was told of it ends before.
#[test]
fn what_is_forgotten_has_changed() {
    let _alone = alone();
    let mut w = world();
    w.mkdir("/d").unwrap();
    leads(&mut w, "/d/x");
    let (_, buckets) = leads(&mut w, "/d/x").unwrap();
    let before = sum(buckets);
    vfs::dentry_cache::shrink();
    let fresh = w.resolve("/d").unwrap();
    let kept = leads(&mut w, "/d/x").unwrap().1 == buckets;
    assert!(kept || sum(buckets) != before);
    drop(fresh);
}
