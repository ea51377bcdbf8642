//! One sandbox: boots a kernel in a jailed process and answers its control socket.
#![forbid(unsafe_code)]
