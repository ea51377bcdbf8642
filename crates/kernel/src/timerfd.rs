//! Timers that are read: timerfd_create(2).

use std::any::Any;
use std::sync::{Arc, Weak};

use executor::{Alarm, Events, Observer, WaitQueue, monotonic_ns, realtime_ns};
use linux_abi::Errno;
use linux_abi::fs::OpenFlags;
use parking_lot::Mutex;
use vfs::{Caller, FileOps, OpenFile};

use crate::Result;

/// ioctl(2): sets how often it has expired.
const TFD_IOC_SET_TICKS: u32 = 0x4008_5400;

/// Which clock a timer runs by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// `CLOCK_REALTIME`, `CLOCK_REALTIME_ALARM`.
    Realtime,
    /// `CLOCK_MONOTONIC`, `CLOCK_BOOTTIME` and its alarm: the machine does not sleep here.
    Monotonic,
}

impl Clock {
    /// Its time now, nanoseconds.
    pub fn now(self) -> u64 {
        match self {
            Clock::Realtime => realtime_ns(),
            Clock::Monotonic => monotonic_ns(),
        }
    }
}

/// When a timer expires next and how often then, nanoseconds; 0 is off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Setting {
    /// From now, or on the clock for an absolute time.
    pub value: u64,
    /// 0: once.
    pub interval: u64,
}

#[derive(Default)]
struct State {
    /// The next expiration on CLOCK_MONOTONIC, 0 if off.
    next: u64,
    interval: u64,
    /// Expirations not yet read, before `next`.
    ticks: u64,
    flags: u32,
    alarm: Option<Alarm>,
}

impl State {
    /// Moves expirations up to now into `ticks`. Once expired, the alarm rests until a read: it has told already.
    fn catch_up(&mut self, now: u64) {
        if self.next == 0 || now < self.next {
            return;
        }
        self.alarm = None;
        if self.interval == 0 {
            self.ticks = self.ticks.saturating_add(1);
            self.next = 0;
            return;
        }
        let passed = (now - self.next) / self.interval + 1;
        self.ticks = self.ticks.saturating_add(passed);
        self.next = self.next.saturating_add(passed.saturating_mul(self.interval));
    }
    fn left(&self, now: u64) -> Setting {
        let value = if self.next == 0 { 0 } else { self.next.saturating_sub(now).max(1) };
        Setting { value, interval: self.interval }
    }
}

/// A timer behind a descriptor.
pub struct TimerFd {
    clock: Clock,
    clock_id: i32,
    state: Mutex<State>,
    queue: Arc<WaitQueue>,
    observer: Arc<dyn Observer>,
}

/// Told by the alarm; weak, so that closing the file ends the timer.
struct Expired(Weak<TimerFd>);

impl Observer for Expired {
    fn notify(&self, _events: Events) -> bool {
        if let Some(timer) = self.0.upgrade() {
            timer.look();
            timer.queue.wake(Events::READABLE);
        }
        true
    }
}

impl TimerFd {
    fn look(&self) -> u64 {
        let mut state = self.state.lock();
        state.catch_up(monotonic_ns());
        state.ticks
    }

    /// timerfd_settime(2); gives the old setting. An absolute time of CLOCK_REALTIME is turned into a span once: jumps of
    /// that clock are the host's and are not followed.
    pub fn set(&self, setting: Setting, absolute: bool, flags: u32) -> Setting {
        let now = monotonic_ns();
        let mut state = self.state.lock();
        state.catch_up(now);
        let old = state.left(now);
        state.alarm = None;
        state.ticks = 0;
        state.interval = setting.interval;
        state.flags = flags;
        state.next = match setting.value {
            0 => 0,
            value if absolute => match self.clock {
                Clock::Monotonic => value,
                Clock::Realtime => now.saturating_add(value.saturating_sub(realtime_ns())),
            },
            value => now.saturating_add(value),
        };
        if state.next != 0 {
            state.alarm = Some(Alarm::at(state.next, self.observer.clone()));
        }
        old
    }

