//! The control server: one small thread per connection.

use std::cell::Cell;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use control::{Channel, ChannelError, ErrorKind, ExitStatus, ProcessSpec, Reply, Request, SandboxState};
use rustix::net::SocketFlags;

use crate::home;
use crate::sandbox::{Sandbox, SandboxError, Stdio, Target};
use crate::start_hooks::StartHooks;

const SIGKILL: i32 = 9;
/// Connections need little stack: messages live on the heap.
const CONNECTION_STACK_BYTES: usize = 256 * 1024;
/// How long the end of the sandbox waits for those who wait for processes of `exec`, at most.
const CLIENTS_MOST: Duration = Duration::from_millis(500);
/// What the parents of those get to collect them.
const CLIENTS_COLLECTED: Duration = Duration::from_millis(20);

/// Called once, with the end of the first process.
pub(crate) type InitEnded = Box<dyn FnOnce(ExitStatus) + Send>;

/// Answers requests for one sandbox.
pub(crate) struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    sandbox: Arc<dyn Sandbox>,
    hooks: Option<StartHooks>,
    /// The root file system, to look `HOME` up.
    root: Option<OwnedFd>,
    init: Mutex<Init>,
    /// Processes of `exec` whose clients have not gone yet.
    awaited: Mutex<usize>,
    client_gone: Condvar,
}

/// How far the first process has come.
enum Init {
    Created(Option<InitEnded>),
    Running(i32),
    Stopped,
}

impl Server {
    /// A server that calls `ended` when the first process has ended.
    pub(crate) fn new(
        sandbox: Arc<dyn Sandbox>,
        hooks: Option<StartHooks>,
        root: Option<OwnedFd>,
        ended: InitEnded,
    ) -> Server {
        let init = Mutex::new(Init::Created(Some(ended)));
        let (awaited, client_gone) = (Mutex::default(), Condvar::new());
        Server { shared: Arc::new(Shared { sandbox, hooks, root, init, awaited, client_gone }) }
    }

    /// Lets those who wait for processes of `exec` end before the sandbox does. In a PID namespace of Linux the
    /// first process ends last, and engines count on it: dockerd forgets the others, and whoever waits for
    /// them, once the first one has ended.
    pub(crate) fn let_clients_go(&self) {
        let Ok(awaited) = self.shared.awaited.lock() else { return };
        if *awaited == 0 {
            return;
        }
        let gone = self.shared.client_gone.wait_timeout_while(awaited, CLIENTS_MOST, |awaited| *awaited > 0);
        drop(gone);
        thread::sleep(CLIENTS_COLLECTED);
    }

    /// Takes one connection from a non-blocking listener, if one waits.
    pub(crate) fn accept(&self, listener: BorrowedFd<'_>) {
        let Ok(socket) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC) else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        let spawned = thread::Builder::new()
            .name("control".into())
            .stack_size(CONNECTION_STACK_BYTES)
            .spawn(move || Connection::new(shared, socket).serve());
        if let Err(error) = spawned {
            tracing::warn!(%error, "cannot serve a control connection");
        }
    }
}

/// One client.
struct Connection {
    shared: Arc<Shared>,
    channel: Arc<Channel>,
    /// Serialises replies of the connection with notes of exits.
    sending: Arc<Mutex<()>>,
    /// Processes started here that have not ended: they die with the client.
    started: Arc<Mutex<Vec<i32>>>,
    /// How many were started here.
    awaited: Cell<usize>,
}

impl Connection {
    fn new(shared: Arc<Shared>, socket: OwnedFd) -> Connection {
        Connection {
            shared,
            channel: Arc::new(Channel::new(socket)),
            sending: Arc::new(Mutex::new(())),
            started: Arc::default(),
            awaited: Cell::new(0),
        }
    }

    fn serve(self) {
        loop {
            let (request, fds) = match self.channel.receive::<Request>() {
                Ok(received) => received,
                Err(ChannelError::Closed) => break,
                Err(error) => {
                    tracing::debug!(%error, "control connection");
                    break;
                }
            };
            if let Some(reply) = self.answer(request, fds) {
                self.reply(&reply);
            }
        }
        let left = self.started.lock().map(|mut pids| std::mem::take(&mut *pids)).unwrap_or_default();
        for pid in left {
            let _ = self.shared.sandbox.signal(Target::Process(pid), SIGKILL);
        }
        if let Ok(mut awaited) = self.shared.awaited.lock() {
            *awaited = awaited.saturating_sub(self.awaited.get());
            self.shared.client_gone.notify_all();
        }
    }

    fn reply(&self, reply: &Reply) {
        send(&self.channel, &self.sending, reply);
    }

