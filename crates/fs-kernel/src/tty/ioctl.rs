//! ioctl_tty(2).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use linux_abi::Errno;
use vfs::{Caller, Result};

use super::files::check_foreground;
use super::process_of;
use super::terminal::Terminal;
use super::termios::{self, Termios};

const TCGETS: u32 = 0x5401;
const TCSETS: u32 = 0x5402;
const TCSETSF: u32 = 0x5404;
const TCSBRK: u32 = 0x5409;
const TCXONC: u32 = 0x540a;
const TCFLSH: u32 = 0x540b;
const TIOCSCTTY: u32 = 0x540e;
const TIOCGPGRP: u32 = 0x540f;
const TIOCSPGRP: u32 = 0x5410;
const TIOCOUTQ: u32 = 0x5411;
const TIOCGWINSZ: u32 = 0x5413;
const TIOCSWINSZ: u32 = 0x5414;
const FIONREAD: u32 = 0x541b;
const TIOCNOTTY: u32 = 0x5422;
const TIOCGETD: u32 = 0x5424;
const TCSBRKP: u32 = 0x5425;
const TIOCGSID: u32 = 0x5429;
const TCGETS2: u32 = 0x802c_542a;
const TCSETS2: u32 = 0x402c_542b;
const TCSETSF2: u32 = 0x402c_542d;
const TIOCGPTN: u32 = 0x8004_5430;
const TIOCSPTLCK: u32 = 0x4004_5431;
const TIOCGPTLCK: u32 = 0x8004_5439;
const TIOCSTI: u32 = 0x5412;
const TIOCPKT: u32 = 0x5420;
const TIOCGPKT: u32 = 0x8004_5438;
const TIOCSIG: u32 = 0x4004_5436;

/// Speeds follow the settings in `struct termios2`: 38400, as `c_cflag` says.
const SPEED: u32 = 38_400;

/// On an open slave.
pub(super) fn slave(terminal: &Arc<Terminal>, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
    if terminal.is_hung_up() {
        return Err(Errno::EIO);
    }
    match cmd {
        // It lets one process type for another: refused, as with dev.tty.legacy_tiocsti=0.
        TIOCSTI => Err(Errno::EIO),
        TIOCSCTTY => take_control(terminal, caller, arg),
        TIOCNOTTY => {
            let job = process_of(caller).ok_or(Errno::ENOTTY)?.job();
            if terminal.job().session != job.sid {
                return Err(Errno::ENOTTY);
            }
            if caller.pid() == job.sid {
                terminal.release();
            }
            Ok(0)
        }
        TIOCSPGRP => set_foreground(terminal, caller, arg),
        TIOCGPGRP | TIOCGSID => {
            let job = terminal.job();
            let own = process_of(caller).map_or(0, |process| process.job().sid);
            if job.session == 0 || job.session != own {
                return Err(Errno::ENOTTY);
            }
            let id = if cmd == TIOCGPGRP { job.foreground } else { job.session };
            write_i32(caller, arg, id)
        }
        TCSETS..=TCSETSF | TCSETS2..=TCSETSF2 | TCXONC | TCFLSH => {
            match check_foreground(terminal, caller, true) {
                // The stop signal is there; the call is made again afterwards.
                Err(Errno::EAGAIN) => return Err(Errno::EINTR),
                other => other?,
            }
            both(terminal, caller, cmd, arg)
        }
        FIONREAD => {
            let n = terminal.with_discipline(|d| d.available());
            write_i32(caller, arg, i32::try_from(n).unwrap_or(i32::MAX))
        }
        TIOCOUTQ => write_i32(caller, arg, i32::try_from(terminal.output_length()).unwrap_or(i32::MAX)),
        _ => both(terminal, caller, cmd, arg),
    }
}

/// On an open master.
pub(super) fn master(terminal: &Arc<Terminal>, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
    match cmd {
        TIOCGPTN => {
            caller.write_memory(arg, &terminal.index.to_ne_bytes())?;
            Ok(0)
        }
        TIOCSPTLCK => {
            terminal.locked.store(read_i32(caller, arg)? != 0, Ordering::Relaxed);
            Ok(0)
        }
        TIOCPKT => {
            terminal.set_packets(read_i32(caller, arg)? != 0);
            Ok(0)
        }
        TIOCGPKT => write_i32(caller, arg, i32::from(terminal.packets())),
        TIOCGPTLCK => write_i32(caller, arg, i32::from(terminal.locked.load(Ordering::Relaxed))),
        TIOCGPGRP => write_i32(caller, arg, terminal.job().foreground),
        TIOCGSID => match terminal.job().session {
            0 => Err(Errno::ENOTTY),
            session => write_i32(caller, arg, session),
        },
        TIOCSIG => {
            let signal = i32::try_from(arg).ok().and_then(linux_abi::signal::Signo::new);
            terminal.raise(&[signal.ok_or(Errno::EINVAL)?]);
            Ok(0)
        }
        FIONREAD => write_i32(caller, arg, i32::try_from(terminal.output_length()).unwrap_or(i32::MAX)),
        TIOCOUTQ => write_i32(caller, arg, 0),
        _ => both(terminal, caller, cmd, arg),
    }
}

