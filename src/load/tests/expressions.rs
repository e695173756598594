//! Named expressions in pipelines.

use std::sync::Arc;

use pseidon_plan::Plan;

use super::super::{Parameters, read};
use super::{plan_of, untyped};
use crate::registry::sample_log;

const ENTRIES: &str = r#"is_error "status >= 500"
    "share(part, whole)" "part::double / nullif(whole, 0)"
    day "at::date"
    rate "sum((status >= 500)::bigint)::double / count(*)""#;

/// A pipeline with this chain behind a source.
fn with(entries: &str, chain: &str) -> String {
    let schema = "{:status :int64 :bytes :int64 :all :int64 :at :timestamp}";
    format!(
        "{{:expressions {{{entries}}} in (stdin {{:schema {schema}}}) pipeline (-> in {chain})}}"
    )
}

fn fingerprint(text: &str) -> String {
    let plan = plan_of(text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
    plan.fingerprint
}

/// `ENTRIES` in an included file may be unused; here only those that the chain uses are defined.
fn used(chain: &str) -> String {
    let is_used = |line: &&str| {
        let name = line.trim().trim_start_matches('"');
        let end = name.find(['(', ' ']).unwrap_or(name.len());
        chain.contains(&format!("{}(", &name[..end]))
    };
    ENTRIES.lines().filter(is_used).collect()
}

#[test]
fn a_call_is_the_same_pipeline_as_its_definition() {
    let cases = [
        (
            "(where \"is_error()\") (files \"a\")",
            "(where \"status >= 500\") (files \"a\")",
        ),
        (
            "(select \"share(bytes, all) as s, is_error()\") (files \"a\")",
            "(select \"bytes::double / nullif(all, 0) as s, status >= 500 as is_error\") (files \"a\")",
        ),
        (
            "(set \"status = share(status, 2)\") (files \"a\")",
            "(set \"status = status::double / nullif(2, 0)\") (files \"a\")",
        ),
        (
            "(route \"not is_error()\" (files \"a\") :else (drop))",
            "(route \"not (status >= 500)\" (files \"a\") :else (drop))",
        ),
        (
            "(group \"day() as d\" \"rate() as r\") (files \"a\")",
            "(group \"at::date as d\" \"sum((status >= 500)::bigint)::double / count(*) as r\") (files \"a\")",
        ),
        (
            "(group \"day()\" \"rate()\") (files \"a\")",
            "(group \"at::date as day\" \"sum((status >= 500)::bigint)::double / count(*) as rate\") (files \"a\")",
        ),
        (
            "(dedupe \"day()\") (files \"a\")",
            "(dedupe \"at::date as day\") (files \"a\")",
        ),
        (
            "(sample \"1%\" {:by \"day()\"}) (files \"a\")",
            "(sample \"1%\" {:by \"at::date\"}) (files \"a\")",
        ),
        (
            "(files \"a/{day()}/{day():%Y}\")",
            "(files \"a/{at::date}/{at::date:%Y}\")",
        ),
        (
            "(kafka {:brokers \"b:9092\" :topic \"t\" :key \"day()::text\"})",
            "(kafka {:brokers \"b:9092\" :topic \"t\" :key \"at::date::text\"})",
        ),
    ];
    for (chain, written) in cases {
        assert_eq!(
            fingerprint(&with(&used(chain), chain)),
            fingerprint(&with("", written)),
            "{chain}"
        );
    }
    let chain = "(where \"is_error()\") (files \"a\")";
    let changed = with("is_error \"status >= 400\"", chain);
    assert_ne!(
        fingerprint(&changed),
        fingerprint(&with(&used(chain), chain))
    );
}

#[test]
fn errors_of_named_expressions() {
    let cases = [
        (
            with("is_error \"status >= 500\"", "(files \"a\")"),
            "unused expression `is_error` | not part of the pipeline",
        ),
        (
            with(
                "\"is_error(code)\" \"status >= 500\"",
                "(where \"is_error(status)\") (files \"a\")",
            ),
            "unused parameter `code` | not part of the expression | remove it here and in the calls",
        ),
        (
            with(
                "is_error \"status >= 500\"",
                "(where \"is_eror()\") (files \"a\")",
            ),
            "unknown function `is_eror` | not a function | did you mean `is_error()`?",
        ),
        (
            with(
                "is_error \"status\"",
                "(where \"is_error()\") (files \"a\")",
            ),
            "the condition of `where` must be boolean",
        ),
        (
            with(
                "is_error \"statu >= 500\"",
                "(where \"is_error()\") (files \"a\")",
            ),
            "the record has no field `statu`",
        ),
        (
            with("coalesce \"1\"", "(where \"coalesce() = 1\") (files \"a\")"),
            "`coalesce` is a function",
        ),
        (
            with(
                "round \"1\"",
                "(where \"round(status, 2) = 1\") (files \"a\")",
            ),
            "`round` is a function",
        ),
        (
            with("extract \"1\"", "(where \"extract() = 1\") (files \"a\")"),
            "`extract` is a function",
        ),
        (
            with("rate \"count(*)\"", "(where \"rate() = 1\") (files \"a\")"),
            "`count` is computed over many records",
        ),
    ];
    for (text, expected) in cases {
        let errors = plan_of(&text).err().unwrap_or_default();
        assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        assert!(errors[0].starts_with(expected), "{text}: {errors:?}");
    }
}

#[test]
fn errors_at_arguments_of_named_expressions() {
    let cases = [
        (
            with(
                "\"has(bits, bit)\" \"bits & (1 << bit) <> 0\"",
                "(where \"has(at, 2)\") (files \"a\")",
            ),
            "`&` requires integers, found timestamp_us | expected an integer | convert it to an \
             integer: cast(x as bigint)\nthis is the argument `bits` of `has`, which uses it at \
             bits & (1 << bit) <> 0",
        ),
        // An argument and a part of the definition are compared in the definition.
        (
            with(
                "\"after(x)\" \"x > 5\"",
                "(where \"after(at)\") (files \"a\")",
            ),
            "cannot compare timestamp_us with int64 | incompatible types | cast one side, for \
             example: cast(x as timestamp_us)\nin `after`, which is used at after(at)",
        ),
        (
            with(
                "\"day(x)\" \"x.day\" \"late(y)\" \"day(y) > 20\"",
                "(where \"late(att)\") (files \"a\")",
            ),
            "the record has no field `att.day` | not in the schema | the schema has `status`, \
             `bytes`, `all`, `at`\n\
             this is the argument `x` of `day`, which uses it at x.day\n\
             this is the argument `y` of `late`, which uses it at y) > 20",
        ),
        (
            untyped("(where \"either(raw) = ''\") (files \"a\")").replacen(
                '{',
                "{:expressions {\"either(x)\" \"lower(x) || (x + 0.5)\"} ",
                1,
            ),
            "`raw` is used as utf8 and as float64 | used as float64 here | declare its type in the \
             :schema of the source, or cast it here: try_cast(raw as float64)\n\
             this is the argument `x` of `either`, which uses it at x + 0.5)",
        ),
    ];
    for (text, expected) in cases {
        let errors = plan_of(&text).err().unwrap_or_default();
        assert_eq!(errors, [expected], "{text}");
    }
}

/// The plan of a pipeline file beside the table `hosts.csv`; a template is planned for a typical log.
fn planned(text: &str) -> Result<Plan, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    write("hosts.csv", "code,name\na,one\nb,two\n");
    let text = read(&write("main.edn", text), Parameters::default()).ok();
    let text = text.expect("it can be read");
    text.plan_for_log(Arc::new(sample_log()))
}

