//! Named steps at which a test can kill the process.
//!
//! Compiled in only with the feature `failpoints`; without it [`reach`] is nothing. With it, `PSEIDON_FAIL=published:3` kills the
//! process (SIGKILL, so that nothing can clean up) when the step `published` is reached for the third time.

/// The process comes past the step `name`.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_name: &str) {}

/// The process comes past the step `name`, and dies there if the environment says so.
#[cfg(feature = "failpoints")]
pub fn reach(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    struct Target {
        name: String,
        left: AtomicI64,
    }

    static TARGET: LazyLock<Option<Target>> = LazyLock::new(|| {
        let text = std::env::var("PSEIDON_FAIL").ok()?;
        let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
        Some(Target { name: name.to_owned(), left: AtomicI64::new(count.parse().unwrap_or(1)) })
    });

    let Some(target) = &*TARGET else { return };
    if target.name == name && target.left.fetch_sub(1, Ordering::SeqCst) == 1 {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}
