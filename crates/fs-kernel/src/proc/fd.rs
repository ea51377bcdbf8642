//! /proc/PID/fd and fdinfo.

use std::sync::{Arc, Weak};

use kernel::Thread;
use linux_abi::Errno;
use linux_abi::fs::{DirentType, OpenFlags};

use crate::synthetic::{Directory, Kind, Node, ino_of};

/// The descriptors of a thread.
pub(super) struct Fds {
    pub(super) thread: Option<Weak<Thread>>,
    pub(super) info: bool,
    pub(super) key: u64,
}

impl Directory for Fds {
    fn lookup(&self, name: &[u8]) -> Option<Arc<Node>> {
        let number: i32 = std::str::from_utf8(name).ok()?.parse().ok()?;
        let thread = self.thread.as_ref()?.upgrade()?;
        let file = thread.files().get(number).ok()?;
        let process = thread.process().clone();
        let ino = ino_of(self.key ^ if self.info { 1 << 50 } else { 1 << 51 }, name);
        if self.info {
            let thread = Arc::downgrade(&thread);
            let text = Box::new(move |_: &mut dyn vfs::Caller| {
                let thread = thread.upgrade().ok_or(Errno::ENOENT)?;
                let file = thread.files().get(number).map_err(|_| Errno::ENOENT)?;
                let cloexec = thread.files().flags(number).is_ok_and(|f| f.cloexec);
                let mut flags = file.flags() | OpenFlags::LARGEFILE;
                flags.set(OpenFlags::CLOEXEC, cloexec);
                let ino = file.inode().metadata().map_or(0, |m| m.ino);
                let head = format!(
                    "pos:\t{}\nflags:\t0{:o}\nmnt_id:\t{}\nino:\t{ino}\n",
                    *file.pos().lock(),
                    flags.bits(),
                    file.place().mount.id()
                );
                Ok((head + &file.ops().fdinfo(&file)).into_bytes())
            });
            return Some(Node::guarded(ino, 0o444, process, Kind::File(text, None)));
        }
        let flags = file.flags();
        let mut mode = 0o100;
        if flags.readable() {
            mode |= 0o400;
        }
        if flags.writable() {
            mode |= 0o200;
        }
        // A cached name must not keep a file open: pipes and terminals wait for its end.
        let file = Arc::downgrade(&file);
        let lead = {
            let file = file.clone();
            Box::new(move || Ok(file.upgrade().ok_or(Errno::ENOENT)?.place().clone()))
        };
        let thread = Arc::downgrade(&thread);
        let text = Box::new(move |_: &mut dyn vfs::Caller| {
            let file = file.upgrade().ok_or(Errno::ENOENT)?;
            let thread = thread.upgrade().ok_or(Errno::ENOENT)?;
            Ok(file.place().path(&thread.fs().root()))
        });
        Some(Node::new(ino, mode, Some(process), Kind::Magic(text, lead)))
    }
    fn list(&self) -> Vec<(Vec<u8>, DirentType, u64)> {
        let Some(thread) = self.thread.as_ref().and_then(Weak::upgrade) else { return Vec::new() };
        let kind = if self.info { DirentType::Regular } else { DirentType::Symlink };
        let key = self.key ^ if self.info { 1 << 50 } else { 1 << 51 };
        thread
            .files()
            .list()
            .into_iter()
            .map(|(fd, _, _)| {
                let name = fd.to_string().into_bytes();
                let ino = ino_of(key, &name);
                (name, kind, ino)
            })
            .collect()
    }
    fn still(&self, _name: &[u8]) -> bool {
        false
    }
}
