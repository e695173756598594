//! SIGTERM and Ctrl-C: the first stops gracefully, the second leaves at once.

use crossbeam_channel::{Receiver, unbounded};
use pseidon_exec::Control;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What the user says from now on.
pub(crate) fn listen() -> std::io::Result<Receiver<Control>> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (control, said) = unbounded();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut control_of = [Control::Stop, Control::LeaveNow].into_iter();
        for _ in signals.forever() {
            let Some(next) = control_of.next() else { continue };
            match next {
                Control::Stop => tracing::info!("stopping: what was read is committed first; a second signal leaves at once"),
                Control::LeaveNow => tracing::warn!("leaving at once"),
            }
            let _ = control.send(next);
        }
    })?;
    Ok(said)
}
