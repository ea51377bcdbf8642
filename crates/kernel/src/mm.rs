//! What the kernel remembers of an address space. The memory itself is the host's.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use platform::{AddressSpace, ThreadHandle};
use vfs::{Inode, OpenFile, Place};

/// The heap that brk(2) moves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Brk {
    /// Where it begins.
    pub start: u64,
    /// Where it ends now.
    pub current: u64,
}

/// Where exec put things, for /proc/PID/{cmdline,environ,auxv,stat}.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "named as in prctl(2) PR_SET_MM")]
pub struct Layout {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_stack: u64,
    pub stack_top: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
    pub auxv: Vec<(u64, u64)>,
}

/// A file that the guest mapped, so that /proc/PID/maps can give its guest name.
#[derive(Clone)]
pub struct FileMapping {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// Offset in the guest's file of `start`.
    pub offset: u64,
    /// The file's name.
    pub place: Place,
    /// The file. Not the open one: who has unmapped it natively has closed it all the same.
    pub inode: Arc<dyn Inode>,
}

impl FileMapping {
    /// A mapping of an open file.
    pub fn new(start: u64, end: u64, offset: u64, file: &OpenFile) -> FileMapping {
        FileMapping { start, end, offset, place: file.place().clone(), inode: file.inode().clone() }
    }
}

/// A mapping that a thread was told to make and tell the guest of by itself.
pub struct Unsettled {
    /// The thread.
    tid: i32,
    handle: Arc<ThreadHandle>,
    /// The mapping, as if it were at 0.
    mapping: FileMapping,
}

/// One guest address space: shared by threads and by a vfork child, copied by fork, new at exec.
pub struct Mm {
    /// The platform's side of it.
    pub space: Arc<AddressSpace>,
    /// What exec reserved so that libraries lie elsewhere in each program; no mapping of the guest's.
    pub gap: Range<u64>,
    /// The heap.
    pub brk: Mutex<Brk>,
    /// Where exec put things.
    pub layout: RwLock<Layout>,
    /// The program.
    pub exe: RwLock<Option<Arc<OpenFile>>>,
    /// Files mapped, in order of address; what was since unmapped natively may linger here, so it is only
    /// believed where the host's own maps show a file.
    pub files: Mutex<Vec<FileMapping>>,
    /// Mappings of files that are not known yet; at most one of each thread.
    pub unsettled: Mutex<Vec<Unsettled>>,
    /// Contexts of io_setup(2); a forked process has none.
    pub aio: crate::aio::Contexts,
    /// `PR_SET_DUMPABLE`.
    pub dumpable: std::sync::atomic::AtomicBool,
}

/// How many file mappings are remembered by name.
const MAX_FILE_MAPPINGS: usize = 65_536;

impl Mm {
    /// A new one, as exec makes, with the gap it reserved.
    pub fn new(space: Arc<AddressSpace>, gap: Range<u64>) -> Mm {
        Mm {
            space,
            gap,
            brk: Mutex::default(),
            layout: RwLock::default(),
            exe: RwLock::default(),
            files: Mutex::default(),
            unsettled: Mutex::default(),
            aio: Default::default(),
            dumpable: std::sync::atomic::AtomicBool::new(true),
        }
    }

    /// A copy over another address space, as fork makes.
    pub fn fork(&self, space: Arc<AddressSpace>) -> Mm {
        self.settle();
        let files = self.files.lock().clone();
        Mm {
            space,
            gap: self.gap.clone(),
            brk: Mutex::new(*self.brk.lock()),
            layout: RwLock::new(self.layout.read().clone()),
            exe: RwLock::new(self.exe.read().clone()),
            files: Mutex::new(files),
            unsettled: Mutex::default(),
            aio: Default::default(),
            dumpable: std::sync::atomic::AtomicBool::new(
                self.dumpable.load(std::sync::atomic::Ordering::Relaxed),
            ),
        }
    }

