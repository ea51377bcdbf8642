//! What shims know of paths: see `slot::names`.

use std::sync::atomic::{Ordering, fence};

use slot::names::{
    ABSENT, BUCKETS, KNOWN, LENGTH, MAX_PATH, NO_LINK, NOT_DIRECTORY, STAT_WORDS, Table, mix, place,
};

use crate::machine::Platform;

/// The longest path of which anything can be told, in bytes.
pub const MAX_NAME: usize = MAX_PATH - 1;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind<'a> {
    /// Nothing: `ENOENT`.
    Absent,
    /// Nothing, since it goes by something that is no directory: `ENOTDIR`.
    NotDirectory,
    /// Something that is no symbolic link.
    NoLink,
    /// A file or directory: its `struct stat`, and [`Platform::files_version`] from before it was looked at.
    File(&'a [u8], u64),
}

fn words(path: &[u8]) -> impl Iterator<Item = u64> {
    path.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(chunk) {
            *to = *from;
        }
        u64::from_ne_bytes(word)
    })
}

/// A number by which paths can be told apart, mostly.
pub fn name_hash(path: &[u8]) -> u64 {
    words(path).fold(0, mix)
}

impl Platform {
    fn names(&self) -> &Table {
        self.slots.names()
    }
    /// Directories that share these buckets (bits) have changed.
    pub fn names_changed(&self, buckets: u64) {
        let versions = self.names().versions.iter().enumerate();
        for (_, version) in versions.filter(|(bucket, _)| buckets >> bucket & 1 != 0) {
            version.fetch_add(1, Ordering::SeqCst);
        }
    }
    /// The sum of the versions of these buckets: before what depends on them is looked for.
    pub fn names_sum(&self, buckets: u64) -> u64 {
        let versions = self.names().versions.iter().enumerate();
        let chosen = versions.filter(|(bucket, _)| buckets >> bucket & 1 != 0);
        chosen.fold(0u64, |sum, (_, version)| sum.wrapping_add(version.load(Ordering::SeqCst)))
    }
    /// Tells all shims what an absolute path leads to, for as long as nothing changes in these buckets, whose sum was
    /// taken before. One caller at a time. Longer ones than [`MAX_NAME`] are left out.
    pub fn tell_name(&self, path: &[u8], kind: NameKind<'_>, buckets: u64, sum: u64) {
        if path.len() > MAX_NAME || path.contains(&0) {
            return;
        }
        let Some(name) = self.names().names.get(place(name_hash(path))) else { return };
        let sequence = name.sequence.load(Ordering::Relaxed);
        name.sequence.store(sequence | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        let what = match kind {
            NameKind::Absent => ABSENT,
            NameKind::NotDirectory => NOT_DIRECTORY,
            NameKind::NoLink => NO_LINK,
            NameKind::File(stat, files) if stat.len() == 8 * STAT_WORDS => {
                name.files.store(files, Ordering::Relaxed);
                name.stat.iter().zip(words(stat)).for_each(|(to, word)| to.store(word, Ordering::Relaxed));
                NO_LINK | KNOWN
            }
            NameKind::File(..) => NO_LINK,
        };
        name.what.store(what | path.len() as u32 & LENGTH, Ordering::Relaxed);
        name.mask.store(buckets, Ordering::Relaxed);
        name.sum.store(sum, Ordering::Relaxed);
        for (to, word) in name.path.iter().zip(words(path).chain(std::iter::repeat(0))) {
            to.store(word, Ordering::Relaxed);
        }
        name.sequence.store((sequence | 1).wrapping_add(1), Ordering::Release);
    }
}

const _: () = assert!(BUCKETS == u64::BITS as usize);
