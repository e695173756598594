//! SIGTERM and Ctrl-C: the first signal stops gracefully, the second exits immediately.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use pseidon_exec::Control;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How long the threads of a run may take to notice that the process exits immediately. A thread
/// that hangs in the kernel (a terminal that was stopped with Ctrl-S) must not hold up the process;
/// the protocol allows a crash at every step.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// Handles signals from now on. The receiver gets a [`Control`] for each of them; the sender is for
/// other callers that control the run. The process exits with code 1 when a run does not end within
/// `grace`, or after a second signal.
pub(crate) fn listen(grace: Duration) -> std::io::Result<(Sender<Control>, Receiver<Control>)> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (raised, signal) = unbounded();
    let (control, controls) = unbounded();
    spawn("signals", move || {
        for _ in signals.forever() {
            let _ = raised.send(());
        }
    })?;
    let of_callers = control.clone();
    spawn("interrupts", move || forward(&signal, &control, grace))?;
    Ok((of_callers, controls))
}

/// Handles signals for commands that have nothing to commit: the first signal sets the flag, the
/// second exits the process.
pub(crate) fn flag() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the signal that sets the flag must not find it set.
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

fn forward(signal: &Receiver<()>, control: &Sender<Control>, grace: Duration) {
    let Ok(()) = signal.recv() else { return };
    tracing::info!("stopping: committing what was read; a second signal exits immediately");
    let _ = control.send(Control::Stop);
    if signal.recv_timeout(grace + LAST_WAIT) != Err(RecvTimeoutError::Timeout) {
        tracing::warn!("exiting immediately");
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
