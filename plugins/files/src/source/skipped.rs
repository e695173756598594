//! Reports of the records that are skipped because they are too long.

use pseidon_delivery::Position;
use pseidon_plugin::source::SourceSetup;

/// Logs records that were skipped, each with its start and length in bytes, and counts them.
pub(super) fn report_skipped(setup: &SourceSetup, file: &str, skipped: &[(Position, u64)]) {
    if skipped.is_empty() {
        return;
    }
    let stage = setup.stage.as_str();
    for (position, bytes) in skipped {
        tracing::warn!(
            stage,
            file,
            position,
            bytes,
            "record is longer than :max-record; it is skipped"
        );
    }
    let counter = &setup.metrics.bad_records;
    counter
        .with_label_values(&[stage, "dropped"])
        .inc_by(skipped.len() as u64);
}
