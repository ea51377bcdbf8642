//! Sockets that are only on their way in messages to one another: nobody can receive them any more, so that they are
//! looked for and let go of, as Linux does (unix(7), `SCM_RIGHTS`).

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use vfs::OpenFile;

use super::inbox::Inbox;
use super::{State, UnixSocket};
use crate::file::SocketFile;

/// The local sockets in flight, by address. Held while one gets into a message or out of it; the locks of ends may be
/// held then, so that whoever holds this one only tries those.
static FLYING: Mutex<Flying> = Mutex::new(Flying { sockets: BTreeMap::new(), events: 0, kept: 0 });
/// Somebody collects.
static COLLECTING: AtomicBool = AtomicBool::new(false);

struct Flying {
    /// Each with how often it is in flight.
    sockets: BTreeMap<usize, (Weak<OpenFile>, usize)>,
    /// Sockets closed or sent since the last search.
    events: usize,
    /// Sockets that it found in use.
    kept: usize,
}

fn socket_of(file: &OpenFile) -> Option<&UnixSocket> {
    file.ops().as_any().downcast_ref::<SocketFile>()?.socket().as_any().downcast_ref()
}

fn key_of(file: &Arc<OpenFile>) -> usize {
    Arc::as_ptr(file).addr()
}

/// Files get into a message; whether local sockets are among them.
pub(super) fn fly(files: &[Arc<OpenFile>]) -> bool {
    let mut any = false;
    for file in files.iter().filter(|file| socket_of(file).is_some()) {
        let mut flying = FLYING.lock();
        flying.sockets.entry(key_of(file)).or_insert_with(|| (Arc::downgrade(file), 0)).1 += 1;
        any = true;
    }
    any
}

/// Files get out of a message, which is in no inbox any more.
pub(super) fn land(files: &[Arc<OpenFile>]) {
    for file in files.iter().filter(|file| socket_of(file).is_some()) {
        let mut flying = FLYING.lock();
        let key = key_of(file);
        if let Some((_, times)) = flying.sockets.get_mut(&key) {
            *times -= 1;
            if *times == 0 {
                flying.sockets.remove(&key);
            }
        }
    }
}

/// One in flight.
struct Node {
    file: Arc<OpenFile>,
    /// Somebody has it, or may get it.
    used: bool,
    /// How many messages hold it that were not found.
    missing: usize,
    /// The nodes that its messages hold.
    holds: Vec<usize>,
}

/// A socket was closed or sent: lets go of those in flight that nobody can get any more. The more are in use, the more
/// must happen before they are searched again.
pub(super) fn collect() {
    if COLLECTING.swap(true, Ordering::Acquire) {
        return;
    }
    // Dropped without the lock, as what they hold lands.
    let garbage = search();
    drop(garbage);
    COLLECTING.store(false, Ordering::Release);
}

fn search() -> (Vec<Node>, Vec<Inbox>) {
    let mut flying = FLYING.lock();
    flying.events += 1;
    if flying.sockets.is_empty() || flying.events.saturating_mul(8) < flying.kept {
        return Default::default();
    }
    flying.events = 0;
    let mut nodes = Vec::new();
    let mut places = HashMap::new();
    for (key, (file, times)) in &flying.sockets {
        if let Some(file) = file.upgrade() {
            places.insert(*key, nodes.len());
            // Messages have it, and we.
            let used = Arc::strong_count(&file) != times + 1;
            nodes.push(Node { file, used, missing: *times, holds: Vec::new() });
        }
    }
    for place in 0..nodes.len() {
        let Some(held) = nodes.get(place).and_then(|node| held_by(&node.file)) else {
            // What is busy is in use, and what it holds stays missing.
            if let Some(node) = nodes.get_mut(place) {
                node.used = true;
            }
            continue;
        };
        let holds: Vec<usize> = held.iter().filter_map(|key| places.get(key).copied()).collect();
        for held in &holds {
            if let Some(node) = nodes.get_mut(*held) {
                node.missing = node.missing.saturating_sub(1);
            }
        }
        if let Some(node) = nodes.get_mut(place) {
            node.holds = holds;
        }
    }
    let mut todo: Vec<usize> = (0..nodes.len()).collect();
    todo.retain(|place| nodes.get(*place).is_some_and(|node| node.used || node.missing > 0));
    for place in &todo {
        if let Some(node) = nodes.get_mut(*place) {
            node.used = true;
        }
    }
    while let Some(place) = todo.pop() {
        let holds = nodes.get_mut(place).map(|node| std::mem::take(&mut node.holds)).unwrap_or_default();
        for held in holds {
            if let Some(node) = nodes.get_mut(held).filter(|node| !node.used) {
                node.used = true;
                todo.push(held);
            }
        }
    }
    flying.kept = nodes.iter().filter(|node| node.used).count();
    let mut inboxes = Vec::new();
    for node in nodes.iter().filter(|node| !node.used) {
        let _ = with_inboxes(&node.file, |inbox| inboxes.push(std::mem::take(inbox)));
    }
    (nodes, inboxes)
}

/// The keys of all local sockets in messages that wait for a socket; none if it is busy.
fn held_by(file: &OpenFile) -> Option<Vec<usize>> {
    let mut held = Vec::new();
    with_inboxes(file, |inbox| {
        held.extend(inbox.files().filter(|file| socket_of(file).is_some()).map(key_of));
    })?;
    Some(held)
}

/// Its inbox, and those of connections that nobody has accepted.
fn with_inboxes(file: &OpenFile, mut work: impl FnMut(&mut Inbox)) -> Option<()> {
    let mut state = socket_of(file)?.0.state.try_lock()?;
    let State { inbox, listener, .. } = &mut *state;
    work(inbox);
    for end in listener.iter().flat_map(|listener| &listener.pending) {
        work(&mut end.state.try_lock()?.inbox);
    }
    Some(())
}
