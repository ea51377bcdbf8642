//! Open host directories: getdents(2) from a listing, with the host's own positions.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use linux_abi::fs::DirentType;
use parking_lot::Mutex;
use rustix::fs::{FileType, OFlags, RawDir, SeekFrom};
use vfs::{DirEntry, FileOps, OpenFile, Result, Whence};

use crate::errno;
use crate::inode::HostInode;
use crate::listing::Listing;

/// Bytes asked of the host at once.
const BUFFER: usize = 32 * 1024;

/// An open directory. It is read from a listing made at its start; if that would be too large, from a host
/// descriptor of its own, in which the host keeps the position.
pub(crate) struct OpenDirectory {
    inode: Arc<HostInode>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// As it was when it was last read from the start.
    listing: Option<Arc<Listing>>,
    /// Where a position is in the listing: the last one that was reached.
    reached: (u64, usize),
    host: Option<HostDirectory>,
}

struct HostDirectory {
    fd: OwnedFd,
    /// Where the host stands.
    position: u64,
}

impl HostDirectory {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.position = rustix::fs::seek(&self.fd, to).map_err(errno)?;
        Ok(self.position)
    }
}

impl State {
    fn host(&mut self, inode: &HostInode) -> Result<&mut HostDirectory> {
        if self.host.is_none() {
            let fd = inode.open_handle(OFlags::RDONLY | OFlags::DIRECTORY)?;
            self.host = Some(HostDirectory { fd, position: 0 });
        }
        self.host.as_mut().ok_or(linux_abi::Errno::EIO)
    }

    /// Reading begins anew.
    fn start(&mut self, inode: &HostInode) -> Result<()> {
        self.reached = (0, 0);
        self.listing = inode.known_listing();
        if self.listing.is_some() {
            return Ok(());
        }
        let changes = inode.before_listing();
        let host = self.host(inode)?;
        host.seek(SeekFrom::Start(0))?;
        let mut listing = Listing::new();
        let mut whole = true;
        read(host, inode, &mut |entry| {
            whole = listing.push(&entry);
            whole
        })?;
        // The host gives a few entries at a time.
        while whole
            && read(host, inode, &mut |entry| {
                whole = listing.push(&entry);
                whole
            })?
        {}
        if whole {
            let listing = listing.finish();
            inode.listed(&listing, changes);
            self.listing = Some(listing);
            self.host = None;
        }
        Ok(())
    }
}

impl OpenDirectory {
    pub(crate) fn new(inode: Arc<HostInode>) -> Result<OpenDirectory> {
        let mut state = State::default();
        // Only the host knows whether we may open it; the first time it is asked.
        if let Some(names) = &inode.names
            && !names.opened.load(Ordering::Relaxed)
        {
            state.host(&inode)?;
            names.opened.store(true, Ordering::Relaxed);
        }
        Ok(OpenDirectory { inode, state: Mutex::new(state) })
    }
}

/// Reads what the host gives at once; false at the end.
fn read(
    host: &mut HostDirectory,
    inode: &HostInode,
    sink: &mut dyn FnMut(DirEntry<'_>) -> bool,
) -> Result<bool> {
    let is_root = inode.is_root();
    let devices = inode.has_devices(&host.fd);
    let mut buffer = Vec::with_capacity(BUFFER);
    let mut entries = RawDir::new(&host.fd, buffer.spare_capacity_mut());
    let mut any = false;
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(errno)?;
        if !any {
            inode.attributes.accessed(inode.fs().strict_access);
        }
        any = true;
        let name = entry.file_name().to_bytes();
        let next = entry.next_entry_cookie();
        // Right once all that the host gave at once is used up.
        host.position = next;
        // What lies above the root is not the guest's to know.
        let ino = if is_root && name == b".." { inode.identity().ino } else { entry.ino() };
        let kind = match kind(entry.file_type()) {
            DirentType::Regular if devices => DirentType::Unknown,
            kind => kind,
        };
        if !sink(DirEntry { ino, next, kind, name }) {
            host.position = u64::MAX;
            return Ok(true);
        }
        if entries.is_buffer_empty() {
            return Ok(true);
        }
    }
    Ok(any)
}

impl FileOps for OpenDirectory {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn seekable(&self) -> bool {
        true
    }
    fn read(&self, _file: &OpenFile, _buf: &mut [u8], _pos: u64) -> Result<usize> {
        Err(linux_abi::Errno::EISDIR)
    }
    fn seek(&self, _file: &OpenFile, offset: i64, whence: Whence) -> Result<u64> {
        let to = match whence {
            Whence::End => SeekFrom::End(offset),
            _ => return Err(linux_abi::Errno::EINVAL),
        };
        self.state.lock().host(&self.inode)?.seek(to)
    }
    fn readdir(&self, _file: &OpenFile, pos: u64, sink: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<u64> {
        let mut state = self.state.lock();
        // To the start it is a rewinddir(3), which sees what is new.
        if pos == 0 {
            state.start(&self.inode)?;
        }
        if let Some(listing) = state.listing.clone() {
            let (reached, offset) = state.reached;
            let start = if reached == pos { Some(offset) } else { listing.find(pos) };
            if let Some(mut offset) = start {
                let mut position = pos;
                while let Some((entry, next)) = listing.at(offset) {
                    if !sink(entry) {
                        break;
                    }
                    (position, offset) = (entry.next, next);
                }
                state.reached = (position, offset);
                return Ok(position);
            }
        }
        let host = state.host(&self.inode)?;
        if pos != host.position {
            host.seek(SeekFrom::Start(pos))?;
        }
        let mut position = pos;
        read(host, &self.inode, &mut |entry| {
            let taken = sink(entry);
            if taken {
                position = entry.next;
            }
            taken
        })?;
        Ok(position)
    }
    fn fsync(&self, _file: &OpenFile, _data_only: bool) -> Result<()> {
        let mut state = self.state.lock();
        rustix::fs::fsync(&state.host(&self.inode)?.fd).map_err(errno)
    }
}

fn kind(kind: FileType) -> DirentType {
    match kind {
        FileType::RegularFile => DirentType::Regular,
        FileType::Directory => DirentType::Dir,
        FileType::Symlink => DirentType::Symlink,
        FileType::Fifo => DirentType::Fifo,
        FileType::Socket => DirentType::Socket,
        FileType::CharacterDevice => DirentType::Char,
        FileType::BlockDevice => DirentType::Block,
        _ => DirentType::Unknown,
    }
}
