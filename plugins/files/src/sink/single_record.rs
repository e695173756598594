//! Single records of a quarantine, each in a file of its own that is in no lane.
//!
//! The name of the file depends on the record alone, and no file is replaced. So the record can be
//! written any number of times, by any process, and is in the folder once.

use pseidon_delivery::{Reason, failpoint};
use pseidon_plugin::sink::{Chunk, RoutedRows, SinkError};

use super::RunContext;
use super::lane::make_durable;
use super::lane_name::digest;
use super::open_file::{CloseContext, OpenFile};

/// Writes a record that was routed, unless it is there.
pub(super) fn write_single(
    shared: &RunContext,
    routed: RoutedRows,
    id: &str,
) -> Result<(), SinkError> {
    if let Some(bad) = routed.bad.first() {
        let what = format!("cannot quarantine an invalid record: {}", bad.reason);
        return Err(SinkError::Fatal(what.into()));
    }
    let mut chunks = routed.chunks.into_iter();
    chunks.try_for_each(|chunk| write(shared, chunk, id))
}

fn write(shared: &RunContext, chunk: Chunk, id: &str) -> Result<(), SinkError> {
    let cannot_write = |error| {
        let what = "cannot quarantine a record";
        SinkError::Transient(Reason::caused_by(what, error))
    };
    let (file, hidden) = shared.staging.create().map_err(cannot_write)?;
    let codec = &shared.settings.codec;
    let file = OpenFile::new(chunk.lane, None, codec, file, hidden);
    let mut file = file.map_err(|error| SinkError::Fatal(Reason::of(error)))?;
    let written = file.write(&chunk.rows);
    written.map_err(|error| SinkError::Fatal(Reason::of(error)))?;
    let label = format!("unwritable-{}", digest(id, 8));
    let context = CloseContext {
        place: Some(&label),
        ..shared.close_context()
    };
    let closing = file.close(&context);
    let mut closing = closing.map_err(|error| SinkError::Fatal(Reason::of(error)))?;
    if let Some(error) = closing.still_blocked() {
        let reason = format!("cannot quarantine a record: {error}");
        return Err(SinkError::Transient(reason.into()));
    }
    let closed = closing.into_closed().map_err(|_| {
        SinkError::Transient("cannot quarantine a record: the disk accepts nothing".into())
    })?;
    make_durable(&closed)?;
    failpoint::reach("single-synced");
    closed.publish_once(&shared.access).map_err(cannot_write)?;
    failpoint::reach("single-published");
    Ok(())
}