#[test]
fn a_lookup_can_call_them() {
    let lookup = |entries: &str, on: &str| {
        let stage = format!("(lookup \"hosts.csv\" \"{on}\" \"name\") (files \"a\")");
        let plan = planned(&with(entries, &stage))?;
        Ok::<String, String>(plan.fingerprint)
    };
    let written = lookup("", "code = chr(status)");
    assert!(written.is_ok(), "{written:?}");
    let letter = r#""letter(n)" "chr(n)""#;
    assert_eq!(lookup(letter, "code = letter(status)"), written);
    assert_eq!(lookup(letter, "letter(status) = code"), written);
    let entries = format!(r#"{letter} is_host "code = letter(status)""#);
    assert_eq!(lookup(&entries, "is_host()"), written);
    let other = r#""letter(n)" "chr(n + 1)""#;
    assert_ne!(lookup(other, "code = letter(status)"), written);

    for (on, expected) in [
        (
            "code = letter(statu)",
            "the record has no field `statu`: not in the schema; did you mean `status`?; this is \
             the argument `n` of `letter`",
        ),
        (
            "code = letter()",
            "`letter` needs 1 argument, found 0: wrong number of arguments; usage: letter(n)",
        ),
        (
            "letter(status)",
            "`lookup` requires a column of the table and the key of a record: expected `column = \
             key`; in `letter`",
        ),
    ] {
        assert_eq!(lookup(letter, on), Err(expected.to_owned()), "{on}");
    }
}

#[test]
fn a_template_of_logs_can_call_them() {
    let template = |entries: &str, condition: &str, time: &str| {
        let logs = r#"(mysql-logs {:url "mysql://localhost/db" :group "etl"
                                   :kafka {:brokers "localhost:9092"}})"#;
        let text = format!(
            r#"{{:expressions {{{entries}}} logs {logs}
                pipeline (-> logs (where "{condition}")
                             (files {{:path "out/{{@topic}}/{{{time}:%Y}}" :codec "${{log:codec}}"}}))}}"#
        );
        planned(&text).map(|plan| plan.fingerprint)
    };
    let after = "${log:time} > '2020-01-01'";
    let written = template("", after, "${log:time}");
    assert!(written.is_ok(), "{written:?}");
    let entries = r#"time "${log:time}" "after(day)" "time() > day""#;
    let called = template(entries, "after('2020-01-01')", "time()");
    assert_eq!(called, written);
    assert_ne!(template(entries, "after('2020-01-02')", "time()"), written);
    assert_eq!(
        template(entries, "after(5)", "time()"),
        Err(
            "cannot compare timestamp_ms with int64: incompatible types; cast one side, for \
             example: cast(x as timestamp_ms); in `after`"
                .to_owned()
        )
    );
}
