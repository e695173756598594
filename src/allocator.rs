//! How the allocator of the C library keeps memory.
//!
//! Batches are large and live for a moment. By default the allocator returns their memory to the
//! system at once, and the system clears every page of it again for the next batch: in a flow that
//! changes fields that was a tenth of the CPU time. So up to [`KEPT_BYTES`] stay with each of its
//! heaps.

/// The unused bytes at the end of a heap that are kept.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: libc::c_int = 16 << 20;

/// Allocations of this size come from the system, and return to it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const SYSTEM_BYTES: libc::c_int = 4 << 20;

/// Sets how memory is kept. It does nothing with other C libraries.
pub(crate) fn configure() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: no other thread runs yet, and `mallopt` accepts any numbers.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
        libc::mallopt(libc::M_MMAP_THRESHOLD, SYSTEM_BYTES);
    }
}
