//! Randomness that is determined by the seed.
//!
//! Hash maps of the standard library iterate in an order that differs from one process to the next,
//! and with it the order in which files are committed and published. The order comes from the C
//! library's `getrandom`, so this binary has one of its own, whose bytes are determined by the seed
//! of the calling thread. Each simulated run has a thread of its own.

use std::cell::Cell;

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// Seeds the random bytes that this thread gets from the operating system from now on.
pub(crate) fn seed_this_thread(seed: u64) {
    STATE.set(seed);
}

/// Random bytes for the standard library and for other crates of this binary.
///
/// # Safety
/// As for `getrandom` of the C library: `buffer` has room for `length` bytes.
// The simulator replaces this function of the C library.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    for at in 0..length {
        // SplitMix64, one byte of each number.
        let state = STATE.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        STATE.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        // Safety: the caller has room for `length` bytes.
        unsafe { buffer.add(at).write((mixed >> 32) as u8) };
    }
    length as isize
}
