//! The system call table, its handlers by subject, and the run loop of a guest thread.
#![forbid(unsafe_code)]
