//! The same under `shuttle`, which runs one thread at a time and decides at each lock which one.
//! Time passes only while threads wait for it.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use shuttle::thread::yield_now;

/// A wait that is longer than this never ends by itself.
const FOREVER: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

/// `None` only while its thread waits.
pub(crate) struct Guard<'a, T>(Option<shuttle::sync::MutexGuard<'a, T>>, &'a Mutex<T>);

#[derive(Debug, Default)]
pub(crate) struct Condvar(shuttle::sync::Condvar);

pub(crate) type JoinHandle = shuttle::thread::JoinHandle<()>;

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> Guard<'_, T> {
        Guard(
            Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)),
            self,
        )
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().expect("it is locked")
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_deref_mut().expect("it is locked")
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Condvar(shuttle::sync::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut Guard<'_, T>) {
        let locked = guard.0.take().expect("it is locked");
        guard.0 = Some(self.0.wait(locked).unwrap_or_else(PoisonError::into_inner));
    }

    /// A wait with a deadline may end at any time, and then as much time has passed.
    pub(crate) fn wait_for<T>(&self, guard: &mut Guard<'_, T>, time: Duration) {
        if time >= FOREVER {
            return self.wait(guard);
        }
        drop(guard.0.take());
        TIME.set(TIME.get() + time);
        yield_now();
        guard.0 = Some(guard.1.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
        // The woken thread may run first.
        yield_now();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
        yield_now();
    }
}

pub(crate) fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle> {
    shuttle::thread::Builder::new().name(name).spawn(work)
}

/// Every thread is joined before it is forgotten.
pub(crate) fn has_ended(_thread: &JoinHandle) -> bool {
    false
}

thread_local! {
    static BEGAN: Instant = Instant::now();
    /// All threads of a model are on one OS thread.
    static TIME: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

pub(crate) fn now() -> Instant {
    BEGAN.with(|began| *began) + TIME.get()
}

shuttle::thread_local! {
    static HAND_OVER: RefCell<Option<Rc<dyn Fn()>>> = RefCell::new(None);
}

pub(crate) fn when_about_to_wait(hand_over: impl Fn() + 'static) {
    HAND_OVER.with(|place| *place.borrow_mut() = Some(Rc::new(hand_over)));
}

pub(crate) fn about_to_wait() {
    let hand_over = HAND_OVER.with(|place| place.borrow().clone());
    if let Some(hand_over) = hand_over {
        hand_over();
    }
}
