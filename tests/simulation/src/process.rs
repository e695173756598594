//! A simulated instance: the real committer and the real `files` sink, under the steps that the engine takes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pseidon_delivery::committer::{Abandon, Begin, Positions, Seen};
use pseidon_delivery::{Claimant, CommitRecord, Committer, Position, SinkId, SplitId};
use pseidon_dsl::expr::ExprKind;
use pseidon_dsl::node::Text;
use pseidon_expr::{Column, Scope};
use pseidon_files::FilesSink;
use pseidon_plugin::batch::MetaWanted;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::sink::{Chunk, PreparedSink, RecordShape, Sink, SinkError, SinkInput, SinkPlugin, SinkSetup, Taken, Writer};
use pseidon_plugin::{BatchBuilder, LaneMemory, Options, Rows, Split, Stop};

use crate::disk::MOUNT_POINT;
use crate::network::Client;
use crate::world::{Order, Shared, split_id};

/// Names a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId {
    pub(crate) machine: usize,
    pub(crate) number: usize,
    /// The version of the pipeline that it runs.
    pub(crate) plan: usize,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{}p{}", self.machine, self.number)?;
        if self.plan > 0 { write!(f, "-v{}", self.plan + 1) } else { Ok(()) }
    }
}

/// Why an attempt has ended.
#[derive(Debug)]
pub(crate) enum Failure {
    Fenced(String),
    Transient(String),
    /// Another plan has left lanes ahead.
    OtherPlan(String),
    Fatal(String),
    Stopped,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Fenced(reason) | Failure::Transient(reason) | Failure::OtherPlan(reason) | Failure::Fatal(reason) => {
                f.write_str(reason)
            }
            Failure::Stopped => f.write_str("it was told to leave"),
        }
    }
}

impl From<Abandon> for Failure {
    fn from(abandon: Abandon) -> Self {
        match abandon {
            Abandon::Fenced(error) => Failure::Fenced(error.to_string()),
            other @ Abandon::OtherPlan { .. } => Failure::OtherPlan(other.to_string()),
            Abandon::Fatal(reason) => Failure::Fatal(reason),
            Abandon::Stopped => Failure::Stopped,
        }
    }
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Abandon(abandon) => abandon.into(),
            SinkError::Transient(reason) => Failure::Transient(reason),
            SinkError::Fatal(reason) => Failure::Fatal(reason),
        }
    }
}

/// The sink of every simulated pipeline.
pub(crate) fn sink_id() -> SinkId {
    SinkId::from("lake")
}

/// What all processes of all runs share: it has no state that a run could leave behind.
struct Fixture {
    /// The sink of each version of the pipeline.
    sinks: [Arc<dyn PreparedSink>; PLANS],
    schema: SchemaRef,
    metrics: Metrics,
    memory: Arc<LaneMemory>,
}

/// How many versions of the pipeline there are. They write to buckets of different names.
pub(crate) const PLANS: usize = 2;

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let field = Arc::new(Field::new("k", DataType::Utf8, true));
    let ExprKind::Path(path) = pseidon_dsl::expr::parse(&Text::plain("k", 0)).expect("`k` is an expression").kind else {
        unreachable!("`k` is a path")
    };
    let scope = Scope { columns: vec![Column { path, field: field.clone() }] };
    let input = SinkInput { scope, record: RecordShape::AsCame { format: "raw".into() } };
    let sinks = std::array::from_fn(|plan| sink(plan, &input));
    Fixture { sinks, schema: Arc::new(Schema::new(vec![field])), metrics: Metrics::new(), memory: LaneMemory::new(1 << 30) }
});

fn sink(plan: usize, input: &SinkInput) -> Arc<dyn PreparedSink> {
    let text = format!("{{:base-dir \"{MOUNT_POINT}\" :path \"v{}-{{k}}\" :codec :raw :rollover {{:records 5}}}}", plan + 1);
    let nodes = pseidon_dsl::edn::read_all(&text).expect("the options are well-formed");
    let options = Options::parse(FilesSink.spec(), &nodes, pseidon_dsl::Span::default()).expect("the options are valid");
    FilesSink.prepare(&options, input).expect("the sink is valid")
}

