//! File systems that show the kernel: proc, sys, dev, devpts, cgroup.
#![forbid(unsafe_code)]
