//! Which netlink requests guests may send: those that only ask (rtnetlink(7)).

use linux_abi::Errno;

use crate::Result;

/// `EPERM` unless every message of the datagram is an `RTM_GET*` or empty; `EINVAL` for malformed ones.
pub(super) fn check(mut data: &[u8]) -> Result<()> {
    while !data.is_empty() {
        let length = data.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)?;
        let kind = data.get(4..6).and_then(|b| b.first_chunk::<2>()).ok_or(Errno::EINVAL)?;
        let kind = u16::from_ne_bytes(*kind);
        let length = usize::try_from(length).map_err(|_| Errno::EINVAL)?;
        if length < 16 || length > data.len() {
            return Err(Errno::EINVAL);
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
        assert_eq!(check(&message(18, 4)), Err(Errno::EINVAL));
        assert_eq!(check(&message(18, 64)), Err(Errno::EINVAL));
    }
}
