//! One file in an interest list: an observer of the file's queue.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use executor::{Events, Key, Observer, WaitQueue};
use parking_lot::Mutex;
use vfs::OpenFile;

use super::{EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT, Epoll};

/// What is asked of a file.
#[derive(Clone, Copy, Debug)]
pub struct Interest {
    /// Events, and the `EPOLL*` flags in the high bits.
    pub events: u32,
    /// Given back with each event.
    pub data: u64,
}

impl Interest {
    /// The events alone, with those that are always told.
    fn wanted(self) -> Events {
        Events::from_bits_truncate(self.events) | Events::ALWAYS
    }
}

struct State {
    interest: Interest,
    /// `EPOLLONESHOT` has fired.
    disabled: bool,
    key: Option<Key>,
}

pub(super) struct Item {
    this: Weak<Item>,
    epoll: Weak<Epoll>,
    /// Weak, so that the item goes when the last descriptor is closed.
    file: Weak<OpenFile>,
    queue: Arc<WaitQueue>,
    pub(super) fd: i32,
    exclusive: bool,
    state: Mutex<State>,
    /// It is in the ready list.
    pub(super) listed: AtomicBool,
    removed: AtomicBool,
}

impl Item {
    pub(super) fn new(
        epoll: &Arc<Epoll>,
        fd: i32,
        file: &Arc<OpenFile>,
        queue: Arc<WaitQueue>,
        interest: Interest,
    ) -> Arc<Item> {
        let item = Arc::new_cyclic(|this| Item {
            this: this.clone(),
            epoll: Arc::downgrade(epoll),
            file: Arc::downgrade(file),
            queue,
            fd,
            exclusive: interest.events & EPOLLEXCLUSIVE != 0,
            state: Mutex::new(State { interest, disabled: false, key: None }),
            listed: AtomicBool::new(false),
            removed: AtomicBool::new(false),
        });
        item.listen();
        item
    }

    /// Takes its place in the file's queue, anew if it had one.
    fn listen(self: &Arc<Item>) {
        let mut state = self.state.lock();
        if let Some(key) = state.key.take() {
            self.queue.remove(key);
        }
        let wanted = state.interest.wanted();
        state.key = Some(self.queue.add(self.clone(), wanted, self.exclusive));
    }

    /// Leaves the file's queue for good.
    pub(super) fn remove(&self) {
        self.removed.store(true, Ordering::SeqCst);
        if let Some(key) = self.state.lock().key.take() {
            self.queue.remove(key);
        }
    }

    pub(super) fn modify(self: &Arc<Item>, interest: Interest) {
        {
            let mut state = self.state.lock();
            state.interest = interest;
            state.disabled = false;
        }
        self.listen();
    }

    pub(super) fn interest(&self) -> Interest {
        self.state.lock().interest
    }
    pub(super) fn is_exclusive(&self) -> bool {
        self.exclusive
    }
    /// The file, unless it is gone.
    pub(super) fn file(&self) -> Option<Arc<OpenFile>> {
        self.file.upgrade()
    }

    /// What is ready and asked for, looked up now; empty if gone or disabled.
    pub(super) fn ready(&self) -> Events {
        let wanted = {
            let state = self.state.lock();
            if state.disabled || self.removed.load(Ordering::SeqCst) {
                return Events::empty();
            }
            state.interest.wanted()
        };
        self.file().map_or(Events::empty(), |file| file.ops().poll(&file) & wanted)
    }

    /// Notes that an event was told. True if the item stays in the ready list (level-triggered).
    pub(super) fn told(&self) -> bool {
        let mut state = self.state.lock();
        if state.interest.events & EPOLLONESHOT != 0 {
            state.disabled = true;
            return false;
        }
        state.interest.events & EPOLLET == 0
    }
}

impl Observer for Item {
    fn notify(&self, _events: Events) -> bool {
        if self.removed.load(Ordering::SeqCst) || self.state.lock().disabled {
            return false;
        }
        let (Some(epoll), Some(this)) = (self.epoll.upgrade(), self.this.upgrade()) else { return false };
        epoll.list(this)
    }
}