/// Makes what all runs share. The parser of options needs more stack than a simulated process has.
pub(crate) fn prepare() {
    LazyLock::force(&FIXTURE);
}

/// A process: attempts, until one ends well or the process is told to leave.
pub(crate) fn run(world: &Shared, id: ProcessId) {
    let seen = Arc::new(Seen::default());
    loop {
        let failure = match attempt(world, id, &seen) {
            Ok(()) => return world.lock().note(|| format!("{id}  has stopped well")),
            Err(failure) => failure,
        };
        world.lock().note(|| format!("{id}  attempt ends: {failure}"));
        match failure {
            Failure::Fenced(_) | Failure::Transient(_) => world.switch(),
            Failure::Stopped | Failure::OtherPlan(_) => return,
            Failure::Fatal(reason) => return world.lock().violate(format!("{id} gives up: {reason}")),
        }
    }
}

/// An attempt, as the engine's threads have it together.
struct Attempt<'a> {
    world: &'a Shared,
    id: ProcessId,
    committer: Arc<Committer>,
    sink: Arc<dyn Sink>,
    writer: Box<dyn Writer>,
    /// The partitions that it holds, each with the position from which it reads on.
    held: BTreeMap<usize, Position>,
}

fn attempt(world: &Shared, id: ProcessId, seen: &Arc<Seen>) -> Result<(), Failure> {
    let stop = Stop::new();
    let (owner, base) = {
        let mut locked = world.lock();
        locked.controls.entry(id).or_default().stop = Some(stop.clone());
        (locked.owner_name(id), locked.disks.dir().to_owned())
    };
    let store = Arc::new(Client { world: world.clone(), process: id });
    let claimant = Claimant { owner: owner.clone(), plan: format!("plan{}", id.plan), accepts_other_plans: false };
    let committer = Committer::new(sink_id(), store, claimant, Positions::InStore, stop.abandoned()).remembering(seen.clone());
    let switching = world.clone();
    let committer = Arc::new(committer.waiting_by(move |_| switching.switch()));
    let setup = SinkSetup {
        pipeline: "clicks".into(),
        base,
        instance: owner.clone(),
        store: "simulated".into(),
        committer: committer.clone(),
        writers: 1,
        memory: FIXTURE.memory.clone(),
        stop,
        metrics: FIXTURE.metrics.clone(),
    };
    let sink = world.with_registry(id, || FIXTURE.sinks[id.plan].open(setup))?;
    let writer = sink.writer()?;
    let mut attempt = Attempt { world, id, committer, sink, writer, held: BTreeMap::new() };
    let outcome = attempt.work();
    world.with_registry(id, || drop(attempt));
    outcome
}