    /// The reply, or nothing where it was sent already or comes later.
    fn answer(&self, request: Request, fds: Vec<OwnedFd>) -> Option<Reply> {
        let sandbox = &self.shared.sandbox;
        let result = match request {
            Request::State => Ok(Reply::State(self.shared.state())),
            Request::Start => {
                self.start();
                return None;
            }
            Request::Exec { process, preserved } => {
                return match self.exec(*process, preserved, fds) {
                    Ok(()) => None,
                    Err(error) => Some(failure(error)),
                };
            }
            Request::Signal { pid, signal, all } => {
                let target = match (all, pid) {
                    (true, _) => Target::All,
                    (false, Some(pid)) => Target::Process(pid),
                    (false, None) => Target::Init,
                };
                sandbox.signal(target, signal).map(|()| Reply::Done)
            }
            Request::SignalGroup { signal } => sandbox.signal(Target::Group, signal).map(|()| Reply::Done),
            Request::AwaitStop => {
                let (channel, sending) = (Arc::clone(&self.channel), Arc::clone(&self.sending));
                let notify = move |signal| send(&channel, &sending, &Reply::Stopped(signal));
                return sandbox.on_stop(Box::new(notify)).err().map(failure);
            }
            Request::WindowSize { pid, size } => {
                let target = pid.map_or(Target::Init, Target::Process);
                sandbox.window_size(target, size).map(|()| Reply::Done)
            }
            Request::Processes => Ok(Reply::Processes(sandbox.processes())),
            Request::Stats => Ok(Reply::Stats(sandbox.stats())),
            Request::Limits(limits) => {
                sandbox.set_limits(&limits);
                Ok(Reply::Done)
            }
            Request::Wait { pid } => {
                return match self.wait(pid) {
                    Ok(()) => None,
                    Err(error) => Some(failure(error)),
                };
            }
        };
        Some(result.unwrap_or_else(failure))
    }

    /// Each way out answers first: the container may end, and this process
    /// with it, as soon as the first process runs or is known to fail.
    fn start(&self) {
        let mut init = match self.shared.init() {
            Ok(init) => init,
            Err(error) => return self.reply(&failure(error)),
        };
        let Init::Created(ended) = &mut *init else {
            return self.reply(&failure(SandboxError::new(
                ErrorKind::State,
                "cannot start an already running container",
            )));
        };
        let Some(ended) = ended.take() else {
            return;
        };
        let hooks = self.shared.hooks.as_ref();
        if let Some(Err(error)) = hooks.map(|hooks| hooks.run(&*self.shared.sandbox)) {
            // As with runc, they belong to the first process: it is started,
            // and ends without its program.
            tracing::warn!(%error);
            *init = Init::Stopped;
            drop(init);
            self.reply(&Reply::Started { pid: 1 });
            return ended(ExitStatus::Exited(1));
        }
        match self.shared.sandbox.start_init() {
            Ok(pid) => {
                *init = Init::Running(pid);
                drop(init);
                self.reply(&Reply::Started { pid });
                if let Err(error) = self.shared.sandbox.on_exit(pid, ended) {
                    tracing::error!(%error, "cannot wait for the first process");
                }
            }
            Err(error) => {
                *init = Init::Stopped;
                drop(init);
                self.reply(&failure(error));
                ended(ExitStatus::Exited(1));
            }
        }
    }

    fn exec(
        &self,
        mut process: ProcessSpec,
        preserved: usize,
        mut fds: Vec<OwnedFd>,
    ) -> Result<(), SandboxError> {
        let malformed = || SandboxError::new(ErrorKind::Other, "exec with too few descriptors");
        let streams = fds.len().checked_sub(preserved).ok_or_else(malformed)?;
        let preserved = fds.split_off(streams);
        let mut fds = fds.into_iter();
        let stdio = if process.terminal {
            Stdio::Terminal(fds.next().ok_or_else(malformed)?, None)
        } else {
            let [Some(input), Some(output), Some(error)] = [fds.next(), fds.next(), fds.next()] else {
                return Err(malformed());
            };
            Stdio::Files([input, output, error])
        };
        home::ensure(&mut process, self.shared.root.as_ref());
        let pid = self.shared.sandbox.exec(process, stdio, preserved)?;
        if let Ok(mut started) = self.started.lock() {
            started.push(pid);
        }
        if let Ok(mut awaited) = self.shared.awaited.lock() {
            *awaited = awaited.saturating_add(1);
            self.awaited.set(self.awaited.get().saturating_add(1));
        }
        self.reply(&Reply::Started { pid });
        self.wait(Some(pid))
    }

    /// Sends `Exited` when the process has ended.
    fn wait(&self, pid: Option<i32>) -> Result<(), SandboxError> {
        let pid = match pid {
            Some(pid) => pid,
            None => match *self.shared.init()? {
                Init::Running(pid) => pid,
                Init::Created(_) | Init::Stopped => return Err(SandboxError::no_such_process()),
            },
        };
        let channel = Arc::clone(&self.channel);
        let sending = Arc::clone(&self.sending);
        let started = Arc::clone(&self.started);
        self.shared.sandbox.on_exit(
            pid,
            Box::new(move |status| {
                if let Ok(mut started) = started.lock() {
                    started.retain(|other| *other != pid);
                }
                send(&channel, &sending, &Reply::Exited(status));
            }),
        )
    }
}

impl Shared {
    fn init(&self) -> Result<std::sync::MutexGuard<'_, Init>, SandboxError> {
        self.init.lock().map_err(|_| SandboxError::new(ErrorKind::Other, "the control server has failed"))
    }

    fn state(&self) -> SandboxState {
        match self.init().as_deref() {
            Ok(Init::Created(_)) => SandboxState::Created,
            Ok(Init::Running(_)) => SandboxState::Running,
            Ok(Init::Stopped) | Err(_) => SandboxState::Stopped,
        }
    }
}

fn send(channel: &Channel, sending: &Mutex<()>, reply: &Reply) {
    let _guard = sending.lock();
    // A client that is gone needs no answer.
    let _ = channel.send(reply, &[]);
}

fn failure(error: SandboxError) -> Reply {
    Reply::Error { kind: error.kind, message: error.message }
}
