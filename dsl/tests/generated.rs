//! Generated documents: our readers find in them what edn-rs and `toml` find.
//!
//! The documents use the whole of each language, with white space and comments wherever they may
//! be, except for what edn-rs does not support (see `edn_rs.rs`).

mod edn_rs_value;

use std::str::FromStr;

use edn_rs::Edn;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use pseidon_dsl::{Node, NodeKind, edn, print};
use toml::Value;

use self::edn_rs_value::converted;

/// What may stand between two values of EDN.
fn edn_space() -> impl Strategy<Value = &'static str> + Clone {
    select(vec![
        " ",
        ",",
        "\n",
        " \t, ",
        " ; a \"comment\" [\n",
        "\r\n",
    ])
}

fn edn_leaf() -> impl Strategy<Value = String> {
    let fixed = [
        "nil",
        "true",
        "false",
        "\\a",
        "\\newline",
        "\\space",
        "\\tab",
        "\\é",
        "->",
        "+",
        "*x*",
        "<=",
        ":a/b",
        ":f-g?",
        "a.b/c",
        "\"\"",
        "#{}",
        "[]",
        "()",
        "{}",
    ];
    prop_oneof![
        select(fixed.to_vec()).prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        (0..i64::MAX).prop_map(|number| format!("+{number}")),
        (i64::MAX as u64..).prop_map(|number| number.to_string()),
        (-1e9..1e9_f64).prop_map(|number| format!("{number:?}")),
        "-?(0|[1-9][0-9]{0,3})\\.[0-9]{1,3}e[-+]?[0-9]",
        ":?[a-z][a-z0-9*!_?<>=-]{0,6}".prop_filter("a constant", |name| {
            !["nil", "true", "false"].contains(&name.as_str())
        }),
        r#""([a-zé😀 ;\[\]{}()#'\n]|\\[tnr"\\]){0,12}""#,
        "#inst \"20[0-9]{2}-0[1-9]-1[0-9]T12:30:00Z\"",
    ]
}

/// A value of EDN as text.
fn edn_text() -> impl Strategy<Value = String> {
    edn_leaf().prop_recursive(4, 64, 6, |value| {
        let items = vec((value.clone(), edn_space()), 0..6);
        let joined = |items: Vec<(String, &str)>| -> String {
            items
                .into_iter()
                .map(|(item, space)| item + space)
                .collect()
        };
        let entries = vec((edn_space(), value, edn_space()), 0..5);
        prop_oneof![
            items
                .clone()
                .prop_map(move |items| format!("[{}]", joined(items))),
            items.prop_map(move |items| format!("( {})", joined(items))),
            entries.prop_map(|entries| {
                let entry = |(number, (before, value, after)): (usize, (&str, String, &str))| {
                    format!(":k{number}{before}{value}{after}")
                };
                let entries: String = entries.into_iter().enumerate().map(entry).collect();
                format!("{{{entries}}}")
            }),
            vec(0..9_u32, 0..4).prop_map(|mut numbers| {
                numbers.sort_unstable();
                numbers.dedup();
                let numbers: Vec<_> = numbers.iter().map(u32::to_string).collect();
                format!("#{{{}}}", numbers.join(" "))
            }),
        ]
    })
}

/// A key of TOML: bare, literal or basic. The number makes it different from others.
fn toml_key(number: usize, style: u8) -> String {
    match style % 4 {
        0 => format!("k-{number}_"),
        1 => format!("'k {number}.\"'"),
        2 => format!("\"\\u00e9\\t{number}\""),
        _ => format!("{number}"),
    }
}

fn toml_leaf() -> impl Strategy<Value = String> {
    let fixed = [
        "true",
        "false",
        "inf",
        "-inf",
        "0xDEAD_beef",
        "0o17",
        "0b1010",
        "1_000",
        "+7",
        "-0",
        "-0.0",
        "1e300",
        "6.626e-34",
        "1979-05-27T07:32:00Z",
        "1979-05-27T00:32:00.999-07:00",
        "1979-05-27 07:32:00",
        "1979-05-27",
        "07:32:00.5",
        "[]",
        "{}",
    ];
    prop_oneof![
        select(fixed.to_vec()).prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        (-1e9..1e9_f64).prop_map(|number| format!("{number:?}")),
        r#""([a-zé😀 '\[\]{}#=]|\\[tnr"\\bf]|\\u00e9|\\U0001F600){0,12}""#,
        "'[a-zé😀 \"\\\\#=]{0,12}'",
        "\"\"\"\n?([a-zé '#\n]|\\\\n|\\\\\n  |\"[a-z]){0,12}\"\"\"",
        "'''(\r?\n)?([a-zé\"#\n\\\\]|'[a-z]){0,12}'''",
    ]
}

