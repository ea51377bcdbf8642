//! Pipes and FIFOs: pipe(7), fifo(7).

mod buffer;
mod outside;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, S_IFIFO};
use parking_lot::Mutex;
use vfs::{AnonInode, Caller, Fasync, FileOps, Inode, OpenFile};

pub use buffer::{Buffer, PIPE_BUF};
pub use outside::OutsideFifo;

use crate::Result;

/// Capacity of a new pipe, in bytes.
pub const DEFAULT_CAPACITY: usize = 65_536;
/// The most that F_SETPIPE_SZ gives without `CAP_SYS_RESOURCE` (/proc/sys/fs/pipe-max-size).
pub const MAX_CAPACITY: usize = 1 << 20;
/// The most it gives at all.
const HARD_MAX_CAPACITY: usize = 1 << 26;
/// ioctl(2): bytes to read.
const FIONREAD: u32 = 0x541b;

struct State {
    buffer: Buffer,
    readers: usize,
    writers: usize,
    /// How often an end was opened: a FIFO's opener waits for the other count to move.
    readers_seen: u64,
    writers_seen: u64,
}

/// What lies between the two ends.
pub struct Pipe {
    state: Mutex<State>,
    queue: Arc<WaitQueue>,
}

impl Pipe {
    /// A pipe that nobody has open.
    pub fn new() -> Arc<Pipe> {
        Arc::new(Pipe {
            state: Mutex::new(State {
                buffer: Buffer::new(DEFAULT_CAPACITY),
                readers: 0,
                writers: 0,
                readers_seen: 0,
                writers_seen: 0,
            }),
            queue: Arc::new(WaitQueue::new()),
        })
    }

    /// Opens one or both ends.
    pub fn open(self: &Arc<Pipe>, read: bool, write: bool) -> PipeEnd {
        let mut state = self.state.lock();
        let end = PipeEnd {
            pipe: self.clone(),
            read,
            write,
            // A reader that came while nobody wrote sees no hang-up before the first writer has come and gone.
            quiet_until: if read && !write && state.writers == 0 { Some(state.writers_seen) } else { None },
        };
        if read {
            state.readers += 1;
            state.readers_seen += 1;
        }
        if write {
            state.writers += 1;
            state.writers_seen += 1;
        }
        drop(state);
        self.queue.wake(Events::all());
        end
    }

    /// Opens ends of a pipe that is no FIFO: a reader sees the hang-up at once if nobody writes.
    pub fn reopen(self: &Arc<Pipe>, read: bool, write: bool) -> PipeEnd {
        let mut end = self.open(read, write);
        end.quiet_until = None;
        end
    }

    /// Woken when bytes, room or ends come and go.
    pub fn queue(&self) -> &Arc<WaitQueue> {
        &self.queue
    }
    /// How many readers and writers have it open now.
    pub fn ends(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.readers, state.writers)
    }
    /// How often it was opened for reading and for writing.
    pub fn seen(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.readers_seen, state.writers_seen)
    }
    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.state.lock().buffer.len()
    }
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.state.lock().buffer.is_empty()
    }
    /// fcntl(F_GETPIPE_SZ).
    pub fn capacity(&self) -> usize {
        self.state.lock().buffer.capacity()
    }
    /// fcntl(F_SETPIPE_SZ): the size is rounded up to a power of two of pages. `EPERM` beyond the limit, `EBUSY` if
    /// more is in it.
    pub fn set_capacity(&self, size: usize, privileged: bool) -> Result<usize> {
        if size > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let rounded = size.max(PIPE_BUF).next_power_of_two();
        let mut state = self.state.lock();
        if rounded > state.buffer.capacity() {
            if rounded > MAX_CAPACITY && !privileged {
                return Err(Errno::EPERM);
            }
            if rounded > HARD_MAX_CAPACITY {
                return Err(Errno::ENOMEM);
            }
        }
        if !state.buffer.resize(rounded) {
            return Err(Errno::EBUSY);
        }
        drop(state);
        self.queue.wake(Events::WRITABLE);
        Ok(rounded)
    }

    /// Reads; 0 at the end (no writers), `EAGAIN` if empty.
    pub fn read(&self, buf: &mut [u8]) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut state = self.state.lock();
        if state.buffer.is_empty() {
            return if state.writers == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        let was_full = state.buffer.room() < PIPE_BUF;
        let n = state.buffer.pop(buf);
        drop(state);
        if was_full {
            self.queue.wake(Events::WRITABLE);
        }
        Ok(n)
    }

    /// Copies the first bytes without taking them; 0 at the end, `EAGAIN` if empty.
    pub fn peek(&self, buf: &mut [u8]) -> Result<usize> {
        let state = self.state.lock();
        if state.buffer.is_empty() && state.writers > 0 {
            return Err(Errno::EAGAIN);
        }
        Ok(state.buffer.peek(buf))
    }

    /// Puts bytes back that were read and could not be passed on (splice(2)).
    pub fn unread(&self, data: &[u8]) {
        if !data.is_empty() {
            self.state.lock().buffer.unpop(data);
            self.queue.wake(Events::READABLE);
        }
    }

    /// Room that a write has now, in bytes; `EPIPE` without readers, `EAGAIN` if full.
    pub fn room(&self) -> Result<usize> {
        let state = self.state.lock();
        if state.readers == 0 {
            return Err(Errno::EPIPE);
        }
        match state.buffer.room() {
            0 => Err(Errno::EAGAIN),
            room => Ok(room),
        }
    }

    /// Writes; `EPIPE` without readers, `EAGAIN` if it does not fit.
    pub fn write(&self, data: &[u8], packets: bool) -> Result<usize> {
        let mut state = self.state.lock();
        if state.readers == 0 {
            return Err(Errno::EPIPE);
        }
        if data.is_empty() {
            return Ok(0);
        }
        let n = if packets { state.buffer.push_packets(data) } else { state.buffer.push(data) };
        drop(state);
        if n == 0 {
            return Err(Errno::EAGAIN);
        }
        self.queue.wake(Events::READABLE);
        Ok(n)
    }
}

