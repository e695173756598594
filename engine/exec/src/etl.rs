//! The ETL threads: they turn batches into chunks for lanes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Instant;

use pseidon_delivery::{LaneId, Position, Reason, SplitId};
use pseidon_dsl::Span;
use pseidon_plan::chain::{ChainStep, Operator, PlannedSource};
use pseidon_plan::{SinkIndex, SourceIndex};
use pseidon_plugin::rows::{BadRow, Rows};
use pseidon_plugin::sink::{Chunk, RoutedRows};
use pseidon_plugin::source::Reread;

use crate::attempt::{Attempt, AttemptId};
use crate::blocking::BlockingPool;
use crate::culprits::{Culprits, not_passed, without_culprits};
use crate::dispatch::{BatchOutput, enter};
use crate::failure::{Failure, guarded};
use crate::process::{ProcessOutcome, Processor, RowReceiver};
use crate::quarantined::quarantine_bad;
use crate::queue::{BatchQueue, PreparedProcessor, QueuedBatch};
use crate::writers::Writers;

/// The processors of one thread, for the sources whose batches it has seen.
#[derive(Default)]
struct Processors(HashMap<(AttemptId, SourceIndex), (Weak<Attempt>, Processor)>);

impl Processors {
    fn of(
        &mut self,
        attempt: &Arc<Attempt>,
        source: SourceIndex,
        largest: usize,
    ) -> Result<&mut Processor, Failure> {
        let key = (attempt.id, source);
        if !self.0.contains_key(&key) {
            self.0.retain(|_, (attempt, _)| attempt.strong_count() > 0);
        }
        let (_, processor) = match self.0.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let processor = Processor::new(attempt.plan.source(source), largest)
                    .map_err(|reason| Failure::Fatal(reason.into()))?;
                new.insert((Arc::downgrade(attempt), processor))
            }
        };
        Ok(processor)
    }
}

/// The context of the ETL threads.
pub(crate) struct EtlContext {
    pub(crate) queue: Arc<BatchQueue>,
    pub(crate) writers: Arc<Writers>,
    /// The threads that fetch what records need from elsewhere.
    pub(crate) blocking: Arc<BlockingPool>,
    /// How many bytes each thread may produce at once.
    pub(crate) largest: usize,
}

/// Works until the queue is closed.
pub(crate) fn work(workplace: &EtlContext) {
    let mut processors = Processors::default();
    while let Some(unit) = workplace.queue.pop() {
        let attempt = unit.attempt.clone();
        if attempt.stop.leaving_now() {
            continue;
        }
        if let Err(failure) = guarded(|| handle(unit, &mut processors, workplace)) {
            processors.0.retain(|(id, _), _| *id != attempt.id);
            attempt.failures.report(failure);
        }
    }
}

