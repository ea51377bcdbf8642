//! Options of TCP sockets that are kept here; the others are asked of a host socket.

use linux_abi::Errno;
use linux_abi::socket::{SOL_SOCKET, so};

use crate::Result;
use crate::socket::int_option;

pub(super) const SOL_TCP: i32 = 6;
pub(super) const TCP_NODELAY: i32 = 1;
pub(super) const TCP_CORK: i32 = 3;
pub(super) const TCP_DEFER_ACCEPT: i32 = 9;
const TCP_USER_TIMEOUT: i32 = 18;
const SOL_IPV6: i32 = 41;
pub(super) const IPV6_V6ONLY: i32 = 26;

/// /proc/sys/net/core/rmem_max, wmem_max.
const MAX_BUFFER: i32 = 212_992;
/// The most that SO_SNDBUFFORCE gives.
const MAX_FORCED: i32 = 32 << 20;
const MIN_SNDBUF: i32 = 4608;
const MIN_RCVBUF: i32 = 2304;
/// The defaults (tcp_wmem and tcp_rmem).
const SNDBUF: i32 = 16_384;
const RCVBUF: i32 = 131_072;
/// What a connection holds for each side if nobody asked for less: between Linux's default and what its automatic
/// growth leads to on loopback.
const AUTO_BUFFER: usize = 256 << 10;

/// How a value is taken.
#[derive(Clone, Copy)]
enum Form {
    /// 0 or 1.
    Flag,
    /// In this range; `EINVAL` outside.
    Range(i32, i32),
    /// Seconds until an unanswered packet is given up, rounded up to a sum of doubled steps.
    Retries,
    /// TCP_LINGER2: at most 120, -1 if negative.
    Linger2,
    /// SO_SNDBUF: doubled, at least so much.
    Buffer(i32),
    /// SO_RCVLOWAT: 0 is 1.
    LowWater,
}

/// Level, name, form and default.
type Spec = (i32, i32, Form, i32);

const SPECS: [Spec; 20] = [
    (SOL_SOCKET, so::REUSEADDR, Form::Flag, 0),
    (SOL_SOCKET, so::REUSEPORT, Form::Flag, 0),
    (SOL_SOCKET, so::KEEPALIVE, Form::Flag, 0),
    (SOL_SOCKET, so::OOBINLINE, Form::Flag, 0),
    (SOL_SOCKET, so::BROADCAST, Form::Flag, 0),
    (SOL_SOCKET, so::SNDBUF, Form::Buffer(MIN_SNDBUF), SNDBUF),
    (SOL_SOCKET, so::RCVBUF, Form::Buffer(MIN_RCVBUF), RCVBUF),
    (SOL_SOCKET, so::RCVLOWAT, Form::LowWater, 1),
    // Bytes are at the reader at once, unless they are corked.
    (SOL_TCP, TCP_NODELAY, Form::Flag, 0),
    (SOL_TCP, TCP_CORK, Form::Flag, 0),
    // TCP_KEEPIDLE, -INTVL, -CNT: the other end is never out of reach.
    (SOL_TCP, 4, Form::Range(1, 32_767), 7200),
    (SOL_TCP, 5, Form::Range(1, 32_767), 75),
    (SOL_TCP, 6, Form::Range(1, 127), 9),
    // TCP_SYNCNT
    (SOL_TCP, 7, Form::Range(1, 127), 6),
    (SOL_TCP, 8, Form::Linger2, 60),
    (SOL_TCP, TCP_DEFER_ACCEPT, Form::Retries, 0),
    // TCP_QUICKACK
    (SOL_TCP, 12, Form::Flag, 1),
    (SOL_TCP, TCP_USER_TIMEOUT, Form::Range(0, i32::MAX), 0),
    // TCP_NOTSENT_LOWAT: nothing stays unsent.
    (SOL_TCP, 25, Form::Range(i32::MIN, i32::MAX), 0),
    (SOL_IPV6, IPV6_V6ONLY, Form::Flag, 0),
];