    /// timerfd_gettime(2): what is left.
    pub fn get(&self) -> Setting {
        let now = monotonic_ns();
        let mut state = self.state.lock();
        state.catch_up(now);
        state.left(now)
    }
}

impl FileOps for TimerFd {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _file: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        let out = buf.get_mut(..8).ok_or(Errno::EINVAL)?;
        let mut state = self.state.lock();
        state.catch_up(monotonic_ns());
        if state.ticks == 0 {
            return Err(Errno::EAGAIN);
        }
        out.copy_from_slice(&std::mem::take(&mut state.ticks).to_ne_bytes());
        if state.next != 0 && state.alarm.is_none() {
            state.alarm = Some(Alarm::at(state.next, self.observer.clone()));
        }
        Ok(8)
    }
    fn poll(&self, _file: &OpenFile) -> Events {
        if self.look() > 0 { Events::READABLE } else { Events::empty() }
    }
    fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        Some(self.queue.clone())
    }
    fn ioctl(&self, _file: &OpenFile, caller: &mut dyn Caller, cmd: u32, arg: u64) -> Result<i64> {
        if cmd != TFD_IOC_SET_TICKS {
            return Err(Errno::ENOTTY);
        }
        let mut ticks = [0; 8];
        caller.read_memory(arg, &mut ticks)?;
        let ticks = u64::from_ne_bytes(ticks);
        if ticks == 0 {
            return Err(Errno::EINVAL);
        }
        self.state.lock().ticks = ticks;
        self.queue.wake(Events::READABLE);
        Ok(0)
    }
    fn fdinfo(&self, _file: &OpenFile) -> String {
        let left = self.get();
        let state = self.state.lock();
        let time = |ns: u64| format!("({}, {})", ns / 1_000_000_000, ns % 1_000_000_000);
        format!(
            "clockid: {}\nticks: {}\nsettime flags: 0{:o}\nit_value: {}\nit_interval: {}\n",
            self.clock_id,
            state.ticks,
            state.flags,
            time(left.value),
            time(left.interval)
        )
    }
}

/// The file of a new timer, off. `clock_id` is what the guest asked for.
pub fn open(clock_id: i32, nonblock: bool) -> Result<Arc<OpenFile>> {
    let clock = match clock_id {
        0 | 8 => Clock::Realtime,
        1 | 7 | 9 => Clock::Monotonic,
        _ => return Err(Errno::EINVAL),
    };
    let ops = Arc::new_cyclic(|this: &Weak<TimerFd>| TimerFd {
        clock,
        clock_id,
        state: Mutex::default(),
        queue: Arc::new(WaitQueue::new()),
        observer: Arc::new(Expired(this.clone())),
    });
    let flags = if nonblock { OpenFlags::RDWR | OpenFlags::NONBLOCK } else { OpenFlags::RDWR };
    Ok(OpenFile::anonymous(b"anon_inode:[timerfd]", 0o600, ops, flags))
}

#[cfg(test)]
mod tests {
    use super::{Setting, TimerFd, open};
    use executor::{Events, Waiter, block_on};
    use linux_abi::Errno;

    #[test]
    fn expires_wakes_and_counts() {
        let file = open(1, true).unwrap();
        let timer = file.ops_as::<TimerFd>().unwrap();
        let mut buf = [0; 8];
        assert_eq!(file.ops().read(&file, &mut buf, 0), Err(Errno::EAGAIN));
        timer.set(Setting { value: 2_000_000, interval: 1_000_000 }, false, 0);
        let waiter = Waiter::new();
        let queue = file.ops().wait_queue().unwrap();
        let listener = queue.listen(&waiter, Events::READABLE, false);
        block_on(waiter.wait());
        drop(listener);
        assert_eq!(file.ops().read(&file, &mut buf, 0), Ok(8));
        assert!(u64::from_ne_bytes(buf) >= 1);
        assert_eq!(timer.set(Setting::default(), false, 0).interval, 1_000_000);
        assert_eq!(timer.get(), Setting::default());
    }
}
