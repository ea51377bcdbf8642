//! POSIX access control lists: acl(5), in the form of the attributes `system.posix_acl_access` and
//! `system.posix_acl_default`.

use identity::Credentials;
use linux_abi::Errno;

use crate::{Metadata, Result};

/// The attribute of a file's own list.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute of the list that new files of a directory get.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

/// `POSIX_ACL_XATTR_VERSION`.
const VERSION: u32 = 2;
/// Bytes of an entry: tag, permissions, id.
const ENTRY: usize = 8;
/// Most entries that are taken, as many as an attribute holds.
const MOST: usize = crate::ops::xattr::SIZE_MAX / ENTRY;

/// Whom an entry is about; in the order in which they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    UserObj,
    User,
    GroupObj,
    Group,
    Mask,
    Other,
}

impl Tag {
    const ALL: [(Tag, u16); 6] = [
        (Tag::UserObj, 1),
        (Tag::User, 2),
        (Tag::GroupObj, 4),
        (Tag::Group, 8),
        (Tag::Mask, 0x10),
        (Tag::Other, 0x20),
    ];

    fn from_raw(raw: u16) -> Option<Tag> {
        Tag::ALL.iter().find(|(_, number)| *number == raw).map(|(tag, _)| *tag)
    }

    fn raw(self) -> u16 {
        Tag::ALL.iter().find(|(tag, _)| *tag == self).map_or(0, |(_, number)| *number)
    }