/// Passes a batch through its chain, or as many of its records as can pass at once, and hands the
/// results to the writers when it is the batch's turn.
///
/// A batch that is processed in parts waits for its turn first, so that no part is stored: each
/// leaves before the next is produced. In between the batch goes back to the queue, which lets it
/// wait while too much of its run waits for writers.
fn handle(
    mut unit: QueuedBatch,
    processors: &mut Processors,
    workplace: &EtlContext,
) -> Result<(), Failure> {
    let (attempt, queue) = (unit.attempt.clone(), &workplace.queue);
    let own = processors.of(&attempt, unit.source, workplace.largest)?;
    // If the batch is not admitted, this may be out of date when it is.
    let mut prepared = unit.prepared.take();
    let at_once = prepared
        .as_ref()
        .map(|prepared| prepared.at_once(unit.done));
    let at_once = at_once.unwrap_or_else(|| own.at_once());
    let Some((unit, records)) = admitted(unit, at_once, queue) else {
        return Ok(());
    };
    if prepared.is_none() && !own.prepare_locally(&unit.batch, records.clone()) {
        return prepare_elsewhere(unit, records, own, workplace);
    }
    let processor = match &mut prepared {
        Some(prepared) => &mut prepared.processor,
        None => &mut *own,
    };
    let (source, batch) = (attempt.plan.source(unit.source), &unit.batch);
    let mut exits = ChunkCollector::new(&attempt);
    let passed = processor
        .process(source, batch, records.clone(), &mut exits)
        .map_err(|error| Failure::Fatal(Reason::of(error)))?;
    let ProcessOutcome::All(bad) = passed else {
        // A decoder that has panicked was replaced, so this one is not used again.
        let at_once = processor.at_once();
        own.limit(at_once);
        queue.put_back(attempt.id, unit);
        return Ok(());
    };
    if !attempt.stop.reading_stopped() && !exits.passes_throttles(unit.source, records.len()) {
        queue.put_back(attempt.id, unit);
        return Ok(());
    }
    if let Some(upto) = exits.limited_to(&unit) {
        queue.put_back(attempt.id, QueuedBatch { upto, ..unit });
        return Ok(());
    }
    exits.note_passed(unit.source);
    let mut chunks = std::mem::take(&mut exits.chunks);
    chunks.extend(quarantine_bad(
        &attempt,
        source,
        batch,
        bad,
        &exits.culprits,
    )?);
    Chunk::charge(batch, &mut chunks);
    pass_on(unit, records.end, chunks, workplace)
}

/// Hands the results of a batch's records up to this one to the writers when it is the batch's
/// turn. What is left of the batch goes back to the queue.
fn pass_on(
    unit: QueuedBatch,
    upto: usize,
    chunks: Vec<(SinkIndex, Chunk)>,
    workplace: &EtlContext,
) -> Result<(), Failure> {
    let (attempt, queue, batch) = (unit.attempt.clone(), &workplace.queue, unit.batch.clone());
    let (source, split) = (attempt.plan.source(unit.source), &unit.split);
    let send = |outcome| dispatch(&attempt, source, &split.split.id, outcome, workplace);
    let resume = batch.resume.clone();
    if upto == batch.len() {
        let outcome = BatchOutput {
            next: batch.next,
            resume,
            end: batch.end,
            chunks,
        };
        split.complete(unit.number, outcome, send)?;
        queue.release(attempt.id, has_its_turn);
    } else {
        send(BatchOutput {
            next: batch.positions[upto],
            resume,
            end: None,
            chunks,
        })?;
        queue.put_back(attempt.id, QueuedBatch { done: upto, ..unit });
    }
    Ok(())
}

/// Fetches what these records of a batch need from elsewhere on a thread that this may block, and
/// puts the batch back. Meanwhile the line of its attempt is skipped: its other batches would
/// probably need the same, and ETL threads are there for all runs.
fn prepare_elsewhere(
    unit: QueuedBatch,
    records: Range<usize>,
    own: &Processor,
    workplace: &EtlContext,
) -> Result<(), Failure> {
    let mut processor = own
        .another(unit.attempt.plan.source(unit.source))
        .map_err(|reason| Failure::Fatal(reason.into()))?;
    let queue = workplace.queue.clone();
    let blocked = queue.block(unit.attempt.id);
    workplace.blocking.run(move || {
        let (attempt, upto) = (unit.attempt.clone(), records.end);
        if attempt.stop.leaving_now() {
            return;
        }
        let prepared = guarded(|| {
            processor
                .prepare(&unit.batch, records)
                .map_err(|reason| Failure::Transient {
                    stage: attempt.plan.source(unit.source).stage.clone(),
                    reason,
                })
        });
        match prepared {
            Ok(()) => {
                let prepared = Some(Box::new(PreparedProcessor { processor, upto }));
                queue.put_back(attempt.id, QueuedBatch { prepared, ..unit });
            }
            Err(failure) => attempt.failures.report(failure),
        }
        drop(blocked);
    });
    Ok(())
}