impl Attempt<'_> {
    fn work(&mut self) -> Result<(), Failure> {
        loop {
            self.world.switch();
            let order = self.world.lock().next_order(self.id, &self.held);
            match order {
                Order::Take(partitions) => self.take(&partitions)?,
                Order::Release(partitions) => self.release(&partitions)?,
                Order::Lost(partition) => return Err(Failure::Fenced(format!("the group has taken partition {partition} away"))),
                Order::Read(partition, count) => self.read(partition, count)?,
                Order::Flush(None) => self.writer.flush(None)?,
                Order::Flush(Some(partitions)) => self.writer.flush(Some(&ids(&partitions)))?,
                Order::Idle => self.committer.commit_idle()?,
                Order::Tell => self.tell_group(),
                Order::Fail => return Err(Failure::Transient("something fails for a moment".into())),
                Order::Finish => {
                    let all: Vec<usize> = self.held.keys().copied().collect();
                    return self.release(&all);
                }
                Order::Nothing => {}
            }
        }
    }

    fn take(&mut self, partitions: &[usize]) -> Result<(), Failure> {
        let ids = ids(partitions);
        let taken = self.committer.take(&ids)?;
        let with_owners = |(split, record): (&SplitId, &CommitRecord)| Taken {
            split: split.clone(),
            epoch: record.epoch,
            owners: record.owners.clone(),
            low: record.low,
        };
        let previous: Vec<Taken> = ids.iter().zip(&taken).map(with_owners).collect();
        let staged = self.committer.staged()?;
        let over = self.world.with_registry(self.id, || self.sink.take_over(&previous, &staged))?;
        self.committer.published(over.published);
        let held: Vec<_> = ids.iter().cloned().zip(taken.iter().map(|record| record.epoch)).collect();
        self.committer.cut_off_others(&held)?;
        let mut begun = Vec::new();
        for (partition, record) in partitions.iter().zip(taken) {
            let start = match record.low {
                Some(low) => low,
                None => self.world.lock().first_start(*partition),
            };
            begun.push(Begin { split: split_id(*partition), record, start, resume: None });
            self.held.insert(*partition, start);
        }
        Ok(self.committer.begin(begun)?)
    }

    fn release(&mut self, partitions: &[usize]) -> Result<(), Failure> {
        let ids = ids(partitions);
        self.writer.flush(Some(&ids))?;
        self.committer.commit_idle()?;
        self.tell_group();
        self.committer.release(&ids)?;
        self.held.retain(|partition, _| !partitions.contains(partition));
        Ok(())
    }

    fn read(&mut self, partition: usize, count: usize) -> Result<(), Failure> {
        let from = self.held.get(&partition).copied().unwrap_or_default();
        let records = self.world.lock().read(partition, from, count);
        let Some((last, _)) = records.last() else { return Ok(()) };
        let next = last + 1;
        self.held.insert(partition, next);
        let id = split_id(partition);
        let wanted: Vec<_> = records.iter().filter_map(|(position, key)| Some((*position, (*key)?))).collect();
        let mut chunks = Vec::new();
        if !wanted.is_empty() {
            let routed = self.sink.route(rows(partition, &wanted, next));
            let mut ledger = self.committer.ledger();
            for chunk in routed.chunks {
                let held = ledger.already_held(&id, &chunk.lane);
                let first = (0..chunk.rows.len()).find(|row| chunk.rows.position(*row) >= held);
                let Some(first) = first else { continue };
                let rows = chunk.rows.slice(first, chunk.rows.len() - first);
                ledger.dispatch(&id, &chunk.lane, rows.position(0), rows.position(rows.len() - 1));
                chunks.push(Chunk { lane: chunk.lane, rows });
            }
        }
        self.committer.ledger().advance(&id, next, None);
        self.world.lock().note(|| format!("{}  reads {id} {from}..{next}", self.id));
        for chunk in chunks {
            self.writer.write(chunk)?;
        }
        Ok(())
    }

    /// Commits the group's offsets.
    fn tell_group(&self) {
        let ledger = self.committer.ledger();
        let mut world = self.world.lock();
        for partition in self.held.keys() {
            let low = ledger.low(&split_id(*partition));
            let told = &mut world.partitions[*partition];
            if told.assigned == Some(self.id) {
                told.committed = low.or(told.committed);
            }
        }
    }
}

fn ids(partitions: &[usize]) -> Vec<SplitId> {
    partitions.iter().map(|partition| split_id(*partition)).collect()
}

/// The records as rows with their key as a column.
fn rows(partition: usize, records: &[(Position, u8)], next: Position) -> Rows {
    let split = Arc::new(Split { id: split_id(partition), topic: "clicks".into(), partition: partition as i32 });
    let mut builder = BatchBuilder::new(split, MetaWanted::default(), 0);
    for (position, _) in records {
        builder.push(*position, Some(format!("{}@{position}", split_id(partition)).as_bytes()), Default::default());
    }
    let keys: ArrayRef = Arc::new(records.iter().map(|(_, key)| Some(format!("k{key}"))).collect::<StringArray>());
    let columns = RecordBatch::try_new(FIXTURE.schema.clone(), vec![keys]).expect("one column of the schema's type");
    Rows::new(Arc::new(builder.finish(next)), columns)
}
