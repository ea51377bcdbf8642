//! getsockopt(2), setsockopt(2) and ioctl(2) of TCP sockets.

use identity::Capability;
use linux_abi::Errno;
use linux_abi::socket::{AF_INET6, SOL_SOCKET, so};

use super::connection::{End, State};
use super::hold::SEGMENT;
use super::options::{IPV6_V6ONLY, SOL_TCP, TCP_NODELAY};
use super::tcp::{IPPROTO_TCP, Role, Shared, TcpSocket};
use crate::Result;
use crate::host::ADDRFORM;
use crate::socket::{Control, Socket, SocketCaller};

const FIONREAD: u32 = 0x541b;
const SIOCOUTQ: u32 = 0x5411;
const SIOCATMARK: u32 = 0x8905;
const SIOCOUTQNSD: u32 = 0x894b;

const TCP_MAXSEG: i32 = 2;
const TCP_INFO: i32 = 11;
/// `struct tcp_info` of Linux 6.x.
const TCP_INFO_SIZE: usize = 248;

/// Options whose effect a program sees on its bytes, and that only the host's sockets have.
fn host_only(level: i32, name: i32) -> bool {
    match level {
        SOL_SOCKET => {
            matches!(
                name,
                so::BINDTODEVICE
                    | so::BINDTOIFINDEX
                    | so::TIMESTAMP
                    | so::TIMESTAMPNS
                    | so::TIMESTAMPING
                    | so::TIMESTAMP_NEW
                    | so::TIMESTAMPNS_NEW
                    | so::TIMESTAMPING_NEW
                    | so::RXQ_OVFL
                    | so::PEEK_OFF
            )
        }
        // TCP_MD5SIG, TCP_INQ, TCP_MD5SIG_EXT
        SOL_TCP => matches!(name, 14 | 36 | 38),
        _ => false,
    }
}

/// Control messages of a send: only socket options count here, and none that TCP has is allowed.
pub(super) fn check_control(control: &mut Vec<Control>) -> Result<()> {
    let bad = |c: &Control| matches!(c, Control::Raw { level: SOL_SOCKET, .. });
    if control.iter().any(bad) {
        return Err(Errno::EINVAL);
    }
    control.clear();
    Ok(())
}

/// The ioctls that ask of the socket's bytes; none for any other.
pub(super) fn control(shared: &Shared, cmd: u32) -> Result<Option<usize>> {
    if !matches!(cmd, FIONREAD | SIOCOUTQ | SIOCATMARK | SIOCOUTQNSD) {
        return Ok(None);
    }
    match &*shared.role.read() {
        Role::Local { end, .. } => Ok(Some(match cmd {
            FIONREAD => end.unread(),
            SIOCATMARK => usize::from(end.at_mark()),
            SIOCOUTQNSD => end.held(),
            _ => end.unsent(),
        })),
        Role::Host => Ok(None),
        Role::Listening(_) if cmd != SIOCATMARK => Err(Errno::EINVAL),
        _ => Ok(Some(0)),
    }
}

