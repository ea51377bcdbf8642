//! Host directories through detached mount descriptors.
#![forbid(unsafe_code)]
