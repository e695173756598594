//! Taking over splits from other instances, in every sink that their records reach.
//!
//! The order of the steps is part of the argument in `docs/delivery.md`, so the protocol simulation
//! runs this code too.

use pseidon_delivery::committer::{CommitterError, Positions};
use pseidon_delivery::unfinished::{SinkRecord, unfinished_work};
use pseidon_delivery::{
    Claimant, CommitRecord, Committer, Position, SinkId, SplitId, UnfinishedWork, failpoint,
    position_in_target,
};
use pseidon_plugin::sink::{Sink, SinkError, TakenSplit, TargetPositions};
use pseidon_plugin::source::Resumption;

/// A sink in which splits are taken over.
pub struct TakeoverSink<'a> {
    /// The sink's committer.
    pub committer: &'a Committer,
    /// The sink itself.
    pub sink: &'a dyn Sink,
}

/// Why a takeover failed.
#[derive(Debug)]
pub struct TakeoverError {
    /// The sink where it failed.
    pub sink: SinkId,
    /// What failed.
    pub error: SinkError,
}

impl TakeoverError {
    fn of(committer: &Committer, error: impl Into<SinkError>) -> TakeoverError {
        TakeoverError {
            sink: committer.sink().clone(),
            error: error.into(),
        }
    }
}

/// Takes splits over in all sinks that their records reach, and holds those for which `is_held`
/// returns true; the others cannot be begun. Returns the records of each split, in the order of the
/// sinks, with the positions of targets that hold them.
///
/// The splits are taken in every sink before the first one is held: from then on no earlier owner
/// can commit, so what is checked stays true, and nothing is committed under a plan that was not
/// checked in every sink. They are held in the order in which they were taken, so that a concurrent
/// takeover never leaves some of the sinks to this plan and others to another one that goes on.
///
/// # Errors
/// [`CommitterError::OtherPlan`] if another plan has left work that only it can finish in a split
/// that is to be held. The epochs are raised all the same, so an instance with that plan must take
/// the splits again.
pub fn take_over(
    sinks: &[TakeoverSink<'_>],
    splits: &[SplitId],
    is_held: impl Fn(&SplitId) -> bool,
) -> Result<Vec<Vec<CommitRecord>>, TakeoverError> {
    let mut by_sink = Vec::with_capacity(sinks.len());
    for TakeoverSink { committer, sink } in sinks {
        let taken = take_in(committer, *sink, splits);
        by_sink.push(taken.map_err(|error| TakeoverError::of(committer, error))?);
    }
    let numbers: Vec<usize> = (0..splits.len())
        .filter(|number| is_held(&splits[*number]))
        .collect();
    if let Err(refused) = check_plans(sinks, splits, &numbers, &by_sink) {
        release_free(sinks, splits, &by_sink)?;
        return Err(refused);
    }
    for (TakeoverSink { committer, .. }, records) in sinks.iter().zip(&by_sink) {
        let epoch = |number: &usize| (splits[*number].clone(), records[*number].epoch);
        let held = committer.hold(&numbers.iter().map(epoch).collect::<Vec<_>>());
        held.map_err(|error| TakeoverError::of(committer, error))?;
        failpoint::reach("held");
    }
    let mut by_split: Vec<Vec<CommitRecord>> = vec![Vec::with_capacity(sinks.len()); splits.len()];
    for records in by_sink {
        let both = by_split.iter_mut().zip(records);
        both.for_each(|(of_split, record)| of_split.push(record));
    }
    Ok(by_split)
}

/// Releases splits of a takeover that was refused, in each sink in which they had no owner before.
/// Where they had one, they were not released by a graceful stop, and the next takeover has to see
/// that.
fn release_free(
    sinks: &[TakeoverSink<'_>],
    splits: &[SplitId],
    by_sink: &[Vec<CommitRecord>],
) -> Result<(), TakeoverError> {
    for (TakeoverSink { committer, .. }, records) in sinks.iter().zip(by_sink) {
        let taken = splits.iter().zip(records);
        let released = committer.release_free(taken);
        released.map_err(|error| TakeoverError::of(committer, error))?;
    }
    Ok(())
}

/// Refuses splits, given by their numbers, of which another plan has left something unfinished.
/// `by_sink` has the records of all splits in each sink.
fn check_plans(
    sinks: &[TakeoverSink<'_>],
    splits: &[SplitId],
    numbers: &[usize],
    by_sink: &[Vec<CommitRecord>],
) -> Result<(), TakeoverError> {
    let Some(TakeoverSink { committer, .. }) = sinks.first() else {
        return Ok(());
    };
    let Claimant {
        plan,
        accepts_other_plans,
        ..
    } = committer.claimant();
    let is_own = |record: &CommitRecord| record.low.is_none() || record.plan.as_ref() == Some(plan);
    let all_own = |number: usize| by_sink.iter().all(|records| is_own(&records[number]));
    let numbers: Vec<usize> = numbers
        .iter()
        .copied()
        .filter(|number| !all_own(*number))
        .collect();
    if *accepts_other_plans || numbers.is_empty() {
        return Ok(());
    }
    let reached: Vec<&SinkId> = sinks.iter().map(|open| open.committer.sink()).collect();
    let others = {
        let splits: Vec<SplitId> = numbers
            .iter()
            .map(|number| splits[*number].clone())
            .collect();
        committer.records_in_other_sinks(&reached, &splits)
    };
    let others = others.map_err(|error| TakeoverError::of(committer, error))?;
    let found = numbers
        .into_iter()
        .enumerate()
        .filter_map(|(place, number)| {
            let of_reached = reached.iter().zip(by_sink);
            let of_reached = of_reached.map(|(sink, records)| SinkRecord {
                sink,
                record: &records[number],
                is_reached: true,
            });
            let of_others = others.iter().map(|(sink, records)| SinkRecord {
                sink,
                record: &records[place],
                is_reached: false,
            });
            let records: Vec<SinkRecord<'_>> = of_reached.chain(of_others).collect();
            unfinished_work(&splits[number], &records, plan)
        });
    let refused = |work| TakeoverError::of(committer, CommitterError::OtherPlan(work));
    UnfinishedWork::of_one_plan(found).map_or(Ok(()), |work| Err(refused(work)))
}

/// Takes splits over in one sink, and publishes what was committed and not yet published before
/// anything new is read. Returns the records, in the order of the splits, with the positions of the
/// target if the target holds them.
fn take_in(
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
