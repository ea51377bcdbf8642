//! Where things lie in a stub and in the shared files.

/// First address of the shim's image.
pub const SHIM_VA: u64 = 0x7e00_0000_0000;
/// The control page, read only.
pub const CONTROL_VA: u64 = 0x7e00_1000_0000;
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
pub const SLOT_SIZE: u64 = 0x1_1000;
/// Offset of the data in a slot.
pub const DATA_OFFSET: u64 = 0x1000;
/// Bytes of data in a slot.
pub const DATA_SIZE: usize = 0x1_0000;
/// Slots are mapped and given out in batches.
pub const BATCH: usize = 16;
/// Most threads of one process.
pub const MAX_THREADS: usize = 4096;
/// Most slots of the sandbox: 32,768 processes of a batch each.
pub const MAX_SLOTS: usize = 524_288;

/// Descriptor of the slots' file in a stub.
pub const SLOTS_FD: i32 = 3;
/// Descriptor of the control file in a stub.
pub const CONTROL_FD: i32 = 4;
/// Descriptors for mapped files: this plus the thread's index in its process.
pub const FILE_FD: i32 = 200;

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
/// Size of the control file.
pub const CONTROL_SIZE: u64 = TRAMPOLINE_OFFSET + TRAMPOLINE_SIZE;

/// Number of the doorbell: argument 0 is the slot.
pub const NR_DOORBELL: u32 = 1000;
/// As the doorbell, after a fruitless spin.
pub const NR_PARK: u32 = 1001;
/// Trapped in the shim, to get a host signal frame.
pub const NR_RETRAP: u32 = 1002;
/// Trapped in the shim, to see how large the host's signal frames are.
pub const NR_MEASURE: u32 = 1003;
/// The host signal that interrupts guest code.
pub const SIG_INTERRUPT: i32 = 63;
