//! The end of threads and processes: exit(2), wait(2), reparenting.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use executor::Events;
use linux_abi::signal::{SigInfo, Signo, sa, si};

use crate::Thread;
use crate::process::{ExitStatus, Process};
use crate::wait::Report;

/// Nanoseconds in a clock tick (`sysconf(_SC_CLK_TCK)` is 100).
const TICK_NS: u64 = 10_000_000;

/// Takes an ended thread off its process; the last one ends the process with `status` (or with what it was ordered).
pub fn thread_exited(thread: &Arc<Thread>, status: ExitStatus) {
    let process = thread.process();
    thread.set_handle(None);
    if let Some(files) = thread.set_files(None) {
        // The last owner closes; locks of the process go with it.
        drop(files);
    }
    if thread.tid() != process.pid() {
        crate::ptrace::thread_ended(thread, status);
    } else if thread.ptrace.is_active() {
        process.tracing.lock().leader = Some(thread.clone());
    }
    // Before anybody hears of the end: segments are detached, semaphores adjusted.
    thread.set_ipc(None);
    thread.seccomp.release();
    // Its id may be that of a thread in exec as soon as the process has let go of it.
    process.kernel().pids.remove_thread(thread.tid());
    process.kernel().pi_futexes.holder_ended(thread.tid());
    let last = {
        let mut threads = process.threads.lock();
        threads.remove(&thread.tid());
        threads.is_empty()
    };
    // Whoever goes through exec waits for the others to end.
    process.stop_queue.wake(Events::all());
    // What this thread would have taken goes to another.
    crate::signal::retarget(thread, linux_abi::signal::SigSet(u64::MAX));
    if last {
        let status = process.note_exit_status(status);
        crate::ptrace::leader_ended(process, status);
        process_exited(process, thread, status);
    }
}

/// Makes the process a zombie, hands its children on and tells the parent.
fn process_exited(process: &Arc<Process>, last: &Thread, status: ExitStatus) {
    let uid = last.credentials().uid;
    let kernel = process.kernel();
    *process.timers.lock() = Default::default();
    // Who hears of its end may write to its program.
    process.set_executing(None);
    crate::signal::hang_up_orphans(process);
    kernel.io.locks.process_ended(process.pid());
    crate::ptrace::tracer_ended(process);
    kernel.reparent_children(process);
    let hooks = kernel.exit_hooks();
    for hook in hooks.iter() {
        hook(process);
    }
    {
        let mut state = process.state.lock();
        state.zombie = Some(status);
        state.uid = uid;
        state.comm = last.comm();
    }
    process.exit_queue.wake(Events::all());
    let Some(parent) = process.parent() else {
        // Started from outside: it stays until whoever started it has looked.
        kernel.init_exited(process, status);
        return;
    };
    if process.pid() == 1 {
        kernel.init_exited(process, status);
    }
    let signal = Signo::new(process.exit_signal.load(Ordering::Relaxed));
    if let Some(sig) = signal {
        let (code, value) = match status {
            ExitStatus::Exited(code) => (si::CLD_EXITED, code & 0xff),
            ExitStatus::Signaled { signal, core } => {
                (if core { si::CLD_DUMPED } else { si::CLD_KILLED }, signal.raw())
            }
        };
        let used = process.usage.lock().0;
        let (user, system) = (used.user_ns / TICK_NS, used.system_ns / TICK_NS);
        let mut info = SigInfo::child(code, process.pid(), uid, value, user, system);
        info.signo = sig.raw();
        let action = parent.actions().get(Signo::SIGCHLD);
        let unwanted = sig == Signo::SIGCHLD
            && (action.handler == linux_abi::signal::SIG_IGN || action.flags & sa::NOCLDWAIT != 0);
        if unwanted {
            parent.children.lock().remove(&process.pid());
            kernel.pids.remove_process(process.pid());
        }
        // A full queue loses the signal, as in Linux; the child queue does not.
        let _ = parent.send_signal(info);
    }
    parent.child_queue.wake(Events::IN);
}

impl Process {
    /// Notes a stop by job control and tells the parent.
    pub fn note_stopped(&self, sig: Signo) {
        {
            let mut state = self.state.lock();
            if state.stopped.is_some() {
                return;
            }
            state.stopped = Some(sig);
            state.report = Some(Report::Stopped(sig));
        }
        self.stop_queue.wake(Events::all());
        self.tell_parent(si::CLD_STOPPED, sig.raw());
    }

    /// SIGCONT: ends a stop and tells the parent.
    pub fn resume_from_stop(&self) {
        self.set_wants_stop(false);
        let was = {
            let mut state = self.state.lock();
            let was = state.stopped.take();
            if was.is_some() {
                state.report = Some(Report::Continued);
            }
            was
        };
        self.stop_queue.wake(Events::all());
        if was.is_some() {
            self.tell_parent(si::CLD_CONTINUED, Signo::SIGCONT.raw());
        }
    }

    fn tell_parent(&self, code: i32, status: i32) {
        let Some(parent) = self.parent() else { return };
        if parent.actions().get(Signo::SIGCHLD).flags & sa::NOCLDSTOP == 0 {
            let uid = self.any_thread().map_or(0, |t| t.credentials().uid);
            let _ = parent.send_signal(SigInfo::child(code, self.pid(), uid, status, 0, 0));
        }
        parent.child_queue.wake(Events::IN);
    }
}
