//! Who acts: user and group ids, capabilities, credentials.
#![forbid(unsafe_code)]
