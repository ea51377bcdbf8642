//! A private writable layer above a read-only tree.
#![forbid(unsafe_code)]
