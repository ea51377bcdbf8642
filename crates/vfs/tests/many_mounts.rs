//! Mounts are bounded over all namespaces. Alone in its process, since it uses them up.

mod support;

use linux_abi::Errno;
use support::World;

#[test]
fn namespaces_share_a_bound() {
    let mut w = World::new();
    w.mkdir("/a").unwrap();
    let (from, to) = (w.resolve("/").unwrap(), w.resolve("/a").unwrap());
    for _ in 0..999 {
        w.namespace.bind(&from, &to, false).unwrap();
    }
    let mut copies = Vec::new();
    let end = loop {
        match w.namespace.duplicate(&mut []) {
            Ok(copy) => copies.push(copy),
            Err(errno) => break errno,
        }
        assert!(copies.len() < 200);
    };
    assert_eq!(end, Errno::ENOSPC);
    assert!(copies.len() > 50);
    while let Ok(mount) = w.namespace.bind(&from, &to, false) {
        assert_eq!(mount.root_place().mount.id(), mount.id());
    }
    // What goes makes room.
    copies.pop();
    w.namespace.bind(&from, &to, false).unwrap();
    // A tree that does not fit as a whole is not begun.
    let before = w.namespace.mounts().len();
    w.mkdir("/b").unwrap();
    let b = w.resolve("/b").unwrap();
    assert_eq!(w.namespace.bind(&from, &b, true).err(), Some(Errno::ENOSPC));
    assert_eq!(w.namespace.mounts().len(), before);
    assert!(w.namespace.mounted_at(&b).is_none());
}
