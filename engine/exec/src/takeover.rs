//! Taking over splits from other instances, in every sink that their records reach.
//!
//! The order of the steps is part of the argument in `docs/delivery.md`, so the protocol simulation
//! runs this code too.

use pseidon_delivery::committer::Positions;
use pseidon_delivery::{CommitRecord, Committer, Position, SplitId, failpoint, position_in_target};
use pseidon_plugin::sink::{Sink, SinkError, TakenSplit, TargetPositions};
use pseidon_plugin::source::Resumption;

/// Takes splits over in one sink, and publishes what was committed and not yet published before
/// anything new is read. Returns the records, in the order of the splits, with the positions of the
/// target if the target holds them.
pub fn take_over(
    committer: &Committer,
    sink: &dyn Sink,
    splits: &[SplitId],
) -> Result<Vec<CommitRecord>, SinkError> {
    let mut records = committer.take(splits)?;
    failpoint::reach("taken");
    let with_owners = |(split, record): (&SplitId, &CommitRecord)| TakenSplit {
        split: split.clone(),
        epoch: record.epoch,
        owners: record.owners.clone(),
        low: record.low,
    };
    let taken: Vec<TakenSplit> = splits.iter().zip(&records).map(with_owners).collect();
    let staged = committer.staged()?;
    let over = sink.take_over(&taken, &staged)?;
    committer.published(over.published);
    failpoint::reach("recovered");
    let held: Vec<_> = splits
        .iter()
        .cloned()
        .zip(records.iter().map(|record| record.epoch))
        .collect();
    committer.become_sole_owner(&held)?;
    if splits.is_empty() {
        return Ok(records);
    }
    match (committer.positions(), over.held) {
        (Positions::InStore, None) => {}
        (Positions::InTarget, Some(target)) => {
            for (record, split) in records.iter_mut().zip(splits) {
                use_target(record, split, &target, committer)?;
            }
        }
        (Positions::InStore, Some(_)) | (Positions::InTarget, None) => {
            return Err(contradiction(committer));
        }
    }
    Ok(records)
}

/// The error for a plugin whose sink does not do what its protocol says. Its path would have
/// another guarantee than the one that was shown.
fn contradiction(committer: &Committer) -> SinkError {
    let protocol = match committer.positions() {
        Positions::InStore => "leaves its positions to the state store",
        Positions::InTarget => "holds its positions in its target",
    };
    let what = format!(
        "internal error: by its protocol the sink `{}` {protocol}, but at the takeover it did not",
        committer.sink()
    );
    SinkError::Fatal(what.into())
}

/// Replaces the positions of a record by those that the target holds.
fn use_target(
    record: &mut CommitRecord,
    split: &SplitId,
    target: &TargetPositions,
    committer: &Committer,
) -> Result<(), SinkError> {
    let held = target.by_split.get(split);
    let low = held.map(|held| held.low);
    let sink = committer.sink().as_str();
    record.low = position_in_target(record, low)
        .map_err(|copy| lost_positions(sink, split, &target.location, low, copy))?;
    record.ahead = held.map(|held| held.ahead.clone()).unwrap_or_default();
    Ok(())
}

/// Where to continue a split, given its record in every sink; `None` if no sink has begun it.
pub fn resumption(records: &[CommitRecord]) -> Option<Resumption> {
    let least = records
        .iter()
        .filter(|record| record.low.is_some())
        .min_by_key(|record| record.low)?;
    Some(Resumption {
        position: least.low?,
        resume: least.resume.clone(),
        is_finished: records.iter().all(|record| record.finished.is_some()),
    })
}

/// The error for a target that has lost positions that the store has copies of.
fn lost_positions(
    sink: &str,
    split: &SplitId,
    location: &str,
    held: Option<Position>,
    copy: Position,
) -> SinkError {
    let held = held.map_or_else(
        || format!("no position of {split}"),
        |held| format!("position {held} of {split}"),
    );
    let what = format!(
        "{location} has lost data: it holds {held}, but everything below {copy} was committed. \
         Continuing would write these records again: restore it to its last state. To accept \
         that, rename the stage `{sink}`, so that it starts without positions, and set where the \
         source starts"
    );
    SinkError::Fatal(what.into())
}

#[cfg(test)]
mod tests;
