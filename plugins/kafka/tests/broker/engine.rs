//! A source that runs with an engine that the test controls.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use pseidon_delivery::{Position, ResumeToken, SplitId};
use pseidon_kafka::KafkaSourcePlugin;
use pseidon_kafka::source::shared::SharedConsumer;
use pseidon_plugin::batch::WantedMetadata;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::source::{
    Resumption, Source, SourceEndCallback, SourceError, SourceEvent, SourceExit, SourceHandle,
    SourcePlugin, SourceRun, SourceSetup, SplitStart, StateRequest,
};
use pseidon_plugin::{Batch, Budget, Pause, Split, Stop};

use crate::support::{brokers, eventually, options, unique};

/// A source with these options in addition to `:brokers`.
pub(crate) fn source(text: &str) -> Arc<dyn Source> {
    let text = format!("{{:brokers \"{}\" {text}}}", brokers());
    KafkaSourcePlugin
        .prepare(&options(KafkaSourcePlugin.spec(), &text))
        .unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
}

/// The setup of a run.
pub(crate) fn setup(pipeline: &str, wanted: WantedMetadata) -> SourceSetup {
    SourceSetup {
        pipeline: pipeline.to_owned(),
        stage: "clicks".to_owned(),
        base: ".".into(),
        wanted,
        fields: Vec::new(),
        takes_new_fields: false,
        bounds: Default::default(),
        framing: Default::default(),
        io_threads: 1,
        memory: 64 << 20,
        instance: unique("instance").into(),
        state: "the state".to_owned(),
        keeps_state: true,
        metrics: Metrics::new(),
    }
}

/// The content of the engine's store, and the records that the engine received.
#[derive(Default)]
pub(crate) struct EngineState {
    /// The position at which each split is resumed.
    pub(crate) stored: HashMap<SplitId, Position>,
    /// The resume value of each split.
    pub(crate) resumes: HashMap<SplitId, ResumeToken>,
    /// The records of each split, with their positions.
    pub(crate) records: HashMap<SplitId, Vec<(Position, Option<String>)>>,
    /// What the source has noted.
    pub(crate) note: Option<String>,
    pub(crate) keys: Vec<Option<String>>,
    pub(crate) timestamps: Vec<i64>,
    pub(crate) headers: Vec<Option<String>>,
    pub(crate) taken: Vec<SplitId>,
    pub(crate) begun: Vec<(SplitId, Position)>,
    pub(crate) released: Vec<SplitId>,
}

impl EngineState {
    pub(crate) fn count(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }

    /// Takes splits over, and returns where each is resumed.
    fn take(&mut self, splits: &[Arc<Split>]) -> Vec<Option<Resumption>> {
        self.taken
            .extend(splits.iter().map(|split| split.id.clone()));
        let known = |split: &Arc<Split>| {
            let position = *self.stored.get(&split.id)?;
            Some(Resumption {
                position,
                resume: self.resumes.get(&split.id).cloned(),
                is_finished: false,
            })
        };
        splits.iter().map(known).collect()
    }

    /// Records where splits start, unless they are resumed.
    fn begin(&mut self, splits: Vec<SplitStart>) {
        for SplitStart {
            split,
            position,
            resume,
        } in splits
        {
            if !self.stored.contains_key(&split.id) {
                self.stored.insert(split.id.clone(), position);
                self.resumes
                    .extend(resume.map(|resume| (split.id.clone(), resume)));
            }
            self.begun.push((split.id.clone(), position));
        }
    }

    /// Stores the records of a batch and its position.
    fn store(&mut self, batch: &Batch) {
        let split = batch.split.id.clone();
        assert!(
            self.stored[&split] <= batch.positions.first().copied().unwrap_or(batch.next),
            "{split} moved backwards"
        );
        let payload = |row| {
            batch
                .payloads
                .get(row)
                .map(|payload| String::from_utf8(payload.to_vec()).unwrap())
        };
        let records: Vec<_> = batch
            .positions
            .iter()
            .enumerate()
            .map(|(row, position)| (*position, payload(row)))
            .collect();
        self.records
            .entry(split.clone())
            .or_default()
            .extend(records);
        self.stored.insert(split.clone(), batch.next);
        self.resumes
            .extend(batch.resume.clone().map(|from| (split, from.resume)));
        self.store_metadata(batch);
    }

    fn store_metadata(&mut self, batch: &Batch) {
        for row in 0..batch.len() {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            self.keys.extend(
                batch
                    .keys
                    .as_ref()
                    .map(|keys| keys.iter().nth(row).unwrap().map(text)),
            );
            self.headers.extend(
                batch
                    .headers
                    .as_ref()
                    .map(|headers| headers.iter().nth(row).unwrap().map(str::to_owned)),
            );
            self.timestamps
                .extend(batch.timestamps.as_ref().map(|all| all[row]));
        }
    }
}

/// A running source with an engine that commits every batch at once.
pub(crate) struct Run {
    pub(crate) seen: Arc<Mutex<EngineState>>,
    pub(crate) stop: Stop,
    pub(crate) budget: Arc<Budget>,
    /// Batches that the engine has not released; filled while `hold` is set.
    pub(crate) held: Arc<Mutex<Vec<Batch>>>,
    /// Whether the engine accepts no event.
    pub(crate) is_stuck: Arc<AtomicBool>,
    /// The number of records received.
    pub(crate) received: Arc<AtomicUsize>,
    pub(crate) setup: SourceSetup,
    source: JoinHandle<Result<(), SourceError>>,
    engine: JoinHandle<()>,
}

