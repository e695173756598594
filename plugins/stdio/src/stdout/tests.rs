use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::thread;

use arrow::array::{Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};
use pseidon_delivery::committer::{Positions, SplitToBegin};
use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{Claimant, Committer, Position, SinkId, SplitId, StateStore};
use pseidon_dsl::{Node, NodeKind, Span, edn};
use pseidon_exec::lanes::Lanes;
use pseidon_expr::Scope;
use pseidon_plugin::batch::{BatchBuilder, RecordMeta, WantedMetadata};
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::options::Choice;
use pseidon_plugin::sink::RecordShape;
use pseidon_plugin::{Batch, LaneMemory, Split};
use tempfile::TempDir;

use super::*;

/// A sink that prints into a pipe, with its own state store.
struct Harness {
    _dir: TempDir,
    store: Arc<EmbeddedStore>,
    stop: Stop,
    sink: Arc<Stdout>,
    setup: SinkSetup,
    lanes: Lanes,
    reader: std::io::PipeReader,
}

const SPLIT: &str = "in:0";

fn as_came() -> SinkInput {
    SinkInput {
        scope: Scope::default(),
        record: RecordShape::AsCame {
            format: "raw".into(),
        },
    }
}

fn harness(format: OutputFormat, input: &SinkInput) -> Harness {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(dir.path(), "test").unwrap());
    let sink_id = SinkId::from("out");
    let claimant = Claimant {
        owner: "one".into(),
        plan: "p".into(),
        accepts_other_plans: false,
    };
    let committer = Committer::new(
        sink_id,
        store.clone(),
        claimant,
        Positions::InStore,
        Arc::new(AtomicBool::new(false)),
    );
    let record = committer.take(&[SPLIT.into()]).unwrap().remove(0);
    committer
        .begin(vec![SplitToBegin {
            split: SPLIT.into(),
            record,
            start: 0,
            resume: None,
        }])
        .unwrap();
    let (reader, output) = std::io::pipe().unwrap();
    let stop = Stop::new();
    let setup = SinkSetup {
        pipeline: "test".into(),
        base: dir.path().into(),
        instance: "one".into(),
        store: store.identity().unwrap(),
        trusts_state: false,
        keeps_state: true,
        committer: Arc::new(committer),
        memory: LaneMemory::new(1 << 20),
        stop: stop.clone(),
        metrics: Metrics::new(),
    };
    let encoder = Arc::new(RecordEncoder::new(format, input).unwrap());
    let sink = Arc::new(Stdout::new(
        File::from(OwnedFd::from(output)),
        encoder,
        &setup,
    ));
    let lanes = Lanes::of_one_writer(sink.clone(), &setup);
    Harness {
        _dir: dir,
        store,
        stop,
        sink,
        setup,
        lanes,
        reader,
    }
}

impl Harness {
    /// Does what the engine does with rows: routes them, adds them to the ledger, and passes them
    /// to the lanes.
    fn put(&mut self, rows: Rows) -> Vec<BadRow> {
        let split = rows.batch().split.id.clone();
        let next = rows.batch().next;
        let RoutedRows { chunks, bad, .. } = self.sink.route(rows);
        for chunk in chunks {
            let (first, last) = (
                chunk.rows.position(0),
                chunk.rows.position(chunk.rows.len() - 1),
            );
            let mut ledger = self.setup.committer.ledger();
            ledger.dispatch(&split, &chunk.lane, first, last);
            ledger.advance(&split, next, None);
            drop(ledger);
            self.lanes.write(chunk, ()).unwrap();
        }
        bad
    }

    /// Flushes, and panics unless the flush completes at once.
    fn flush(&mut self, splits: Option<&[SplitId]>) {
        let (done, is_done) = std::sync::mpsc::channel();
        self.lanes
            .flush(splits, move || done.send(()).unwrap())
            .unwrap();
        is_done.try_recv().unwrap();
    }

    fn low(&self) -> Option<Position> {
        let records = self.store.records(&SinkId::from("out")).unwrap();
        records
            .into_iter()
            .find(|(split, _)| split.as_str() == SPLIT)
            .and_then(|(_, record)| record.low)
    }

    /// Closes the sink's ends of the pipe and returns everything that was printed.
    fn printed(self) -> String {
        let Harness {
            sink,
            lanes,
            mut reader,
            ..
        } = self;
        drop((sink, lanes));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }
}

fn batch(first: Position, payloads: &[&str]) -> Batch {
    let split = Arc::new(Split {
        id: SPLIT.into(),
        topic: "in".into(),
        partition: 0,
    });
    let mut builder = BatchBuilder::new(split, WantedMetadata::default(), 64);
    for (number, payload) in payloads.iter().enumerate() {
        builder.push(
            first + number as Position,
            Some(payload.as_bytes()),
            RecordMeta::default(),
        );
    }
    builder.finish(first + payloads.len() as Position)
}

fn rows(first: Position, payloads: &[&str]) -> Rows {
    let options = RecordBatchOptions::new().with_row_count(Some(payloads.len()));
    let columns =
        RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options).unwrap();
    Rows::new(Arc::new(batch(first, payloads)), columns)
}

#[test]
fn records_are_printed_at_once_and_committed_later() {
    let mut harness = harness(OutputFormat::Raw, &as_came());
    assert!(harness.put(rows(0, &["a", "b"])).is_empty());
    let mut seen = [0; 4];
    harness.reader.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"a\nb\n");
    assert_eq!(harness.low(), Some(0));

    harness.flush(None);
    assert_eq!(harness.low(), Some(2));
    harness.put(rows(2, &["c"]));
    harness.flush(Some(&["other".into()]));
    assert_eq!(harness.low(), Some(2));
    harness.flush(Some(&[SPLIT.into()]));
    assert_eq!(harness.low(), Some(3));
    assert_eq!(
        harness
            .setup
            .metrics
            .bytes_out
            .with_label_values(&["out"])
            .get(),
        6
    );
    assert_eq!(harness.printed(), "c\n");
}

