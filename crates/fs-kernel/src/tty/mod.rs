//! Terminals: host ptys that an engine hands over, and the guest's own (pty(7), tty(4)).

mod devpts;
mod discipline;
mod files;
mod ioctl;
mod terminal;
mod termios;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use executor::{Events, HostSource};
use kernel::{Kernel, Process};
use linux_abi::Errno;
use linux_abi::fs::{OpenFlags, makedev};
use parking_lot::Mutex;
use vfs::{Caller, FileOps, Inode, Result};

pub use terminal::Terminal;

/// Major number of pty slaves (/dev/pts).
const SLAVE_MAJOR: u32 = 136;
/// Most terminals of a sandbox: minor numbers are registered once each.
const MOST: u32 = 4096;

/// Opens one of the devices that are not a terminal of their own.
type Open = fn(&Arc<Terminals>, OpenFlags, &mut dyn Caller) -> Result<Arc<dyn FileOps>>;

/// All terminals of a sandbox.
pub struct Terminals {
    this: Weak<Terminals>,
    kernel: Weak<Kernel>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    terminals: BTreeMap<u32, Weak<Terminal>>,
    /// Minor numbers below this one have a device.
    registered: u32,
    console: Weak<Terminal>,
}

impl Terminals {
    /// Makes /dev/tty, /dev/console and /dev/ptmx work.
    pub fn register(kernel: &Arc<Kernel>) -> Arc<Terminals> {
        let terminals = Arc::new_cyclic(|this| Terminals {
            this: this.clone(),
            kernel: Arc::downgrade(kernel),
            table: Mutex::default(),
        });
        let device = |minor: u32, open: Open| {
            let terminals = terminals.clone();
            let open = move |_: &Arc<dyn Inode>, flags: OpenFlags, caller: &mut dyn Caller| {
                open(&terminals, flags, caller)
            };
            kernel.register_device(false, makedev(5, minor), Arc::new(open));
        };
        device(0, |terminals, _, caller| {
            let session = process_of(caller).ok_or(Errno::ENXIO)?.job().sid;
            let terminal = terminals.controlling(session).ok_or(Errno::ENXIO)?;
            Ok(files::Slave::open(terminal))
        });
        device(1, |terminals, flags, caller| {
            let terminal = terminals.table.lock().console.upgrade().ok_or(Errno::ENXIO)?;
            Ok(terminals.open_slave(terminal, flags, caller))
        });
        device(2, |terminals, _, caller| {
            let terminal = terminals.add(None)?;
            terminal.set_opener(caller.credentials().fsuid);
            Ok(Arc::new(files::Master(terminal)))
        });
        let weak = Arc::downgrade(&terminals);
        kernel.set_terminal_finder(Box::new(move |process: &Process| {
            let terminal = weak.upgrade()?.controlling(process.job().sid)?;
            Some((makedev(SLAVE_MAJOR, terminal.index()), terminal.job().foreground))
        }));
        let weak = Arc::downgrade(&terminals);
        kernel.on_process_exit(Arc::new(move |process: &Arc<Process>| {
            let job = process.job();
            if job.sid == process.pid()
                && let Some(terminal) = weak.upgrade().and_then(|terminals| terminals.controlling(job.sid))
            {
                terminal.release();
            }
        }));
        terminals
    }

    /// A terminal over the slave of a host pty, which is in raw mode.
    ///
    /// # Errors
    /// What the host says of the descriptor; `ENOSPC` when there are too many.
    pub fn adopt(&self, slave: OwnedFd) -> Result<Arc<Terminal>> {
        let host = |error: rustix::io::Errno| Errno::from_raw(error.raw_os_error());
        rustix::io::ioctl_fionbio(&slave, true).map_err(host)?;
        let slave = Arc::new(slave);
        let source = HostSource::new(Arc::clone(&slave), Events::IN | Events::OUT).map_err(host)?;
        let terminal = self.add(Some(slave))?;
        terminal.serve_host(source);
        Ok(terminal)
    }

    /// Makes a terminal what /dev/console opens.
    pub fn set_console(&self, terminal: &Arc<Terminal>) {
        self.table.lock().console = Arc::downgrade(terminal);
    }

    /// The operations of an open slave, for a process that starts on it.
    pub fn slave(terminal: &Arc<Terminal>) -> Arc<dyn FileOps> {
        files::Slave::open(terminal.clone())
    }

    /// The controlling terminal of a session.
    pub fn controlling(&self, session: i32) -> Option<Arc<Terminal>> {
        let table = self.table.lock();
        let found = table
            .terminals
            .values()
            .filter_map(Weak::upgrade)
            .find(|terminal| session != 0 && terminal.job().session == session);
        // Others that were looked at may be dropped here, which takes the lock again.
        drop(table);
        found
    }

    fn add(&self, host: Option<Arc<OwnedFd>>) -> Result<Arc<Terminal>> {
        let this = self.this.upgrade().ok_or(Errno::ENODEV)?;
        let mut table = self.table.lock();
        let index = (0..MOST).find(|index| !table.terminals.contains_key(index)).ok_or(Errno::ENOSPC)?;
        let terminal = Terminal::new(index, this.clone(), host);
        table.terminals.insert(index, Arc::downgrade(&terminal));
        let fresh = index >= table.registered;
        table.registered = table.registered.max(index + 1);
        drop(table);
        if let Some(kernel) = self.kernel.upgrade().filter(|_| fresh) {
            let open = move |_: &Arc<dyn Inode>, flags: OpenFlags, caller: &mut dyn Caller| {
                let terminal = this.get(index).ok_or(Errno::EIO)?;
                if terminal.locked.load(std::sync::atomic::Ordering::Relaxed) {
                    return Err(Errno::EIO);
                }
                Ok(this.open_slave(terminal, flags, caller))
            };
            kernel.register_device(false, makedev(SLAVE_MAJOR, index), Arc::new(open));
        }
        Ok(terminal)
    }

    fn get(&self, index: u32) -> Option<Arc<Terminal>> {
        self.table.lock().terminals.get(&index).and_then(Weak::upgrade)
    }

    fn forget(&self, index: u32) {
        let mut table = self.table.lock();
        if table.terminals.get(&index).is_some_and(|terminal| terminal.strong_count() == 0) {
            table.terminals.remove(&index);
        }
    }

    /// The numbers in use.
    fn indices(&self) -> Vec<u32> {
        let table = self.table.lock();
        table.terminals.iter().filter(|(_, t)| t.strong_count() > 0).map(|(index, _)| *index).collect()
    }

    /// Opens a slave; a session leader without a terminal gets it as its controlling one.
    fn open_slave(
        &self,
        terminal: Arc<Terminal>,
        flags: OpenFlags,
        caller: &mut dyn Caller,
    ) -> Arc<dyn FileOps> {
        if let Some(process) = process_of(caller).filter(|_| !flags.contains(OpenFlags::NOCTTY)) {
            let job = process.job();
            if job.sid == process.pid() && self.controlling(job.sid).is_none() && terminal.job().session == 0
            {
                // It was free a moment ago; if it is not now, it is another's.
                let _ = terminal.control(job.sid, job.pgid);
            }
        }
        files::Slave::open(terminal)
    }
}

/// The calling guest process, if it is one.
fn process_of(caller: &dyn Caller) -> Option<Arc<Process>> {
    let thread = caller.as_any().downcast_ref::<Arc<kernel::Thread>>()?;
    Some(thread.process().clone())
}

pub use devpts::Devpts;
