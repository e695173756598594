//! Names: the path of a bucket from a row's values, and the name of a file from its first record.
//!
//! For every value, the path stays below the base directory, contains no hidden name that is not in
//! the template, and is the same for the same record at any time: it is the lane's permanent name.

use std::fmt::Write;

use pseidon_delivery::{LaneId, Position, SplitId};
use pseidon_plugin::Split;
use sha2::{Digest, Sha256};

/// The maximum length of a folder's name in bytes. File systems allow 255.
const MAX_COMPONENT_BYTES: usize = 200;
/// The maximum length of a bucket's path in bytes. Linux allows 4096 for a whole path.
pub(super) const MAX_PATH_BYTES: usize = 3000;
/// The maximum length in bytes of the topic in a file's name.
const MAX_TOPIC_BYTES: usize = 100;
/// The maximum length in bytes of the part of a file's name that a template yields.
const MAX_NAME_BYTES: usize = 120;
/// The path of the bucket if the template names no folder below the base directory.
const BASE_DIR: &str = ".";
/// Separates a bucket's path from the beginning of its files' names. No path contains it, since no
/// folder's name is empty.
const NAME_SEPARATOR: &str = "//";
/// Separates a bucket from the number of one of its lanes.
const NUMBER_SEPARATOR: &str = "///";

/// The id of a bucket's lane: the path, followed by the name and the lane's number if there are
/// any.
pub(super) fn lane_id(path: String, name: Option<&str>, number: Option<u32>) -> LaneId {
    let mut lane = path;
    // Writing to a string cannot fail.
    if let Some(name) = name {
        let _ = write!(lane, "{NAME_SEPARATOR}{name}");
    }
    if let Some(number) = number {
        let _ = write!(lane, "{NUMBER_SEPARATOR}{number}");
    }
    LaneId::from(lane)
}

/// The folder of a lane's files, relative to the base directory, and the beginning of their names.
/// The folder is `None` for the base directory itself, the name is `None` for the topic.
pub(super) fn folder_and_name(lane: &LaneId) -> (Option<&str>, Option<&str>) {
    let bucket = lane
        .as_str()
        .split_once(NUMBER_SEPARATOR)
        .map_or(lane.as_str(), |(bucket, _)| bucket);
    let (path, name) = match bucket.split_once(NAME_SEPARATOR) {
        Some((path, name)) => (path, Some(name)),
        None => (bucket, None),
    };
    (Some(path).filter(|path| *path != BASE_DIR), name)
}

/// The number of the bucket's lane for the records of this split, below `lanes`. It is the same at
/// any time and in every run.
pub(super) fn lane_number(split: &SplitId, lanes: u32) -> u32 {
    let digest = Sha256::digest(split.as_str());
    let number = digest
        .iter()
        .take(4)
        .fold(0, |number, byte| number << 8 | u32::from(*byte));
    number % lanes.max(1)
}

/// A piece of a path.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece<'a> {
    /// From the template: a `/` separates folders.
    Literal(&'a str),
    /// From the record; `None` is a null value.
    Value(Option<&'a str>),
}

/// Renders the path of a bucket. In values, `/`, `%` and control characters are percent-encoded, in
/// a folder `column=value` all characters that Hive encodes there, and so is a dot at the beginning
/// of a folder's name; an empty folder name and a null value become `null_name`; a long name is
/// truncated and ends with a digest.
pub(super) fn render<'a>(pieces: impl IntoIterator<Item = Piece<'a>>, null_name: &str) -> String {
    let mut path = String::new();
    let mut component = Component::default();
    for piece in pieces {
        match piece {
            Piece::Literal(text) => {
                for (number, part) in text.split('/').enumerate() {
                    if number > 0 {
                        component.finish(&mut path, null_name);
                    }
                    component.text.push_str(part);
                    component.is_partition |= part.contains('=');
                }
            }
            Piece::Value(value) => {
                component.has_value = true;
                component.push_value(value.unwrap_or(null_name));
            }
        }
    }
    component.finish(&mut path, null_name);
    if path.is_empty() {
        BASE_DIR.to_owned()
    } else {
        path
    }
}

