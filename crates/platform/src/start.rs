//! Starting the machine: shared files, zygote, filter, workers.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use linux_abi::Errno;
use rustix::process::{PidfdFlags, pidfd_open};
use slot::layout::{SLOT_VA, STACK_SIZE, STACK_VA};

use crate::limits::HostLimits;
use crate::machine::{Core, Platform};
use crate::native::Native;
use crate::parking::Parking;
use crate::patch::Patcher;
use crate::placement::Placement;
use crate::process::{ProcessCore, Space};
use crate::quota::Quota;
use crate::slots::Slots;
use crate::spinner::Spinner;
use crate::thread::GuestThread;
use crate::vdso::Vdso;
use crate::watch::Watch;
use crate::{bpf, filter};

/// How the machine is to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Every memory call goes through the kernel process (`--memory=checked`).
    pub checked_memory: bool,
    /// Which calls of [`crate::NATIVE_CALLS`] are not to run unseen in any process.
    pub seen: Vec<u32>,
    /// Whether a worker may spin where a CPU is idle.
    pub allow_spin: bool,
    /// Whether callers may wait in futex(2) for a worker that is awake.
    pub parking: bool,
    /// Whether they do so even where it does not pay, for tests.
    pub eager_parking: bool,
    /// The control groups whose CPU time spinning would use up.
    pub quota: Arc<Quota>,
    /// Guest processes cannot be read by others of the same user. Needs CAP_SYS_PTRACE in the own user namespace.
    pub undumpable: bool,
    /// Whether system call sites that are met often are rewritten to jump into the shim.
    pub patching: bool,
    /// A procfs of our pid namespace, for /proc/PID/mem; without it that of `host::proc_fs`.
    pub proc: Option<Arc<OwnedFd>>,
    /// Whether the shim's memory is sealed with mseal(2), where the host has that.
    pub sealing: bool,
    /// Does without the flags of notification that only newer hosts have (WAIT_KILLABLE_RECV, SYNC_WAKE_UP).
    pub old_host: bool,
    /// How long guest code may go on that should have come in, said who it is, or ended.
    pub patience: Duration,
    /// A child of this process that is no stub.
    pub helper: Option<i32>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            checked_memory: false,
            seen: Vec::new(),
            allow_spin: true,
            parking: true,
            eager_parking: false,
            quota: Arc::default(),
            undumpable: true,
            patching: true,
            sealing: true,
            proc: None,
            old_host: false,
            patience: Duration::from_secs(10),
            helper: None,
        }
    }
}

/// Why the machine does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A host call failed.
    #[error("{0} failed: {1}")]
    Host(&'static str, Errno),
    /// The zygote did not come up.
    #[error("the stub process did not come up: {0}")]
    Zygote(String),
}

fn host_error(what: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::Host(what, errno)
}

impl Platform {
    /// Starts the zygote and the workers. The calling process must have no other child processes from now on,
    /// since all its children are reaped here.
    pub fn start(config: Config) -> Result<Arc<Platform>, Error> {
        let slots = Slots::new().map_err(host_error("memfd_create"))?;
        let image = image()?;
        let zygote = slots.slot(0).ok_or_else(|| Error::Zygote("no slot".into()))?;
        zygote.prepare(0, SLOT_VA, STACK_VA + STACK_SIZE - 256, 0);

        // The filter needs addresses of the image: they are read from its ELF header's text segment.
        let (text_start, text_end) = text_range()?;
        let settings = filter::Settings {
            text_start,
            text_end,
            checked_memory: config.checked_memory,
            seen: config.seen.clone(),
        };
        let filter = filter::build(&settings);
        zygote.write_data(0, &bpf::to_bytes(&filter)).map_err(host_error("writing the filter"))?;
        let native = Native::new(&settings, &slots).map_err(host_error("writing the second filter"))?;
        // SECCOMP_FILTER_FLAG_NEW_LISTENER, and WAIT_KILLABLE_RECV since Linux 5.19: interrupts do not make
        // a thread ring again.
        let plain = 1 << 3;
        let flags = if config.old_host { plain } else { plain | 1 << 5 };
        let undumpable = u64::from(config.undumpable);
        let unsealed = u64::from(!config.sealing);
        zygote.set_answer(0, [filter.len() as u64, flags, undumpable, plain, unsealed, 0, 0, 0], 0);

        let fds = [slots.slots.fd(), slots.control.fd()];
        let pid = host::process::spawn_image(image.as_fd(), c"sallet-stub", &fds)
            .map_err(host_error("starting the stub"))?;
        let listener = listener(&slots, pid)?;
        // Linux 6.6; without it answers are a little slower.
        let placed = if config.old_host {
            Err(Errno::EINVAL)
        } else {
            host::notify::set_sync_wake_up(listener.as_fd(), true)
        };
        if let Err(errno) = placed {
            tracing::debug!("answers wake their callers by the scheduler's choice: {errno}");
        }
        let placement = Placement::new(placed.is_ok());

        let [vdso, entry, mmap_top, initial_stack, vdso_sealed, ..] =
            slots.slot(0).map_or([0; 6], |s| s.fault());
        // A page or two; AMX, which is not in there, would be 8 KiB more.
        let xstate_size = slots.slot(0).map_or(0, |s| s.xstate_size()).min(16 << 10);
        let patching = config.patching && (text_start..text_end).contains(&entry);
        let patcher = Patcher::new(patching, config.proc.clone(), entry);
        let spinner = Spinner::new(config.allow_spin, config.quota.clone());
        let platform = Arc::new(Platform::assemble(
            slots,
            listener,
            Vdso::of(pid, vdso, vdso_sealed != 0),
            mmap_top,
            initial_stack,
            xstate_size,
            (spinner, placement, Parking::new(config.parking, config.eager_parking)),
            patcher,
            Watch::new(config.patience, config.helper),
            native,
        ));
        platform.adopt_zygote(pid)?;
        let thread_error =
            |e: std::io::Error| Error::Host("pthread_create", Errno::from_raw(e.raw_os_error().unwrap_or(0)));
        platform.spinner.prepare(&platform).map_err(thread_error)?;
        for (name, body) in
            [("notify", crate::worker::run as fn(&Arc<Platform>)), ("reaper", crate::worker::reap)]
        {
            let platform = platform.clone();
            executor::start_duty(name, move || body(&platform)).map_err(thread_error)?;
        }
        Ok(platform)
    }

