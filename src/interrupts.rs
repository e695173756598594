//! SIGTERM and Ctrl-C: the first stops gracefully, the second leaves at once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use pseidon_exec::Control;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How long the threads of a run may take to notice that it is left. One that hangs in the kernel
/// (a terminal that was stopped with Ctrl-S) must not hold the process; every step of the protocol
/// may end like that.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// What the user says from now on; others may say something too. The process ends by itself, with
/// exit code 1, when a run does not end within `grace` or after a second signal.
pub(crate) fn listen(grace: Duration) -> std::io::Result<(Sender<Control>, Receiver<Control>)> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (raised, signal) = unbounded();
    let (control, said) = unbounded();
    spawn("signals", move || {
        for _ in signals.forever() {
            let _ = raised.send(());
        }
    })?;
    let by_others = control.clone();
    spawn("interrupts", move || obey(&signal, &control, grace))?;
    Ok((by_others, said))
}

/// For commands that have nothing to commit: the flag is set by the first signal, and the process
/// ends with the second.
pub(crate) fn flag() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the signal that sets the flag must not find it set.
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

fn obey(signal: &Receiver<()>, control: &Sender<Control>, grace: Duration) {
    let Ok(()) = signal.recv() else { return };
    tracing::info!("stopping: what was read is committed first; a second signal leaves at once");
    let _ = control.send(Control::Stop);
    if signal.recv_timeout(grace + LAST_WAIT) != Err(RecvTimeoutError::Timeout) {
        tracing::warn!("leaving at once");
        let _ = control.send(Control::LeaveNow);
        std::thread::sleep(LAST_WAIT);
    }
    std::process::exit(1);
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
}