/// The name of one folder while it is built.
#[derive(Default)]
struct Component {
    text: String,
    has_value: bool,
    /// Whether it has the form `column=value`, which other programs parse.
    is_partition: bool,
}

impl Component {
    fn finish(&mut self, path: &mut String, null_name: &str) {
        if self.has_value && self.text.is_empty() {
            self.push_value(null_name);
        }
        if self.has_value && self.text.starts_with('.') {
            self.text.replace_range(..1, "%2E");
        }
        truncate_name(&mut self.text, MAX_COMPONENT_BYTES);
        // A template may contain `a//b`, which is `a/b` for the file system.
        if !self.text.is_empty() {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(&self.text);
        }
        self.text.clear();
        self.has_value = false;
        self.is_partition = false;
    }

    fn push_value(&mut self, value: &str) {
        let special = match self.is_partition {
            true => HIVE_SPECIAL,
            false => SPECIAL,
        };
        escape(value, special, &mut self.text);
    }
}

/// The characters that are percent-encoded in a value, besides control characters.
const SPECIAL: &str = "/%";
/// The same in the name of a folder of a partition: those of `FileUtils.escapePathName` of Hive.
/// Hive, Spark, DuckDB, polars and pyarrow decode them.
const HIVE_SPECIAL: &str = "\"#%'*/:=?\\{[]^";

/// Appends a value with the `special` ASCII characters and control characters percent-encoded.
fn escape(value: &str, special: &str, out: &mut String) {
    let harmless = |byte: u8| (0x20..0x7f).contains(&byte) && !special.as_bytes().contains(&byte);
    if value.bytes().all(harmless) {
        out.push_str(value);
        return;
    }
    for char in value.chars() {
        if special.contains(char) || char.is_control() {
            let mut bytes = [0; 4];
            for byte in char.encode_utf8(&mut bytes).bytes() {
                // Writing to a string cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        } else {
            out.push(char);
        }
    }
}

/// Truncates a name that is longer than `longest` bytes; a digest distinguishes it from other names
/// with the same beginning.
fn truncate_name(name: &mut String, longest: usize) {
    if name.len() <= longest {
        return;
    }
    let digest = format!("~{}", digest(name, 8));
    name.truncate(name.floor_char_boundary(longest - digest.len()));
    name.push_str(&digest);
}

/// The first `bytes` bytes of a string's SHA-256, in hexadecimal.
pub(super) fn digest(text: &str, bytes: usize) -> String {
    Sha256::digest(text)
        .iter()
        .take(bytes)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Renders the beginning of files' names: escaped like the name of a folder, with a lower maximum
/// length.
pub(super) fn render_name<'a>(
    pieces: impl IntoIterator<Item = Piece<'a>>,
    null_name: &str,
) -> String {
    let mut name = render(pieces, null_name);
    truncate_name(&mut name, MAX_NAME_BYTES);
    name
}

/// The parts of a file's name that do not depend on its records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NameParts<'a> {
    /// The beginning of the name; `None` for the topic.
    pub(super) name: Option<&'a str>,
    /// Whether that contains the topic.
    pub(super) has_topic: bool,
    /// Distinguishes the places of a flow that write the same files.
    pub(super) place: Option<&'a str>,
}

/// The name of a file whose first record is at `first` of `split`: `clicks-3-000000001234`, without
/// an extension.
///
/// A (split, position) goes to a lane once, so the name is unique in its folder if it identifies
/// the split. Topic and partition identify the split if the split's id ends with them; otherwise a
/// digest of the id replaces the partition.
pub(super) fn file_name(split: &Split, first: Position, parts: NameParts<'_>) -> String {
    let (name, has_topic) = match parts.name {
        Some(name) => (name.to_owned(), parts.has_topic),
        None => {
            let readable = readable(&split.topic);
            let has_topic = readable == split.topic;
            (readable, has_topic)
        }
    };
    let whole = has_topic
        && split
            .id
            .as_str()
            .ends_with(&format!("{}/{}", split.topic, split.partition));
    let which = if whole {
        split.partition.to_string()
    } else {
        digest(split.id.as_str(), 4)
    };
    let place = parts
        .place
        .map(|place| format!(".{place}"))
        .unwrap_or_default();
    format!("{name}-{which}-{first:012}{place}")
}

