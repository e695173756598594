use std::collections::HashSet;
use std::thread;

use arrow::datatypes::DataType;
use pseidon_dsl::{Node, NodeKind, Span, edn};
use pseidon_plugin::batch::WantedMetadata;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::source::{Resumption, SourceEvent, SourceExit, SplitShare, SplitStart};
use pseidon_plugin::{Budget, Pause, Payloads, Stop};

use super::*;

fn prepare(options: &str) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
    let args = edn::read_all(options)?;
    GeneratePlugin.prepare(&GenerateOptions::parse_stage(
        &SPEC,
        &args,
        Span::new(0, options.len()),
    )?)
}

fn setup() -> SourceSetup {
    SourceSetup {
        pipeline: "test".into(),
        stage: "gen".into(),
        base: ".".into(),
        wanted: WantedMetadata::default(),
        fields: Vec::new(),
        takes_new_fields: false,
        bounds: Default::default(),
        framing: Default::default(),
        io_threads: 1,
        memory: 64 << 20,
        instance: "one".into(),
        state: String::new(),
        keeps_state: true,
        metrics: Metrics::new(),
    }
}

/// Runs the source against an engine that holds these positions, until it ends or `enough` returns
/// true.
fn run_from(
    options: &str,
    resumed: &[Option<Position>],
    setup: &SourceSetup,
    mut enough: impl FnMut(&[Batch]) -> bool,
) -> Result<Vec<Batch>, SourceError> {
    let source = prepare(options).unwrap();
    let stop = Stop::new();
    let (handle, events) = SourceHandle::new(
        Budget::new(1 << 30),
        stop.clone(),
        Pause::default(),
        Arc::default(),
    );
    thread::scope(|scope| {
        let running = scope.spawn(move || SourceExit::outcome(source.run(setup, handle)));
        let mut batches = Vec::new();
        let mut held = HashSet::new();
        for event in events {
            match event {
                SourceEvent::Take(splits, reply) => {
                    let known = (0..splits.len()).map(|index| resumption(resumed, index));
                    reply.send(known.collect()).unwrap();
                }
                SourceEvent::ForgetFinished(_) => panic!("splits of generate never disappear"),
                SourceEvent::State(_) => panic!("it asks nothing about the state"),
                SourceEvent::ShareSplits(found, reply) => {
                    let granted = found
                        .into_iter()
                        .filter(|split| held.insert(split.clone()))
                        .collect();
                    reply.send(SplitShare { granted, excess: 0 }).unwrap();
                }
                SourceEvent::Begin(splits, reply) => {
                    splits.iter().for_each(|start| check_start(resumed, start));
                    reply.send(()).unwrap();
                }
                // The end-of-split batch has no records.
                SourceEvent::Emit(batch) if batch.end.is_some() => assert!(batch.is_empty()),
                SourceEvent::Emit(batch) => {
                    batches.push(*batch);
                    if enough(&batches) {
                        stop.stop_reading();
                    }
                }
                SourceEvent::Release(_, reply) => reply.send(()).unwrap(),
            }
        }
        running.join().unwrap().map(|()| batches)
    })
}

fn resumption(resumed: &[Option<Position>], index: usize) -> Option<Resumption> {
    let position = (*resumed.get(index)?)?;
    Some(Resumption {
        position,
        resume: None,
        is_finished: false,
    })
}

/// Checks the position at which a split begins. Finished splits are not begun.
fn check_start(resumed: &[Option<Position>], start: &SplitStart) {
    let index = start.split.id.as_str().strip_prefix("gen:").unwrap();
    let index: usize = index.parse().unwrap();
    assert_eq!(
        start.position,
        resumed.get(index).copied().flatten().unwrap_or(0)
    );
}

fn run(options: &str) -> Vec<Batch> {
    run_from(options, &[], &setup(), |_| false).unwrap()
}

fn texts(batches: &[Batch]) -> Vec<String> {
    let rows = batches
        .iter()
        .flat_map(|batch| (0..batch.len()).map(|row| batch.payloads.get(row).unwrap()));
    rows.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
        .collect()
}

