//! That the receiver of a handle's events is woken.

use crossbeam_channel::TryRecvError;

use super::*;

#[test]
fn the_receiver_is_woken_for_each_event_and_at_the_end() {
    let (handle, events) = SourceHandle::new(
        Budget::new(1),
        Stop::new(),
        Pause::default(),
        Arc::default(),
    );
    let seen = Arc::new(Mutex::new(Vec::new()));
    let calls = seen.clone();
    let handle = handle.with_wake(move || {
        calls.lock().push(match events.try_recv() {
            Ok(_) => "event",
            Err(TryRecvError::Empty) => "nothing",
            Err(TryRecvError::Disconnected) => "end",
        });
    });
    let other = handle.clone();
    handle.forget_finished(|_| true).unwrap();
    drop(handle);
    other.forget_finished(|_| true).unwrap();
    drop(other);
    assert_eq!(*seen.lock(), ["event", "event", "end"]);
}
