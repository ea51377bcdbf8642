//! Extended attributes (xattr(7)), few and small: sorted pairs.

use linux_abi::Errno;
use vfs::{Acl, Result, acl};

use crate::inode::TmpInode;

/// Names with values, sorted by name.
pub(crate) type Xattrs = Vec<(Box<[u8]>, Box<[u8]>)>;

/// Most bytes that one file's attributes take, so that a guest cannot fill this process.
const MOST: usize = 128 * 1024;
const CREATE: u32 = 1;
const REPLACE: u32 = 2;

/// Name spaces that a tmpfs keeps as they are; access control lists are its own matter.
fn kept(name: &[u8]) -> bool {
    [&b"user."[..], b"trusted.", b"security."].iter().any(|prefix| name.starts_with(prefix))
}

fn is_list(name: &[u8]) -> bool {
    name == acl::ACCESS || name == acl::DEFAULT
}

impl TmpInode {
    pub(crate) fn read_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        if !kept(name) && !is_list(name) {
            return Err(Errno::EOPNOTSUPP);
        }
        let xattrs = self.xattrs.lock();
        let found = xattrs.as_ref().and_then(|all| all.iter().find(|(key, _)| **key == *name));
        found.map(|(_, value)| value.to_vec()).ok_or(Errno::ENODATA)
    }

    pub(crate) fn write_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        if is_list(name) {
            return self.set_list(name, Acl::parse(value)?);
        }
        if !kept(name) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.store(name, value, flags)?;
        self.changed();
        Ok(())
    }

    fn store(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
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
        Ok(())
    }

    pub(crate) fn xattr_names(&self) -> Vec<Vec<u8>> {
        let xattrs = self.xattrs.lock();
        xattrs.iter().flat_map(|all| all.iter()).map(|(name, _)| name.to_vec()).collect()
    }

    pub(crate) fn drop_xattr(&self, name: &[u8]) -> Result<()> {
        if is_list(name) {
            return self.set_list(name, None);
        }
        if !kept(name) {
            return Err(Errno::EOPNOTSUPP);
        }
        if !self.erase(name) {
            return Err(Errno::ENODATA);
        }
        self.changed();
        Ok(())
    }

    /// Whether there was one.
    fn erase(&self, name: &[u8]) -> bool {
        let mut xattrs = self.xattrs.lock();
        let Some(all) = xattrs.as_mut() else { return false };
        let before = all.len();
        all.retain(|(key, _)| **key != *name);
        all.len() != before
    }

    /// The list of an attribute, if there is one.
    pub(crate) fn list(&self, name: &[u8]) -> Result<Option<Acl>> {
        let xattrs = self.xattrs.lock();
        let Some(all) = xattrs.as_ref() else { return Ok(None) };
        match all.iter().find(|(key, _)| **key == *name) {
            Some((_, value)) => Acl::parse(value),
            None => Ok(None),
        }
    }

    fn set_list(&self, name: &[u8], list: Option<Acl>) -> Result<()> {
        let access = name == acl::ACCESS;
        if !access && !self.is_directory() {
            return if list.is_some() { Err(Errno::EACCES) } else { Ok(()) };
        }
        match &list {
            // The mode says as much.
            Some(list) if access && list.is_minimal() => drop(self.erase(name)),
            Some(list) => self.store(name, &list.to_value(), 0)?,
            None => drop(self.erase(name)),
        }
        if let Some(list) = list.filter(|_| access) {
            let mut attributes = self.attributes.lock();
            attributes.mode = attributes.mode & !0o777 | list.mode();
        }
        self.changed();
        Ok(())
    }

    /// The mode was changed, and the list follows.
    pub(crate) fn follow_mode(&self, mode: u32) -> Result<()> {
        match self.list(acl::ACCESS)? {
            Some(list) => self.store(acl::ACCESS, &list.with_mode(mode).to_value(), 0),
            None => Ok(()),
        }
    }
}
