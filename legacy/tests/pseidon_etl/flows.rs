//! The flow of a converted file: the source, the plugins, and the sinks of single topics.

use pseidon_legacy::pseidon_etl::{convert, is_config};

use super::{converted, errors, with};

#[test]
fn topics_with_their_own_rules_become_separate_sinks() {
    let text = with(":writer {:parallel-files 2 :a.b.parallel-files 5 :c.rollover-size 9}");
    let flow = |text: &str| {
        converted(text)
            .text
            .split_once("\n pipeline ")
            .map(|(_, flow)| flow.to_owned())
            .expect("a flow")
    };
    assert_eq!(
        flow(&text),
        "(-> logs (match \"a.b\" disk-writer-a.b \"c\" disk-writer-c :else disk-writer))}\n"
    );
    let lanes = |text: &str| converted(text).text.matches(":lanes 5").count();
    assert_eq!(lanes(&text), 1);
    let followed = text
        .replace(
            ":writer",
            "x (stdout) pipeline (-> (match \"t\" disk-writer) x) :writer",
        )
        .replace(":a.b.parallel-files 5 ", "");
    assert_eq!(
        flow(&followed),
        "(-> logs (match \"t\" (all (match \"c\" disk-writer-c :else disk-writer))) x)}\n"
    );
}

#[test]
fn the_source_goes_before_the_pipeline_of_the_plugins() {
    let flow = |more: &str| {
        converted(&with(more))
            .text
            .split_once("\n pipeline ")
            .map(|(_, flow)| flow.to_owned())
            .expect("a flow")
    };
    for (more, expected) in [
        ("", "(-> logs disk-writer)"),
        (":plugins {}", "(-> logs disk-writer)"),
        (
            ":plugins {pipeline (-> disk-writer)}",
            "(-> logs disk-writer)",
        ),
        (":plugins disk-writer", "(-> logs disk-writer)"),
        (
            ":pipeline (all disk-writer (stdout))",
            "(-> logs (all disk-writer (stdout)))",
        ),
        (
            "pipeline (match \"t\" disk-writer #r\"a|b\" (drop))",
            "(-> logs (match \"t\" disk-writer #r\"a|b\" (drop)))",
        ),
        (
            "logs (where \"msg > 'a'\") pipeline (-> logs disk-writer)",
            "(-> logs-2 logs disk-writer)",
        ),
    ] {
        assert_eq!(flow(more), format!("{expected}}}\n"), "{more}");
    }
    let own = converted(&with(
        "disk-writer (files {:path \"/own\"}) pipeline (-> disk-writer)",
    ));
    assert_eq!(own.text.matches("(files ").count(), 1, "{}", own.text);
    assert_eq!(
        own.notes
            .iter()
            .map(|note| note.key.as_str())
            .collect::<Vec<_>>(),
        [":data-dir"]
    );
    assert!(
        convert(&with("pipeline (-> (stdout))").replace(":data-dir \"/d\"", "")).is_ok(),
        "no folder is required if none is used"
    );
}

#[test]
fn classes_are_errors_with_a_replacement_in_the_help() {
    let text = with(
        ":plugins {a pseidon.plugin.IncPlugin b my.ns/inc c (my.C {}) d my.Unused\n\
         pipeline (-> a b (match \"double\" c) (all other.D disk-writer))}",
    );
    let found = errors(&text);
    let shown: Vec<(&str, &str)> = found
        .iter()
        .map(|error| {
            (
                text.get(error.span.start as usize..error.span.end as usize)
                    .expect("a place"),
                error.label.as_str(),
            )
        })
        .collect();
    let expected = [
        ("pseidon.plugin.IncPlugin", "used in the pipeline as `a`"),
        ("my.ns/inc", "used in the pipeline as `b`"),
        ("my.C", "used in the pipeline as `c`"),
        ("other.D", "used in the pipeline"),
    ];
    assert_eq!(shown, expected);
    let help = found[0].help.as_deref().expect("help");
    assert!(
        help.contains("(where ") && help.contains("pseidon plugins"),
        "{help}"
    );

    let alone = "{a some.Plugin\n pipeline (-> a)}";
    assert!(is_config(alone));
    let messages: Vec<String> = errors(alone)
        .into_iter()
        .map(|error| error.message)
        .collect();
    assert_eq!(
        messages,
        [
            "a pseidon-plugin pipeline has no source",
            "`some.Plugin` is a Java or Clojure class, which is not supported"
        ]
    );
}
