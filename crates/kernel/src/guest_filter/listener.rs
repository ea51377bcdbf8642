//! The listener of a filter: a process that is asked what becomes of calls. seccomp_unotify(2).
//!
//! A call that waits is in the listener's list until its thread takes it out again, whatever happens meanwhile: it is
//! announced, received, answered. Files that the listener hands to the caller are installed by the caller's own task.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use parking_lot::Mutex;
use vfs::{FileOps, OpenFile};

use super::Data;
use crate::Result;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It returns this, as it goes to the register.
    Value(i64),
    /// It is made.
    Made,
}

/// A call as the listener receives it.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Its id.
    pub id: u64,
    /// The thread that makes it.
    pub tid: i32,
    /// Number and arguments.
    pub data: Data,
}

/// A file for the caller, as `SECCOMP_IOCTL_NOTIF_ADDFD` hands it over.
pub struct Handed {
    /// The file.
    pub file: Arc<OpenFile>,
    /// The descriptor that it shall be; otherwise the lowest free one.
    pub at: Option<i32>,
    /// Closed on exec.
    pub cloexec: bool,
    /// The descriptor is the result of the call.
    pub answers: bool,
    done: OnceLock<Result<i32>>,
}

impl Handed {
    /// Not yet installed.
    pub fn new(file: Arc<OpenFile>, at: Option<i32>, cloexec: bool, answers: bool) -> Arc<Handed> {
        Arc::new(Handed { file, at, cloexec, answers, done: OnceLock::new() })
    }
    /// The descriptor, or why there is none, once it is known.
    pub fn done(&self) -> Option<Result<i32>> {
        self.done.get().copied()
    }
}

/// How far a call has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Announced,
    Received,
    Answered(Answer),
}

struct Call {
    id: u64,
    tid: i32,
    data: Data,
    stage: Stage,
    handed: VecDeque<Arc<Handed>>,
    /// Woken by what changes for its thread and for those who hand it files.
    queue: Arc<WaitQueue>,
}

struct State {
    calls: Vec<Call>,
    /// Calls that were announced and that nobody has asked for. One that was given up stays counted, as on Linux.
    announced: usize,
    next_id: u64,
    /// The descriptor is gone.
    closed: bool,
    /// No thread has the filter any more.
    abandoned: bool,
}

impl State {
    /// The call of this id; `ENOENT`.
    fn call(&mut self, id: u64) -> Result<&mut Call> {
        self.calls.iter_mut().find(|call| call.id == id).ok_or(Errno::ENOENT)
    }
    /// As `call`, if it was received and not answered; `EINPROGRESS`.
    fn open_call(&mut self, id: u64) -> Result<&mut Call> {
        let call = self.call(id)?;
        if call.stage == Stage::Received { Ok(call) } else { Err(Errno::EINPROGRESS) }
    }
}

/// Who is asked.
pub struct Listener {
    state: Mutex<State>,
    queue: Arc<WaitQueue>,
    /// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`: once received, a call is interrupted by death alone.
    killable: bool,
}

/// The open descriptor of a listener.
struct ListenerFile(Arc<Listener>);

impl Drop for ListenerFile {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl FileOps for ListenerFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        let state = self.0.state.lock();
        let any = |stage| state.calls.iter().any(|call| call.stage == stage);
        let mut events = Events::empty();
        events.set(Events::READABLE, any(Stage::Announced));
        events.set(Events::WRITABLE, any(Stage::Received));
        events.set(Events::HUP, state.abandoned);
        events
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.0.queue.clone())
    }
}

/// The listener behind an open file.
pub fn listener_of(file: &OpenFile) -> Option<Arc<Listener>> {
    file.ops_as::<ListenerFile>().map(|file| file.0.clone())
}

impl Listener {
    /// A listener and its descriptor, for one filter.
    pub fn new(killable: bool) -> (Arc<Listener>, Arc<OpenFile>) {
        let mut first = [0; 8];
        // Without it ids begin at 0, which harms nobody.
        let _ = rustix::rand::getrandom(&mut first, rustix::rand::GetRandomFlags::empty());
        let state = State {
            calls: Vec::new(),
            announced: 0,
            next_id: u64::from_ne_bytes(first),
            closed: false,
            abandoned: false,
        };
        let listener =
            Arc::new(Listener { state: Mutex::new(state), queue: Arc::new(WaitQueue::new()), killable });
        let ops = Arc::new(ListenerFile(listener.clone()));
        let file = OpenFile::anonymous(b"anon_inode:seccomp notify", 0o600, ops, OpenFlags::RDWR);
        (listener, file)
    }