fn both(terminal: &Arc<Terminal>, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
    match cmd {
        TCGETS => {
            let bytes = terminal.with_discipline(|d| d.termios).to_bytes();
            caller.write_memory(arg, &bytes)?;
        }
        TCGETS2 => {
            let mut bytes = [0u8; termios::SIZE + 8];
            bytes[..termios::SIZE].copy_from_slice(&terminal.with_discipline(|d| d.termios).to_bytes());
            bytes[termios::SIZE..termios::SIZE + 4].copy_from_slice(&SPEED.to_ne_bytes());
            bytes[termios::SIZE + 4..].copy_from_slice(&SPEED.to_ne_bytes());
            caller.write_memory(arg, &bytes)?;
        }
        TCSETS..=TCSETSF | TCSETS2..=TCSETSF2 => {
            let mut bytes = [0u8; termios::SIZE];
            caller.read_memory(arg, &mut bytes)?;
            let settings = Termios::from_bytes(&bytes);
            terminal.with_discipline(|d| {
                if cmd == TCSETSF || cmd == TCSETSF2 {
                    d.flush_input();
                }
                d.set(settings);
            });
        }
        TIOCGWINSZ => {
            let mut bytes = [0u8; 8];
            for (to, word) in bytes.chunks_exact_mut(2).zip(terminal.size()) {
                to.copy_from_slice(&word.to_ne_bytes());
            }
            caller.write_memory(arg, &bytes)?;
        }
        TIOCSWINSZ => {
            let mut bytes = [0u8; 8];
            caller.read_memory(arg, &mut bytes)?;
            let [a, b, c, d, e, f, g, h] = bytes;
            let word = |low, high| u16::from_ne_bytes([low, high]);
            terminal.set_size([word(a, b), word(c, d), word(e, f), word(g, h)]);
        }
        TCFLSH => {
            if arg > 2 {
                return Err(Errno::EINVAL);
            }
            if arg != 1 {
                terminal.with_discipline(super::discipline::Discipline::flush_input);
            }
            if arg != 0 {
                terminal.flush_output();
            }
            // Bits of packet mode: input flushed, output flushed.
            terminal.note_flush(match arg {
                0 => 1,
                1 => 2,
                _ => 3,
            });
        }
        TCXONC => match arg {
            0 => terminal.with_discipline(|d| d.stopped = true),
            1 => terminal.with_discipline(|d| d.stopped = false),
            2 | 3 => {}
            _ => return Err(Errno::EINVAL),
        },
        // There is no line to break, and no modem that drains.
        TCSBRK | TCSBRKP => {}
        TIOCGETD => return write_i32(caller, arg, 0),
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}

fn take_control(terminal: &Arc<Terminal>, caller: &mut dyn Caller, arg: u64) -> Result<i64> {
    let job = process_of(caller).ok_or(Errno::EPERM)?.job();
    let held = terminal.job().session;
    if held == job.sid {
        return Ok(0);
    }
    let free = terminal.terminals.controlling(job.sid).is_none();
    if caller.pid() != job.sid || !free {
        return Err(Errno::EPERM);
    }
    if held == 0 {
        terminal.control(job.sid, job.pgid)?;
    } else if arg == 1 && caller.credentials().capable(identity::Capability::SYS_ADMIN) {
        terminal.steal(job.sid, job.pgid);
    } else {
        return Err(Errno::EPERM);
    }
    Ok(0)
}

fn set_foreground(terminal: &Arc<Terminal>, caller: &mut dyn Caller, arg: u64) -> Result<i64> {
    let process = process_of(caller).ok_or(Errno::ENOTTY)?;
    let job = process.job();
    if terminal.job().session != job.sid || terminal.job().session == 0 {
        return Err(Errno::ENOTTY);
    }
    match check_foreground(terminal, caller, true) {
        Err(Errno::EAGAIN) => return Err(Errno::EINTR),
        other => other?,
    }
    let group = read_i32(caller, arg)?;
    if group < 0 {
        return Err(Errno::EINVAL);
    }
    let members = process.kernel().pids.group(group);
    let Some(member) = members.first() else { return Err(Errno::ESRCH) };
    if member.job().sid != job.sid {
        return Err(Errno::EPERM);
    }
    terminal.set_foreground(group);
    Ok(0)
}

fn read_i32(caller: &mut dyn Caller, addr: u64) -> Result<i32> {
    let mut bytes = [0; 4];
    caller.read_memory(addr, &mut bytes)?;
    Ok(i32::from_ne_bytes(bytes))
}

fn write_i32(caller: &mut dyn Caller, addr: u64, value: i32) -> Result<i64> {
    caller.write_memory(addr, &value.to_ne_bytes())?;
    Ok(0)
}
