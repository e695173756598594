//! Named flows.

use super::plan_of;

/// A pipeline with these entries before `pipeline`, and the flow behind a source.
fn with(entries: &str, chain: &str) -> String {
    format!("{{in (stdin {{:schema {{:n :int64}}}}) {entries} pipeline (-> in {chain})}}")
}

#[test]
fn a_name_stands_for_its_flow() {
    let fingerprint = |entries: &str, chain: &str| {
        let text = with(entries, chain);
        plan_of(&text)
            .unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
            .fingerprint
    };
    let cases = [
        (
            "big (where \"n > 1\") f (-> big (files \"a\"))",
            "f",
            "big (files \"a\")",
        ),
        (
            "big (where \"n > 1\") f (-> big) g (-> f f)",
            "g (files \"a\")",
            "(-> big big) (files \"a\")",
        ),
        (
            "big (where \"n > 1\") f (all (files \"a\") big)",
            "(match \"t\" f) (files \"b\")",
            "(match \"t\" (all (files \"a\") big)) (files \"b\")",
        ),
        (
            "big (where \"n > 1\") f (-> big (files \"a\"))",
            "(route \"n = 5\" f :else (drop))",
            "(route \"n = 5\" (-> big (files \"a\")) :else (drop))",
        ),
        (
            "big (where \"n > 1\") sums (group \"n\" \"count(*) as c\") f (-> big sums)",
            "f (files \"a\")",
            "big sums (files \"a\")",
        ),
    ];
    for (entries, chain, expanded) in cases {
        let without = entries.split(" f ").next().unwrap_or_default();
        assert_eq!(
            fingerprint(entries, chain),
            fingerprint(without, expanded),
            "{entries} | {chain}"
        );
    }
    let source = "{src (-> (stdin) (where \"n > 1\")) pipeline (-> src (files \"a\"))}";
    plan_of(source).unwrap_or_else(|errors| panic!("{errors:?}"));
}

#[test]
fn errors_of_named_flows() {
    let nested = |count: usize, uses: &str| -> String {
        let flow = |at: usize| {
            let next = format!("f{}", at + 1);
            format!("f{at} (-> {}) ", uses.replace('x', &next))
        };
        (0..count).map(flow).collect::<String>() + &format!("f{count} (where \"n > 1\")")
    };
    let cases = [
        (
            "f (-> f)".to_owned(),
            "f",
            "the flow `f` contains itself | it is used inside",
        ),
        (
            "f (-> g) g (all h) h (-> (where \"n > 1\") f)".to_owned(),
            "f",
            "the flow `g` contains itself | it uses `h`, which uses `f`, which uses it here",
        ),
        (
            "f (-> (where \"n > 1\"))".to_owned(),
            "(drop)",
            "unused flow `f`",
        ),
        (
            "cleaned (-> (where \"n > 1\"))".to_owned(),
            "cleand",
            "unknown stage `cleand` | not defined in this file | did you mean `cleaned`?",
        ),
        (
            nested(20, "x x"),
            "f0",
            "this flow uses named flows more than 10000 times",
        ),
        (nested(70, "x"), "f0", "named flows nest up to 64 levels"),
    ];
    for (entries, chain, wanted) in &cases {
        let text = with(entries, &format!("{chain} (files \"a\")"));
        let errors = plan_of(&text).map(drop).expect_err(wanted);
        assert!(errors[0].starts_with(wanted), "{text}: {errors:?}");
    }
    let text = "{f (-> (group \"n\" \"count(*) as c\")) \
                pipeline (-> (all (stdin) (files \"b\")) f (files \"a\"))}";
    let errors = plan_of(text)
        .map(drop)
        .expect_err("two sources reach a group");
    assert!(
        errors[0].starts_with("records of several sources reach a `group`"),
        "{errors:?}"
    );
}
