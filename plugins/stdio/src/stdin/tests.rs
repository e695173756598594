use std::io::{PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::thread;

use crossbeam_channel::Receiver;
use proptest::prelude::*;
use pseidon_dsl::{Node, NodeKind, Span, edn};
use pseidon_plugin::batch::WantedMetadata;
use pseidon_plugin::framing::Framing;
use pseidon_plugin::metrics::Metrics;
use pseidon_plugin::source::{Resumption, SourceEvent};
use pseidon_plugin::{Batch, Budget, Pause, Stop};

use super::*;

fn prepare(options: &str) -> Result<Arc<dyn Source>, Vec<Diagnostic>> {
    let args = edn::read_all(options).unwrap();
    StdinPlugin.prepare(&StdinOptions::parse_stage(
        &SPEC,
        &args,
        Span::new(0, options.len()),
    )?)
}

fn setup() -> SourceSetup {
    SourceSetup {
        pipeline: "test".into(),
        stage: "in".into(),
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

/// The engine's side: answers `take` with `resumed` and records which splits begin and which
/// batches are emitted.
struct Engine {
    begun: Option<Position>,
    batches: Vec<Batch>,
}

fn serve(
    events: Receiver<SourceEvent>,
    resumed: Option<Position>,
    mut seen: impl FnMut(&Batch),
) -> Engine {
    let mut engine = Engine {
        begun: None,
        batches: Vec::new(),
    };
    for event in events {
        match event {
            SourceEvent::Take(splits, reply) => {
                let known = resumed.map(|position| Resumption {
                    position,
                    resume: None,
                    is_finished: false,
                });
                reply.send(vec![known; splits.len()]).unwrap();
            }
            SourceEvent::Begin(splits, reply) => {
                engine.begun = Some(splits[0].position);
                reply.send(()).unwrap();
            }
            SourceEvent::Emit(batch) => {
                seen(&batch);
                engine.batches.push(*batch);
            }
            _ => panic!("stdin releases no splits"),
        }
    }
    engine
}

/// Runs the source over what `write` puts into a pipe.
fn run(format: &str, resumed: Option<Position>, write: impl FnOnce(PipeWriter) + Send) -> Engine {
    let (reader, writer) = std::io::pipe().unwrap();
    let input = File::from(OwnedFd::from(reader));
    let source = stdin(format);
    let setup = SourceSetup {
        framing: Framing {
            is_json: format == "json",
            ..Framing::default()
        },
        ..setup()
    };
    let (handle, events) = SourceHandle::new(
        Budget::new(1 << 30),
        Stop::new(),
        Pause::default(),
        Arc::default(),
    );
    thread::scope(|scope| {
        scope.spawn(|| write(writer));
        scope.spawn(move || SourceExit::outcome(source.read(&input, &setup, &handle)).unwrap());
        serve(events, resumed, |_| {})
    })
}

fn texts(engine: &Engine) -> Vec<String> {
    let rows = engine
        .batches
        .iter()
        .flat_map(|batch| (0..batch.len()).map(|row| batch.payloads.get(row).unwrap()));
    rows.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
        .collect()
}

fn positions(engine: &Engine) -> Vec<Position> {
    engine
        .batches
        .iter()
        .flat_map(|batch| batch.positions.iter().copied())
        .collect()
}

/// The source for lines of this format.
fn stdin(format: &str) -> Stdin {
    let format = SpannedValue {
        value: format.into(),
        span: Span::default(),
    };
    Stdin::new(format, None, Arc::new(Mutex::new(LineReader::new())))
}

#[test]
fn lines_become_records() {
    type Case = (
        &'static str,
        &'static str,
        &'static [&'static str],
        &'static [Position],
        Option<Position>,
    );
    let table: [Case; 6] = [
        (
            "json",
            "{\"a\":1}\n{}\n",
            &["{\"a\":1}", "{}"],
            &[0, 8],
            Some(11),
        ),
        ("json", "{}\n\n \r\n[]", &["{}", "[]"], &[0, 7], Some(10)),
        (
            "txt:sep=pipe",
            "a\r\n\n \nb\n",
            &["a", " ", "b"],
            &[0, 4, 6],
            Some(8),
        ),
        ("raw", "no end", &["no end"], &[0], Some(7)),
        ("json", "\n", &[], &[], Some(1)),
        ("json", "", &[], &[], None),
    ];
    for (format, input, expected, at, next) in table {
        let engine = run(format, None, |mut writer| {
            writer.write_all(input.as_bytes()).unwrap()
        });
        assert_eq!(engine.begun, Some(0));
        assert_eq!(texts(&engine), expected, "{format}: {input:?}");
        assert_eq!(positions(&engine), at, "{format}: {input:?}");
        assert_eq!(
            engine.batches.last().map(|batch| batch.next),
            next,
            "{format}: {input:?}"
        );
    }
}

#[test]
fn the_split_is_the_stage() {
    let engine = run("raw", None, |mut writer| writer.write_all(b"a\n").unwrap());
    assert_eq!(
        *engine.batches[0].split,
        Split {
            id: "in:0".into(),
            topic: "in".into(),
            partition: 0
        }
    );
}

#[test]
fn positions_begin_after_those_of_earlier_runs() {
    let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
    assert_eq!(first_position(None, at(1_800_000_000)), 0);
    // An earlier run that read 2 GB per second.
    let earlier = first_position(Some(0), at(1_800_000_000)) + 2_000_000_000 * 3600;
    assert!(first_position(Some(0), at(1_800_003_600)) > earlier);
    // A wall-clock time that does not help.
    for broken in [UNIX_EPOCH, UNIX_EPOCH - Duration::from_secs(1)] {
        assert_eq!(first_position(Some(77), broken), 77 + GAP);
    }
    assert!(i64::try_from(first_position(Some(0), at(1 << 40))).is_ok());

    let engine = run("raw", Some(5), |mut writer| {
        writer.write_all(b"a\nb\n").unwrap()
    });
    let begun = engine.begun.unwrap();
    assert!(begun > 5 + GAP);
    assert_eq!(positions(&engine), [begun, begun + 2]);
}

#[test]
fn a_line_is_emitted_before_the_input_ends() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let input = File::from(OwnedFd::from(reader));
    let source = stdin("raw");
    let (handle, events) = SourceHandle::new(
        Budget::new(1 << 30),
        Stop::new(),
        Pause::default(),
        Arc::default(),
    );
    thread::scope(|scope| {
        scope.spawn(move || SourceExit::outcome(source.read(&input, &setup(), &handle)).unwrap());
        writer.write_all(b"one\ntw").unwrap();
        // The rest is written only after the first line has arrived, so a source that waited for
        // the end of the input would never return.
        let mut writer = Some(writer);
        let engine = serve(events, None, |_| {
            if let Some(mut writer) = writer.take() {
                writer.write_all(b"o\nthree").unwrap();
            }
        });
        assert_eq!(texts(&engine), ["one", "two", "three"]);
    });
}

#[test]
fn a_source_that_waits_for_input_can_be_stopped() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let input = File::from(OwnedFd::from(reader));
    let source = stdin("raw");
    let stop = Stop::new();
    let (handle, events) = SourceHandle::new(
        Budget::new(1 << 30),
        stop.clone(),
        Pause::default(),
        Arc::default(),
    );
    writer.write_all(b"whole\nunfinished").unwrap();
    thread::scope(|scope| {
        scope.spawn(move || SourceExit::outcome(source.read(&input, &setup(), &handle)).unwrap());
        let engine = serve(events, None, |_| stop.stop_reading());
        assert_eq!(texts(&engine), ["whole"]);
    });
    drop(writer);
}

