//! Options of local sockets: socket(7), unix(7).

use std::sync::atomic::{AtomicU64, Ordering};

use identity::Capability;
use linux_abi::Errno;
use linux_abi::socket::{AF_UNIX, SOL_SOCKET, so};

use super::UnixSocket;
use crate::Result;
use crate::file::bool_option;
use crate::socket::{Socket, SocketCaller, Ucred, int_option};

/// Default of both buffers (/proc/sys/net/core/wmem_default).
pub(super) const DEFAULT_BUFFER: usize = 212_992;
/// The most that SO_SNDBUF gives, before doubling (/proc/sys/net/core/wmem_max).
const MAX_BUFFER: usize = 212_992;
/// The most that SO_SNDBUFFORCE gives.
const MAX_FORCED_BUFFER: usize = 32 << 20;
const MIN_BUFFER: usize = 4608;
/// Beyond the host's, which counts from 1.
static NEXT_COOKIE: AtomicU64 = AtomicU64::new(1 << 48);

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) passcred: bool,
    pub(super) passpidfd: bool,
    pub(super) sndbuf: usize,
    pub(super) rcvbuf: usize,
    /// `SO_RCVLOWAT`, which streams alone heed, in their receives and not in poll(2).
    pub(super) low_water: i32,
    /// Kept for getsockopt only: they mean nothing to a local socket.
    reuseaddr: bool,
    broadcast: bool,
    keepalive: bool,
    linger: [i32; 2],
    /// Time stamps with each message: `SO_TIMESTAMP`, or in nanoseconds (`SO_TIMESTAMPNS`).
    pub(super) stamps: Option<i32>,
    /// `SO_COOKIE`, 0 until somebody asks.
    cookie: u64,
    /// Numbers of options without effect on local sockets, by their place in [`NUMBERS`].
    numbers: [i32; NUMBERS.len()],
}

/// Options that are only kept: nothing is routed, dropped or polled here. With their defaults.
const NUMBERS: [(i32, i32); 9] = [
    (so::PRIORITY, 0),
    (so::DEBUG, 0),
    (so::DONTROUTE, 0),
    (so::OOBINLINE, 0),
    (so::NO_CHECK, 0),
    (so::RXQ_OVFL, 0),
    (so::BUSY_POLL, 0),
    (so::INCOMING_CPU, -1),
    (so::MARK, 0),
];

impl Default for Options {
    fn default() -> Options {
        Options {
            passcred: false,
            passpidfd: false,
            sndbuf: DEFAULT_BUFFER,
            rcvbuf: DEFAULT_BUFFER,
            low_water: 1,
            reuseaddr: false,
            broadcast: false,
            keepalive: false,
            linger: [0, 0],
            stamps: None,
            cookie: 0,
            numbers: NUMBERS.map(|(_, default)| default),
        }
    }
}

impl Options {
    /// Whether who reads a stream asks whose bytes they are.
    pub(super) fn tells_senders(&self) -> bool {
        self.passcred || self.passpidfd
    }

