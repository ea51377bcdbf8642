//! Sockets: the socket layer and its providers.
#![forbid(unsafe_code)]
