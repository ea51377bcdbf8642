//! Delivery: takes pending signals and does what the process wants (signal(7)).

use linux_abi::signal::{SIG_DFL, SIG_IGN, SigInfo, SigSet, Signo};
use platform::Fault;

use kernel::process::ExitStatus;
use kernel::signal::{DefaultAction, default_action};

use crate::{Cx, Restart};

/// What delivery did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// No handler ran.
    None,
    /// A frame was built and the guest resumed in the handler.
    Handler,
    /// The process ends.
    Died,
}

/// The signal of a fault of guest code, as the host reported it.
pub fn fault_info(fault: &Fault) -> (Signo, SigInfo) {
    let sig = Signo::new(fault.signo).unwrap_or(Signo::SIGSEGV);
    (sig, SigInfo::fault(sig, fault.code, fault.addr))
}

/// Sends a signal that cannot be blocked or ignored: it is unblocked and its action reset if so.
pub fn force_signal(cx: &Cx<'_>, sig: Signo, info: SigInfo) {
    let actions = cx.process().actions();
    let blocked = {
        let mut signals = cx.thread.signals.lock();
        let blocked = signals.mask.contains(sig);
        signals.mask = signals.mask.without(sig);
        blocked
    };
    if blocked || actions.get(sig).handler == SIG_IGN {
        actions.set(sig, linux_abi::signal::SigAction::default());
    }
    // A full queue cannot keep out a standard signal.
    let _ = cx.thread.send_signal(info);
}

/// Takes the next deliverable signal of the thread or its process.
fn next_signal(cx: &Cx<'_>) -> Option<SigInfo> {
    let mut signals = cx.thread.signals.lock();
    let wanted = SigSet(!signals.mask.0);
    if let Some(info) = signals.pending.take(wanted) {
        return Some(info);
    }
    cx.process().shared_pending.lock().take(wanted)
}

/// Delivers what is pending. `restart` tells of an interrupted call: its kind and number; `rax` of the
/// registers then holds `-EINTR`.
pub async fn deliver(cx: &mut Cx<'_>, restart: Option<(Restart, u32)>) -> Delivery {
    let _ = restart;
    loop {
        if cx.thread.is_dying() {
            return Delivery::Died;
        }
        let Some(info) = next_signal(cx) else { break };
        let Some(sig) = Signo::new(info.signo) else { continue };
        let action = cx.process().actions().get(sig);
        match action.handler {
            SIG_IGN => continue,
            SIG_DFL => match default_action(sig) {
                DefaultAction::Ignore | DefaultAction::Continue | DefaultAction::Stop => continue,
                DefaultAction::Terminate | DefaultAction::Core => {
                    if cx.process().is_init_immune(sig) && info.code <= 0 {
                        continue;
                    }
                    cx.process().begin_exit(ExitStatus::Signaled { signal: sig, core: false });
                    return Delivery::Died;
                }
            },
            _ => {
                cx.kernel().note_missing("signal handlers");
                continue;
            }
        }
    }
    if let Some(mask) = cx.local.saved_mask.take() {
        cx.thread.signals.lock().mask = mask;
    }
    Delivery::None
}
