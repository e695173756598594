//! Property tests of legacy files: no input panics, errors can be rendered, and every converted
//! file can be read.

use proptest::prelude::*;
use pseidon_dsl::diagnostic::render;
use pseidon_dsl::document::from_edn;
use pseidon_legacy::pseidon_etl::{convert, is_config};

const KEYS: [&str; 62] = [
    ":etl-db-host",
    ":etl-db-user",
    ":etl-db-pwd",
    ":etl-group",
    ":topic-refresh-freq-ms",
    ":etl-error-threshold",
    ":kafka-brokers",
    ":kafka-use-earliest",
    ":redis-conf",
    ":consume-step",
    ":kafka-msg-ch-buffer-size",
    ":pool",
    ":metrics",
    ":etl-threads",
    ":io-threads",
    ":monitor-port",
    ":monitor-host",
    ":monitor-names",
    ":token",
    ":repl-port",
    ":data-dir",
    ":writer",
    ":plugins",
    ":pipeline",
    ":move-files",
    ":state",
    ":memory",
    ":schemas",
    ":schema-registry",
    ":hive-metastore",
    ":fatal-errors",
    ":codec",
    ":check-freq",
    ":rollover-size",
    ":rollover-timeout",
    ":rollover-abs-timeout",
    ":parallel-files",
    ":write-multiplier",
    ":parquet-block-size",
    ":base-dir",
    ":use-buffer",
    ":t.rollover-size",
    ":t.base-dir",
    ":t.u.codec",
    ":.rollover-size",
    ":a/t.rollover-size",
    ":host",
    ":port",
    ":password",
    ":db",
    ":name",
    "pipeline",
    "disk-writer",
    "logs",
    "a",
    "b",
    "some.Class",
    "->",
    "5",
    "\"text\"",
    "nil",
    "[]",
];

const LEAVES: [&str; 52] = [
    "nil",
    "true",
    "false",
    "0",
    "1",
    "8080",
    "-1",
    "9223372036854775807",
    "99999999999999999999",
    "1.5",
    "2M",
    "\"\"",
    "\" \"",
    "\"/d\"",
    "\"d\"",
    "\"//h:1/d\"",
    "\"//h/d?a=b&user=u&password&=&ssl=1\"",
    "\"jdbc:mysql://h/d/e?\"",
    "\"///\"",
    "\"b:9092,c\"",
    "\"b:x\"",
    "\":\"",
    "\"::1\"",
    "\"[::1]:5\"",
    "\"[\"",
    "\",\"",
    "\"é😀\\u0000\\n\\\"\"",
    "\"${env:X}\"",
    "\"$${\"",
    "\"${log:x}\"",
    "\"1GB\"",
    "\\a",
    ":gzip",
    ":parquet",
    ":lzo",
    ":a/b",
    "a",
    "b",
    "pipeline",
    "disk-writer",
    "logs",
    "some.Class",
    "my.ns/f",
    "(where \"a > 1\")",
    "(drop)",
    "(some.Class 1)",
    "#r\"a|b\"",
    "(-> disk-writer)",
    "(match \"t\" disk-writer :else (drop))",
    "(match \"t\")",
    "#inst \"2024-01-31T12:30:00Z\"",
    "#x y",
];

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned)
}

fn map_of(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let entries = prop::collection::btree_map(key(), value, 0..12);
    let text = |entries: std::collections::BTreeMap<String, String>| {
        let entries: Vec<String> = entries
            .into_iter()
            .map(|(key, value)| format!("{key} {value}"))
            .collect();
        format!("{{{}}}", entries.join("\n "))
    };
    entries.prop_map(text)
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(LEAVES.to_vec()).prop_map(str::to_owned);
    leaf.prop_recursive(3, 60, 6, |inner| {
        let items = prop::collection::vec(inner.clone(), 0..4).prop_map(|items| items.join(" "));
        let form =
            (prop::sample::select(vec!["->", "all", "match", ""]), items.clone()).prop_map(|(form, items)| format!("({form} {items})"));
        prop_oneof![3 => map_of(inner), 1 => items.prop_map(|items| format!("[{items}]")), 2 => form]
    })
}

/// A complete file with `more` in it.
fn complete(more: &str) -> String {
    format!("{{:etl-db-host \"//h/d\" :kafka-brokers [{{:host \"b\"}}] :data-dir \"/d\" {more}}}")
}

fn check(text: &str) {
    match convert(text) {
        Ok(converted) => {
            assert!(
                from_edn(&converted.text).is_ok(),
                "{text}\n{}",
                converted.text
            );
            assert!(!is_config(&converted.text), "{}", converted.text);
            for note in &converted.notes {
                assert!(
                    text.get(note.span.start as usize..note.span.end as usize)
                        .is_some_and(|key| !key.is_empty()),
                    "{note:?} in {text}"
                );
                assert!(
                    note.line_in(text) <= text.lines().count(),
                    "{note:?} in {text}"
                );
                assert!(!note.to_string().is_empty());
            }
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "a failure without a diagnostic: {text}");
            for error in &errors {
                assert!(
                    text.get(error.span.start as usize..error.span.end as usize)
                        .is_some(),
                    "{error:?} in {text}"
                );
            }
            let some = errors.get(..5).unwrap_or(&errors);
            assert!(!render("old.edn", text, some, false).is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_map(text in map_of(value())) {
        check(&text);
    }

    #[test]
    fn a_complete_file_with_one_more_key(key in key(), value in value()) {
        check(&complete(&format!("{key} {value}")));
    }

    #[test]
    fn a_complete_file_with_any_writer(writer in map_of(value()), plugins in map_of(value())) {
        check(&complete(&format!(":writer {writer} :plugins {plugins}")));
    }

    #[test]
    fn any_value(text in value()) {
        check(&text);
    }

    #[test]
    fn any_text(text in any::<String>()) {
        let _ = (is_config(&text), convert(&text));
    }
}

/// A legacy file within the nesting limit can exceed it after conversion.
#[test]
fn deep_pipelines() {
    for depth in 100..128 {
        let flow = format!("{}disk-writer{}", "(all ".repeat(depth), ")".repeat(depth));
        check(&complete(&format!(
            "pipeline {flow} :writer {{:t.rollover-size 5}}"
        )));
    }
}
