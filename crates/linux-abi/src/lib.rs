//! Linux's own numbers: errno, system call numbers, flags and C structures of x86-64.
#![forbid(unsafe_code)]