/// One end of a pipe, or both (a FIFO opened `O_RDWR`).
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    read: bool,
    write: bool,
    quiet_until: Option<u64>,
}

impl PipeEnd {
    /// The pipe.
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        if self.read {
            state.readers = state.readers.saturating_sub(1);
        }
        if self.write {
            state.writers = state.writers.saturating_sub(1);
        }
        drop(state);
        self.pipe.queue.wake(Events::all());
    }
}

impl FileOps for PipeEnd {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _file: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        self.pipe.read(buf)
    }
    fn unread(&self, data: &[u8]) {
        self.pipe.unread(data);
    }
    fn write(&self, file: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        self.pipe.write(buf, file.flags().contains(OpenFlags::DIRECT))
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        let state = self.pipe.state.lock();
        let mut events = Events::empty();
        if self.read {
            if !state.buffer.is_empty() {
                events |= Events::READABLE;
            }
            if state.writers == 0 && self.quiet_until != Some(state.writers_seen) {
                events |= Events::HUP;
            }
        }
        if self.write {
            if state.buffer.room() >= PIPE_BUF {
                events |= Events::WRITABLE;
            }
            if state.readers == 0 {
                events |= Events::ERR;
            }
        }
        events
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.pipe.queue.clone())
    }
    fn fasync(&self) -> Option<Fasync> {
        Some(Fasync::of(self.pipe.queue.clone()))
    }
    fn ioctl(&self, _file: &OpenFile, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        match cmd {
            FIONREAD => {
                let n = i32::try_from(self.pipe.len()).unwrap_or(i32::MAX);
                caller.write_memory(arg, &n.to_ne_bytes())?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }
}

/// A new pipe's reading and writing end, for a user and group. `flags`: `O_NONBLOCK`, `O_DIRECT`.
pub fn pair(owner: (u32, u32), flags: OpenFlags) -> (Arc<OpenFile>, Arc<OpenFile>) {
    let pipe = Pipe::new();
    let reader = pipe.reopen(true, false);
    let writer = pipe.open(false, true);
    let kept = flags & (OpenFlags::NONBLOCK | OpenFlags::DIRECT);
    let (mode, reading) = (S_IFIFO | 0o600, kept - OpenFlags::DIRECT);
    let read = OpenFile::anonymous_of(owner, b"pipe:", mode, Arc::new(reader), reading);
    if let Some(inode) = read.inode().as_any().downcast_ref::<AnonInode>() {
        inode.set_behind(pipe);
    }
    let place = read.place().clone();
    let write = OpenFile::new(place, read.inode().clone(), Arc::new(writer), kept | OpenFlags::WRONLY);
    (read, write)
}

/// The pipes of FIFOs that somebody has open, by device and inode number.
#[derive(Default)]
pub struct Fifos(Mutex<BTreeMap<(u64, u64), Weak<Pipe>>>);

impl Fifos {
    /// The pipe of a FIFO, a new one if nobody has it open; of a pipe reached through /proc, its own.
    pub fn get(&self, inode: &dyn Inode) -> Result<Arc<Pipe>> {
        let anonymous = inode.as_any().downcast_ref::<AnonInode>().and_then(AnonInode::behind);
        if let Some(Ok(pipe)) = anonymous.map(Arc::downcast::<Pipe>) {
            return Ok(pipe);
        }
        let meta = inode.metadata()?;
        let key = (meta.dev, meta.ino);
        let mut fifos = self.0.lock();
        if let Some(pipe) = fifos.get(&key).and_then(Weak::upgrade) {
            return Ok(pipe);
        }
        fifos.retain(|_, pipe| pipe.strong_count() > 0);
        let pipe = Pipe::new();
        fifos.insert(key, Arc::downgrade(&pipe));
        Ok(pipe)
    }
}
