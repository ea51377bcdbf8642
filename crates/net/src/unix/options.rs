//! Options of local sockets: socket(7), unix(7).

use identity::Capability;
use linux_abi::Errno;
use linux_abi::socket::{AF_UNIX, SOL_SOCKET, so};

use super::UnixSocket;
use crate::Result;
use crate::file::bool_option;
use crate::socket::{Socket, SocketCaller, Ucred, int_option};

/// Default of both buffers (/proc/sys/net/core/wmem_default).
const DEFAULT_BUFFER: usize = 212_992;
/// The most that SO_SNDBUF gives, before doubling (/proc/sys/net/core/wmem_max).
const MAX_BUFFER: usize = 212_992;
/// The most that SO_SNDBUFFORCE gives.
const MAX_FORCED_BUFFER: usize = 32 << 20;
const MIN_BUFFER: usize = 4608;

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) passcred: bool,
    pub(super) sndbuf: usize,
    pub(super) rcvbuf: usize,
    /// Kept for getsockopt only: they mean nothing to a local socket.
    reuseaddr: bool,
    broadcast: bool,
    keepalive: bool,
    priority: i32,
    linger: [i32; 2],
}

impl Default for Options {
    fn default() -> Options {
        Options {
            passcred: false,
            sndbuf: DEFAULT_BUFFER,
            rcvbuf: DEFAULT_BUFFER,
            reuseaddr: false,
            broadcast: false,
            keepalive: false,
            priority: 0,
            linger: [0, 0],
        }
    }
}

fn buffer_size(value: &[u8], max: usize) -> Result<usize> {
    // Linux doubles what is asked for, and takes a negative size for a huge one.
    let asked = usize::try_from(int_option(value)?).unwrap_or(max).min(max);
    Ok((asked * 2).max(MIN_BUFFER))
}

fn ucred_bytes(cred: Ucred) -> Vec<u8> {
    [cred.pid.to_ne_bytes(), cred.uid.to_ne_bytes(), cred.gid.to_ne_bytes()].concat()
}

impl UnixSocket {
    pub(super) fn get_option(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>> {
        if level != SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        let kind = self.kind();
        let mut state = self.0.state.lock();
        let options = &state.options;
        let value = match name {
            so::TYPE => i32::try_from(kind.1).unwrap_or(0),
            so::DOMAIN => i32::from(AF_UNIX),
            so::PROTOCOL => 0,
            so::ERROR => state.error.take().map_or(0, Errno::raw),
            so::ACCEPTCONN => i32::from(state.listener.is_some()),
            so::PASSCRED => i32::from(options.passcred),
            so::SNDBUF => i32::try_from(options.sndbuf).unwrap_or(i32::MAX),
            so::RCVBUF => i32::try_from(options.rcvbuf).unwrap_or(i32::MAX),
            so::REUSEADDR => i32::from(options.reuseaddr),
            so::BROADCAST => i32::from(options.broadcast),
            so::KEEPALIVE => i32::from(options.keepalive),
            so::PRIORITY => options.priority,
            so::RCVLOWAT | so::SNDLOWAT => 1,
            so::DEBUG | so::DONTROUTE | so::OOBINLINE | so::NO_CHECK | so::REUSEPORT | so::TIMESTAMP => 0,
            so::LINGER => {
                return Ok(options.linger.map(i32::to_ne_bytes).concat().into_iter().take(len).collect());
            }
            so::PEERCRED => {
                // Without a peer: pid 0, ids -1.
                let cred = state.peer_cred.unwrap_or(Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX });
                return Ok(ucred_bytes(cred).into_iter().take(len).collect());
            }
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(value.to_ne_bytes().into_iter().take(len).collect())
    }

    pub(super) fn put_option(
        &self,
        caller: &SocketCaller<'_>,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<()> {
        if level != SOL_SOCKET {
            return Err(Errno::EOPNOTSUPP);
        }
        let forced = matches!(name, so::SNDBUFFORCE | so::RCVBUFFORCE);
        if forced && !caller.credentials.capable(Capability::NET_ADMIN) {
            return Err(Errno::EPERM);
        }
        let max = if forced { MAX_FORCED_BUFFER } else { MAX_BUFFER };
        let mut state = self.0.state.lock();
        let options = &mut state.options;
        match name {
            so::PASSCRED => options.passcred = bool_option(value)?,
            so::SNDBUF | so::SNDBUFFORCE => options.sndbuf = buffer_size(value, max)?,
            so::RCVBUF | so::RCVBUFFORCE => options.rcvbuf = buffer_size(value, max)?,
            so::REUSEADDR => options.reuseaddr = bool_option(value)?,
            so::BROADCAST => options.broadcast = bool_option(value)?,
            so::KEEPALIVE => options.keepalive = bool_option(value)?,
            so::PRIORITY => options.priority = int_option(value)?,
            so::LINGER => {
                let on = int_option(value)?;
                options.linger = [on, int_option(value.get(4..).unwrap_or_default())?];
            }
            _ => return Err(Errno::ENOPROTOOPT),
        }
        let was_sndbuf = matches!(name, so::SNDBUF | so::SNDBUFFORCE);
        drop(state);
        if was_sndbuf {
            self.wait_queue().wake(executor::Events::WRITABLE);
        }
        Ok(())
    }
}
