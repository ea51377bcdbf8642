//! Asynchronous input and output: io_setup(2). Contexts belong to an address space; requests under way are tasks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use parking_lot::Mutex;
use vfs::OpenFile;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Result;
use crate::eventfd::EventFd;

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[expect(missing_docs, reason = "named in io_getevents(2)")]
pub struct IoEvent {
    pub data: u64,
    pub obj: u64,
    pub res: i64,
    pub res2: i64,
}

/// Requests that all contexts of the sandbox were made for, and the most (/proc/sys/fs/aio-nr, aio-max-nr).
pub struct Quota {
    /// In use.
    pub used: AtomicU64,
    /// The most.
    pub most: AtomicU64,
}

impl Default for Quota {
    fn default() -> Quota {
        Quota { used: AtomicU64::new(0), most: AtomicU64::new(65536) }
    }
}

/// The contexts of an address space, by id.
#[derive(Default)]
pub struct Contexts(Mutex<BTreeMap<u64, Arc<Context>>>);

impl Drop for Contexts {
    fn drop(&mut self) {
        // The address space is gone: what waits for a file must not wait, and keep the file open, for ever.
        for context in self.0.get_mut().values() {
            context.destroy();
        }
    }
}

/// Contexts that one address space may have.
const MAX_CONTEXTS: usize = 4096;

impl Contexts {
    /// A context; `EINVAL`.
    pub fn get(&self, id: u64) -> Result<Arc<Context>> {
        self.0.lock().get(&id).cloned().ok_or(Errno::EINVAL)
    }
    /// Adds a context; `EAGAIN`.
    pub fn add(&self, id: u64, context: Arc<Context>) -> Result<()> {
        let mut all = self.0.lock();
        if all.len() >= MAX_CONTEXTS {
            return Err(Errno::EAGAIN);
        }
        all.insert(id, context);
        Ok(())
    }
    /// Takes a context out; `EINVAL`.
    pub fn remove(&self, id: u64) -> Result<Arc<Context>> {
        self.0.lock().remove(&id).ok_or(Errno::EINVAL)
    }
}

/// Called to end a request before its time.
type Cancel = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    done: VecDeque<IoEvent>,
    /// Under way, events not yet taken included.
    used: u32,
    running: u32,
    /// Requests begun so far: the number of the next one.
    begun: u64,
    /// Requests that can be cancelled by their number, with the address of their iocb, which may be in use twice.
    cancels: BTreeMap<u64, (u64, Cancel)>,
    destroyed: bool,
}

/// One context.
pub struct Context {
    most: u32,
    quota: Arc<Quota>,
    state: Mutex<State>,
    /// Woken when a request is done.
    pub queue: Arc<WaitQueue>,
}

impl Drop for Context {
    fn drop(&mut self) {
        self.quota.used.fetch_sub(u64::from(self.most), Ordering::Relaxed);
    }
}

impl Context {
    /// For so many requests at once; `EAGAIN` past the sandbox's quota.
    pub fn new(most: u32, quota: &Arc<Quota>) -> Result<Arc<Context>> {
        let used = quota.used.fetch_add(u64::from(most), Ordering::Relaxed);
        // From here on the drop gives it back.
        let context = Arc::new(Context {
            most,
            quota: quota.clone(),
            state: Mutex::default(),
            queue: Arc::new(WaitQueue::new()),
        });
        let fits = used.saturating_add(u64::from(most)) <= quota.most.load(Ordering::Relaxed);
        if fits { Ok(context) } else { Err(Errno::EAGAIN) }
    }

    /// Begins a request and numbers it; `EAGAIN` if there is no room for its event, `EINVAL` once destroyed.
    pub fn begin(&self) -> Result<u64> {
        let mut state = self.state.lock();
        if state.destroyed {
            return Err(Errno::EINVAL);
        }
        if state.used >= self.most {
            return Err(Errno::EAGAIN);
        }
        state.used += 1;
        state.running += 1;
        state.begun += 1;
        Ok(state.begun)
    }

    /// Takes a request back that could not be begun after all.
    pub fn abandon(&self) {
        let mut state = self.state.lock();
        state.used = state.used.saturating_sub(1);
        state.running = state.running.saturating_sub(1);
    }

    /// A request is done.
    pub fn finish(&self, number: u64, event: IoEvent, tell: Option<&Arc<OpenFile>>) {
        {
            let mut state = self.state.lock();
            state.cancels.remove(&number);
            state.running = state.running.saturating_sub(1);
            state.done.push_back(event);
        }
        if let Some(counter) = tell.and_then(|file| file.ops_as::<EventFd>()) {
            counter.signal(1);
        }
        self.queue.wake_all(Events::READABLE);
    }

    /// The request of this number and iocb can be ended by `cancel`.
    pub fn cancellable(&self, number: u64, iocb: u64, cancel: Cancel) {
        let mut state = self.state.lock();
        if !state.destroyed {
            state.cancels.insert(number, (iocb, cancel));
            return;
        }
        drop(state);
        cancel();
    }

    /// io_cancel(2): whether there was such a request.
    pub fn cancel(&self, iocb: u64) -> bool {
        let cancel = {
            let mut state = self.state.lock();
            let number = state.cancels.iter().find(|(_, (own, _))| *own == iocb).map(|(number, _)| *number);
            number.and_then(|number| state.cancels.remove(&number))
        };
        let Some((_, cancel)) = cancel else { return false };
        cancel();
        true
    }

    /// Takes up to `most` events into `out`.
    pub fn take(&self, most: usize, out: &mut Vec<IoEvent>) {
        let mut state = self.state.lock();
        let n = most.saturating_sub(out.len()).min(state.done.len());
        out.extend(state.done.drain(..n));
        state.used = state.used.saturating_sub(n as u32);
    }

    /// io_destroy(2): no request begins any more, those that can be are cancelled.
    pub fn destroy(&self) {
        let cancels = {
            let mut state = self.state.lock();
            state.destroyed = true;
            std::mem::take(&mut state.cancels)
        };
        for (_, cancel) in cancels.into_values() {
            cancel();
        }
        self.queue.wake_all(Events::READABLE);
    }

    /// Whether no request is under way.
    pub fn is_idle(&self) -> bool {
        self.state.lock().running == 0
    }
    /// Whether it was destroyed.
    pub fn is_destroyed(&self) -> bool {
        self.state.lock().destroyed
    }
}
