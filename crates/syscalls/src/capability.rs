//! capget(2), capset(2).

use identity::{CapabilitySet, Credentials};
use linux_abi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::args::Ptr;
use crate::{Cx, SysResult};

/// `struct __user_cap_header_struct`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_1: u32 = 0x1998_0330;
const VERSION_2: u32 = 0x2007_1026;
const VERSION_3: u32 = 0x2008_0522;

/// How many `Data` a version has; of an unknown one the header is told the version to use and the call fails.
fn words(cx: &mut Cx<'_>, at: Ptr, header: &Header) -> SysResult<usize> {
    match header.version {
        VERSION_1 => Ok(1),
        VERSION_2 | VERSION_3 => Ok(2),
        _ => {
            cx.write(at, &VERSION_3)?;
            Err(Errno::EINVAL.into())
        }
    }
}

/// capget(2).
pub fn capget(cx: &mut Cx<'_>, header_at: Ptr, data: Ptr) -> SysResult {
    let header: Header = cx.read(header_at)?;
    let words = match words(cx, header_at, &header) {
        Ok(words) => words,
        // A probe for the version.
        Err(crate::SysError::Errno(Errno::EINVAL)) if data.is_null() => return Ok(0),
        Err(err) => return Err(err),
    };
    if header.pid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let creds = match header.pid {
        0 => cx.credentials.clone(),
        pid if pid == cx.thread.tid() => cx.credentials.clone(),
        pid => cx.kernel().pids.thread(pid)?.credentials(),
    };
    if data.is_null() {
        return Ok(0);
    }
    let sets = [creds.effective, creds.permitted, creds.inheritable].map(|set| set.0);
    let [effective, permitted, inheritable] = sets;
    let low =
        Data { effective: effective as u32, permitted: permitted as u32, inheritable: inheritable as u32 };
    let high = Data {
        effective: (effective >> 32) as u32,
        permitted: (permitted >> 32) as u32,
        inheritable: (inheritable >> 32) as u32,
    };
    let all = [low, high];
    cx.write_bytes(data, all.get(..words).unwrap_or_default().as_bytes())?;
    Ok(0)
}

/// capset(2).
pub fn capset(cx: &mut Cx<'_>, header_at: Ptr, data: Ptr) -> SysResult {
    let header: Header = cx.read(header_at)?;
    let words = words(cx, header_at, &header)?;
    if header.pid != 0 && header.pid != cx.thread.tid() {
        return Err(Errno::EPERM.into());
    }
    let mut all = [Data::default(); 2];
    let wanted = all.get_mut(..words).ok_or(Errno::EINVAL)?;
    cx.guest.copy_in(data.0, wanted.as_mut_bytes())?;
    let [low, high] = all;
    let join =
        |low: u32, high: u32| CapabilitySet(u64::from(low) | u64::from(high) << 32).and(CapabilitySet::FULL);
    let new: Credentials = cx.credentials.set_capabilities(
        join(low.effective, high.effective),
        join(low.permitted, high.permitted),
        join(low.inheritable, high.inheritable),
    )?;
    crate::credentials::commit(cx, new);
    Ok(0)
}
