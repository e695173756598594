//! `:writer` and `:data-dir`: how fileape writes, as options of the sink `files`.
//!
//! Any of fileape's rules can be set for one topic: `:clicks.rollover-size` wins over
//! `:rollover-size` for the topic `clicks`. Such a topic gets a writer of its own.

use super::plugins::DISK_WRITER;
use crate::legacy::NoteKind;
use crate::legacy::build::{entry, int, list, map, millis, symbol, text, texts};
use crate::legacy::read::{Findings, Given, Keys};
use crate::{Diagnostic, Node, NodeKind, Span};

/// The sinks that stand for `disk-writer`.
pub(super) struct Writers {
    pub(super) of_all: Node,
    /// Those of topics that have rules of their own, in the order of their names.
    pub(super) of_topics: Vec<(String, Node)>,
}

/// fileape's rules, each if it is said.
#[derive(Default)]
struct Rules {
    base_dir: Option<Vec<String>>,
    size: Option<i64>,
    idle: Option<u64>,
    age: Option<u64>,
    lanes: Option<i64>,
    check_freq: Option<u64>,
    row_group: Option<i64>,
}

const SIZE: i64 = 115_000_000;
const IDLE: u64 = 60_000;
const AGE: u64 = 600_000;
const LANES: i64 = 3;
const CHECK_FREQ: u64 = 2_000;
/// More files at once for each topic and hour are of no use to anybody.
const MOST_LANES: i64 = 1024;

/// Where pseidon-hdfs moved a closed file to.
const MOVE_TO: &str = "${log:base_partition}/${log:log_partition}/{${log:time}:${log:date}}";

/// Options that say nothing about what is in the files or when they are closed.
const WITHOUT_MEANING: [(&str, &str); 8] = [
    ("out-buffer-size", "buffers take what :memory leaves them"),
    ("use-buffer", "output is always buffered"),
    (
        "flush-on-write",
        "a file is written through to the disk before it becomes visible, and never half",
    ),
    ("allow-all-ts", "no record is left out for its time"),
    (
        "parquet-codec",
        "the table's output_format says how pages are compressed",
    ),
    ("parquet-page-size", "the Parquet writer chooses it"),
    (
        "parquet-enable-dictionary",
        "the Parquet writer chooses where a dictionary is worth it",
    ),
    (
        "roll-callbacks",
        "functions cannot be loaded here; say :on-close in the files sink",
    ),
];

/// Reads the sinks, and the output format of rows that name none; none where that is gzip. `needed`
/// is where a missing folder is reported, none where no flow uses the writer.
pub(super) fn read(
    findings: &mut Findings,
    keys: &mut Keys<'_>,
    needed: Option<Span>,
) -> (Option<Writers>, Option<&'static str>) {
    let data_dir = keys.take("data-dir");
    let folders = findings.texts(keys, "data-dir");
    let moves = findings.flag(keys, "move-files").unwrap_or(false);
    let writer = keys.take("writer");
    let Some(opening) = needed else {
        for given in [data_dir, writer].into_iter().flatten() {
            findings.note(
                &given,
                NoteKind::NoMeaning,
                format!("the pipeline has no `{DISK_WRITER}`, or says itself what that is"),
            );
        }
        return (None, None);
    };
    let mut options = match &writer {
        Some(given) => match findings.keys(given) {
            Some(options) => options,
            None => return (None, None),
        },
        None => findings.keys_of([], String::new()),
    };
    let own_dir = options.take("base-dir");
    let multiplier = findings
        .count(&mut options, "write-multiplier", 1..=MOST_LANES)
        .unwrap_or(1);
    let default_format = options
        .take("codec")
        .and_then(|codec| output_format(findings, &codec));
    let rules = Rules::read(findings, &mut options, "");
    let own_rules = rules_of_topics(findings, &mut options);
    for (name, sentence) in WITHOUT_MEANING {
        findings.no_meaning(&mut options, name, sentence);
    }
    findings.finish(options);
    match (&own_dir, &data_dir) {
        (Some(_), Some(given)) => findings.note(
            given,
            NoteKind::NoMeaning,
            "files are written to the :base-dir of `:writer`",
        ),
        (None, None) => {
            let mistake =
                Diagnostic::new(opening, "there is no `:data-dir`", "missing in this map");
            findings.mistakes.push(
                mistake.with_help(
                    "say where files are written: add, for example, :data-dir \"/data\"",
                ),
            );
        }
        _ => {}
    }
    let rules = Rules {
        base_dir: rules.base_dir.or(folders),
        ..rules
    };
    let is_relative = |folder: &String| !folder.starts_with(['/', '$']);
    if let Some(given) = own_dir
        .or(data_dir)
        .filter(|_| rules.base_dir.iter().flatten().any(is_relative))
    {
        let sentence = "a relative folder starts at the folder of this file, where pseidon-etl started at the one it was run in";
        findings.note(&given, NoteKind::Changed, sentence);
    }
    let of_topics = own_rules
        .into_iter()
        .map(|(topic, own)| (topic, own.or(&rules).sink(multiplier, moves)))
        .collect();
    (
        Some(Writers {
            of_all: rules.sink(multiplier, moves),
            of_topics,
        }),
        default_format,
    )
}