/// The topic as the beginning of a file's name: only ASCII letters, digits, `.`, `_` and `-`; never
/// empty.
fn readable(topic: &str) -> String {
    let is_allowed = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
    let readable: String = topic
        .chars()
        .map(|char| if is_allowed(char) { char } else { '_' })
        .collect();
    // Names that begin with a dot or an underscore are hidden from many readers.
    let readable = readable.trim_start_matches(['.', '_', '-']);
    let readable = &readable[..readable.len().min(MAX_TOPIC_BYTES)];
    if readable.is_empty() {
        "data".to_owned()
    } else {
        readable.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Piece::{Literal, Value};
    use super::*;

    #[test]
    fn values_cannot_leave_their_folder() {
        let cases: &[(&[Piece], &str)] = &[
            (
                &[
                    Literal("date="),
                    Value(Some("2026-01-01")),
                    Literal("/hour="),
                    Value(Some("10")),
                ],
                "date=2026-01-01/hour=10",
            ),
            (&[Value(Some("a/b"))], "a%2Fb"),
            (&[Value(Some("../../etc"))], "%2E.%2F..%2Fetc"),
            (&[Value(Some(".."))], "%2E."),
            (&[Value(Some("."))], "%2E"),
            (&[Value(Some(".")), Value(Some("."))], "%2E."),
            (
                &[Literal("a/"), Value(Some(".")), Literal("./b")],
                "a/%2E./b",
            ),
            (&[Literal("."), Value(Some("x"))], "%2Ex"),
            (&[Value(Some(".pseidon-open"))], "%2Epseidon-open"),
            (
                &[Literal(".well-known/"), Value(Some("x"))],
                ".well-known/x",
            ),
            (&[Value(Some("100%"))], "100%25"),
            (&[Value(Some("a\0b\n\x7f\u{85}c"))], "a%00b%0A%7F%C2%85c"),
            (&[Value(Some("grün 日本"))], "grün 日本"),
            (&[Literal("a=b/"), Value(Some("x=1:'?"))], "a=b/x=1:'?"),
            (
                &[Literal("day="), Value(Some("12:00 {a=b}\\c*"))],
                "day=12%3A00 %7Ba%3Db}%5Cc%2A",
            ),
            (&[Literal("x="), Value(None)], "x=NULL"),
            (&[Value(Some(""))], "NULL"),
            (&[Literal("x="), Value(Some(""))], "x="),
            (&[Value(Some("")), Literal("/"), Value(None)], "NULL/NULL"),
            (&[Literal("a//b/")], "a/b"),
            (&[Literal("")], "."),
            (&[], "."),
        ];
        for (pieces, expected) in cases {
            assert_eq!(
                render(pieces.iter().copied(), "NULL"),
                *expected,
                "{pieces:?}"
            );
        }
    }

    #[test]
    fn long_names_are_truncated_and_stay_distinct() {
        let (first, second) = ("ü".repeat(300), "ü".repeat(301));
        let (first, second) = (
            render([Value(Some(&first))], ""),
            render([Value(Some(&second))], ""),
        );
        assert!(first.len() <= MAX_COMPONENT_BYTES && second.len() <= MAX_COMPONENT_BYTES);
        assert_ne!(first, second);
        let just_right = "x".repeat(MAX_COMPONENT_BYTES);
        assert_eq!(render([Value(Some(&just_right))], ""), just_right);
    }

    #[test]
    fn file_names_identify_split_and_position() {
        let name = |id: &str, topic: &str, partition| {
            file_name(
                &Split {
                    id: id.into(),
                    topic: topic.into(),
                    partition,
                },
                1234,
                NameParts::default(),
            )
        };
        assert_eq!(name("in:clicks/3", "clicks", 3), "clicks-3-000000001234");
        let file = name("logs:1.2.3", "logs/app.log", 0);
        assert!(
            file.starts_with("logs_app.log-")
                && file.ends_with("-000000001234")
                && file.len() == "logs_app.log-".len() + 8 + 13,
            "{file}"
        );
        assert_ne!(file, name("logs:1.2.4", "logs/app.log", 0));
        assert_ne!(name("in:a b/3", "a b", 3), name("in:a_b/3", "a_b", 3));
        assert!(name("in:../x/0", "../x", 0).starts_with("x-"));
        assert!(name("in:__/0", "__", 0).starts_with("data-"));
        assert!(name("in:long/0", &"x".repeat(500), 0).len() < 200);
        let split = Split {
            id: "in:clicks/3".into(),
            topic: "clicks".into(),
            partition: 3,
        };
        let parts = |name, has_topic, place| NameParts {
            name,
            has_topic,
            place,
        };
        assert_eq!(
            file_name(&split, 7, parts(None, false, Some("2"))),
            "clicks-3-000000000007.2"
        );
        assert_eq!(
            file_name(&split, 7, parts(Some("clicks-10"), true, None)),
            "clicks-10-3-000000000007"
        );
        let digest = digest("in:clicks/3", 4);
        assert_eq!(
            file_name(&split, 7, parts(Some("all"), false, None)),
            format!("all-{digest}-000000000007")
        );
        let file = Split {
            id: "logs:1.2".into(),
            topic: "a.log".into(),
            partition: 0,
        };
        assert!(
            !file_name(&file, 7, parts(Some("a.log"), true, None)).starts_with("a.log-0-"),
            "its id does not end with the partition"
        );
    }

    #[test]
    fn a_lane_id_contains_the_folder_and_the_name() {
        for (path, name, number, lane) in [
            ("a/b", None, None, "a/b"),
            (".", None, None, "."),
            ("a/b", Some("n"), None, "a/b//n"),
            (".", Some("n"), Some(2), ".//n///2"),
            ("a", None, Some(0), "a///0"),
        ] {
            let found = lane_id(path.to_owned(), name, number);
            assert_eq!(found.as_str(), lane);
            assert_eq!(
                folder_and_name(&found),
                ((path != ".").then_some(path), name),
                "{lane}"
            );
        }
    }

    #[test]
    fn splits_are_spread_over_lanes() {
        let numbers: Vec<u32> = (0..64)
            .map(|split| lane_number(&format!("in:clicks/{split}").into(), 4))
            .collect();
        for lane in 0..4 {
            assert!(
                numbers.iter().filter(|number| **number == lane).count() > 4,
                "{numbers:?}"
            );
        }
        // These must never change, or records would be duplicated after a crash.
        assert_eq!(numbers[..8], [2, 3, 1, 3, 2, 2, 3, 1]);
    }

    proptest! {
        #[test]
        fn no_value_adds_or_removes_a_folder(
            values in prop::collection::vec(prop::option::of(any::<String>()), 1..4),
        ) {
            let pieces: Vec<Piece> = values
                .iter()
                .flat_map(|value| [Value(value.as_deref()), Literal("/")])
                .collect();
            let path = render(pieces, "NULL");
            let components: Vec<&str> = path.split('/').collect();
            prop_assert_eq!(components.len(), values.len());
            for component in components {
                prop_assert!(!component.is_empty() && !component.starts_with('.'));
                prop_assert!(component.len() <= MAX_COMPONENT_BYTES);
                prop_assert!(!component.chars().any(char::is_control));
            }
        }

        #[test]
        fn different_values_have_different_folders(
            first in "[a-c./%]{1,6}",
            second in "[a-c./%]{1,6}",
        ) {
            let path = |value: &str| render([Value(Some(value))], "NULL");
            prop_assert_eq!(first == second, path(&first) == path(&second));
        }
    }
}