#[test]
fn columns_are_printed_as_json() {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
    let input = SinkInput {
        scope: Scope::default(),
        record: RecordShape::Columns(schema.clone()),
    };
    let mut harness = harness(OutputFormat::Json, &input);
    let columns =
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![7, 8]))]).unwrap();
    harness.put(rows(0, &["x", "y"]).with_record(columns));
    assert_eq!(harness.printed(), "{\"id\":7}\n{\"id\":8}\n");
}

#[test]
fn more_than_a_pipe_holds_gets_through() {
    let mut harness = harness(OutputFormat::Raw, &as_came());
    let line = "x".repeat(1000);
    let mut reader = harness.reader.try_clone().unwrap();
    let read = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    harness.put(rows(0, &vec![line.as_str(); 1000]));
    drop(harness);
    let text = read.join().unwrap();
    assert_eq!((text.len(), text.lines().count()), (1_001_000, 1000));
    assert!(text.lines().all(|found| found == line));
}

#[test]
fn a_closed_pipe_ends_the_run_and_unprinted_records_are_not_committed() {
    let mut harness = harness(OutputFormat::Raw, &as_came());
    harness.put(rows(0, &["a"]));
    let reader = std::mem::replace(&mut harness.reader, std::io::pipe().unwrap().0);
    drop(reader);
    assert!(!harness.stop.reading_stopped());
    harness.put(rows(1, &["b"]));
    assert!(harness.stop.reading_stopped());
    assert!(!harness.stop.leaving_now());
    harness.put(rows(2, &["c"]));
    harness.lanes.tick().unwrap();
    harness.flush(None);
    assert_eq!(harness.low(), Some(1));
}

#[test]
fn a_closed_pipe_is_noticed_while_nothing_is_printed() {
    let mut harness = harness(OutputFormat::Raw, &as_came());
    harness.lanes.tick().unwrap();
    assert!(!harness.stop.reading_stopped());
    let reader = std::mem::replace(&mut harness.reader, std::io::pipe().unwrap().0);
    drop(reader);
    harness.lanes.tick().unwrap();
    assert!(harness.stop.reading_stopped());
}

#[test]
fn an_abandoned_run_does_not_wait_for_the_reader() {
    let mut harness = harness(OutputFormat::Raw, &as_came());
    harness.stop.leave_now();
    let routed = harness.sink.route(rows(0, &["a"]));
    for chunk in routed.chunks {
        assert!(matches!(
            harness.lanes.write(chunk, ()),
            Err(SinkError::Committer(CommitterError::Stopped))
        ));
    }
    assert_eq!(harness.printed(), "");
}

#[test]
fn a_stuck_reader_does_not_prevent_abandoning_the_run() {
    let mut harness = harness(OutputFormat::Raw, &as_came());
    let line = "x".repeat(1000);
    let chunk = harness
        .sink
        .route(rows(0, &vec![line.as_str(); 1000]))
        .chunks
        .remove(0);
    let written = harness.setup.metrics.bytes_out.with_label_values(&["out"]);
    let Harness { lanes, stop, .. } = &mut harness;
    thread::scope(|scope| {
        let writing = scope.spawn(|| lanes.write(chunk, ()));
        while written.get() == 0 {
            thread::yield_now();
        }
        stop.leave_now();
        assert!(matches!(
            writing.join().unwrap(),
            Err(SinkError::Committer(CommitterError::Stopped))
        ));
    });
}

#[test]
fn a_full_disk_is_an_error_only_when_the_run_is_abandoned() {
    let mut harness = harness(OutputFormat::Raw, &as_came());
    let full = File::options().write(true).open("/dev/full").unwrap();
    harness.sink = Arc::new(Stdout::new(
        full,
        harness.sink.printer.encoder.clone(),
        &harness.setup,
    ));
    harness.lanes = Lanes::of_one_writer(harness.sink.clone(), &harness.setup);
    let chunk = harness.sink.route(rows(0, &["a"])).chunks.remove(0);
    let blocked = harness
        .setup
        .metrics
        .sink_blocked
        .with_label_values(&["out"]);
    let Harness { lanes, stop, .. } = &mut harness;
    thread::scope(|scope| {
        let writing = scope.spawn(|| lanes.write(chunk, ()));
        while blocked.get() == 0 {
            thread::yield_now();
        }
        stop.leave_now();
        assert!(matches!(
            writing.join().unwrap(),
            Err(SinkError::Committer(CommitterError::Stopped))
        ));
    });
}

#[test]
fn the_example_is_valid() {
    let [
        Node {
            kind: NodeKind::List(call),
            ..
        },
    ] = &edn::read_all(SPEC.example).unwrap()[..]
    else {
        panic!("not a stage")
    };
    StdoutOptions::parse_stage(&SPEC, &call[1..], Span::new(0, 0)).unwrap();
}

#[test]
fn every_format_that_is_offered_exists() {
    for format in ["json", "txt", "raw"] {
        let args = edn::read_all(&format!(":{format}")).unwrap();
        let options = StdoutOptions::parse_stage(&SPEC, &args, Span::new(0, 0)).unwrap();
        assert_eq!(options.format.value.name(), format);
    }
}