/// A value of TOML as text.
fn toml_text() -> impl Strategy<Value = String> {
    toml_leaf().prop_recursive(3, 32, 4, |value| {
        let array =
            (vec(value.clone(), 0..4), any::<bool>()).prop_map(|(items, is_long)| match is_long {
                true => format!("[ # items\n{}\n]", items.join(" ,\n")),
                false => format!("[{}]", items.join(",")),
            });
        let table = vec((any::<u8>(), value), 0..4).prop_map(|entries| {
            let entry = |(number, (style, value)): (usize, (u8, String))| {
                format!("{} = {value}", toml_key(number, style))
            };
            let entries: Vec<_> = entries.into_iter().enumerate().map(entry).collect();
            format!("{{ {} }}", entries.join(", "))
        });
        prop_oneof![array, table]
    })
}

/// A file with tables, arrays of tables and dotted keys below `settings`.
fn toml_file() -> impl Strategy<Value = String> {
    let entry = (any::<u8>(), toml_text());
    let part = (0..4_u8, any::<u8>(), vec(entry, 0..4));
    vec(part, 0..5).prop_map(|parts| {
        let mut file = String::from("name = 'x' # a comment\n[settings]\n");
        for (number, (kind, style, entries)) in parts.into_iter().enumerate() {
            let name = toml_key(number, style);
            match kind {
                0 => file += &format!("\n[settings.t{number}.{name}]\n"),
                1 => file += &format!("[[settings.a{number}]]\n[[settings.a{number}]]\r\n"),
                2 => file += &format!("[ settings . {name} ]\n"),
                _ => file += &format!("[settings.d{number}]\n{name}.x.y = 1\n{name}.z = 2\n"),
            }
            for (number, (style, value)) in entries.into_iter().enumerate() {
                file += &format!("{} = {value}\n", toml_key(number + 100, style));
            }
        }
        file
    })
}

/// The value of `toml` for the same node. `None` if it has none.
fn toml_value(node: &Node) -> Option<Value> {
    Some(match &node.kind {
        NodeKind::Bool(value) => Value::Boolean(*value),
        NodeKind::Int(value) => Value::Integer(*value),
        NodeKind::Float(value) => Value::Float(*value),
        NodeKind::Str(text) => Value::String(text.value.clone()),
        NodeKind::Vector(items) => {
            Value::Array(items.iter().map(toml_value).collect::<Option<_>>()?)
        }
        NodeKind::Map(entries) => {
            let entry = |(key, value): &(Node, Node)| match &key.kind {
                NodeKind::Keyword(name) => Some((name.name.clone(), toml_value(value)?)),
                _ => None,
            };
            Value::Table(entries.iter().map(entry).collect::<Option<_>>()?)
        }
        NodeKind::Tagged(tag, value) if tag.name == "inst" => toml_value(value)?,
        _ => return None,
    })
}

/// The same value, with times as strings.
fn with_times_as_strings(value: Value) -> Value {
    match value {
        Value::Datetime(time) => Value::String(time.to_string()),
        Value::Array(items) => Value::Array(items.into_iter().map(with_times_as_strings).collect()),
        Value::Table(entries) => Value::Table(
            entries
                .into_iter()
                .map(|(key, value)| (key, with_times_as_strings(value)))
                .collect(),
        ),
        other => other,
    }
}

proptest! {
    #[test]
    fn edn_rs_reads_the_same(text in edn_text(), before in edn_space(), after in edn_space()) {
        let text = format!("{before}{text}{after}");
        let ours = edn::read(&text).expect(&text);
        let theirs = Edn::from_str(&text).expect(&text);
        prop_assert_eq!(converted(&ours), theirs, "{}", text);
        let printed = print::print(&ours);
        let read_again = edn::read(&printed).expect(&printed);
        prop_assert_eq!(converted(&read_again), converted(&ours), "{}", printed);
    }

    #[test]
    fn toml_reads_the_same(text in toml_file()) {
        let ours = pseidon_dsl::toml::read(&text).expect(&text);
        let theirs: toml::Table = toml::from_str(&text).expect(&text);
        let ours = toml_value(&ours).expect("toml has all values");
        prop_assert_eq!(ours, with_times_as_strings(Value::Table(theirs)), "{}", text);
    }

    /// What one reader refuses, the other one refuses too.
    #[test]
    fn toml_refuses_the_same(text in toml_file(), at in any::<prop::sample::Index>(), new in select(vec!["", "=", "[", "\"", "\n", "'", "#", "\\", "_", "0"])) {
        let mut at = at.index(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let end = at + text[at..].chars().next().map_or(0, char::len_utf8);
        let damaged = format!("{}{new}{}", &text[..at], &text[end..]);
        let theirs = toml::from_str::<toml::Table>(&damaged);
        match pseidon_dsl::toml::read(&damaged) {
            Ok(_) => prop_assert!(theirs.is_ok(), "{}: {:?}", damaged, theirs),
            Err(errors) => {
                let is_syntax = errors.iter().any(|error| error.label == "invalid TOML");
                prop_assert!(!is_syntax || theirs.is_err(), "{}: {:?}", damaged, errors);
            }
        }
    }
}