    /// Whether somebody holds the descriptor.
    pub(super) fn is_open(&self) -> bool {
        !self.state.lock().closed
    }
    /// No thread has the filter any more.
    pub(super) fn abandon(&self) {
        self.state.lock().abandoned = true;
        self.queue.wake(Events::HUP);
    }
    /// Woken when a call comes, is received, and when the last thread with the filter is gone.
    pub fn queue(&self) -> &Arc<WaitQueue> {
        &self.queue
    }

    /// The descriptor is gone: who waits hears that there is no such call.
    fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for call in &mut state.calls {
            if !matches!(call.stage, Stage::Answered(_)) {
                call.stage = Stage::Answered(Answer::Value(Errno::ENOSYS.to_ret()));
                call.queue.wake_all(Events::IN);
            }
        }
    }

    /// Announces a call; none if nobody holds the descriptor.
    pub fn ask(self: &Arc<Listener>, tid: i32, data: Data) -> Option<Asked> {
        let queue = Arc::new(WaitQueue::new());
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        let id = state.next_id;
        state.next_id = id.wrapping_add(1);
        state.announced += 1;
        let (handed, stage) = (VecDeque::new(), Stage::Announced);
        state.calls.push(Call { id, tid, data, stage, handed, queue: queue.clone() });
        drop(state);
        self.queue.wake(Events::READABLE);
        Some(Asked { listener: self.clone(), id, queue })
    }

    /// `SECCOMP_IOCTL_NOTIF_RECV`: the oldest call that nobody has received. `EAGAIN` if none was announced; `ENOENT`
    /// if that one was given up meanwhile, or if none can come any more.
    pub fn receive(&self) -> Result<Received> {
        let mut state = self.state.lock();
        match state.announced.checked_sub(1) {
            Some(left) => state.announced = left,
            None if state.abandoned => {}
            None => return Err(Errno::EAGAIN),
        }
        let next = state.calls.iter_mut().find(|call| call.stage == Stage::Announced);
        let call = next.ok_or(Errno::ENOENT)?;
        call.stage = Stage::Received;
        let received = Received { id: call.id, tid: call.tid, data: call.data };
        drop(state);
        self.queue.wake(Events::WRITABLE);
        Ok(received)
    }

    /// What was received did not reach the listener: it can be received again.
    pub fn announce_again(&self, id: u64) {
        let mut state = self.state.lock();
        let Ok(call) = state.open_call(id) else { return };
        call.stage = Stage::Announced;
        // Its thread may be interrupted again.
        call.queue.wake_all(Events::IN);
        state.announced += 1;
        drop(state);
        self.queue.wake(Events::READABLE);
    }

    /// `SECCOMP_IOCTL_NOTIF_ID_VALID`: whether a call was received and waits for its answer.
    pub fn is_valid(&self, id: u64) -> bool {
        self.state.lock().open_call(id).is_ok()
    }

    /// `SECCOMP_IOCTL_NOTIF_SEND`. `ENOENT`: no such call; `EINPROGRESS`: it was not received, or is answered.
    pub fn answer(&self, id: u64, answer: Answer) -> Result<()> {
        let mut state = self.state.lock();
        let call = state.open_call(id)?;
        call.stage = Stage::Answered(answer);
        call.queue.wake_all(Events::IN);
        Ok(())
    }

    /// `SECCOMP_IOCTL_NOTIF_ADDFD`: hands a file to the caller; returns the queue that is woken when it is done. Errors
    /// as of `answer`, and `EBUSY` if it shall be the answer while others are under way.
    pub fn hand(&self, id: u64, handed: &Arc<Handed>) -> Result<Arc<WaitQueue>> {
        let mut state = self.state.lock();
        let call = state.open_call(id)?;
        if handed.answers {
            if !call.handed.is_empty() {
                return Err(Errno::EBUSY);
            }
            // Until it is installed; nobody else may answer.
            call.stage = Stage::Answered(Answer::Value(0));
        }
        call.handed.push_back(handed.clone());
        call.queue.wake_all(Events::IN);
        Ok(call.queue.clone())
    }

    /// Takes a file back that nobody has taken; false if somebody has, and is about to say what became of it.
    pub fn take_back(&self, id: u64, handed: &Arc<Handed>) -> bool {
        let mut state = self.state.lock();
        let Ok(call) = state.call(id) else { return false };
        let Some(at) = call.handed.iter().position(|other| Arc::ptr_eq(other, handed)) else { return false };
        call.handed.remove(at);
        if handed.answers {
            call.stage = Stage::Received;
        }
        true
    }
}

/// A call that its thread waits for. It is forgotten when this is dropped.
pub struct Asked {
    listener: Arc<Listener>,
    id: u64,
    queue: Arc<WaitQueue>,
}

