//! Has the shim know paths that are asked for often, and lead to nothing or to no link: see `kernel::names`.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use linux_abi::Errno;
use linux_abi::fs::{S_IFDIR, S_IFREG};
use linux_abi::sysno::nr;
use platform::NameKind;
use vfs::names::Leads;

use crate::{Cx, SysError, SysResult};

/// The calls that the shim answers by that.
const CALLS: [u32; 10] = [
    nr::open,
    nr::stat,
    nr::lstat,
    nr::access,
    nr::readlink,
    nr::openat,
    nr::newfstatat,
    nr::readlinkat,
    nr::faccessat,
    nr::faccessat2,
];

/// Notes what a call has found at a path, if that was nothing.
pub(crate) fn found<T>(cx: &mut Cx<'_>, path: &[u8], result: SysResult<T>) -> SysResult<T> {
    if let Err(SysError::Errno(Errno::ENOENT | Errno::ENOTDIR)) = result {
        asked(cx, path);
    }
    result
}

/// A path was asked for that led to nothing, to no symbolic link where one was wanted, or to a file or directory.
pub(crate) fn asked(cx: &mut Cx<'_>, path: &[u8]) {
    let kernel = cx.kernel().clone();
    let table = &kernel.names;
    if path.first() != Some(&b'/') || path.len() > platform::MAX_NAME || !table.is_asked_again(path) {
        return;
    }
    let root = cx.fs().root();
    if !table.counts_for(&root) || !may_go_by(cx) {
        return;
    }
    // The first time to have changes told, the second to see what there is then.
    let Some((_, buckets)) = vfs::names::trace(&root, path, cx) else { return };
    let sum = kernel.platform.names_sum(buckets);
    let Some((leads, again)) = vfs::names::trace(&root, path, cx) else { return };
    if again != buckets {
        return;
    }
    let tell = |kind: NameKind<'_>| table.tell(&kernel.platform, path, kind, buckets, sum);
    match leads {
        Leads::Nowhere => tell(NameKind::Absent),
        Leads::NotDirectory => tell(NameKind::NotDirectory),
        Leads::To(place) => {
            let version = kernel.platform.files_version();
            let file = place.inode().ok().filter(|_| matches!(place.dentry.kind(), Some(S_IFREG | S_IFDIR)));
            match file.and_then(|inode| vfs::shown::look(&*inode)) {
                Some(known) => tell(NameKind::File(&crate::stat::render(&place, &known).0, version)),
                None => tell(NameKind::NoLink),
            }
        }
    }
}

/// Lets the thread's shim answer by what was told, unless each call is to be seen.
fn may_go_by(cx: &mut Cx<'_>) -> bool {
    let seen = |cx: &Cx<'_>| cx.thread.ptrace.is_active() || cx.thread.seccomp.is_active();
    if cx.local.names_told {
        return true;
    }
    if seen(cx) || CALLS.iter().any(|number| cx.kernel().config.sees(*number)) {
        return false;
    }
    cx.guest.set_names(true);
    // Who attaches, or sets a filter for all threads, makes that known before it has the shim forget.
    fence(Ordering::SeqCst);
    if seen(cx) {
        cx.guest.set_names(false);
        return false;
    }
    cx.local.names_told = true;
    true
}

/// The thread has another root directory, or mount namespace, and who shares it has, too.
pub(crate) fn root_changed(cx: &mut Cx<'_>) {
    cx.guest.set_names(false);
    cx.local.names_told = false;
    // The thread's own, and this one.
    if Arc::strong_count(&cx.fs()) > 2 {
        cx.kernel().names.stop();
    }
}
