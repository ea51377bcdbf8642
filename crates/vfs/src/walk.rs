//! From a path to a place: path_resolution(7), openat2(2).

use std::sync::Arc;

use bitflags::bitflags;
use identity::Capability;
use linux_abi::Errno;
use linux_abi::fs::{NAME_MAX, PATH_MAX, S_IFDIR, S_IFLNK, S_ISVTX};

use crate::{Caller, Dentry, MountFlags, Place, Result, permission};

/// The most symbolic links of one walk.
const MAX_LINKS: u32 = 40;

bitflags! {
    /// How a path is walked.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct WalkFlags: u32 {
        /// A symbolic link at the end is followed.
        const FOLLOW = 1;
        /// The end must be a directory.
        const DIRECTORY = 2;
        /// An empty path names the start (`AT_EMPTY_PATH`).
        const EMPTY = 4;
        /// `RESOLVE_NO_XDEV`.
        const NO_XDEV = 8;
        /// `RESOLVE_NO_MAGICLINKS`.
        const NO_MAGICLINKS = 16;
        /// `RESOLVE_NO_SYMLINKS`.
        const NO_SYMLINKS = 32;
        /// `RESOLVE_BENEATH`.
        const BENEATH = 64;
        /// `RESOLVE_IN_ROOT`: the start is the root.
        const IN_ROOT = 128;
    }
}

/// How the last component looked, for who creates or removes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Last {
    /// A name in the parent.
    Name,
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// The path was `/` or ended in a magic link.
    Root,
}

/// The directory of a path's last component, and that component.
pub struct Parent {
    /// The directory.
    pub dir: Place,
    /// The last component, empty unless `last` is a name.
    pub name: Vec<u8>,
    /// What it is.
    pub last: Last,
    /// Slashes followed.
    pub slash: bool,
}

/// The same while the path is at hand.
struct Tail<'p> {
    dir: Place,
    name: &'p [u8],
    last: Last,
    slash: bool,
}

impl From<Tail<'_>> for Parent {
    fn from(tail: Tail<'_>) -> Parent {
        let name = if tail.last == Last::Name { tail.name.to_vec() } else { Vec::new() };
        Parent { dir: tail.dir, name, last: tail.last, slash: tail.slash }
    }
}

/// One walk. Where it starts and ends up depends on the calling thread alone.
pub struct Walker<'a> {
    /// The root directory of the caller.
    pub root: Place,
    /// Where a relative path starts.
    pub cwd: Place,
    /// Who walks: search permission, magic links.
    pub caller: &'a mut dyn Caller,
    /// How.
    pub flags: WalkFlags,
    links: u32,
}

impl<'a> Walker<'a> {
    /// A walk from these places.
    pub fn new(root: Place, cwd: Place, caller: &'a mut dyn Caller, flags: WalkFlags) -> Walker<'a> {
        let root = if flags.contains(WalkFlags::IN_ROOT) { cwd.clone() } else { root };
        Walker { root, cwd, caller, flags, links: 0 }
    }

    /// The place a path names; `ENOENT` if there is nothing.
    pub fn resolve(&mut self, path: &[u8]) -> Result<Place> {
        if path.is_empty() {
            if self.flags.contains(WalkFlags::EMPTY) {
                return Ok(self.cwd.clone());
            }
            return Err(Errno::ENOENT);
        }
        check_length(path)?;
        let tail = self.walk(self.cwd.clone(), path)?;
        self.end(tail)
    }

    /// The place of the last component, links followed as the flags say.
    pub fn finish(&mut self, parent: Parent) -> Result<Place> {
        let Parent { dir, name, last, slash } = parent;
        self.end(Tail { dir, name: &name, last, slash })
    }

    fn end(&mut self, tail: Tail<'_>) -> Result<Place> {
        let place = match tail.last {
            Last::Name => self.step_name(&tail.dir, tail.name)?,
            Last::Dot | Last::Root => tail.dir.clone(),
            Last::DotDot => self.step_up(&tail.dir)?,
        };
        let kind = place.dentry.kind().ok_or(Errno::ENOENT)?;
        // Only a name may have led to a link; a walk that ended in a magic link is over.
        let follow = self.flags.contains(WalkFlags::FOLLOW) || tail.slash;
        if kind == S_IFLNK && tail.last == Last::Name && follow {
            self.check_protected(&tail.dir, &place)?;
            return match self.follow(&tail.dir, &place)? {
                Followed::Place(place) => {
                    self.check_directory(&place, tail.slash)?;
                    Ok(place)
                }
                // At most MAX_LINKS deep.
                Followed::Text(dir, text) => {
                    let mut next = self.walk(dir, &text)?;
                    next.slash |= tail.slash;
                    self.end(next)
                }
            };
        }
        self.check_directory(&place, tail.slash)?;
        Ok(place)
    }

    /// fs.protected_symlinks (1): in a sticky directory that anybody may write, a link at the end of a path leads on
    /// only if it is one's own, or the directory's owner's.
    fn check_protected(&self, dir: &Place, link: &Place) -> Result<()> {
        const SHARED: u32 = S_ISVTX | 0o002;
        let above = dir.inode()?.metadata()?;
        if above.mode & SHARED != SHARED {
            return Ok(());
        }
        let uid = link.inode()?.metadata()?.uid;
        if uid == self.caller.credentials().fsuid || uid == above.uid { Ok(()) } else { Err(Errno::EACCES) }
    }

    fn check_directory(&self, place: &Place, slash: bool) -> Result<()> {
        let wanted = slash || self.flags.contains(WalkFlags::DIRECTORY);
        if wanted && place.dentry.kind() != Some(S_IFDIR) {
            return Err(Errno::ENOTDIR);
        }
        Ok(())
    }

    /// The directory of the last component of a path, which need not exist.
    pub fn resolve_parent(&mut self, path: &[u8]) -> Result<Parent> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        check_length(path)?;
        Ok(self.walk(self.cwd.clone(), path)?.into())
    }

