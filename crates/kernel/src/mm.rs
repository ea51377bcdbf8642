//! What the kernel remembers of an address space. The memory itself is the host's.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use platform::AddressSpace;
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
            aio: Default::default(),
            dumpable: std::sync::atomic::AtomicBool::new(true),
        }
    }

    /// A copy over another address space, as fork makes.
    pub fn fork(&self, space: Arc<AddressSpace>) -> Mm {
        let files = self.files.lock().clone();
        Mm {
            space,
            gap: self.gap.clone(),
            brk: Mutex::new(*self.brk.lock()),
            layout: RwLock::new(self.layout.read().clone()),
            exe: RwLock::new(self.exe.read().clone()),
            files: Mutex::new(files),
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

    /// Remembers a mapping of a file, dropping what it covers.
    pub fn note_file(&self, mapping: FileMapping) {
        let mut files = self.files.lock();
        files.retain(|m| m.start < mapping.start || m.end > mapping.end);
        let at = files.partition_point(|m| m.start < mapping.start);
        if files.len() < MAX_FILE_MAPPINGS {
            files.insert(at, mapping);
        }
    }
}