#[test]
fn nothing_is_read_while_there_is_no_room() {
    let budget = Budget::new(100);
    let charge = budget.charge(1000);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let input = File::from(OwnedFd::from(reader));
    let source = stdin("raw");
    let (handle, events) = SourceHandle::new(budget, Stop::new(), Pause::default(), Arc::default());
    writer.write_all(b"a\n").unwrap();
    drop(writer);
    let mut charge = Some(charge);
    thread::scope(|scope| {
        scope.spawn(move || SourceExit::outcome(source.read(&input, &setup(), &handle)).unwrap());
        let mut batches = 0;
        for event in events {
            match event {
                SourceEvent::Take(_, reply) => reply.send(vec![None]).unwrap(),
                SourceEvent::Begin(_, reply) => {
                    reply.send(()).unwrap();
                    assert!(charge.is_some());
                    drop(charge.take());
                }
                SourceEvent::Emit(_) => {
                    assert!(charge.is_none(), "read although the memory budget was full");
                    batches += 1;
                }
                _ => panic!("stdin releases no splits"),
            }
        }
        assert_eq!(batches, 1);
    });
}

#[test]
fn a_line_that_one_run_was_stopped_in_is_finished_by_the_next() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let input = File::from(OwnedFd::from(reader));
    let source = stdin("raw");
    let attempt = |resumed, stop: Stop| {
        let (handle, events) = SourceHandle::new(
            Budget::new(1 << 30),
            stop.clone(),
            Pause::default(),
            Arc::default(),
        );
        thread::scope(|scope| {
            let (source, input) = (&source, &input);
            scope
                .spawn(move || SourceExit::outcome(source.read(input, &setup(), &handle)).unwrap());
            serve(events, resumed, |_| stop.stop_reading())
        })
    };
    writer.write_all(b"one\ntw").unwrap();
    assert_eq!(texts(&attempt(None, Stop::new())), ["one"]);
    writer.write_all(b"o\n").unwrap();
    let second = attempt(Some(0), Stop::new());
    assert_eq!(texts(&second), ["two"]);
    assert_eq!(positions(&second), [second.begun.unwrap()]);
}