    /// Follows a symbolic link at the end of a walk: the parent of what it names. For open(2), which may
    /// create what a dangling link names.
    pub fn follow_last(&mut self, parent: &Parent, link: &Place) -> Result<Parent> {
        self.check_protected(&parent.dir, link)?;
        match self.follow(&parent.dir, link)? {
            Followed::Place(dir) => {
                Ok(Parent { dir, name: Vec::new(), last: Last::Root, slash: parent.slash })
            }
            Followed::Text(dir, text) => {
                let mut next = Parent::from(self.walk(dir, &text)?);
                next.slash |= parent.slash;
                Ok(next)
            }
        }
    }

    /// All components but the last.
    fn walk<'p>(&mut self, start: Place, path: &'p [u8]) -> Result<Tail<'p>> {
        let mut dir = start;
        if path.first() == Some(&b'/') {
            if self.flags.contains(WalkFlags::BENEATH) {
                return Err(Errno::EXDEV);
            }
            dir = self.jump(&dir, self.root.clone())?;
        }
        let mut rest = path;
        loop {
            rest = skip_slashes(rest);
            let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            let slash = !after.is_empty();
            if skip_slashes(after).is_empty() {
                return self.last(dir, name, slash);
            }
            self.search(&dir)?;
            dir = self.step_into(dir, name)?;
            rest = after;
        }
    }

    fn last<'p>(&mut self, dir: Place, name: &'p [u8], slash: bool) -> Result<Tail<'p>> {
        let last = match name {
            b"" => return Ok(Tail { dir, name, last: Last::Root, slash: true }),
            b"." => Last::Dot,
            b".." => Last::DotDot,
            _ => Last::Name,
        };
        self.search(&dir)?;
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        Ok(Tail { dir, name, last, slash })
    }

    /// One component in the middle of a path.
    fn step_into(&mut self, dir: Place, name: &[u8]) -> Result<Place> {
        match name {
            b"." => return Ok(dir),
            b".." => return self.step_up(&dir),
            _ => {}
        }
        let dentry = self.child(&dir, name)?;
        let kind = dentry.kind().ok_or(Errno::ENOENT)?;
        if kind != S_IFLNK && !dentry.is_mountpoint() {
            return Ok(Place { mount: dir.mount, dentry });
        }
        let place = self.over(&dir, dentry)?;
        if place.dentry.kind().ok_or(Errno::ENOENT)? != S_IFLNK {
            return Ok(place);
        }
        match self.follow(&dir, &place)? {
            Followed::Place(place) => Ok(place),
            Followed::Text(start, text) => {
                let tail = self.walk(start, &text)?;
                match tail.last {
                    Last::Name => self.step_into(tail.dir, tail.name),
                    Last::DotDot => self.step_up(&tail.dir),
                    Last::Dot | Last::Root => Ok(tail.dir),
                }
            }
        }
    }

    /// A child, over what is mounted on it; it may be negative.
    pub fn step_name(&self, dir: &Place, name: &[u8]) -> Result<Place> {
        self.over(dir, self.child(dir, name)?)
    }

    /// A child that the caller sees; it may be negative.
    fn child(&self, dir: &Place, name: &[u8]) -> Result<Arc<Dentry>> {
        let dentry = child(dir, name)?;
        if dir.mount.hides()
            && let Some(inode) = dentry.inode_ref()
        {
            inode.show_to(self.caller, false)?;
        }
        Ok(dentry)
    }

    /// A child as a place, over what is mounted on it.
    fn over(&self, dir: &Place, dentry: Arc<Dentry>) -> Result<Place> {
        if !dentry.is_mountpoint() {
            return Ok(Place { mount: dir.mount.clone(), dentry });
        }
        let place = Place { mount: dir.mount.clone(), dentry }.cross_down();
        self.same_mount(dir, &place)?;
        Ok(place)
    }

    fn step_up(&self, dir: &Place) -> Result<Place> {
        if dir.same(&self.root) {
            return Ok(dir.clone());
        }
        if self.flags.contains(WalkFlags::BENEATH) && dir.same(&self.cwd) {
            return Err(Errno::EXDEV);
        }
        let place = dir.parent();
        self.same_mount(dir, &place)?;
        Ok(place)
    }

    fn jump(&self, from: &Place, to: Place) -> Result<Place> {
        self.same_mount(from, &to)?;
        Ok(to)
    }

    fn same_mount(&self, from: &Place, to: &Place) -> Result<()> {
        if self.flags.contains(WalkFlags::NO_XDEV) && from.mount.id() != to.mount.id() {
            return Err(Errno::EXDEV);
        }
        Ok(())
    }

    /// Search permission on a directory; `ENOTDIR`, `EACCES`.
    fn search(&self, dir: &Place) -> Result<()> {
        if dir.dentry.kind().ok_or(Errno::ENOENT)? != S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        if dir.mount.hides() {
            dir.dentry.inode_ref().ok_or(Errno::ENOENT)?.show_to(self.caller, true)?;
        }
        // Who may search every directory needs no attributes.
        let cred = self.caller.credentials();
        if cred.capable(Capability::DAC_READ_SEARCH) || cred.capable(Capability::DAC_OVERRIDE) {
            return Ok(());
        }
        let inode = dir.dentry.inode_ref().ok_or(Errno::ENOENT)?;
        permission::check_inode(cred, &**inode, permission::EXEC)
    }

    fn follow(&mut self, dir: &Place, link: &Place) -> Result<Followed> {
        self.links += 1;
        if self.links > MAX_LINKS || self.flags.contains(WalkFlags::NO_SYMLINKS) {
            return Err(Errno::ELOOP);
        }
        if link.mount.has(MountFlags::NOSYMFOLLOW) {
            return Err(Errno::ELOOP);
        }
        let inode = link.inode()?;
        if let Some(target) = inode.follow(self.caller) {
            if self.flags.intersects(WalkFlags::NO_MAGICLINKS) {
                return Err(Errno::ELOOP);
            }
            if self.flags.intersects(WalkFlags::BENEATH | WalkFlags::IN_ROOT) {
                return Err(Errno::EXDEV);
            }
            let target = target?;
            self.same_mount(link, &target)?;
            return Ok(Followed::Place(target));
        }
        let text = inode.readlink(self.caller)?;
        if text.is_empty() {
            return Err(Errno::ENOENT);
        }
        if text.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        Ok(Followed::Text(dir.clone(), text))
    }
}

/// Where a link led.
enum Followed {
    /// There (a magic link).
    Place(Place),
    /// This text is to be walked from this directory.
    Text(Place, Vec<u8>),
}

fn child(dir: &Place, name: &[u8]) -> Result<Arc<Dentry>> {
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    dir.dentry.child(name)
}

fn check_length(path: &[u8]) -> Result<()> {
    if path.len() >= PATH_MAX { Err(Errno::ENAMETOOLONG) } else { Ok(()) }
}

fn skip_slashes(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|b| *b != b'/').unwrap_or(path.len());
    path.get(start..).unwrap_or_default()
}
