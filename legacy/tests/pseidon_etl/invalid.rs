//! The errors about invalid files.

use super::{errors, with};

/// For each error, the text that is underlined and the message.
type ExpectedErrors = &'static [(&'static str, &'static str)];

fn check(cases: impl IntoIterator<Item = (String, ExpectedErrors)>) {
    for (text, expected) in cases {
        let found = errors(&text);
        let shown: Vec<(&str, &str)> = found
            .iter()
            .map(|error| {
                (
                    text.get(error.span.start as usize..error.span.end as usize)
                        .expect("a place"),
                    error.message.as_str(),
                )
            })
            .collect();
        assert_eq!(shown, expected, "{text}");
    }
}

#[test]
fn missing_keys_are_errors_at_the_opening_brace() {
    check([
        (
            "{:data-dir \"/d\"}".to_owned(),
            &[
                ("{", "missing required key `:etl-db-host`"),
                ("{", "missing required key `:kafka-brokers`"),
            ] as ExpectedErrors,
        ),
        (
            with("").replace(":data-dir \"/d\"", ""),
            &[("{", "missing required key `:data-dir`")],
        ),
    ]);
}

#[test]
fn invalid_values_are_errors_at_their_positions() {
    check([
        (
            with("").replace("//h/d", "//h"),
            &[("\"//h\"", "invalid value for `:etl-db-host`")] as ExpectedErrors,
        ),
        (
            with("").replace("{:host \"b\"}", ""),
            &[("[]", "invalid value for `:kafka-brokers`")],
        ),
        (
            with("").replace("{:host \"b\"}", "{:port 1} 5 {:host \"b:x\"}"),
            &[
                ("{:port 1}", "invalid value for `:kafka-brokers`"),
                ("5", "invalid value for `:kafka-brokers`"),
                ("\"b:x\"", "invalid value for `:kafka-brokers :host`"),
            ],
        ),
        (
            with(":etl-threads 0"),
            &[("0", "invalid value for `:etl-threads`")],
        ),
        (
            with(":monitor-port 70000"),
            &[("70000", "invalid value for `:monitor-port`")],
        ),
        (
            with(":redis-conf {}"),
            &[("{}", "invalid value for `:redis-conf`")],
        ),
        (
            with(":writer {:codec :lzo :rollover-size \"1\" :clicks.check-freq 0}"),
            &[
                (":lzo", "invalid value for `:writer :codec`"),
                ("\"1\"", "invalid value for `:writer :rollover-size`"),
                ("0", "invalid value for `:writer :clicks.check-freq`"),
            ],
        ),
        (with(":writer []"), &[("[]", "invalid value for `:writer`")]),
        (
            with(":kafka-use-earliest :yes"),
            &[(":yes", "invalid value for `:kafka-use-earliest`")],
        ),
        (
            with(":memory \"lots\""),
            &[("\"lots\"", "invalid value for `:memory`")],
        ),
    ]);
}

#[test]
fn what_is_not_a_map_of_keys_or_a_pipeline_is_an_error_at_its_position() {
    check([
        (
            with("5 6"),
            &[("5", "a number cannot be a key of this map")] as ExpectedErrors,
        ),
        (
            with("a 5 pipeline (->)"),
            &[
                ("5", "`a` must be a stage or a flow"),
                ("(->)", "this form has no stages"),
            ],
        ),
        (
            with(":plugins {pipeline (-> disk-writer)} pipeline (-> disk-writer)"),
            &[("pipeline", "duplicate pipeline")],
        ),
        (
            with("").replace("}", ""),
            &[("{", "unclosed `{`"), ("{", "unclosed `{`")],
        ),
        ("[]".to_owned(), &[("[]", "pseidon.edn must be a map")]),
    ]);
}

#[test]
fn passwords_are_not_shown_in_errors() {
    for text in [
        with(":etl-db-pwd [\"hunter2\"]"),
        with(":redis-conf {:host \"r\" :password {:x \"hunter2\"}}"),
    ] {
        let found = errors(&text);
        assert!(
            found
                .iter()
                .all(|error| !format!("{error:?}").contains("hunter2")),
            "{found:?}"
        );
    }
}
