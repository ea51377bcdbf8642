//! Open terminals.

use std::any::Any;
use std::sync::Arc;

use executor::{Events, WaitQueue};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use linux_abi::signal::Signo;
use vfs::{Caller, Fasync, FileOps, OpenFile, OtherwiseOwner, Result};

use super::ioctl;
use super::process_of;
use super::terminal::Terminal;
use super::termios::local;

/// An open slave.
pub(super) struct Slave(pub(super) Arc<Terminal>);

impl Slave {
    pub(super) fn open(terminal: Arc<Terminal>) -> Arc<dyn FileOps> {
        terminal.add_slave();
        Arc::new(Slave(terminal))
    }
}

impl Drop for Slave {
    fn drop(&mut self) {
        self.0.remove_slave();
    }
}

impl FileOps for Slave {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn check_caller(&self, _file: &OpenFile, caller: &mut dyn Caller, writes: bool) -> Result<()> {
        let stops = !writes || self.0.with_discipline(|d| d.termios.is(local::TOSTOP));
        if stops { check_foreground(&self.0, caller, writes) } else { Ok(()) }
    }
    fn read(&self, _file: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        self.0.read(buf)
    }
    fn write(&self, file: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        self.0.write(buf, file.flags().contains(OpenFlags::NONBLOCK))
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        self.0.poll()
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.0.queue.clone())
    }
    fn fasync(&self) -> Option<Fasync> {
        Some(self.0.slave_fasync())
    }
    fn ioctl(&self, _file: &OpenFile, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        ioctl::slave(&self.0, caller, cmd, arg)
    }
}

/// An open master of a guest's own pty.
pub(super) struct Master(pub(super) Arc<Terminal>);

impl Drop for Master {
    fn drop(&mut self) {
        self.0.hang_up();
    }
}

impl FileOps for Master {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _file: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        self.0.master_read(buf)
    }
    fn write(&self, file: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        self.0.master_write(buf, file.flags().contains(OpenFlags::NONBLOCK))
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        self.0.master_poll()
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.0.master_queue.clone())
    }
    fn fasync(&self) -> Option<Fasync> {
        Some(Fasync { queue: self.0.master_fasync.clone(), otherwise: OtherwiseOwner::Caller })
    }
    fn ioctl(&self, _file: &OpenFile, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        ioctl::master(&self.0, caller, cmd, arg)
    }
}

/// A process in the background that reads, or changes what all share, is stopped: `EAGAIN` makes it
/// wait, where the signal finds it. `EIO` where it cannot be stopped.
pub(super) fn check_foreground(terminal: &Terminal, caller: &mut dyn Caller, writes: bool) -> Result<()> {
    let Some(process) = process_of(caller).filter(|process| terminal.is_background(process)) else {
        return Ok(());
    };
    let signal = if writes { Signo::SIGTTOU } else { Signo::SIGTTIN };
    let group = process.job().pgid;
    let immune = is_immune(caller, &process, signal);
    let kernel = process.kernel();
    if immune {
        return if writes { Ok(()) } else { Err(Errno::EIO) };
    }
    if kernel.is_orphaned_group(group) {
        return Err(Errno::EIO);
    }
    for member in kernel.pids.group(group) {
        let info = linux_abi::signal::SigInfo::new(signal, linux_abi::signal::si::KERNEL);
        let _ = member.send_signal(info);
    }
    Err(Errno::EAGAIN)
}

/// Whether the caller blocks or ignores a signal.
fn is_immune(caller: &dyn Caller, process: &kernel::Process, signal: Signo) -> bool {
    const SIG_IGN: u64 = 1;
    let blocked = caller
        .as_any()
        .downcast_ref::<Arc<kernel::Thread>>()
        .is_some_and(|thread| thread.signals.lock().mask.contains(signal));
    blocked || process.actions().get(signal).handler == SIG_IGN
}