    fn has_id(self) -> bool {
        matches!(self, Tag::User | Tag::Group)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: Tag,
    /// `rwx`, three bits.
    allowed: u32,
    id: u32,
}

/// A list that is whole and in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<Entry>);

impl Acl {
    /// Of an attribute's value; none if it has no entries.
    ///
    /// # Errors
    /// `EINVAL` for what is no list, `EOPNOTSUPP` for another version.
    pub fn parse(value: &[u8]) -> Result<Option<Acl>> {
        let (version, mut rest) = value.split_first_chunk().ok_or(Errno::EINVAL)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Errno::EOPNOTSUPP);
        }
        if rest.len() % ENTRY != 0 || rest.len() / ENTRY > MOST {
            return Err(Errno::EINVAL);
        }
        let mut entries = Vec::with_capacity(rest.len() / ENTRY);
        while let Some(([t0, t1, p0, p1, id @ ..], after)) = rest.split_first_chunk::<ENTRY>() {
            let tag = Tag::from_raw(u16::from_le_bytes([*t0, *t1])).ok_or(Errno::EINVAL)?;
            let id = u32::from_le_bytes(*id);
            let allowed = u32::from(u16::from_le_bytes([*p0, *p1]));
            if allowed > 7 || tag.has_id() && id == u32::MAX {
                return Err(Errno::EINVAL);
            }
            entries.push(Entry { tag, allowed, id: if tag.has_id() { id } else { 0 } });
            rest = after;
        }
        let acl = Acl(entries);
        if acl.0.is_empty() {
            return Ok(None);
        }
        if acl.is_whole() { Ok(Some(acl)) } else { Err(Errno::EINVAL) }
    }

    /// In order, each entry that must be there once, a mask where somebody is named.
    fn is_whole(&self) -> bool {
        let ordered = self.0.windows(2).all(|pair| match pair {
            [a, b] => a.tag < b.tag || a.tag == b.tag && a.tag.has_id(),
            _ => true,
        });
        let has = |tag| self.0.iter().any(|entry| entry.tag == tag);
        let named = has(Tag::User) || has(Tag::Group);
        ordered && has(Tag::UserObj) && has(Tag::GroupObj) && has(Tag::Other) && (!named || has(Tag::Mask))
    }

    /// The attribute's value.
    pub fn to_value(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            value.extend_from_slice(&entry.tag.raw().to_le_bytes());
            value.extend_from_slice(&(entry.allowed as u16).to_le_bytes());
            let id = if entry.tag.has_id() { entry.id } else { u32::MAX };
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    /// Whether a mode says as much.
    pub fn is_minimal(&self) -> bool {
        !self.0.iter().any(|entry| entry.tag.has_id() || entry.tag == Tag::Mask)
    }

    /// The permission bits that a file with this list shows.
    pub fn mode(&self) -> u32 {
        let group = if self.get(Tag::Mask).is_some() { Tag::Mask } else { Tag::GroupObj };
        let bits = |tag| self.get(tag).unwrap_or(0);
        bits(Tag::UserObj) << 6 | bits(group) << 3 | bits(Tag::Other)
    }

    /// As chmod(2) leaves it.
    #[must_use]
    pub fn with_mode(&self, mode: u32) -> Acl {
        let mut acl = self.clone();
        acl.set_mode(mode, |_, new| new);
        acl
    }

    /// What a file made with `mode` gets of a directory's default list: its mode, and its own list where the
    /// mode does not say it all.
    pub fn inherit(&self, mode: u32) -> (u32, Option<Acl>) {
        let mut acl = self.clone();
        acl.set_mode(mode, |old, new| old & new);
        let mode = mode & !0o777 | acl.mode();
        (mode, (!acl.is_minimal()).then_some(acl))
    }

    fn get(&self, tag: Tag) -> Option<u32> {
        self.0.iter().find(|entry| entry.tag == tag).map(|entry| entry.allowed)
    }

    fn set_mode(&mut self, mode: u32, join: impl Fn(u32, u32) -> u32) {
        let group = if self.get(Tag::Mask).is_some() { Tag::Mask } else { Tag::GroupObj };
        for entry in &mut self.0 {
            let class = match entry.tag {
                Tag::UserObj => mode >> 6,
                tag if tag == group => mode >> 3,
                Tag::Other => mode,
                _ => continue,
            };
            entry.allowed = join(entry.allowed, class & 7);
        }
    }

    /// Whether it grants all of `want` to who does not own the file.
    pub(crate) fn permits(&self, cred: &Credentials, meta: &Metadata, want: u32) -> bool {
        let masked = |allowed: u32| allowed & self.get(Tag::Mask).unwrap_or(7) & want == want;
        let mut in_group = false;
        for entry in &self.0 {
            let group = match entry.tag {
                Tag::User if entry.id == cred.fsuid => return masked(entry.allowed),
                Tag::GroupObj => meta.gid,
                Tag::Group => entry.id,
                Tag::Other => return !in_group && entry.allowed & want == want,
                _ => continue,
            };
            if cred.in_group(group) {
                in_group = true;
                if entry.allowed & want == want {
                    return masked(entry.allowed);
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{Acl, Entry, Tag};
    use identity::{CapabilitySet, Credentials};
    use linux_abi::Errno;

    use crate::Metadata;

    fn acl(entries: &[(Tag, u32, u32)]) -> Acl {
        Acl(entries.iter().map(|&(tag, allowed, id)| Entry { tag, allowed, id }).collect())
    }

    /// `u::rw-,u:5:rwx,g::r--,g:7:-w-,m::rw-,o::---`
    fn example() -> Acl {
        acl(&[
            (Tag::UserObj, 6, 0),
            (Tag::User, 7, 5),
            (Tag::GroupObj, 4, 0),
            (Tag::Group, 2, 7),
            (Tag::Mask, 6, 0),
            (Tag::Other, 0, 0),
        ])
    }

    fn user(uid: u32, gid: u32) -> Credentials {
        let effective = CapabilitySet::EMPTY;
        Credentials { fsuid: uid, fsgid: gid, groups: Vec::new(), effective, ..Credentials::root() }
    }

    #[test]
    fn a_value_is_read_as_it_was_written() {
        let value = example().to_value();
        assert_eq!(value.len(), 52);
        assert_eq!(Acl::parse(&value).unwrap(), Some(example()));
        assert_eq!(Acl::parse(&[2, 0, 0, 0]), Ok(None));
        assert_eq!(Acl::parse(&[1, 0, 0, 0]), Err(Errno::EOPNOTSUPP));
        for end in [0, 3, 5, 11, 12, 20, 44] {
            assert_eq!(Acl::parse(&value[..end]), Err(Errno::EINVAL), "{end}");
        }
        let wrong = [
            acl(&[(Tag::UserObj, 6, 0), (Tag::Other, 0, 0), (Tag::GroupObj, 4, 0)]),
            acl(&[(Tag::UserObj, 6, 0), (Tag::User, 6, 1), (Tag::GroupObj, 4, 0), (Tag::Other, 0, 0)]),
            acl(&[(Tag::UserObj, 6, 0), (Tag::GroupObj, 4, 0), (Tag::GroupObj, 4, 0), (Tag::Other, 0, 0)]),
            acl(&[(Tag::UserObj, 8, 0), (Tag::GroupObj, 4, 0), (Tag::Other, 0, 0)]),
        ];
        for acl in wrong {
            assert_eq!(Acl::parse(&acl.to_value()), Err(Errno::EINVAL), "{acl:?}");
        }
    }

    #[test]
    fn the_first_entry_that_fits_decides_for_users_and_any_for_groups() {
        let meta = Metadata { uid: 1, gid: 2, ..Metadata::default() };
        let permits = |uid, gid, want| example().permits(&user(uid, gid), &meta, want);
        // The mask takes what is more.
        assert!(permits(5, 9, 6) && !permits(5, 9, 1));
        assert!(permits(6, 2, 4) && !permits(6, 2, 2));
        assert!(permits(6, 7, 2) && !permits(6, 7, 4));
        // Two groups do not add up.
        let both = Credentials { groups: vec![2, 7], ..user(6, 9) };
        assert!(!example().permits(&both, &meta, 6) && example().permits(&both, &meta, 2));
        assert!(!permits(6, 9, 4));
    }

    #[test]
    fn the_mode_is_the_mask() {
        assert_eq!(example().mode(), 0o660);
        assert_eq!(example().with_mode(0o415).mode(), 0o415);
        assert_eq!(example().with_mode(0o415).get(Tag::GroupObj), Some(4));
        assert_eq!(example().inherit(0o100755), (0o100640, Some(example().with_mode(0o640))));
        let minimal = acl(&[(Tag::UserObj, 7, 0), (Tag::GroupObj, 5, 0), (Tag::Other, 5, 0)]);
        assert_eq!(minimal.inherit(0o40777), (0o40755, None));
    }
}