fn int(value: i32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

impl TcpSocket {
    pub(super) fn get_option(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>> {
        let mut value = self.value(level, name, len)?;
        value.truncate(len);
        Ok(value)
    }

    fn value(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>> {
        let shared = &self.0;
        match (level, name) {
            (SOL_SOCKET, so::ERROR) => return Ok(int(self.take_error().map_or(0, Errno::raw))),
            (SOL_SOCKET, so::TYPE) => return Ok(int(linux_abi::socket::SOCK_STREAM.cast_signed())),
            (SOL_SOCKET, so::DOMAIN) => return Ok(int(i32::from(shared.family()))),
            (SOL_SOCKET, so::PROTOCOL) => return Ok(int(IPPROTO_TCP)),
            // A socket of the other family has none of these.
            (41, _) if shared.family() != AF_INET6 => return Err(Errno::EOPNOTSUPP),
            ADDRFORM => return Ok(int(i32::from(self.form()?))),
            (SOL_SOCKET, so::ZEROCOPY) => return Ok(int(shared.zerocopy.is_enabled().into())),
            _ => {}
        }
        let role = shared.role.read();
        match &*role {
            Role::Host => return shared.host()?.option(level, name, len),
            Role::Local { .. } if level == SOL_TCP && name == TCP_MAXSEG => return Ok(int(SEGMENT as i32)),
            Role::Local { end, .. } if level == SOL_TCP && name == TCP_INFO => return Ok(info(end)),
            Role::Local { .. } if level == SOL_SOCKET && matches!(name, so::SNDBUF | so::RCVBUF) => {
                let options = &shared.options.lock().options;
                let room = if name == so::SNDBUF { options.send_room() } else { options.receive_room() };
                return Ok(int(i32::try_from(room * 2).unwrap_or(i32::MAX)));
            }
            role if (level, name) == (SOL_SOCKET, so::ACCEPTCONN) => {
                return Ok(int(i32::from(matches!(role, Role::Listening(_)))));
            }
            _ => {}
        }
        drop(role);
        let kept = shared.options.lock().options.get(level, name);
        match kept {
            Some(value) => Ok(value),
            None => shared.host()?.option(level, name, len),
        }
    }

    pub(super) fn put_option(
        &self,
        caller: &SocketCaller<'_>,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<()> {
        let shared = &self.0;
        if level == SOL_SOCKET
            && matches!(name, so::SNDBUFFORCE | so::RCVBUFFORCE)
            && !caller.credentials.capable(Capability::NET_ADMIN)
        {
            return Err(Errno::EPERM);
        }
        if level == 41 && shared.family() != AF_INET6 {
            return Err(Errno::ENOPROTOOPT);
        }
        match (level, name) {
            (SOL_SOCKET, so::ZEROCOPY) => return shared.zerocopy.set(value),
            ADDRFORM => return self.change_form(caller, value),
            // Not once there is a port; the host knows of those alone that bind(2) has given.
            (41, IPV6_V6ONLY) if shared.has_port_inside() => return Err(Errno::EINVAL),
            _ => {}
        }
        if host_only(level, name) {
            if matches!(*shared.role.read(), Role::Local { .. }) {
                return Err(Errno::ENOPROTOOPT);
            }
            shared.host()?.set_option(caller, level, name, value)?;
            shared.options.lock().host_only = true;
            return Ok(());
        }
        let mut changed = shared.options.lock().options.clone();
        let kept = changed.set(level, name, value)?;
        match shared.made_host() {
            Some(host) => host.set_option(caller, level, name, value)?,
            None if kept => {}
            None => return shared.host()?.set_option(caller, level, name, value),
        }
        if !kept {
            return Ok(());
        }
        shared.options.lock().options = changed.clone();
        match &*shared.role.read() {
            Role::Local { end, .. } => {
                end.set_options(&changed);
                if (level, name) == (SOL_TCP, TCP_NODELAY) && value.iter().any(|byte| *byte != 0) {
                    end.push();
                }
            }
            Role::Listening(listener) => listener.set_options(changed),
            _ => {}
        }
        Ok(())
    }
}

/// `struct tcp_info`: what a connection over `lo` tells, as far as there is something like it here.
fn info(end: &End) -> Vec<u8> {
    let mut out = vec![0; TCP_INFO_SIZE];
    let mut put = |at: usize, value: u64, size: usize| {
        if let Some(to) = out.get_mut(at..at + size) {
            to.copy_from_slice(value.to_ne_bytes().get(..size).unwrap_or_default());
        }
    };
    let state: State = end.state();
    let (sent, received) = end.totals();
    let room = end.peer_room() as u64;
    // tcpi_state; tcpi_options: timestamps, SACK, window scaling; both scales; tcpi_delivery_rate_app_limited.
    put(0, state as u64, 1);
    put(5, 7, 1);
    put(6, 0xaa, 1);
    put(7, 1, 1);
    // tcpi_rto, tcpi_ato in µs, tcpi_snd_mss, tcpi_rcv_mss, tcpi_unacked in segments.
    put(8, 200_000, 4);
    put(12, 40_000, 4);
    put(16, 32_768, 4);
    put(20, 536, 4);
    put(24, end.unsent().saturating_sub(end.held()).div_ceil(SEGMENT) as u64, 4);
    // tcpi_pmtu, tcpi_rcv_ssthresh, tcpi_rtt, tcpi_rttvar in µs, tcpi_snd_ssthresh, tcpi_snd_cwnd, tcpi_advmss,
    // tcpi_reordering, tcpi_rcv_space.
    put(60, 65_535, 4);
    put(64, 65_495, 4);
    put(68, 20, 4);
    put(72, 10, 4);
    put(76, i32::MAX as u64, 4);
    put(80, 10, 4);
    put(84, 65_483, 4);
    put(88, 3, 4);
    put(96, 65_495, 4);
    // tcpi_pacing_rate: as much as fits into a round trip; tcpi_max_pacing_rate: no limit.
    put(104, 10 * 32_768 * 1_000_000 / 20, 8);
    put(112, u64::MAX, 8);
    // tcpi_bytes_acked (the client's with the SYN), tcpi_bytes_received, tcpi_segs_out, tcpi_segs_in: with acknowledgements.
    let (out_segments, in_segments) = (sent.1, received.1);
    put(120, sent.0 + u64::from(end.is_client()), 8);
    put(128, received.0, 8);
    put(136, out_segments + in_segments + 2, 4);
    put(140, out_segments + in_segments + 1, 4);
    // tcpi_notsent_bytes, tcpi_min_rtt, tcpi_data_segs_in, tcpi_data_segs_out.
    put(144, end.held() as u64, 4);
    put(148, 10, 4);
    put(152, in_segments, 4);
    put(156, out_segments, 4);
    // tcpi_delivered (with the SYN), tcpi_bytes_sent, tcpi_snd_wnd.
    put(192, out_segments + 1, 4);
    put(200, sent.0, 8);
    put(228, room, 4);
    out
}
