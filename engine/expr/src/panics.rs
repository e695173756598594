//! Handling of panics in code that processes records.
//!
//! Arrow's kernels panic if a result does not fit their types, for example if a string column
//! exceeds 2 GiB. For the pipeline that is an error of some records, not a bug of the process. Such
//! a panic is caught, and a panic hook calls [`is_expected`] to skip reporting it.
//!
//! Any other panic is a bug. The hook calls [`note_location`], so that the one who catches it can
//! [describe] it with its place, which is not in the payload.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// Of the last panic of this thread.
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Calls `work`. If it panics, returns the panic message as the error. State that `work` modified
/// must not be used after a panic.
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let before = CATCHING.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(before);
    outcome.map_err(|panic| message(panic.as_ref()))
}

/// Whether a panic of the current thread would be caught by [`catch_panic`].
pub fn is_expected() -> bool {
    CATCHING.get()
}

/// Remembers where the current thread panics. Called by a panic hook.
pub fn note_location(panic: &PanicHookInfo<'_>) {
    LOCATION.set(panic.location().map(ToString::to_string));
}

/// The message of a panic that the current thread has just caught, and its place in the source if
/// the panic hook noted it.
pub fn describe(panic: &(dyn Any + Send)) -> String {
    let message = message(panic);
    match LOCATION.take() {
        Some(location) => format!("{message} (at {location})"),
        None => message,
    }
}

/// The message of a panic payload.
pub fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("unknown panic").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_returned_as_an_error_with_its_message() {
        assert_eq!(catch_panic(|| 1), Ok(1));
        assert_eq!(
            catch_panic(|| -> u8 { panic!("offset overflow") }),
            Err("offset overflow".to_owned())
        );
        let rows = 12;
        assert_eq!(
            catch_panic(|| -> u8 { panic!("too many rows: {rows}") }),
            Err("too many rows: 12".to_owned())
        );
        assert_eq!(catch_panic(is_expected), Ok(true));
        assert!(!is_expected());
    }
}
