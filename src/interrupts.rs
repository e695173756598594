//! SIGTERM and Ctrl-C: the first signal stops gracefully, the second exits immediately. SIGHUP: files
//! are read again.
//!
//! `timeout`, a terminal and others send one signal to the process and to its group, so that it
//! arrives twice within a moment: what arrives [`TOGETHER`] with the first signal is no second one.
//!
//! No signal is lost. The library that handles them loses one that arrives while it takes over the
//! handler of the system: it calls the handler that was there before, and that would do nothing. So
//! before that, [`count`] becomes the handler. The library calls it for every signal from then on,
//! and its count is how many there were.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use pseidon_exec::Control;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How long the threads of a run may take to notice that the process exits immediately. A thread
/// that hangs in the kernel (a terminal that was stopped with Ctrl-S) must not hold up the process;
/// the protocol allows a crash at every step.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// The time in which signals are one.
const TOGETHER: Duration = Duration::from_millis(200);

const SIGNALS: [libc::c_int; 2] = [SIGINT, SIGTERM];

/// How many signals arrived that were not taken note of yet.
static RAISED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: libc::c_int) {
    RAISED.fetch_add(1, Ordering::SeqCst);
}

/// Counts signals from now on.
fn start_counting() -> io::Result<()> {
    let handler: extern "C" fn(libc::c_int) = count;
    for signal in SIGNALS {
        // SAFETY: `count` only adds to an atomic number, which a signal handler may do.
        let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        if before == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Handles signals from now on. The receiver gets a [`Control`] for each of them; the sender is for
/// other callers that control the run. The process exits with code 1 when a run does not end within
/// `grace`, or after a second signal.
pub(crate) fn listen(grace: Duration) -> io::Result<(Sender<Control>, Receiver<Control>)> {
    start_counting()?;
    let mut signals = Signals::new(SIGNALS)?;
    let (raised, signal) = unbounded();
    let (control, controls) = unbounded();
    spawn("signals", move || {
        loop {
            for _ in 0..RAISED.swap(0, Ordering::SeqCst) {
                let _ = raised.send(());
            }
            // Only wakes this thread: what counts was counted before.
            signals.wait().for_each(drop);
        }
    })?;
    let of_callers = control.clone();
    spawn("interrupts", move || forward(&signal, &control, grace))?;
    Ok((of_callers, controls))
}

/// Handles signals for commands that have nothing to commit: the first signal sets the flag, the
/// second exits the process.
pub(crate) fn flag() -> io::Result<Arc<AtomicBool>> {
    start_counting()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in SIGNALS {
        // In this order: the signal that sets the flag must not find it set.
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    if RAISED.load(Ordering::SeqCst) > 0 {
        stop.store(true, Ordering::SeqCst);
    }
    Ok(stop)
}

/// SIGHUP does not end the process from now on. Until [`on_hangup`] handles it, nothing has to be
/// done for it: the files have not been read yet.
pub(crate) fn outlive_hangups() -> io::Result<()> {
    signal_hook::flag::register(SIGHUP, Arc::default()).map(drop)
}

/// Calls `work` for each SIGHUP from now on. Signals that arrive during a call are one.
pub(crate) fn on_hangup(work: impl Fn() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP])?;
    spawn("hangups", move || {
        signals.forever().for_each(|_| work());
    })
}

fn forward(signal: &Receiver<()>, control: &Sender<Control>, grace: Duration) {
    let Ok(()) = signal.recv() else { return };
    let first = Instant::now();
    tracing::info!("stopping: committing what was read; a second signal exits immediately");
    let _ = control.send(Control::Stop);
    let together = first + TOGETHER;
    while signal.recv_deadline(together).is_ok() {}
    if signal.recv_deadline(first + grace + LAST_WAIT) != Err(RecvTimeoutError::Timeout) {
        tracing::warn!("exiting immediately");
        let _ = control.send(Control::LeaveNow);
        std::thread::sleep(LAST_WAIT);
    }
    std::process::exit(1);
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
}
