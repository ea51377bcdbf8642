//! Who makes the sockets of a family: the seam for other network stacks.

use std::sync::Arc;

use linux_abi::Errno;
use linux_abi::socket::AF_UNIX;
use parking_lot::RwLock;
use vfs::Caller;

use crate::Result;
use crate::host::local::Outside;
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

    /// An ioctl(2) about network interfaces, made on a socket of another family; `ENOTTY`.
    fn interface_ioctl(&self, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64>;
}

/// A network namespace of the guest.
pub struct Network {
    /// Names of local sockets.
    pub names: Arc<Names>,
    providers: Arc<Providers>,
}

/// The providers, asked in the order they came.
#[derive(Default)]
pub(crate) struct Providers(RwLock<Vec<Arc<dyn Provider>>>);

impl Providers {
    fn list(&self) -> Vec<Arc<dyn Provider>> {
        self.0.read().clone()
    }
    /// The first answer that is not `ENOTTY`.
    pub(crate) fn interface_ioctl(&self, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        for provider in self.list() {
            match provider.interface_ioctl(caller, cmd, arg) {
                Err(Errno::ENOTTY) => {}
                answer => return answer,
            }
        }
        Err(Errno::ENOTTY)
    }
}

impl Default for Network {
    fn default() -> Network {
        let providers = Arc::new(Providers::default());
        Network { names: Arc::new(Names::new(providers.clone())), providers }
    }
}

impl Network {
    /// Says how unix(7) sockets of the host are reached, as far as they are granted. Once.
    pub fn set_outside(&self, outside: Outside) {
        self.names.set_outside(outside);
    }

    /// Adds a provider; the ones added first are asked first.
    pub fn add_provider(&self, provider: Arc<dyn Provider>) {
        self.providers.0.write().push(provider);
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
        for provider in self.providers.list() {
            match provider.socket(caller, family, kind, protocol) {
                Err(Errno::EAFNOSUPPORT) => {}
                answer => return answer,
            }
        }
        Err(Errno::EAFNOSUPPORT)
    }
}
