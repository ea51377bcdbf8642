//! TCP sockets: ends of connections inside the sandbox, or sockets of the host.
//!
//! A socket has no host socket until it needs one: to bind or listen (the port is taken in the network namespace
//! too, and others of that namespace may connect), to reach somebody outside, or for options that are not kept here.

use std::sync::atomic::{AtomicI32, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use executor::{Alarm, Events, WaitQueue};
use linux_abi::Errno;
use linux_abi::socket::{AF_INET, AF_INET6, AF_UNSPEC, MsgFlags, SOCK_STREAM, SOMAXCONN};
use parking_lot::{Mutex, RwLock};

use super::connection::End;
use super::endpoint::Endpoint;
use super::listener::Listener;
use super::options::Options;
use super::{Inet, tcp_options};
use crate::host::HostSocket;
use crate::posting::Posts;
use crate::registry::{Description, TcpDescription};
use crate::socket::{Control, Halves, Received, Socket, SocketCaller};
use crate::zerocopy::Completions;
use crate::{Address, Result};

pub(super) const IPPROTO_TCP: i32 = 6;

/// What a socket is now.
pub(super) enum Role {
    /// Not connected.
    Idle,
    /// Connected, or being connected, by the host.
    Host,
    Listening(Arc<Listener>),
    /// The listener's backlog is full.
    Waiting {
        to: Endpoint,
        _deadline: Alarm,
    },
    /// A connection could not be made; told once.
    Failed(Errno),
    /// An end of a connection in the sandbox. `told`: connect(2) has said so.
    Local {
        end: End,
        told: bool,
    },
}

/// What a socket and those who wake it hold.
pub(super) struct Shared {
    pub(super) this: Weak<Shared>,
    /// `IPV6_ADDRFORM` changes it.
    pub(super) family: AtomicU16,
    pub(super) queue: Arc<WaitQueue>,
    pub(super) inet: Arc<Inet>,
    pub(super) role: RwLock<Role>,
    pub(super) host: OnceLock<HostSocket>,
    /// An error of the host's socket that was not told yet, 0 for none.
    untold: AtomicI32,
    pub(super) zerocopy: Completions,
    pub(super) options: Mutex<Kept>,
}

/// Options, and what they lead to.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) options: Options,
    /// An option is set whose effect only the host's sockets have: no connections inside the sandbox.
    pub(super) host_only: bool,
    /// bind(2) was called.
    pub(super) bound: bool,
}

/// A TCP socket.
pub(super) struct TcpSocket(pub(super) Arc<Shared>);

impl Shared {
    fn new(
        inet: &Arc<Inet>,
        family: u16,
        queue: Arc<WaitQueue>,
        role: Role,
        options: Options,
    ) -> Arc<Shared> {
        Arc::new_cyclic(|this| Shared {
            this: this.clone(),
            family: AtomicU16::new(family),
            queue,
            inet: inet.clone(),
            role: RwLock::new(role),
            host: OnceLock::new(),
            untold: AtomicI32::new(0),
            zerocopy: Completions::default(),
            options: Mutex::new(Kept { options, ..Kept::default() }),
        })
    }

    /// `AF_INET` or `AF_INET6`.
    pub(super) fn family(&self) -> u16 {
        self.family.load(Ordering::Relaxed)
    }

    /// The host socket, made now if there was none.
    pub(super) fn host(&self) -> Result<&HostSocket> {
        if let Some(host) = self.host.get() {
            return Ok(host);
        }
        // Held so that no option is lost in between.
        let kept = self.options.lock();
        if self.host.get().is_none() {
            let made =
                self.inet.maker.open((self.family(), SOCK_STREAM, IPPROTO_TCP), Some(self.queue.clone()))?;
            for (level, name, value) in kept.options.replay() {
                // What the host does not take it would not have taken in time either.
                let _ = made.force_option(level, name, &value);
            }
            let _ = self.host.set(made);
        }
        self.host.get().ok_or(Errno::ENOBUFS)
    }

    /// See [`Socket::restore_error`].
    fn take_untold(&self) -> Option<Errno> {
        if self.untold.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let errno = self.untold.swap(0, Ordering::Relaxed);
        (errno != 0).then(|| Errno::from_raw(errno))
    }

