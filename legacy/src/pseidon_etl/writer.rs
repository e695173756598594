//! Conversion of `:writer` and `:data-dir`, the settings of fileape, to options of the `files`
//! sink.
//!
//! Each of fileape's rules can be set for one topic: `:clicks.rollover-size` overrides
//! `:rollover-size` for the topic `clicks`. Such a topic gets its own sink.

use pseidon_dsl::{Node, NodeKind, Span};

use crate::NoteKind;
use crate::build::{entry, int, list, map, millis, symbol, text, texts};
use crate::read::{Findings, KeyValue, Keys};

/// The predefined stage of pseidon-plugin that writes files.
pub(super) const DISK_WRITER: &str = "disk-writer";

/// The sinks that replace `disk-writer`.
pub(super) struct Writers {
    pub(super) of_all: Node,
    /// The sinks of topics with their own rules, sorted by topic.
    pub(super) of_topics: Vec<(String, Node)>,
}

/// The rules of fileape. `None` for a rule that is not set.
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
/// The maximum number of concurrent files for each topic and hour.
const MAX_LANES: i64 = 1024;

/// The folder to which pseidon-hdfs moved a closed file.
const MOVE_TO: &str = "${log:base_partition}/${log:log_partition}/{${log:time}:${log:date}}";

/// Options that affect neither the content of files nor when files are closed.
const WITHOUT_EFFECT: [(&str, &str); 8] = [
    ("out-buffer-size", "buffers are sized from :memory"),
    ("use-buffer", "output is always buffered"),
    (
        "flush-on-write",
        "a file is synced to disk before it becomes visible, and is never partial",
    ),
    (
        "allow-all-ts",
        "no record is dropped because of its timestamp",
    ),
    (
        "parquet-codec",
        "page compression is set by output_format in the table",
    ),
    (
        "parquet-page-size",
        "the Parquet writer chooses the page size",
    ),
    (
        "parquet-enable-dictionary",
        "the Parquet writer decides where to use a dictionary",
    ),
    (
        "roll-callbacks",
        "functions are not supported; set :on-close in the files sink",
    ),
];

/// Reads the sinks, and the output format of rows without their own. The format is `None` for gzip,
/// the default. `needed` is the position at which a missing folder is reported, or `None` if no
/// flow uses the writer.
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
        note_unused(findings, [data_dir, writer]);
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
        .count(&mut options, "write-multiplier", 1..=MAX_LANES)
        .unwrap_or(1);
    let default_format = options
        .take("codec")
        .and_then(|codec| output_format(findings, &codec));
    let rules = Rules::read(findings, &mut options, "");
    let own_rules = rules_of_topics(findings, &mut options);
    for (name, sentence) in WITHOUT_EFFECT {
        findings.no_effect(&mut options, name, sentence);
    }
    findings.finish(options);
    match (&own_dir, &data_dir) {
        (Some(_), Some(given)) => findings.note(
            given,
            NoteKind::NoEffect,
            "files are written to the :base-dir of `:writer`",
        ),
        (None, None) => findings.missing("data-dir", "\"/data\"", opening),
        _ => {}
    }
    let rules = Rules {
        base_dir: rules.base_dir.or(folders),
        ..rules
    };
    if let Some(given) = own_dir.or(data_dir) {
        note_relative_folders(findings, &given, rules.base_dir.as_deref());
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

/// Reports that keys have no effect because no flow uses the writer.
fn note_unused(findings: &mut Findings, keys: [Option<KeyValue<'_>>; 2]) {
    for given in keys.into_iter().flatten() {
        findings.note(
            &given,
            NoteKind::NoEffect,
            format!("the pipeline does not use the predefined stage `{DISK_WRITER}`"),
        );
    }
}

/// Reports at `given`, the key of the folders, that a relative path is relative to another folder
/// than before.
fn note_relative_folders(
    findings: &mut Findings,
    given: &KeyValue<'_>,
    folders: Option<&[String]>,
) {
    let is_relative = |folder: &String| !folder.starts_with(['/', '$']);
    if folders.unwrap_or_default().iter().any(is_relative) {
        let sentence = "a relative path is relative to the folder of this file, unlike in \
            pseidon-etl, where it was relative to the working directory";
        findings.note(given, NoteKind::Changed, sentence);
    }
}

/// The output format for the value of `:codec`. `None` for gzip, the default.
fn output_format(findings: &mut Findings, codec: &KeyValue<'_>) -> Option<&'static str> {
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
            findings.invalid(
                codec,
                "one of :gzip, :snappy, :bzip2, :none, :parquet and :avro",
            );
            None
        }
    }
}

/// The rules of single topics.
fn rules_of_topics(findings: &mut Findings, options: &mut Keys<'_>) -> Vec<(String, Rules)> {
    let mut found = Vec::new();
    for topic in topics(options) {
        let rules = Rules::read(findings, options, &format!("{topic}."));
        findings.no_effect(
            options,
            &format!("{topic}.codec"),
            "the codec is set by output_format in the topic's row of the table",
        );
        findings.no_effect(
            options,
            &format!("{topic}.write-multiplier"),
            "it applies to all topics; set :parallel-files for this one",
        );
        for (name, sentence) in WITHOUT_EFFECT {
            findings.no_effect(options, &format!("{topic}.{name}"), sentence);
        }
        if !rules.are_empty() {
            found.push((topic, rules));
        }
    }
    found
}

/// The topics in keys such as `:clicks.codec`, sorted.
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
    /// Reads the rules whose keys begin with `prefix`.
    fn read(findings: &mut Findings, options: &mut Keys<'_>, prefix: &str) -> Rules {
        let key = |name: &str| format!("{prefix}{name}");
        Rules {
            base_dir: findings.texts(options, &key("base-dir")),
            size: findings.count(options, &key("rollover-size"), 1..=i64::MAX),
            idle: findings.millis(options, &key("rollover-timeout")),
            age: findings.millis(options, &key("rollover-abs-timeout")),
            lanes: findings.count(options, &key("parallel-files"), 1..=MAX_LANES),
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

    /// These rules, with those of `other` where a rule is not set.
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

    /// The `files` sink. `multiplier` multiplies the number of concurrent files.
    fn sink(&self, multiplier: i64, moves: bool) -> Node {
        let lanes = self
            .lanes
            .unwrap_or(LANES)
            .saturating_mul(multiplier)
            .min(MAX_LANES);
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
