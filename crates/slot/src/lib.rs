//! The shared-memory contract between a guest thread's shim and the kernel process.
