//! Which netlink requests guests may send: those that only ask (rtnetlink(7)).

use linux_abi::Errno;

use crate::Result;

/// Size of `struct nlmsghdr`.
const HEADER: usize = 16;

/// `EPERM` unless every message of the datagram is an `RTM_GET*` or empty. As in Linux the first malformed one ends
/// the datagram: what follows is not looked at.
pub(super) fn check(mut data: &[u8]) -> Result<()> {
    while data.len() >= HEADER {
        let length = data.first_chunk::<4>().map_or(0, |b| u32::from_ne_bytes(*b));
        let kind = data.get(4..).and_then(|b| b.first_chunk::<2>()).map_or(0, |b| u16::from_ne_bytes(*b));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length < HEADER || length > data.len() {
            return Ok(());
        }
        // Below 16 are control messages; from there on each object has NEW, DEL, GET, SET.
        let asks = kind < 16 || (kind - 16) % 4 == 2;
        if !asks {
            return Err(Errno::EPERM);
        }
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;
    use linux_abi::Errno;

    fn message(kind: u16, length: u32) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.resize(20, 0);
        bytes
    }

    #[test]
    fn only_questions_pass() {
        // RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE.
        for kind in [18, 22, 26] {
            assert_eq!(check(&message(kind, 20)), Ok(()));
        }
        // RTM_NEWLINK, RTM_DELROUTE, RTM_SETLINK; also behind a question.
        for kind in [16, 25, 19] {
            assert_eq!(check(&message(kind, 20)), Err(Errno::EPERM));
            assert_eq!(check(&[message(18, 20), message(kind, 20)].concat()), Err(Errno::EPERM));
        }
        // Linux does not get as far as the second one either.
        assert_eq!(check(&[message(18, 4), message(16, 20)].concat()), Ok(()));
    }
}