/// Values that differ from the defaults.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    values: Vec<(u8, i32)>,
    /// `struct linger`.
    linger: Option<[i32; 2]>,
}

fn spec(level: i32, name: i32) -> Option<(u8, Spec)> {
    let at = SPECS.iter().position(|s| (s.0, s.1) == (level, name))?;
    Some((u8::try_from(at).ok()?, *SPECS.get(at)?))
}

/// TCP_DEFER_ACCEPT counts repeated packets, 1 s after the first and twice as long each time.
fn whole_retries(seconds: i32) -> i32 {
    let (mut total, mut step) = (1_i32, 1_i32);
    if seconds <= 0 {
        return 0;
    }
    for _ in 0..254 {
        if total >= seconds {
            break;
        }
        step = (step * 2).min(120);
        total = total.saturating_add(step);
    }
    total
}

impl Options {
    fn value(&self, level: i32, name: i32) -> i32 {
        let Some((index, spec)) = spec(level, name) else { return 0 };
        self.values.iter().find(|v| v.0 == index).map_or(spec.3, |v| v.1)
    }
    fn is_set(&self, level: i32, name: i32) -> bool {
        spec(level, name).is_some_and(|(index, _)| self.values.iter().any(|v| v.0 == index))
    }

    /// getsockopt(2); none if it is not kept here.
    pub(super) fn get(&self, level: i32, name: i32) -> Option<Vec<u8>> {
        if (level, name) == (SOL_SOCKET, so::LINGER) {
            return Some(self.linger.unwrap_or_default().map(i32::to_ne_bytes).concat());
        }
        spec(level, name)?;
        Some(self.value(level, name).to_ne_bytes().to_vec())
    }

    /// setsockopt(2); false if it is not kept here. `EINVAL`.
    pub(super) fn set(&mut self, level: i32, name: i32, value: &[u8]) -> Result<bool> {
        let (name, most) = match name {
            so::SNDBUFFORCE if level == SOL_SOCKET => (so::SNDBUF, MAX_FORCED),
            so::RCVBUFFORCE if level == SOL_SOCKET => (so::RCVBUF, MAX_FORCED),
            _ => (name, MAX_BUFFER),
        };
        if (level, name) == (SOL_SOCKET, so::LINGER) {
            let on = int_option(value)?;
            let seconds = int_option(value.get(4..).unwrap_or_default())?;
            self.linger = Some([i32::from(on != 0), seconds]);
            return Ok(true);
        }
        let Some((index, spec)) = spec(level, name) else { return Ok(false) };
        let value = int_option(value)?;
        let value = match spec.2 {
            Form::Flag => i32::from(value != 0),
            Form::Range(low, high) if (low..=high).contains(&value) => value,
            Form::Range(..) => return Err(Errno::EINVAL),
            Form::Retries => whole_retries(value),
            Form::Linger2 => value.clamp(-1, 120),
            // Linux takes a negative size for a huge one.
            Form::Buffer(least) => (if value < 0 { most } else { value.min(most) } * 2).max(least),
            Form::LowWater => {
                if value < 0 {
                    i32::MAX
                } else {
                    value.max(1)
                }
            }
        };
        match self.values.iter_mut().find(|v| v.0 == index) {
            Some(old) => old.1 = value,
            None => self.values.push((index, value)),
        }
        Ok(true)
    }

    /// All that was set, as a host socket takes it.
    pub(super) fn replay(&self) -> Vec<(i32, i32, Vec<u8>)> {
        let mut out: Vec<_> = (self.values.iter())
            .filter_map(|(index, value)| {
                let spec = SPECS.get(usize::from(*index))?;
                // The host doubles buffers itself.
                let value = if matches!(spec.2, Form::Buffer(_)) { value / 2 } else { *value };
                Some((spec.0, spec.1, value.to_ne_bytes().to_vec()))
            })
            .collect();
        if let Some(linger) = self.linger {
            out.push((SOL_SOCKET, so::LINGER, linger.map(i32::to_ne_bytes).concat()));
        }
        out
    }

