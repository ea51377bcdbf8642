//! Against an overlay of the host, as an engine's root is.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use identity::Credentials;
use linux_abi::Errno;
use vfs::{Caller, FileSystem, SetAttr};

use crate::HostFs;
use crate::tests::{Folder, open, own, watch, with_proc};

struct Nobody(Credentials);

impl Caller for Nobody {
    fn credentials(&self) -> &Credentials {
        &self.0
    }
    fn pid(&self) -> i32 {
        1
    }
    fn read_memory(&mut self, _addr: u64, _buf: &mut [u8]) -> vfs::Result<()> {
        Err(Errno::EFAULT)
    }
    fn write_memory(&mut self, _addr: u64, _buf: &[u8]) -> vfs::Result<()> {
        Err(Errno::EFAULT)
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// An overlay of the host on a folder; unmounted at the end.
struct Overlay(Folder);

impl Overlay {
    /// None without the right to mount.
    fn new() -> Option<Overlay> {
        let folder = Folder::new();
        for name in ["layers", "layers/lower", "layers/upper", "layers/work", "merged"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let layers = folder.path().join("layers");
        // An upper layer that is no overlay itself.
        let run = |program: &str, arguments: &[&str]| {
            std::process::Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
        };
        if !run("mount", &["-t", "tmpfs", "tmpfs", layers.to_str().unwrap()]) {
            return None;
        }
        let overlay = Overlay(folder);
        for name in ["lower/dir", "upper", "work"] {
            fs::create_dir_all(layers.join(name)).unwrap();
        }
        fs::write(layers.join("lower/dir/file"), "below").unwrap();
        fs::write(layers.join("lower/dir/one"), "").unwrap();
        fs::hard_link(layers.join("lower/dir/one"), layers.join("lower/dir/two")).unwrap();
        std::os::unix::fs::symlink("below", layers.join("lower/dir/link")).unwrap();
        let at = |name| format!("{}/{name}", layers.display());
        let options = format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
        let merged = overlay.merged();
        run("mount", &["-t", "overlay", "overlay", "-o", &options, merged.to_str().unwrap()])
            .then_some(overlay)
    }

    fn merged(&self) -> PathBuf {
        self.0.path().join("merged")
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        for name in ["merged", "layers"] {
            let _ = std::process::Command::new("umount").arg(self.0.path().join(name)).status();
        }
    }
}

#[test]
fn files_copied_up_are_found_again() {
    let Some(overlay) = Overlay::new() else {
        eprintln!("SKIPPED: needs the right to mount");
        return;
    };
    let mut nobody = Nobody(Credentials::root());
    let fs = HostFs::new(open(&overlay.merged()), with_proc()).unwrap();
    let root = fs.root().unwrap();
    let dir = root.lookup(b"dir").unwrap();
    let (file, link) = (dir.lookup(b"file").unwrap(), dir.lookup(b"link").unwrap());
    assert_eq!(link.readlink(&mut nobody).unwrap(), b"below");
    // Each is copied up by this.
    dir.create(b"new", &own(0o100644)).unwrap();
    file.set_attributes(&SetAttr { size: Some(2), ..SetAttr::default() }).unwrap();
    link.set_attributes(&SetAttr { uid: Some(rustix::process::getuid().as_raw()), ..SetAttr::default() })
        .unwrap();
    for inode in [&dir, &file, &link] {
        crate::inode::host(inode).unwrap().drop_descriptor();
        assert!(inode.metadata().is_ok());
    }
    assert!(Arc::ptr_eq(&root.lookup(b"dir").unwrap(), &dir));
    assert_eq!(link.readlink(&mut nobody).unwrap(), b"below");
    // One of two names becomes another file.
    watch(&dir);
    let one = dir.lookup(b"one").unwrap();
    assert!(dir.revalidate(b"one", Some(&one)));
    one.set_attributes(&SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    crate::inode::host(&one).unwrap().drop_descriptor();
    let again = if dir.revalidate(b"one", Some(&one)) { one } else { dir.lookup(b"one").unwrap() };
    assert_eq!(again.metadata().unwrap().mode, 0o100600);
    drop((again, root, dir, file, link, fs));
}
