//! What all tests use: the address of the real broker, unique names, waits and options.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pseidon_dsl::{Node, NodeKind, Span, edn};
use pseidon_plugin::options::Options;
use pseidon_plugin::spec::PluginSpec;

/// The timeout of every wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The brokers of the tests.
pub(crate) fn brokers() -> String {
    std::env::var("PSEIDON_TEST_KAFKA").expect(
        "PSEIDON_TEST_KAFKA is not set; start a broker and set it: eval \
         \"$(scripts/local-up kafka)\"",
    )
}

/// A name that no other test uses.
pub(crate) fn unique(name: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    format!("{name}-{now:x}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Waits until `holds` returns true.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Options as a pipeline file contains them.
pub(crate) fn options<O: Options>(spec: &'static PluginSpec, text: &str) -> O {
    let node: Node = edn::read(text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
    assert!(matches!(node.kind, NodeKind::Map(_)), "{text}");
    O::parse_stage(spec, &[node], Span::default())
        .unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
}
