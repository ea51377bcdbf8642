//! Project chores: tidy, bench, images.
#![forbid(unsafe_code)]

fn main() {}
