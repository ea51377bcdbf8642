//! Extended attributes (xattr(7)), few and small: sorted pairs.

use linux_abi::Errno;
use vfs::Result;

use crate::inode::TmpInode;

/// Names with values, sorted by name.
pub(crate) type Xattrs = Vec<(Box<[u8]>, Box<[u8]>)>;

/// Most bytes that one file's attributes take, so that a guest cannot fill this process.
const MOST: usize = 128 * 1024;
const CREATE: u32 = 1;
const REPLACE: u32 = 2;

/// Name spaces that a tmpfs keeps; access control lists are not among them.
fn kept(name: &[u8]) -> bool {
    [&b"user."[..], b"trusted.", b"security."].iter().any(|prefix| name.starts_with(prefix))
}

impl TmpInode {
    pub(crate) fn read_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        if !kept(name) {
            return Err(Errno::EOPNOTSUPP);
        }
        let xattrs = self.xattrs.lock();
        let found = xattrs.as_ref().and_then(|all| all.iter().find(|(key, _)| **key == *name));
        found.map(|(_, value)| value.to_vec()).ok_or(Errno::ENODATA)
    }

    pub(crate) fn write_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        if !kept(name) {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut xattrs = self.xattrs.lock();
        let all = xattrs.get_or_insert_default();
        let place = all.binary_search_by(|(key, _)| (**key).cmp(name));
        match place {
            Ok(_) if flags & CREATE != 0 => return Err(Errno::EEXIST),
            Err(_) if flags & REPLACE != 0 => return Err(Errno::ENODATA),
            _ => {}
        }
        let used: usize = all.iter().map(|(key, value)| key.len() + value.len()).sum();
        if used + name.len() + value.len() > MOST {
            return Err(Errno::ENOSPC);
        }
        match place {
            Ok(at) => {
                if let Some((_, held)) = all.get_mut(at) {
                    *held = value.into();
                }
            }
            Err(at) => all.insert(at, (name.into(), value.into())),
        }
        drop(xattrs);
        self.changed();
        Ok(())
    }

    pub(crate) fn xattr_names(&self) -> Vec<Vec<u8>> {
        let xattrs = self.xattrs.lock();
        xattrs.iter().flat_map(|all| all.iter()).map(|(name, _)| name.to_vec()).collect()
    }

    pub(crate) fn drop_xattr(&self, name: &[u8]) -> Result<()> {
        if !kept(name) {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut xattrs = self.xattrs.lock();
        let all = xattrs.as_mut().ok_or(Errno::ENODATA)?;
        let before = all.len();
        all.retain(|(key, _)| **key != *name);
        if all.len() == before {
            return Err(Errno::ENODATA);
        }
        drop(xattrs);
        self.changed();
        Ok(())
    }
}