/// Returns a batch that may be processed now, and the numbers of the records that may pass at once,
/// of which there are at most `at_once`. Any other batch waits in the queue, or is left unread.
fn admitted(
    unit: QueuedBatch,
    at_once: usize,
    queue: &BatchQueue,
) -> Option<(QueuedBatch, Range<usize>)> {
    let attempt = unit.attempt.clone();
    let is_stopped = attempt.stop.reading_stopped();
    if is_left_unread(&unit, is_stopped) {
        attempt.end_at_limit(unit.source);
        unit.split.leave_unread(unit.number);
        queue.release(attempt.id, has_its_turn);
        return None;
    }
    let (throttles, mut most) = (&attempt.throttles, at_once);
    if !is_stopped {
        if let Some(until) = throttles.wait(unit.source, Instant::now()) {
            queue.put_back_until(attempt.id, unit, until);
            return None;
        }
        most = most.min(throttles.at_once(unit.source));
    }
    let upto = unit.done.saturating_add(most).min(unit.upto);
    let is_whole = upto - unit.done == unit.batch.len();
    // What passes a limit is counted in order.
    let in_order = !is_whole || attempt.limits.apply_to(unit.source);
    if in_order && !has_its_turn(&unit) {
        queue
            .keep(attempt.id, unit, has_its_turn)
            .into_iter()
            .for_each(|unit| queue.put_back(attempt.id, unit));
        return None;
    }
    let records = unit.done..upto;
    Some((unit, records))
}

/// Whether a batch, or the rest of it, is not processed, so that the next run reads it: it is
/// behind a limit, or waits for a throttle at a stop. A position is never left inside of it.
fn is_left_unread(unit: &QueuedBatch, is_stopped: bool) -> bool {
    let (attempt, batch) = (&unit.attempt, &unit.batch);
    if is_inside_position(unit) {
        return false;
    }
    let position = batch.positions.get(unit.done).copied();
    let position = position.unwrap_or(batch.next);
    let is_limited = unit.done == unit.upto && unit.upto < batch.len();
    let is_reread = attempt.plan.source(unit.source).facts.reread == Reread::Exact;
    is_limited
        || unit.split.is_cut()
        || attempt
            .limits
            .is_over(unit.source, &batch.split.id, position)
        || is_stopped && is_reread && attempt.throttles.apply_to(unit.source)
}

/// Whether the next record of a batch has the position of the last one that is done.
fn is_inside_position(unit: &QueuedBatch) -> bool {
    let positions = &unit.batch.positions;
    let before = unit
        .done
        .checked_sub(1)
        .and_then(|last| positions.get(last));
    before.is_some_and(|last| positions.get(unit.done) == Some(last))
}

/// Whether all batches of the split before this one have left.
fn has_its_turn(unit: &QueuedBatch) -> bool {
    unit.split.is_turn_of(unit.number)
}

/// Enters a batch's chunks into the ledgers and hands them to the writers.
fn dispatch(
    attempt: &Attempt,
    source: &PlannedSource,
    split: &SplitId,
    outcome: BatchOutput,
    workplace: &EtlContext,
) -> Result<(), Failure> {
    for (index, chunk) in enter(
        &|sink| &*attempt.sinks[sink].committer,
        &source.sinks,
        split,
        outcome,
    ) {
        let sink = &attempt.sinks[index];
        if !attempt.plan.sinks[index].is_group {
            let records = &attempt.metrics.records_out;
            let records = records.with_label_values(&[&sink.stage]);
            records.inc_by(chunk.rows.len() as u64);
        }
        let writer = sink
            .only_writer
            .unwrap_or_else(|| writer_of(&chunk.lane, workplace.writers.count()));
        let unwritten = workplace.queue.unwritten(attempt.id, chunk.bytes());
        workplace
            .writers
            .write(attempt.id, index, writer, chunk, unwritten);
    }
    Ok(())
}