/// The numbers of the records of each split.
fn numbers(batches: &[Batch], splits: usize) -> Vec<Vec<Position>> {
    let mut numbers = vec![Vec::new(); splits];
    for batch in batches {
        let numbers = &mut numbers[batch.split.partition as usize];
        numbers.extend(&batch.positions);
        assert!(
            numbers.is_sorted_by(|a, b| a < b) && numbers.iter().all(|number| *number < batch.next)
        );
    }
    numbers
}

#[test]
fn records_are_generated_from_expressions() {
    let generated = run("{:record {:id \"n\" :user \"'u' || (n % 2)\"} :count 3}");
    assert_eq!(
        texts(&generated),
        [
            "{\"id\":0,\"user\":\"u0\"}",
            "{\"id\":1,\"user\":\"u1\"}",
            "{\"id\":2,\"user\":\"u0\"}"
        ]
    );
    assert_eq!(generated[0].positions, [0, 1, 2]);
    assert_eq!(generated[0].next, 3);
    assert!(generated[0].payloads.lines(0, 3).is_some());
}

#[test]
fn facts_describe_the_records() {
    let facts = prepare("{:record {:id \"n\" :user \"'u' || n\" :half \"r < 0.5\"} :count 3}")
        .unwrap()
        .facts();
    let schema = facts.schema.unwrap();
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| (field.name().as_str(), field.data_type().clone()))
        .collect();
    assert_eq!(
        fields,
        [
            ("id", DataType::Int64),
            ("user", DataType::Utf8),
            ("half", DataType::Boolean)
        ]
    );
    assert_eq!(
        (facts.format.name(), facts.finite, facts.reread),
        ("json", true, Reread::Exact)
    );

    let facts = prepare("{:record {:at \"now()\"}}").unwrap().facts();
    assert!(!facts.finite);
    assert_ne!(facts.reread, Reread::Exact);
}

#[test]
fn a_record_depends_on_its_number_and_the_seed_only() {
    let options = "{:record {:n \"n\" :r \"r\" :h \"h\"} :count 20000 :seed 7}";
    let whole = texts(&run(options));
    assert_eq!(whole.len(), 20_000);
    let resumed = texts(&run_from(options, &[Some(12_345)], &setup(), |_| false).unwrap());
    assert_eq!(resumed, whole[12_345..]);
    let split = run(&options.replace(":seed", ":splits 3 :seed"));
    let of_second: Vec<_> = split
        .into_iter()
        .filter(|batch| batch.split.partition == 1)
        .collect();
    assert!(texts(&of_second).iter().eq(whole.iter().skip(1).step_by(3)));
    assert_ne!(texts(&run(&options.replace("7", "8"))), whole);
}

#[test]
fn every_number_comes_once_in_its_split() {
    let table: [(usize, u64, &[Option<Position>]); 6] = [
        (1, 10_000, &[None]),
        (3, 10_000, &[None, None, None]),
        (3, 100, &[Some(10), Some(50), None]),
        (4, 2, &[None, None, None, None]),
        (2, 50, &[Some(50), Some(49)]),
        (2, 50, &[Some(60), Some(60)]),
    ];
    for (splits, count, resumed) in table {
        let options = format!("{{:record {{:id \"n\"}} :count {count} :splits {splits}}}");
        let batches = run_from(&options, resumed, &setup(), |_| false).unwrap();
        for (split, found) in numbers(&batches, splits).into_iter().enumerate() {
            let first = resumed[split].unwrap_or(0);
            let expected: Vec<_> = (first..count)
                .filter(|number| number % splits as u64 == split as u64)
                .collect();
            assert_eq!(
                found, expected,
                "split {split} of {splits}, count {count}, resumed {resumed:?}"
            );
        }
    }
}

#[test]
fn an_endless_run_ends_when_it_is_stopped() {
    let batches = run_from("{:record {:id \"n\"}}", &[], &setup(), |batches| {
        batches.len() == 5
    })
    .unwrap();
    assert!(batches.len() >= 5);
    let numbers = numbers(&batches, 1).remove(0);
    assert!(numbers.iter().copied().eq(0..numbers.len() as u64));
}

