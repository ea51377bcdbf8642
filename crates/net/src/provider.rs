//! Who makes the sockets of a family: the seam for other network stacks.

use std::sync::Arc;

use linux_abi::Errno;
use linux_abi::socket::AF_UNIX;
use parking_lot::RwLock;

use crate::Result;
use crate::socket::{Socket, SocketCaller};
use crate::unix::{Names, UnixSocket};

/// Makes sockets of one or more families.
pub trait Provider: Send + Sync {
    /// socket(2); `EAFNOSUPPORT` for families that are not its own.
    fn socket(
        &self,
        caller: &SocketCaller<'_>,
        family: u16,
        kind: u32,
        protocol: i32,
    ) -> Result<Arc<dyn Socket>>;
}

/// A network namespace of the guest.
#[derive(Default)]
pub struct Network {
    /// Names of local sockets.
    pub names: Arc<Names>,
    providers: RwLock<Vec<Arc<dyn Provider>>>,
}

impl Network {
    /// Adds a provider; the ones added first are asked first.
    pub fn add_provider(&self, provider: Arc<dyn Provider>) {
        self.providers.write().push(provider);
    }

    /// socket(2).
    pub fn socket(
        &self,
        caller: &SocketCaller<'_>,
        family: u16,
        kind: u32,
        protocol: i32,
    ) -> Result<Arc<dyn Socket>> {
        if family == AF_UNIX {
            return Ok(UnixSocket::new(&self.names, caller, kind, protocol)?);
        }
        let providers = self.providers.read().clone();
        for provider in providers {
            match provider.socket(caller, family, kind, protocol) {
                Err(Errno::EAFNOSUPPORT) => {}
                answer => return answer,
            }
        }
        Err(Errno::EAFNOSUPPORT)
    }
}