/// The output format that `:codec` names.
fn output_format(findings: &mut Findings, codec: &Given<'_>) -> Option<&'static str> {
    let name = match &codec.value.kind {
        NodeKind::Keyword(name) => name.to_string(),
        NodeKind::Str(text) => text.value.clone(),
        _ => String::new(),
    };
    match name.as_str() {
        "gzip" | "native-gzip" | "json" => None,
        "none" | "txt" => Some("txt"),
        "snappy" => Some("snappy"),
        "bzip2" => Some("bzip2"),
        "parquet" => Some("parquet"),
        "avro" => Some("avro"),
        _ => {
            findings.wrong(
                codec,
                "one of :gzip, :snappy, :bzip2, :none, :parquet and :avro",
            );
            None
        }
    }
}

/// What is said for single topics.
fn rules_of_topics(findings: &mut Findings, options: &mut Keys<'_>) -> Vec<(String, Rules)> {
    let mut found = Vec::new();
    for topic in topics(options) {
        let rules = Rules::read(findings, options, &format!("{topic}."));
        findings.no_meaning(
            options,
            &format!("{topic}.codec"),
            "the output_format of the log's row says it",
        );
        findings.no_meaning(
            options,
            &format!("{topic}.write-multiplier"),
            "it holds for all topics; say :parallel-files for this one",
        );
        for (name, sentence) in WITHOUT_MEANING {
            findings.no_meaning(options, &format!("{topic}.{name}"), sentence);
        }
        if !rules.are_empty() {
            found.push((topic, rules));
        }
    }
    found
}

/// The topics that keys such as `:clicks.codec` name, in the order of their names.
fn topics(options: &Keys<'_>) -> Vec<String> {
    let mut topics: Vec<String> = options
        .names()
        .filter_map(|name| name.rsplit_once('.'))
        .map(|(topic, _)| topic.to_owned())
        .collect();
    topics.retain(|topic| !topic.is_empty() && !topic.contains('/'));
    topics.sort();
    topics.dedup();
    topics
}

impl Rules {
    /// Those whose keys begin with `prefix`.
    fn read(findings: &mut Findings, options: &mut Keys<'_>, prefix: &str) -> Rules {
        let key = |name: &str| format!("{prefix}{name}");
        Rules {
            base_dir: findings.texts(options, &key("base-dir")),
            size: findings.count(options, &key("rollover-size"), 1..=i64::MAX),
            idle: findings.millis(options, &key("rollover-timeout")),
            age: findings.millis(options, &key("rollover-abs-timeout")),
            lanes: findings.count(options, &key("parallel-files"), 1..=MOST_LANES),
            check_freq: findings.millis(options, &key("check-freq")),
            row_group: findings.count(options, &key("parquet-block-size"), 1..=i64::MAX),
        }
    }

    fn are_empty(&self) -> bool {
        let Rules {
            base_dir,
            size,
            idle,
            age,
            lanes,
            check_freq,
            row_group,
        } = self;
        base_dir.is_none()
            && size.or(*lanes).or(*row_group).is_none()
            && idle.or(*age).or(*check_freq).is_none()
    }

    /// These, and where one is not said that of `other`.
    fn or(self, other: &Rules) -> Rules {
        Rules {
            base_dir: self.base_dir.or_else(|| other.base_dir.clone()),
            size: self.size.or(other.size),
            idle: self.idle.or(other.idle),
            age: self.age.or(other.age),
            lanes: self.lanes.or(other.lanes),
            check_freq: self.check_freq.or(other.check_freq),
            row_group: self.row_group.or(other.row_group),
        }
    }

    /// The sink. A writer more is as many files more that are written at once.
    fn sink(&self, multiplier: i64, moves: bool) -> Node {
        let lanes = self
            .lanes
            .unwrap_or(LANES)
            .saturating_mul(multiplier)
            .min(MOST_LANES);
        let rollover = map([
            entry("size", int(self.size.unwrap_or(SIZE))),
            entry("idle", millis(self.idle.unwrap_or(IDLE))),
            entry("age", millis(self.age.unwrap_or(AGE))),
        ]);
        let move_to = moves.then(|| {
            map([
                entry("path", text(MOVE_TO)),
                entry("prefix", text("${host:name}-")),
                entry("quarantine", text("${log:quarantine}")),
            ])
        });
        let options = map([
            entry("base-dir", self.base_dir.as_deref().map(texts)),
            entry("name", text("{@topic}-{${log:time}:%Y-%m-%d-%H}")),
            entry("lanes", int(lanes)),
            entry("codec", text("${log:codec}")),
            entry("compression", text("${log:compression}")),
            entry("write", text("${log:write}")),
            entry("rollover", rollover),
            entry("check-freq", millis(self.check_freq.unwrap_or(CHECK_FREQ))),
            entry("row-group", self.row_group.map(int)),
            entry("move-to", move_to),
            entry(
                "on-error",
                map([entry("quarantine", text("${log:quarantine}"))]),
            ),
        ]);
        list(vec![symbol("files"), options])
    }
}