    /// Whether a mapping of the host is not the guest's: the shim, or the gap. `rights` are as in /proc/PID/maps; what the
    /// guest maps over the gap is its own.
    pub fn is_reserved(&self, start: u64, end: u64, rights: &str) -> bool {
        let gap = self.gap.contains(&start) && end <= self.gap.end && rights == "---p";
        gap || platform::is_reserved(start)
    }

    /// A thread, which waits for an answer, is about to map so many bytes of a file; where is learnt later.
    pub fn note_later(&self, tid: i32, handle: Arc<ThreadHandle>, length: u64, offset: u64, file: &OpenFile) {
        let mapping = FileMapping::new(0, length, offset, file);
        // First: others settle what has a result, and the last one is still there.
        handle.expect_native_result();
        self.unsettled.lock().push(Unsettled { tid, handle, mapping });
    }

    /// Remembers what threads have mapped since they were told to.
    pub fn settle(&self) {
        self.settle_those(|one| one.handle.native_result().is_some());
    }

    /// Remembers what a thread has mapped that has just come in.
    pub fn settle_of(&self, tid: i32) {
        self.settle_those(|one| one.tid == tid);
    }

    fn settle_those(&self, which: impl Fn(&Unsettled) -> bool) {
        let done: Vec<_> = self.unsettled.lock().extract_if(.., |one| which(one)).collect();
        for Unsettled { handle, mut mapping, .. } in done {
            let Some(start) = handle.native_result().and_then(|ret| u64::try_from(ret).ok()) else {
                continue;
            };
            // The guest's word.
            let Some(end) = start.checked_add(mapping.end).filter(|_| start.is_multiple_of(4096)) else {
                continue;
            };
            (mapping.start, mapping.end) = (start, end);
            self.note_file(mapping);
        }
    }

    /// Remembers a mapping of a file, instead of what it covers.
    pub fn note_file(&self, mapping: FileMapping) {
        cover(&mut self.files.lock(), mapping);
    }
}

fn cover(files: &mut Vec<FileMapping>, mapping: FileMapping) {
    let (start, end) = (mapping.start, mapping.end);
    // They are in order, and none lies over another: those that are covered lie side by side.
    let first = files.partition_point(|old| old.end <= start);
    let behind = files.partition_point(|old| old.start < end).max(first);
    let covered = files.get(first..behind).unwrap_or_default();
    let before = covered.first().filter(|old| old.start < start).map(|old| {
        let mut part = old.clone();
        part.end = start;
        part
    });
    let rest = covered.last().filter(|old| end < old.end).map(|old| {
        let mut part = old.clone();
        part.offset = old.offset.wrapping_add(end.wrapping_sub(old.start));
        part.start = end;
        part
    });
    drop(files.splice(first..behind, [before, Some(mapping), rest].into_iter().flatten()));
    files.truncate(MAX_FILE_MAPPINGS);
}

#[cfg(test)]
mod tests {
    use linux_abi::fs::OpenFlags;

    use super::{FileMapping, cover};

    #[test]
    fn a_mapping_takes_the_place_of_the_part_that_it_covers() {
        let (file, _) = crate::pipe::pair((0, 0), OpenFlags::empty());
        let of = |list: &[(u64, u64, u64)]| {
            let mut files = Vec::new();
            for (start, end, offset) in list {
                cover(&mut files, FileMapping::new(*start, *end, *offset, &file));
            }
            files.iter().map(|m| (m.start, m.end, m.offset)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[(10, 40, 0), (10, 20, 5)]), [(10, 20, 5), (20, 40, 10)]);
        assert_eq!(of(&[(10, 40, 0), (30, 40, 5)]), [(10, 30, 0), (30, 40, 5)]);
        assert_eq!(of(&[(10, 40, 7), (20, 30, 5)]), [(10, 20, 7), (20, 30, 5), (30, 40, 27)]);
        assert_eq!(
            of(&[(10, 20, 0), (20, 30, 1), (30, 50, 2), (15, 40, 9)]),
            [(10, 15, 0), (15, 40, 9), (40, 50, 12)]
        );
        assert_eq!(of(&[(10, 20, 0), (5, 25, 1), (25, 30, 2)]), [(5, 25, 1), (25, 30, 2)]);
    }
}