    /// What an accepted socket has of its listener.
    pub(super) fn inherit(&mut self, listener: &Options) {
        self.passcred = listener.passcred;
        self.passpidfd = listener.passpidfd;
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
        if name == so::ERROR {
            return Ok(self.take_error().map_or(0, Errno::raw).to_ne_bytes().into_iter().take(len).collect());
        }
        let mut state = self.0.state.lock();
        let options = &mut state.options;
        let value = match name {
            so::TYPE => i32::try_from(kind.1).unwrap_or(0),
            so::DOMAIN => i32::from(AF_UNIX),
            so::PROTOCOL => 0,
            so::ACCEPTCONN => i32::from(state.listener.is_some()),
            so::PASSCRED => i32::from(options.passcred),
            so::PASSPIDFD => i32::from(options.passpidfd),
            so::SNDBUF => i32::try_from(options.sndbuf).unwrap_or(i32::MAX),
            so::RCVBUF => i32::try_from(options.rcvbuf).unwrap_or(i32::MAX),
            so::REUSEADDR => i32::from(options.reuseaddr),
            so::BROADCAST => i32::from(options.broadcast),
            so::KEEPALIVE => i32::from(options.keepalive),
            so::RCVLOWAT => options.low_water,
            so::SNDLOWAT => 1,
            so::TIMESTAMP | so::TIMESTAMPNS => i32::from(options.stamps == Some(name)),
            // There are no shared ports, devices, filters or copies to be saved.
            so::REUSEPORT | so::LOCK_FILTER | so::ZEROCOPY => 0,
            so::PEEK_OFF => state.peek_offset.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX)),
            so::PEERGROUPS => {
                let identity = state.peer_identity.as_ref().ok_or(Errno::ENODATA)?;
                let bytes: Vec<u8> = identity.groups.iter().flat_map(|gid| gid.to_ne_bytes()).collect();
                return if bytes.len() > len { Err(Errno::ERANGE) } else { Ok(bytes) };
            }
            so::COOKIE => {
                if len < 8 {
                    return Err(Errno::EINVAL);
                }
                if options.cookie == 0 {
                    options.cookie = NEXT_COOKIE.fetch_add(1, Ordering::Relaxed);
                }
                return Ok(options.cookie.to_ne_bytes().to_vec());
            }
            so::LINGER => {
                return Ok(options.linger.map(i32::to_ne_bytes).concat().into_iter().take(len).collect());
            }
            so::PEERCRED => {
                // Without a peer: pid 0, ids -1.
                let none = Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
                let cred = state.peer_identity.as_ref().map_or(none, |identity| identity.cred);
                return Ok(ucred_bytes(cred).into_iter().take(len).collect());
            }
            _ => match NUMBERS.iter().zip(options.numbers).find(|((number, _), _)| *number == name) {
                Some((_, value)) => value,
                None => return Err(Errno::ENOPROTOOPT),
            },
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
            so::PASSPIDFD => options.passpidfd = bool_option(value)?,
            so::SNDBUF | so::SNDBUFFORCE => options.sndbuf = buffer_size(value, max)?,
            so::RCVBUF | so::RCVBUFFORCE => options.rcvbuf = buffer_size(value, max)?,
            so::RCVLOWAT => {
                let least = int_option(value)?;
                options.low_water = if least < 0 { i32::MAX } else { least.max(1) };
            }
            so::REUSEADDR => options.reuseaddr = bool_option(value)?,
            so::BROADCAST => options.broadcast = bool_option(value)?,
            so::KEEPALIVE => options.keepalive = bool_option(value)?,
            so::TIMESTAMP | so::TIMESTAMPNS => {
                let on = bool_option(value)?;
                if on || options.stamps == Some(name) {
                    options.stamps = on.then_some(name);
                }
            }
            so::PEEK_OFF => state.peek_offset = usize::try_from(int_option(value)?).ok(),
            so::REUSEPORT | so::ZEROCOPY if bool_option(value)? => return Err(Errno::EOPNOTSUPP),
            so::REUSEPORT | so::ZEROCOPY => {}
            so::PRIORITY
                if !(0..=6).contains(&int_option(value)?)
                    && !caller.credentials.capable(Capability::NET_ADMIN) =>
            {
                return Err(Errno::EPERM);
            }
            so::MARK if !caller.credentials.capable(Capability::NET_ADMIN) => return Err(Errno::EPERM),
            so::LINGER => {
                let on = int_option(value)?;
                options.linger = [on, int_option(value.get(4..).unwrap_or_default())?];
            }
            _ => {
                let value = int_option(value)?;
                let at = NUMBERS.iter().position(|(number, _)| *number == name).ok_or(Errno::ENOPROTOOPT)?;
                let flag =
                    matches!(name, so::DEBUG | so::DONTROUTE | so::OOBINLINE | so::NO_CHECK | so::RXQ_OVFL);
                if let Some(kept) = options.numbers.get_mut(at) {
                    *kept = if flag { i32::from(value != 0) } else { value };
                }
            }
        }
        let was_sndbuf = matches!(name, so::SNDBUF | so::SNDBUFFORCE);
        drop(state);
        self.pass_option_on(name);
        if was_sndbuf {
            self.wait_queue().wake(executor::Events::WRITABLE);
        }
        Ok(())
    }
}
