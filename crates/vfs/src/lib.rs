//! Inodes, dentries, mounts, path walk and open files.
#![forbid(unsafe_code)]