    /// A value that is a number; 0 if it is not kept here.
    pub(super) fn number(&self, level: i32, name: i32) -> i32 {
        self.value(level, name)
    }
    /// What an accepted socket has of its listener's.
    pub(super) fn for_accepted(mut self) -> Options {
        if let Some((index, _)) = spec(SOL_TCP, TCP_DEFER_ACCEPT) {
            self.values.retain(|v| v.0 != index);
        }
        self
    }
    pub(super) fn reuses_address(&self) -> bool {
        self.value(SOL_SOCKET, so::REUSEADDR) != 0
    }
    pub(super) fn v6_only(&self) -> bool {
        self.value(SOL_IPV6, IPV6_V6ONLY) != 0
    }
    pub(super) fn urgent_inline(&self) -> bool {
        self.value(SOL_SOCKET, so::OOBINLINE) != 0
    }
    pub(super) fn corked(&self) -> bool {
        self.value(SOL_TCP, TCP_CORK) != 0
    }
    /// Milliseconds, 0 for none.
    pub(super) fn user_timeout(&self) -> u32 {
        self.value(SOL_TCP, TCP_USER_TIMEOUT).unsigned_abs()
    }
    /// Seconds that a connection without bytes is kept from accept(2), 0 for none.
    pub(super) fn deferral(&self) -> u32 {
        self.value(SOL_TCP, TCP_DEFER_ACCEPT).unsigned_abs()
    }
    pub(super) fn low_water(&self) -> usize {
        usize::try_from(self.value(SOL_SOCKET, so::RCVLOWAT)).unwrap_or(1)
    }
    /// close(2) throws away and resets (SO_LINGER of 0 seconds).
    pub(super) fn close_resets(&self) -> bool {
        self.linger.is_some_and(|[on, seconds]| on != 0 && seconds == 0)
    }
    /// Bytes that wait at most on the sender's side: half of what was asked for is bookkeeping in Linux.
    pub(super) fn send_room(&self) -> usize {
        self.room(so::SNDBUF)
    }
    /// The same on the receiver's side.
    pub(super) fn receive_room(&self) -> usize {
        self.room(so::RCVBUF)
    }
    fn room(&self, name: i32) -> usize {
        if self.is_set(SOL_SOCKET, name) {
            usize::try_from(self.value(SOL_SOCKET, name)).unwrap_or(0) / 2
        } else {
            AUTO_BUFFER
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Options, SOL_TCP, TCP_DEFER_ACCEPT};
    use linux_abi::Errno;
    use linux_abi::socket::{SOL_SOCKET, so};

    fn int(value: i32) -> [u8; 4] {
        value.to_ne_bytes()
    }

    #[test]
    fn values_are_taken_as_linux_takes_them() {
        let mut options = Options::default();
        let get = |o: &Options, level, name| {
            i32::from_ne_bytes(o.get(level, name).unwrap()[..4].try_into().unwrap())
        };
        for (asked, got) in [(1, 1), (2, 3), (5, 7), (10, 15), (30, 31), (60, 63), (100, 127), (0, 0)] {
            assert_eq!(options.set(SOL_TCP, TCP_DEFER_ACCEPT, &int(asked)), Ok(true));
            assert_eq!(get(&options, SOL_TCP, TCP_DEFER_ACCEPT), got);
        }
        assert_eq!(options.set(SOL_TCP, 4, &int(0)), Err(Errno::EINVAL));
        assert_eq!(get(&options, SOL_SOCKET, so::RCVBUF), 131_072);
        options.set(SOL_SOCKET, so::RCVBUF, &int(10_000)).unwrap();
        assert_eq!((get(&options, SOL_SOCKET, so::RCVBUF), options.receive_room()), (20_000, 10_000));
        assert_eq!(options.set(SOL_SOCKET, so::PEEK_OFF, &int(1)), Ok(false));
        options.set(SOL_SOCKET, so::LINGER, &[int(1), int(0)].concat()).unwrap();
        assert!(options.close_resets());
        let replayed = options.replay();
        assert!(replayed.contains(&(SOL_SOCKET, so::RCVBUF, int(10_000).to_vec())));
    }
}