/// Collects the chunks of one batch.
struct ChunkCollector<'a> {
    attempt: &'a Attempt,
    chunks: Vec<(SinkIndex, Chunk)>,
    /// The records that a sink cannot write, as was found after they were read before.
    culprits: Culprits,
    /// How many records have passed the throttles at these places.
    throttled: Vec<(Span, usize)>,
    /// The positions of the records that have reached the limit.
    limited: Vec<Position>,
    /// Whether they are the last ones that may pass it.
    is_at_limit: bool,
}

impl<'a> ChunkCollector<'a> {
    fn new(attempt: &'a Attempt) -> ChunkCollector<'a> {
        ChunkCollector {
            attempt,
            chunks: Vec::new(),
            culprits: Culprits::default(),
            throttled: Vec::new(),
            limited: Vec::new(),
            is_at_limit: false,
        }
    }

    /// Whether what has reached throttles may pass, of this number of processed records.
    fn passes_throttles(&self, source: SourceIndex, processed: usize) -> bool {
        let passed = self.throttled.iter().map(|(_, records)| *records).max();
        let throttles = &self.attempt.throttles;
        throttles.admit(source, processed, passed.unwrap_or_default())
    }

    /// Counts what has reached the limit. If that is too much, nothing counts, and the result is
    /// how many records of the batch may be processed.
    fn limited_to(&mut self, unit: &QueuedBatch) -> Option<usize> {
        let (limits, split) = (&self.attempt.limits, &unit.batch.split.id);
        let first = match limits.admit(unit.source, split, &self.limited) {
            Ok(is_at_limit) => {
                self.is_at_limit = is_at_limit;
                return None;
            }
            Err(first) => first,
        };
        let positions = &unit.batch.positions;
        let upto = positions.partition_point(|position| *position < first);
        (upto > unit.done || !is_inside_position(unit)).then_some(upto)
    }

    /// Counts what has passed.
    fn note_passed(&self, source: SourceIndex) {
        if self.is_at_limit {
            self.attempt.end_at_limit(source);
        }
        for (place, records) in &self.throttled {
            self.attempt
                .throttles
                .take(*place, *records, Instant::now());
        }
    }
}

impl RowReceiver for ChunkCollector<'_> {
    fn decoded(&mut self, source: &PlannedSource, rows: &Rows) {
        self.attempt.tap.show(&source.stage, rows);
        self.attempt.seen_fields.note(source, rows);
        let records = self.attempt.seen_additions.note(source, rows);
        if records > 0 {
            let metric = &self.attempt.metrics.new_field_records;
            metric.with_label_values(&[&source.stage]).inc_by(records);
        }
    }

    fn arrive(&mut self, sink: SinkIndex, rows: Rows) -> Vec<BadRow> {
        let open = &self.attempt.sinks[sink];
        let mut routed = open.sink.route(rows.clone());
        if !routed.refused.is_empty() {
            routed.refused = not_passed(routed.refused, &rows, &open.committer);
        }
        if let Some(suspects) = open.suspects.as_ref().filter(|known| !known.is_empty()) {
            routed = without_culprits(routed, &rows, suspects, &open.committer);
        }
        let RoutedRows {
            chunks,
            mut bad,
            refused,
        } = routed;
        let stage = open.committer.sink().stage_and_place().0;
        for row in &refused {
            self.culprits.add(stage, rows.number(row.row as usize));
        }
        self.chunks
            .extend(chunks.into_iter().map(|chunk| (sink, chunk)));
        bad.extend(refused);
        bad
    }

    fn passed(&mut self, step: &ChainStep, rows: &Rows) {
        match &step.operator {
            Operator::Limit(..) => self
                .limited
                .extend((0..rows.len()).map(|row| rows.position(row))),
            Operator::Throttle(_, place) => self.throttled.push((*place, rows.len())),
            _ => {}
        }
        self.attempt.tap.show(&step.stage, rows);
    }

    fn watches(&self, step: &ChainStep) -> bool {
        self.attempt.tap.awaits(&step.stage)
    }
}

fn writer_of(lane: &LaneId, writers: usize) -> usize {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    lane.hash(&mut hasher);
    hasher.finish() as usize % writers
}
