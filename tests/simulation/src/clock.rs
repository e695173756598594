//! The clocks of the machines.
//!
//! The program asks the C library for the time, so this binary has its own version of that function.
//! On a thread without a simulation it does what the function of the C library does.

use std::cell::Cell;
use std::ffi::c_int;

use libc::timespec;

thread_local! {
    static TIME: Cell<Option<Time>> = const { Cell::new(None) };
}

/// The time on the clocks, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    /// The monotonic clock.
    pub(crate) since_boot: u64,
    /// The wall clock, which jumps.
    pub(crate) wall: u64,
}

/// Sets the clocks of this thread.
pub(crate) fn set_time(time: Time) {
    TIME.set(Some(time));
}

/// The time, for the standard library and for other crates of this binary.
///
/// # Safety
/// As for `clock_gettime` of the C library.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut timespec,
) -> c_int {
    let shown = TIME
        .try_with(Cell::get)
        .ok()
        .flatten()
        .and_then(|shown| match clock {
            libc::CLOCK_REALTIME => Some(shown.wall),
            libc::CLOCK_MONOTONIC | libc::CLOCK_BOOTTIME => Some(shown.since_boot),
            _ => None,
        });
    let Some(milliseconds) = shown else {
        // Safety: the caller's arguments are those of the system call.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as c_int;
    };
    let shown = timespec {
        tv_sec: (milliseconds / 1000) as i64,
        tv_nsec: (milliseconds % 1000) as i64 * 1_000_000,
    };
    // Safety: the caller has room for a time.
    unsafe { time.write(shown) };
    0
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use super::{Time, set_time};

    #[test]
    fn the_standard_library_uses_these_clocks() {
        set_time(Time {
            since_boot: 1000,
            wall: 5000,
        });
        let (began, wall) = (Instant::now(), SystemTime::now());
        assert_eq!(
            wall.duration_since(UNIX_EPOCH).ok(),
            Some(Duration::from_secs(5))
        );
        set_time(Time {
            since_boot: 2500,
            wall: 4000,
        });
        assert_eq!(began.elapsed(), Duration::from_millis(1500));
        assert_eq!(
            SystemTime::now().duration_since(UNIX_EPOCH).ok(),
            Some(Duration::from_secs(4))
        );
    }
}