#[test]
fn a_line_may_be_longer_than_a_block_but_not_endless() {
    let long = "x".repeat(3 << 20);
    let engine = run("raw", None, |mut writer| {
        writer
            .write_all(format!("a\n{long}\nb\n").as_bytes())
            .unwrap()
    });
    assert_eq!(texts(&engine), ["a", &long, "b"]);

    let mut reader = LineReader::new();
    let error = loop {
        match reader.fill(&mut std::io::repeat(b'x'), |_| Ok(true), 0) {
            Ok(filled) => assert_eq!(filled, InputState::More),
            Err(error) => break error,
        }
    };
    assert_eq!(
        error.to_string(),
        "the line at byte 0 is longer than 1048576 bytes; raise :memory"
    );
}

#[test]
fn lines_are_contiguous_in_memory() {
    let engine = run("raw", None, |mut writer| {
        writer.write_all(b"a\nbc\n").unwrap()
    });
    assert_eq!(
        engine.batches[0].payloads.lines(0, 2).as_deref(),
        Some(&b"a\nbc\n"[..])
    );
    let skipping = run("json", None, |mut writer| {
        writer.write_all(b"1\n\n2\n").unwrap()
    });
    assert_eq!(skipping.batches[0].payloads.lines(0, 2), None);
}

#[test]
fn options_decide_format_and_schema() {
    let facts = prepare("").unwrap().facts();
    assert_eq!(
        (facts.format.name(), facts.schema, facts.finite),
        ("json", None, true)
    );
    assert_ne!(facts.reread, Reread::Exact);
    assert_eq!(
        prepare("{:format \"txt:sep=pipe\"}")
            .unwrap()
            .facts()
            .format,
        "txt:sep=pipe".into()
    );

    let errors = prepare("{:schema :infer}").err().unwrap();
    assert_eq!(
        errors[0].message,
        "cannot infer a schema from standard input, because it cannot be re-read"
    );
    assert_eq!(errors[0].span, Span::new(9, 15));
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
    StdinOptions::parse_stage(&SPEC, &call[1..], Span::new(0, 0)).unwrap();
}

/// Returns its bytes in pieces, each of which is all that is available.
struct ChunkedReader<'a>(&'a [u8], Vec<usize>);

impl std::io::Read for ChunkedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self
            .1
            .pop()
            .unwrap_or(usize::MAX)
            .min(self.0.len())
            .min(buffer.len());
        let (now, later) = self.0.split_at(piece);
        buffer[..piece].copy_from_slice(now);
        self.0 = later;
        Ok(piece)
    }
}

proptest! {
    #[test]
    fn lines_and_positions_do_not_depend_on_how_bytes_arrive(
        input in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), Just(b' ')], 0..200),
        pieces in proptest::collection::vec(1usize..20, 0..100),
        eager: bool,
    ) {
        let split = Arc::new(Split { id: "in:0".into(), topic: "in".into(), partition: 0 });
        let mut reader = LineReader::new();
        let mut source = ChunkedReader(&input, pieces);
        let (mut found, mut next) = (Vec::new(), 100);
        loop {
            let filled = reader.fill(&mut source, |_| Ok(eager), 0).unwrap();
            if let Some(batch) = reader.batch(&split, 100) {
                prop_assert!(batch.positions.iter().all(|position| (next..batch.next).contains(position)));
                next = batch.next;
                found.extend((0..batch.len()).map(|row| (batch.positions[row], batch.payloads.get(row).unwrap().to_vec())));
            }
            if filled == InputState::End {
                break;
            }
        }
        let whole = input.strip_suffix(b"\n").unwrap_or(&input);
        let mut expected = Vec::new();
        let mut at = 100;
        for line in whole.split(|byte| *byte == b'\n') {
            if !line.is_empty() {
                expected.push((at, line.to_vec()));
            }
            at += line.len() as u64 + 1;
        }
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn what_is_not_lines_in_utf_8_is_named() {
    let cases: [(&[u8], &str); 6] = [
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"\x28\xb5\x2f\xfd\0", "Zstandard"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x04\x22\x4d\x18", "LZ4"),
        (b"\xff\xfe{\0}\0", "UTF-16"),
    ];
    let fill = |mut bytes: &[u8]| LineReader::new().fill(&mut bytes, |_| Ok(true), 1 << 20);
    for (bytes, expected) in cases {
        let error = fill(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    fill(b"BZh9 is a line\n").unwrap();
}