/// What the thread does next.
pub enum Progress {
    /// Waits; `fatal_only`: what interrupts it is death alone.
    Wait {
        /// See above.
        fatal_only: bool,
    },
    /// Installs a file, and says what became of it.
    Install(Arc<Handed>),
    /// Goes on.
    Answered(Answer),
}

impl Asked {
    /// Woken when there is progress.
    pub fn queue(&self) -> &Arc<WaitQueue> {
        &self.queue
    }

    /// What comes next.
    pub fn progress(&self) -> Progress {
        let mut state = self.listener.state.lock();
        // Nobody else takes it out.
        let Ok(call) = state.call(self.id) else {
            return Progress::Answered(Answer::Value(Errno::ENOSYS.to_ret()));
        };
        match (call.handed.pop_front(), call.stage) {
            (Some(handed), _) => Progress::Install(handed),
            (None, Stage::Answered(answer)) => Progress::Answered(answer),
            (None, stage) => {
                Progress::Wait { fatal_only: self.listener.killable && stage == Stage::Received }
            }
        }
    }

    /// Says what became of a file.
    pub fn installed(&self, handed: &Handed, result: Result<i32>) {
        let mut state = self.listener.state.lock();
        if handed.answers
            && let Ok(call) = state.call(self.id)
        {
            call.stage = match result {
                Ok(fd) => Stage::Answered(Answer::Value(i64::from(fd))),
                // Another answer is wanted.
                Err(_) => Stage::Received,
            };
        }
        let _ = handed.done.set(result);
        drop(state);
        self.queue.wake_all(Events::IN);
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.listener.state.lock();
        let Some(at) = state.calls.iter().position(|call| call.id == self.id) else { return };
        let call = state.calls.remove(at);
        drop(state);
        for handed in &call.handed {
            let _ = handed.done.set(Err(Errno::ESRCH));
        }
        call.queue.wake_all(Events::IN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: Data = Data { nr: 39, ip: 0, args: [0; 6] };

    #[test]
    fn one_answer_and_no_forged_one() {
        let (listener, _file) = Listener::new(false);
        let asked = listener.ask(7, DATA).unwrap();
        assert_eq!(listener.answer(asked.id, Answer::Made), Err(Errno::EINPROGRESS));
        let received = listener.receive().unwrap();
        assert_eq!((received.id, received.tid), (asked.id, 7));
        assert_eq!(listener.receive().unwrap_err(), Errno::EAGAIN);
        assert_eq!(listener.answer(asked.id.wrapping_add(1), Answer::Made), Err(Errno::ENOENT));
        assert!(matches!(asked.progress(), Progress::Wait { fatal_only: false }));
        listener.answer(asked.id, Answer::Made).unwrap();
        assert_eq!(listener.answer(asked.id, Answer::Value(1)), Err(Errno::EINPROGRESS));
        assert!(matches!(asked.progress(), Progress::Answered(Answer::Made)));
        let id = asked.id;
        drop(asked);
        assert_eq!(listener.answer(id, Answer::Made), Err(Errno::ENOENT));
    }

    #[test]
    fn what_is_given_up_stays_counted() {
        let (listener, _file) = Listener::new(false);
        drop(listener.ask(7, DATA));
        assert_eq!(listener.receive().unwrap_err(), Errno::ENOENT);
        assert_eq!(listener.receive().unwrap_err(), Errno::EAGAIN);
    }

    #[test]
    fn nobody_listens_any_more() {
        let (listener, file) = Listener::new(true);
        let asked = listener.ask(7, DATA).unwrap();
        drop(file);
        let enosys = Answer::Value(Errno::ENOSYS.to_ret());
        assert!(matches!(asked.progress(), Progress::Answered(answer) if answer == enosys));
        assert!(listener.ask(8, DATA).is_none());
    }

    #[test]
    fn a_file_is_taken_back_or_installed() {
        let (listener, file) = Listener::new(true);
        let asked = listener.ask(7, DATA).unwrap();
        let id = listener.receive().unwrap().id;
        let handed = Handed::new(file.clone(), None, false, true);
        listener.hand(id, &handed).unwrap();
        assert_eq!(listener.answer(id, Answer::Made), Err(Errno::EINPROGRESS));
        assert!(listener.take_back(id, &handed));
        assert!(matches!(asked.progress(), Progress::Wait { fatal_only: true }));
        listener.hand(id, &handed).unwrap();
        assert!(matches!(asked.progress(), Progress::Install(_)));
        assert!(!listener.take_back(id, &handed));
        asked.installed(&handed, Ok(5));
        assert_eq!(handed.done(), Some(Ok(5)));
        assert!(matches!(asked.progress(), Progress::Answered(Answer::Value(5))));
    }
}