impl Run {
    /// Starts a run with a store that other runs may share.
    pub(crate) fn start(
        source: Arc<dyn Source>,
        setup: SourceSetup,
        seen: Arc<Mutex<EngineState>>,
        budget: usize,
        hold: bool,
    ) -> Run {
        Run::start_with(
            setup,
            seen,
            Budget::new(budget),
            hold,
            move |setup, handle| SourceExit::outcome(source.run(setup, handle)),
        )
    }

    /// Starts a run of one topic on a shared consumer.
    pub(crate) fn attach(
        consumer: &Arc<SharedConsumer>,
        topic: &str,
        setup: SourceSetup,
        seen: Arc<Mutex<EngineState>>,
        budget: Arc<Budget>,
    ) -> Run {
        let (consumer, topic) = (consumer.clone(), topic.to_owned());
        Run::start_with(setup, seen, budget, false, move |setup, handle| {
            let (end, ended) = crossbeam_channel::bounded(1);
            let ended_by: SourceEndCallback = Box::new(move |outcome| end.send(outcome).unwrap());
            consumer.attach(
                &topic,
                setup,
                SourceRun {
                    handle,
                    ended: ended_by,
                },
            );
            ended.recv().expect("the end is reported")
        })
    }

    fn start_with(
        setup: SourceSetup,
        seen: Arc<Mutex<EngineState>>,
        budget: Arc<Budget>,
        hold: bool,
        read: impl FnOnce(&SourceSetup, SourceHandle) -> Result<(), SourceError> + Send + 'static,
    ) -> Run {
        let (stop, durable) = (Stop::new(), Arc::new(Mutex::new(HashMap::new())));
        let (handle, events) = SourceHandle::new(
            budget.clone(),
            stop.clone(),
            Pause::default(),
            durable.clone(),
        );
        let held = Arc::new(Mutex::new(Vec::new()));
        let (is_stuck, received) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let engine = {
            let (seen, held, is_stuck, received) = (
                seen.clone(),
                held.clone(),
                is_stuck.clone(),
                received.clone(),
            );
            std::thread::spawn(move || {
                for event in events {
                    while is_stuck.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    if let SourceEvent::Emit(batch) = &event {
                        received.fetch_add(batch.len(), Ordering::Relaxed);
                    }
                    answer(event, &seen, &durable, hold.then_some(&*held));
                }
            })
        };
        let of_source = setup.clone();
        let source = std::thread::spawn(move || read(&of_source, handle));
        Run {
            seen,
            stop,
            budget,
            held,
            is_stuck,
            received,
            setup,
            source,
            engine,
        }
    }

    /// Waits until the source ends by itself.
    pub(crate) fn wait(self) -> Result<(), SourceError> {
        eventually("the source ends", || self.source.is_finished());
        let outcome = self.source.join().unwrap();
        self.is_stuck.store(false, Ordering::Relaxed);
        self.engine.join().unwrap();
        outcome
    }

    /// Whether the run has not ended.
    pub(crate) fn is_running(&self) -> bool {
        !self.source.is_finished()
    }

    /// Stops the run.
    pub(crate) fn stop(self) -> Result<(), SourceError> {
        self.stop.stop_reading();
        self.wait()
    }

    /// Waits until `count` records were received in total.
    pub(crate) fn wait_for(&self, count: usize) {
        eventually(&format!("{count} records are received"), || {
            assert!(
                !self.source.is_finished(),
                "the source has ended with {} of {count} records",
                self.seen.lock().count()
            );
            self.seen.lock().count() >= count
        });
    }
}

/// Handles an event as an engine that commits every batch at once.
fn answer(
    event: SourceEvent,
    seen: &Mutex<EngineState>,
    durable: &Mutex<HashMap<SplitId, Position>>,
    held: Option<&Mutex<Vec<Batch>>>,
) {
    let mut seen = seen.lock();
    match event {
        SourceEvent::ShareSplits(..) | SourceEvent::ForgetFinished(_) => {
            panic!("kafka shares partitions by its own protocol")
        }
        SourceEvent::State(StateRequest::Note(reply)) => {
            let _ = reply.send(seen.note.clone());
        }
        SourceEvent::State(StateRequest::SetNote(note, reply)) => {
            seen.note = Some(note);
            let _ = reply.send(());
        }
        SourceEvent::State(StateRequest::HasSplits(_) | StateRequest::KnownSplits(..)) => {
            panic!("kafka does not ask that")
        }
        SourceEvent::Take(splits, reply) => {
            let _ = reply.send(seen.take(&splits));
        }
        SourceEvent::Begin(splits, reply) => {
            seen.begin(splits);
            let _ = reply.send(());
        }
        SourceEvent::Emit(batch) => {
            seen.store(&batch);
            durable.lock().insert(batch.split.id.clone(), batch.next);
            if let Some(held) = held {
                held.lock().push(*batch);
            }
        }
        SourceEvent::Release(splits, reply) => {
            seen.released
                .extend(splits.iter().map(|split| split.id.clone()));
            let _ = reply.send(());
        }
    }
}
