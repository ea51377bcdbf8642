//! Reads and writes of host files without a copy between the file and what travels with a call.

use std::sync::Arc;

use vfs::{AtHostFile, OpenFile};

use crate::file_io::{At, IoVec};
use crate::patience::Patience;
use crate::{Cx, SysError, SysResult};

/// As `file_io::read_once`, from a host file to the answer in one step; none where that cannot be.
pub(crate) fn read_straight(
    cx: &mut Cx<'_>,
    file: &Arc<OpenFile>,
    vectors: &[IoVec],
    at: At,
    done: u64,
    size: usize,
    patience: &Patience,
) -> Option<SysResult<usize>> {
    let at_once = patience.is_at_once();
    let ops = file.ops();
    let [one] = vectors else { return None };
    if !ops.seekable() || done > 0 || file.shares_position() {
        return None;
    }
    let result = match at {
        At::Offset(pos) => {
            cx.guest.copy_out_file(one.base, size, |read| ops.read_host(file, pos, at_once, read))?
        }
        At::Position => {
            let mut pos = match patience.position(file) {
                Ok(pos) => pos,
                Err(err) => return Some(Err(err)),
            };
            let read_host = |read: &mut AtHostFile<'_>| {
                let found = ops.read_host(file, *pos, at_once, read)?;
                Some(found.and_then(|found| patience.whole(file, *pos, size, found)))
            };
            let result = cx.guest.copy_out_file(one.base, size, read_host)?;
            *pos = pos.saturating_add(*result.as_ref().unwrap_or(&0) as u64);
            result
        }
    };
    Some(result.map_err(SysError::from))
}

/// As `file_io::write_once`, from the request to a host file in one step; none where that cannot be.
pub(crate) fn write_straight(
    cx: &mut Cx<'_>,
    file: &Arc<OpenFile>,
    vectors: &[IoVec],
    at: At,
    done: u64,
    size: usize,
    (fsize, patience): (u64, &Patience),
) -> Option<SysResult<usize>> {
    let ops = file.ops();
    let [one] = vectors else { return None };
    if !ops.seekable() || size == 0 || done > 0 || file.shares_position() {
        return None;
    }
    let mut write = |pos: u64| {
        let end = pos.checked_add(size as u64).filter(|end| *end <= fsize);
        end.and_then(|_| {
            cx.guest.copy_in_file(one.base, size, |write| ops.write_host(file, size, pos, write))
        })
    };
    let result = match at {
        At::Offset(pos) => write(pos)?,
        At::Position => {
            let mut pos = match patience.position(file) {
                Ok(pos) => pos,
                Err(err) => return Some(Err(err)),
            };
            let result = write(*pos)?;
            *pos = pos.saturating_add(*result.as_ref().unwrap_or(&0) as u64);
            result
        }
    };
    Some(result.map_err(SysError::from))
}
