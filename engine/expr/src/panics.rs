//! Panics of code that records drive.
//!
//! Arrow's kernels panic where a result does not fit their types, for example when a column of
//! texts passes 2 GiB. To the pipeline that is an error of some records, not a fault of the
//! process: it is caught, and code that reports panics can ask [`is_expected`] and leave it out.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Does `work`. If it panics, the error is what the panic said. Nothing that `work` changes may be
/// used after a panic.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let before = CATCHING.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(before);
    outcome.map_err(|panic| message(panic.as_ref()))
}

/// Whether a panic of this thread is caught and handled at this moment.
pub fn is_expected() -> bool {
    CATCHING.get()
}

/// What a panic said.
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
    fn a_panic_is_an_error_that_says_what_it_said() {
        assert_eq!(caught(|| 1), Ok(1));
        assert_eq!(
            caught(|| -> u8 { panic!("offset overflow") }),
            Err("offset overflow".to_owned())
        );
        let rows = 12;
        assert_eq!(
            caught(|| -> u8 { panic!("too many rows: {rows}") }),
            Err("too many rows: 12".to_owned())
        );
        assert_eq!(caught(is_expected), Ok(true));
        assert!(!is_expected());
    }
}