    pub(super) fn set_untold(&self, errno: Errno) {
        self.untold.store(errno.raw(), Ordering::Relaxed);
    }

    /// The host socket, if there is one.
    pub(super) fn made_host(&self) -> Option<&HostSocket> {
        self.host.get()
    }

    fn set_role(&self, role: Role) -> Role {
        std::mem::replace(&mut *self.role.write(), role)
    }

    /// A connection by the host.
    fn connect_by_host(&self, address: &[u8]) -> Result<()> {
        let host = self.host()?;
        let address = self.for_host(address)?;
        let old = self.set_role(Role::Host);
        drop(old);
        host.connect_to(&address)
    }

    /// connect(2) to AF_UNSPEC: what was is no more.
    fn disconnect(&self, address: &[u8]) -> Result<()> {
        let old = self.set_role(Role::Idle);
        match old {
            Role::Local { end, .. } => end.abort(),
            Role::Host => return self.host()?.connect_to(address),
            Role::Listening(listener) => self.unlisten(&listener),
            Role::Idle | Role::Waiting { .. } | Role::Failed(_) => {}
        }
        self.queue.wake_all(Events::all());
        Ok(())
    }

    fn unlisten(&self, listener: &Arc<Listener>) {
        self.inet.ports.remove_listener(listener);
        listener.close();
    }
}

impl TcpSocket {
    pub(super) fn new(inet: &Arc<Inet>, family: u16) -> TcpSocket {
        let queue = Arc::new(WaitQueue::new());
        TcpSocket(Shared::new(inet, family, queue, Role::Idle, Options::default()))
    }