#[test]
fn a_rate_is_not_exceeded() {
    let options = "{:record {:id \"n\"} :rate 200 :count 21}";
    let started = Instant::now();
    let batches = run(options);
    // The last record is due after a tenth of a second.
    assert!(started.elapsed() >= Duration::from_millis(100));
    assert_eq!(numbers(&batches, 1).remove(0).len(), 21);
}

#[test]
fn large_records_come_in_small_batches() {
    let batches = run("{:record {:text \"repeat('x', 100000)\"} :count 600}");
    assert_eq!(texts(&batches).len(), 600);
    assert!(
        batches[1..]
            .iter()
            .all(|batch| batch.size() < 2 * BATCH_BYTES)
    );
}

#[test]
fn records_that_cannot_be_generated_stop_the_run_or_are_skipped() {
    let options = "{:record {:id \"n\" :part \"100 / (n % 3)\"} :count 6}";
    let error = run_from(options, &[], &setup(), |_| false).unwrap_err();
    assert!(
        matches!(&error, SourceError::Fatal(reason) if reason.to_string().starts_with("cannot generate record 0: cannot evaluate `part`: ")),
        "{error}"
    );

    let setup = setup();
    let batches = run_from(
        &options.replace(":count", ":on-error :noop :count"),
        &[],
        &setup,
        |_| false,
    )
    .unwrap();
    assert_eq!(numbers(&batches, 1), [[1, 2, 4, 5]]);
    assert_eq!(batches.last().unwrap().next, 6);
    assert_eq!(
        setup
            .metrics
            .bad_records
            .with_label_values(&["gen", "dropped"])
            .get(),
        2
    );
}

#[test]
fn remaining_records_are_reported_as_lag() {
    let setup = setup();
    run_from(
        "{:record {:id \"n\"} :rate 1000 :count 1000000}",
        &[],
        &setup,
        |batches| batches.len() == 1,
    )
    .unwrap();
    let left = setup.metrics.lag.with_label_values(&["gen"]).get();
    assert!((1..1_000_000).contains(&left), "{left}");
}

#[test]
fn samples_are_the_first_records() {
    let source = prepare("{:record {:id \"n\"} :count 2}").unwrap();
    let sampled = |count| {
        let samples = source.sample(&setup(), count).unwrap();
        let records = samples.iter().flat_map(Payloads::iter).flatten();
        records.map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    assert_eq!(sampled(10), [&b"{\"id\":0}"[..], b"{\"id\":1}"]);
    assert_eq!(sampled(1).len(), 1);
}

#[test]
fn errors_point_at_their_cause() {
    let table = [
        ("{:record {}}", "the record has no fields", "{}"),
        (
            "{:record {:a \"n\" \"a\" \"r\"}}",
            "duplicate field `a`",
            "r",
        ),
        (
            "{:record {:a \"@offset\"}}",
            "metadata is not available to expressions that generate records",
            "@offset",
        ),
        ("{:record {:a \"n\"} :rate 0}", "invalid rate", "0"),
        (
            "{:record {:a \"n\"} :splits 0}",
            "`:splits` is out of range",
            "0",
        ),
        (
            "{:record {:a \"n\"} :splits 99999}",
            "`:splits` is out of range",
            "99999",
        ),
        (
            "{:record {:a \"n\"} :on-error :quarantine}",
            "generated records cannot be retried or quarantined",
            ":quarantine",
        ),
    ];
    for (options, message, underlined) in table {
        let errors = prepare(options).err().unwrap();
        let shown = |error: &Diagnostic| {
            options[error.span.start as usize..error.span.end as usize].to_owned()
        };
        assert_eq!(
            errors
                .iter()
                .map(|error| (error.message.as_str(), shown(error)))
                .collect::<Vec<_>>(),
            [(message, underlined.to_owned())]
        );
    }
    // All errors are reported at once: first those of single values, then the others.
    for (options, count) in [
        ("{:record {:a \"x\"} :seed -1 :splits 0}", 2),
        ("{:record {:a \"x\" :b \"@key\"} :rate -1}", 3),
    ] {
        assert_eq!(prepare(options).err().unwrap().len(), count, "{options}");
    }
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
    let options = GenerateOptions::parse_stage(&SPEC, &call[1..], Span::new(0, 0)).unwrap();
    GeneratePlugin.prepare(&options).map(|_| ()).unwrap();
}