    fn adopt_zygote(self: &Arc<Self>, pid: i32) -> Result<(), Error> {
        let (space, index) = Space::new(self, 0).map_err(host_error("slots of the zygote"))?;
        let process = ProcessCore::new(space, 0, pid, HostLimits::of(pid));
        process.showing.store(self.shows_all(), Ordering::SeqCst);
        let core: Arc<Core> =
            self.make_core(index, 0, &process, false).map_err(host_error("slot of the zygote"))?;
        core.tid.store(pid, Ordering::Relaxed);
        self.add_core(&core);
        let mut zygote = GuestThread::new(self.clone(), core.clone());
        let platform = self.clone();
        executor::spawn(async move {
            // It has to say that it waits before it can be told to fork.
            let _ = zygote.next_exit().await;
            platform.set_zygote(zygote);
        });
        // Let it go on.
        core.slot.intr().store(0, Ordering::SeqCst);
        Ok(())
    }
}

/// The stub's image in a sealed memfd.
fn image() -> Result<OwnedFd, Error> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let errno = |e: rustix::io::Errno| Error::Host("memfd of the stub", Errno::from_raw(e.raw_os_error()));
    let fd = memfd_create("sallet-stub", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(errno)?;
    let mut rest = stub::IMAGE;
    while !rest.is_empty() {
        let n = rustix::io::write(&fd, rest).map_err(errno)?;
        rest = rest.get(n..).unwrap_or_default();
    }
    fcntl_add_seals(&fd, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .map_err(errno)?;
    Ok(fd)
}

/// First and one-past-last address of the executable segment of the image.
fn text_range() -> Result<(u64, u64), Error> {
    let bad = || Error::Zygote("its image is damaged".into());
    let word = |at: usize| -> Result<u64, Error> {
        let bytes = stub::IMAGE.get(at..at + 8).ok_or_else(bad)?;
        Ok(u64::from_ne_bytes(bytes.try_into().map_err(|_| bad())?))
    };
    let phoff = usize::try_from(word(32)?).map_err(|_| bad())?;
    let count = (word(56)? & 0xffff) as usize;
    for i in 0..count {
        let at = phoff + i * 56;
        let (kind, flags) = {
            let w = word(at)?;
            (w as u32, (w >> 32) as u32)
        };
        if kind == 1 && flags & 1 != 0 {
            let start = word(at + 16)?;
            return Ok((start, start + word(at + 40)?));
        }
    }
    Err(bad())
}

/// Waits until the zygote has its filter and takes the listener out of it.
fn listener(slots: &Slots, pid: i32) -> Result<OwnedFd, Error> {
    const READY: u32 = 77;
    let slot = slots.slot(0).ok_or_else(|| Error::Zygote("no slot".into()))?;
    let raw = rustix::process::Pid::from_raw(pid).ok_or_else(|| Error::Zygote("no process id".into()))?;
    let pidfd = pidfd_open(raw, PidfdFlags::empty())
        .map_err(|e| Error::Host("pidfd_open", Errno::from_raw(e.raw_os_error())))?;
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut pause = Duration::from_micros(20);
    while slot.intr().load(Ordering::SeqCst) != READY {
        let mut poll = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if rustix::event::poll(&mut poll, Some(&now)).is_ok_and(|n| n > 0) {
            return Err(Error::Zygote("it ended at once (is the host older than Linux 5.19?)".into()));
        }
        if Instant::now() > deadline {
            return Err(Error::Zygote("it is silent".into()));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(1));
    }
    let fd = slot.native_ret();
    if fd < 0 {
        return Err(Error::Host("seccomp in the stub", Errno::from_raw(i32::try_from(-fd).unwrap_or(0))));
    }
    host::process::take_fd(pidfd.as_fd(), fd as i32).map_err(host_error("pidfd_getfd"))
}
