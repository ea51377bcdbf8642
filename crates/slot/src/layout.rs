//! Where things lie in a stub and in the shared files.

/// First address of the shim's image.
pub const SHIM_VA: u64 = 0x7e00_0000_0000;
/// The control page, read only.
pub const CONTROL_VA: u64 = 0x7e00_1000_0000;
/// Counts of what was posted, which all shims write: [`crate::Count`].
pub const COUNTS_VA: u64 = 0x7e00_1800_0000;
/// What is known of paths, read only: [`crate::names::Table`].
pub const NAMES_VA: u64 = 0x7e00_1c00_0000;
/// Trampolines of patched sites, read and execute.
pub const TRAMPOLINE_VA: u64 = 0x7e00_2000_0000;
/// Stacks of the shim, one per thread of the process.
pub const STACK_VA: u64 = 0x7e01_0000_0000;
/// Slots of the process, by index within the process.
pub const SLOT_VA: u64 = 0x7e02_0000_0000;
/// High halves from here to `PROTECTED_HI_END` (exclusive) are the shim's.
pub const PROTECTED_HI: u32 = 0x7dff;
/// High half from which on all is reserved: the filter rounds ends of ranges up, so that what the host puts
/// directly below the protected range could not be unmapped.
pub const RESERVED_HI: u32 = PROTECTED_HI - 1;
/// First high half that is the guest's again.
pub const PROTECTED_HI_END: u32 = 0x7e03;
/// The jump table of patched sites, read only, low so that a 7-byte jump reaches it.
pub const TABLE_VA: u64 = 0x6_0000;
/// Its size: 8 bytes per site.
pub const TABLE_SIZE: u64 = 0x1_0000;
/// Below this address memory is protected.
pub const PROTECTED_LOW: u64 = TABLE_VA + TABLE_SIZE;

/// Size of a shim stack.
pub const STACK_SIZE: u64 = 0x1_0000;
/// Size of a slot with its data.
pub const SLOT_SIZE: u64 = 0x3_9000;
/// Offset of the data in a slot.
pub const DATA_OFFSET: u64 = 0x1000;
/// Bytes of data in a slot.
pub const DATA_SIZE: usize = 0x1_0000;
/// Offset in a slot of an array of [`crate::Grant`]. From here on memory is used only by threads that post.
pub const GRANTS_OFFSET: u64 = DATA_OFFSET + DATA_SIZE as u64;
/// Bytes of that array.
pub const GRANTS_SIZE: usize = 0x4000;
/// Offset in a slot of the records of posted writes.
pub const POSTED_OFFSET: u64 = GRANTS_OFFSET + GRANTS_SIZE as u64;
/// Bytes of records of posted writes.
pub const POSTED_SIZE: usize = 0x4000;
/// Offset in a slot of the bytes that reads find there.
pub const PREFETCHED_OFFSET: u64 = POSTED_OFFSET + POSTED_SIZE as u64;
/// Bytes that reads find there.
pub const PREFETCHED_SIZE: usize = 0x2_0000;
/// Slots are mapped and given out in batches.
pub const BATCH: usize = 16;
/// Most threads of one process.
pub const MAX_THREADS: usize = 4096;
/// Most slots of the sandbox: 32,768 processes of a batch each.
pub const MAX_SLOTS: usize = 524_288;

/// Offset of the counts in the slots' file, behind the slots.
pub const COUNTS_OFFSET: u64 = MAX_SLOTS as u64 * SLOT_SIZE;
/// Bytes of an array of [`crate::Count`].
pub const COUNTS_SIZE: u64 = 0x4000;

/// Descriptor of the slots' file in a stub.
pub const SLOTS_FD: i32 = 3;
/// Descriptor of the control file in a stub.
pub const CONTROL_FD: i32 = 4;
/// First descriptor for files that stay in a stub while the guest has them open for reading.
pub const KEPT_FD: i32 = 8;
/// How many such descriptors there are.
pub const KEPT_FDS: usize = 32;
/// `MAP_*` of mmap(2) with which the filter lets the shim map those, and guests anonymous memory.
pub const MAP_KEPT: u64 =
    0x1 | 0x2 | 0x10 | 0x20 | 0x100 | 0x2000 | 0x4000 | 0x8000 | 0x1_0000 | 0x2_0000 | 0x4_0000 | 0x10_0000;
/// `MAP_FIXED`, `MAP_FIXED_NOREPLACE`
pub const MAP_FIXED_ANY: u64 = 0x10 | 0x10_0000;
/// Descriptors for files of one mapping each: this plus the thread's index in its process. Below 64 the host's table
/// of a process need not grow, for which its other threads would wait.
pub const FILE_FD: i32 = KEPT_FD + KEPT_FDS as i32;

/// Offset in the control page of a `struct sock_fprog` and, behind it, the program it names: the filter of processes
/// that show the calls which run natively elsewhere.
pub const SHOWING_OFFSET: u64 = 0x100;
/// Bytes of the `struct sock_fprog`.
pub const SHOWING_HEAD: u64 = 16;

/// Offset of the jump table in the control file.
pub const TABLE_OFFSET: u64 = 0x1_0000;
/// Offset of the trampolines in the control file.
pub const TRAMPOLINE_OFFSET: u64 = 0x10_0000;
/// Size of the trampolines.
pub const TRAMPOLINE_SIZE: u64 = 0x8_0000;
/// Bytes of one trampoline.
pub const TRAMPOLINE_STRIDE: u64 = 64;
/// Offset in a trampoline of the call that is made there, see `trampoline` of the platform.
pub const TRAMPOLINE_SYSCALL: u64 = 22;
/// Offset in a trampoline of the address behind the site.
pub const TRAMPOLINE_BACK: u64 = 32;
/// Offset in the control file of what is known of paths.
pub const NAMES_OFFSET: u64 = TRAMPOLINE_OFFSET + TRAMPOLINE_SIZE;
/// Bytes of that, rounded up.
pub const NAMES_SIZE: u64 = 0xc_1000;
/// Size of the control file.
pub const CONTROL_SIZE: u64 = NAMES_OFFSET + NAMES_SIZE;

/// Number of the doorbell: argument 0 is the slot.
pub const NR_DOORBELL: u32 = 1000;
/// As the doorbell, after a fruitless spin.
pub const NR_PARK: u32 = 1001;
/// Trapped in the shim, to get a host signal frame.
pub const NR_RETRAP: u32 = 1002;
/// Trapped in the shim, to see how large the host's signal frames are.
pub const NR_MEASURE: u32 = 1003;
/// Takes a file for mapping: argument 0 is the slot, 1 the descriptor, which is the result.
pub const NR_FETCH: u32 = 1004;
/// The host signal that interrupts guest code.
pub const SIG_INTERRUPT: i32 = 63;