    /// bind(2) to any port, to one of our choice; false if the host shall choose.
    fn bind_somewhere(&self, caller: &SocketCaller<'_>, address: &Address, name: Endpoint) -> Result<bool> {
        const TRIES: usize = 16;
        let shared = &self.0;
        for _ in 0..TRIES {
            let Some(port) = shared.inet.ports.choose_port(name) else { break };
            let mut chosen = Address::plain(address.bytes.clone());
            let Some(place) = chosen.bytes.get_mut(2..4) else { break };
            place.copy_from_slice(&port.to_be_bytes());
            match shared.host()?.bind(caller, &chosen) {
                Err(Errno::EADDRINUSE) => {}
                done => {
                    done?;
                    shared.options.lock().bound = true;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn connect_inside(&self, to: Endpoint) -> Option<Result<()>> {
        let shared = &self.0;
        {
            let kept = shared.options.lock();
            let foreign = shared.family() == AF_INET6 && to.ip.is_ipv4() && kept.options.v6_only();
            if kept.host_only || foreign || to.port == 0 || (shared.family() == AF_INET && to.ip.is_ipv6()) {
                return None;
            }
        }
        if shared.inet.maker.is_heard() || !shared.inet.ports.is_local(to.ip) {
            return None;
        }
        let listener = shared.inet.ports.listener(to)?;
        let mut role = shared.role.write();
        if !matches!(*role, Role::Idle) {
            return Some(Err(Errno::EALREADY));
        }
        Some(match shared.establish(&mut role, to, &listener) {
            Ok(()) => {
                drop(role);
                shared.queue.wake_all(Events::WRITABLE);
                Err(Errno::EINPROGRESS)
            }
            Err(errno) => Err(errno),
        })
    }

    /// What `connect` says of a socket that is not idle; none if it may begin.
    fn already(&self) -> Option<Result<()>> {
        let mut role = self.0.role.write();
        match &mut *role {
            Role::Idle | Role::Host => None,
            Role::Local { told, .. } if !*told => {
                *told = true;
                Some(Ok(()))
            }
            Role::Local { .. } | Role::Listening(_) => Some(Err(Errno::EISCONN)),
            Role::Waiting { .. } => Some(Err(Errno::EALREADY)),
            Role::Failed(errno) => {
                let errno = *errno;
                *role = Role::Idle;
                Some(Err(errno))
            }
        }
    }
}

impl Drop for TcpSocket {
    fn drop(&mut self) {
        match self.0.set_role(Role::Idle) {
            Role::Listening(listener) => self.0.unlisten(&listener),
            old => drop(old),
        }
    }
}

impl Socket for TcpSocket {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
    fn kind(&self) -> (u16, u32, i32) {
        (self.0.family(), SOCK_STREAM, IPPROTO_TCP)
    }
    fn bind(&self, caller: &SocketCaller<'_>, address: &Address) -> Result<()> {
        let shared = &self.0;
        if !matches!(*shared.role.read(), Role::Idle) {
            return Err(Errno::EINVAL);
        }
        let host = shared.host()?;
        let address = &Address::plain(shared.for_host(&address.bytes)?.into_owned());
        if let Some((_, name)) = Endpoint::parse(&address.bytes) {
            let reuse = shared.options.lock().options.reuses_address();
            shared.inet.ports.check_bind(name, reuse)?;
            if name.port == 0 && self.bind_somewhere(caller, address, name)? {
                return Ok(());
            }
        }
        host.bind(caller, address)?;
        shared.options.lock().bound = true;
        Ok(())
    }
    fn listen(&self, caller: &SocketCaller<'_>, backlog: i32) -> Result<()> {
        let shared = &self.0;
        let most = usize::try_from(backlog).unwrap_or(usize::MAX).min(SOMAXCONN as usize);
        let mut role = shared.role.write();
        match &*role {
            Role::Idle => {}
            Role::Listening(listener) => {
                let listener = listener.clone();
                drop(role);
                shared.host()?.listen(caller, backlog)?;
                listener.set_backlog(most);
                return Ok(());
            }
            _ => return Err(Errno::EINVAL),
        }
        let host = shared.host()?;
        host.listen(caller, backlog)?;
        let name = host.local_address()?;
        let (_, name) = Endpoint::parse(&name).ok_or(Errno::EINVAL)?;
        let (options, host_only) = {
            let mut kept = shared.options.lock();
            kept.bound = true;
            (kept.options.clone(), kept.host_only)
        };
        let dual = shared.family() == AF_INET6 && !host.is_v6_only();
        let listener = Listener::new(name, dual, shared.queue.clone(), most, options);
        if !host_only {
            shared.inet.ports.add_listener(&listener);
        }
        *role = Role::Listening(listener);
        drop(role);
        shared.queue.wake_all(Events::all());
        Ok(())
    }
    fn connect(&self, _caller: &SocketCaller<'_>, address: &Address) -> Result<()> {
        let family = address.family()?;
        if family == AF_UNSPEC {
            return self.0.disconnect(&address.bytes);
        }
        if let Some(answer) = self.already() {
            return answer;
        }
        if let Some((_, to)) = Endpoint::parse(&address.bytes)
            && (family == self.0.family())
            && matches!(*self.0.role.read(), Role::Idle)
            && let Some(answer) = self.connect_inside(to.target())
        {
            return answer;
        }
        self.0.connect_by_host(&address.bytes)
    }
    fn confirm_connect(&self, address: &Address) {
        match &mut *self.0.role.write() {
            Role::Local { told, .. } => *told = true,
            // The host's socket does not block, so that it has something to confirm too.
            Role::Host => {
                let _ = self.0.made_host().map(|host| host.connect_to(&self.0.for_host(&address.bytes)?));
            }
            _ => {}
        }
    }
    fn abandon_connect(&self, address: &Address) {
        let mut role = self.0.role.write();
        if matches!(*role, Role::Host)
            && let Some(host) = self.0.made_host()
        {
            // The host's socket is non-blocking: as long as nobody asks again it is still being connected. If it is
            // in truth connected by now it stays so.
            if !matches!(
                self.0.for_host(&address.bytes).and_then(|to| host.connect_to(&to)),
                Ok(()) | Err(Errno::EISCONN)
            ) {
                *role = Role::Idle;
            }
        }
    }
    fn accept(&self) -> Result<Arc<dyn Socket>> {
        let shared = &self.0;
        let listener = match &*shared.role.read() {
            Role::Listening(listener) => listener.clone(),
            _ => return Err(Errno::EINVAL),
        };
        let (queue, role, options) = match listener.accept() {
            Ok(end) => {
                let options = listener.options().for_accepted();
                (end.queue().clone(), Role::Local { end, told: true }, options)
            }
            Err(Errno::EAGAIN) => {
                let host = shared.host()?.accept_host(Arc::default())?;
                let queue = host.wait_queue();
                let new = Shared::new(&shared.inet, shared.family(), queue, Role::Host, Options::default());
                let _ = new.host.set(host);
                new.zerocopy.inherit(&shared.zerocopy);
                return Ok(Arc::new(TcpSocket(new)));
            }
            Err(errno) => return Err(errno),
        };
        let new = Shared::new(&shared.inet, shared.family(), queue, role, options);
        new.zerocopy.inherit(&shared.zerocopy);
        Ok(Arc::new(TcpSocket(new)))
    }
    fn send(
        &self,
        caller: &SocketCaller<'_>,
        data: &[u8],
        to: Option<&Address>,
        control: &mut Vec<Control>,
        flags: MsgFlags,
    ) -> Result<usize> {
        let role = self.0.role.read();
        match &*role {
            Role::Local { end, .. } => {
                if !control.is_empty() {
                    tcp_options::check_control(control)?;
                }
                end.send(data, flags)
            }
            Role::Host => match self.0.take_untold() {
                Some(errno) => Err(errno),
                None => self.0.host()?.send(caller, data, to, control, flags),
            },
            Role::Idle if flags.contains(MsgFlags::FASTOPEN) && to.is_some() => {
                drop(role);
                match to.map(|to| self.connect(caller, to)) {
                    Some(Err(Errno::EINPROGRESS) | Ok(())) => {
                        self.send(caller, data, None, control, flags - MsgFlags::FASTOPEN)
                    }
                    Some(Err(errno)) => Err(errno),
                    None => Err(Errno::EPIPE),
                }
            }
            Role::Waiting { .. } => Err(Errno::EAGAIN),
            Role::Failed(_) => {
                drop(role);
                Err(self.take_error().unwrap_or(Errno::EPIPE))
            }
            Role::Idle | Role::Listening(_) => Err(Errno::EPIPE),
        }
    }
    fn receive(&self, buf: &mut [u8], control_room: usize, flags: MsgFlags) -> Result<Received> {
        if flags.contains(MsgFlags::ERRQUEUE)
            && let Some(told) = self.0.zerocopy.take(self.0.family())
        {
            return Ok(told);
        }
        let role = self.0.role.read();
        match &*role {
            Role::Local { .. } if flags.contains(MsgFlags::ERRQUEUE) => Err(Errno::EAGAIN),
            Role::Local { end, .. } => end.receive(buf, flags),
            Role::Host => match self.0.take_untold() {
                Some(errno) => Err(errno),
                None => self.0.host()?.receive(buf, control_room, flags),
            },
            Role::Waiting { .. } => Err(Errno::EAGAIN),
            Role::Failed(_) => {
                drop(role);
                Err(self.take_error().unwrap_or(Errno::ENOTCONN))
            }
            Role::Idle | Role::Listening(_) => Err(Errno::ENOTCONN),
        }
    }
    fn shutdown(&self, halves: Halves) -> Result<()> {
        let role = self.0.role.read();
        match &*role {
            Role::Local { end, .. } => return end.shutdown(halves),
            Role::Host => return self.0.host()?.shutdown(halves),
            Role::Listening(_) if !halves.read => return Ok(()),
            Role::Listening(_) | Role::Waiting { .. } => {}
            Role::Idle | Role::Failed(_) => return Err(Errno::ENOTCONN),
        }
        drop(role);
        if let Role::Listening(listener) = self.0.set_role(Role::Idle) {
            self.0.unlisten(&listener);
            self.0.host()?.shutdown(halves)?;
        }
        self.0.queue.wake_all(Events::all());
        Ok(())
    }
    fn local_address(&self) -> Result<Vec<u8>> {
        match (&*self.0.role.read(), self.0.made_host()) {
            (Role::Local { end, .. }, _) => Ok(end.local().render(self.0.family())),
            (_, Some(host)) => Ok(self.0.for_guest(host.local_address()?)),
            (_, None) => Ok(Endpoint::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0).render(self.0.family())),
        }
    }
    fn peer_address(&self) -> Result<Vec<u8>> {
        match &*self.0.role.read() {
            Role::Local { end, .. } if end.state() != super::connection::State::Close => {
                Ok(end.remote().render(self.0.family()))
            }
            Role::Host => Ok(self.0.for_guest(self.0.host()?.peer_address()?)),
            _ => Err(Errno::ENOTCONN),
        }
    }
    fn accepted_address(&self) -> Result<Vec<u8>> {
        match &*self.0.role.read() {
            Role::Local { end, .. } => Ok(end.remote().render(self.0.family())),
            _ => Ok(self.0.for_guest(self.0.host()?.peer_address()?)),
        }
    }
    fn option(&self, level: i32, name: i32, len: usize) -> Result<Vec<u8>> {
        self.get_option(level, name, len)
    }
    fn set_option(&self, caller: &SocketCaller<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
        self.put_option(caller, level, name, value)
    }
    fn take_error(&self) -> Option<Errno> {
        {
            let role = self.0.role.read();
            match &*role {
                Role::Local { end, .. } => return end.take_error(),
                Role::Host => {
                    return self.0.take_untold().or_else(|| self.0.made_host()?.take_error());
                }
                Role::Failed(_) => {}
                _ => return None,
            }
        }
        let mut role = self.0.role.write();
        let Role::Failed(errno) = &*role else { return None };
        let errno = *errno;
        *role = Role::Idle;
        Some(errno)
    }
    fn restore_error(&self, errno: Errno) {
        match &*self.0.role.read() {
            Role::Local { end, .. } => end.restore_error(errno),
            Role::Host => self.0.set_untold(errno),
            _ => {}
        }
    }
    fn sent_zerocopy(&self) {
        self.0.zerocopy.note(&self.0.queue);
    }
    fn low_water(&self) -> usize {
        self.0.options.lock().options.low_water()
    }
    fn posts(&self) -> Option<&dyn Posts> {
        Some(self)
    }
    fn poll(&self) -> Events {
        let told = self.0.zerocopy.events();
        told | match &*self.0.role.read() {
            Role::Local { end, .. } => end.poll(),
            Role::Host => self.0.made_host().map_or(Events::empty(), Socket::poll),
            Role::Listening(listener) if listener.is_ready() => Events::READABLE,
            Role::Listening(_) => {
                let told = Events::READABLE | Events::ERR;
                self.0.made_host().map_or(Events::empty(), Socket::poll) & told
            }
            Role::Waiting { .. } => Events::empty(),
            Role::Failed(_) => {
                Events::READABLE | Events::WRITABLE | Events::RDHUP | Events::ERR | Events::HUP
            }
            Role::Idle => Events::WRITABLE | Events::HUP,
        }
    }
    fn wait_queue(&self) -> Arc<WaitQueue> {
        self.0.queue.clone()
    }
    fn describe(&self) -> Option<Description> {
        match &*self.0.role.read() {
            Role::Local { end, .. } => Some(Description::Tcp(TcpDescription {
                family: self.0.family(),
                state: end.state() as u8,
                local: end.local().render(self.0.family()),
                remote: end.remote().render(self.0.family()),
                unread: end.unread(),
                unsent: end.unsent(),
            })),
            Role::Listening(listener) => {
                let Description::Host(host) = self.0.made_host()?.describe()? else { return None };
                Some(Description::Listener(listener.describe(host)))
            }
            _ => self.0.made_host()?.describe(),
        }
    }
    fn ioctl(&self, caller: &mut dyn vfs::Caller, cmd: u32, arg: u64) -> Result<i64> {
        if let Some(value) = tcp_options::control(&self.0, cmd)? {
            caller.write_memory(arg, &i32::try_from(value).unwrap_or(i32::MAX).to_ne_bytes())?;
            return Ok(0);
        }
        match self.0.made_host() {
            Some(host) => host.ioctl(caller, cmd, arg),
            None => self.0.inet.maker.interface_ioctl(caller, cmd, arg),
        }
    }
}
