//! Errors of `group`, and what `check` says about it.

use super::plan_of;
use crate::commands::check::describe;

/// A flow behind a source of files with `id int64`, `at timestamp`, `name utf8` and `user json`, and its errors.
const INVALID: [(&str, &[&str]); 15] = [
    (
        r#"(group "name") (stdout)"#,
        &["`group` has no aggregate function | nothing to compute | for example: "],
    ),
    (
        r#"(group "count(*) as n" "max(id) as id") (stdout)"#,
        &[
            "a key has an aggregate function | not a key | write the functions in the second argument",
        ],
    ),
    (
        r#"(group "name" "count(*) as n, id + 1 as next") (stdout)"#,
        &[
            "a result has no aggregate function | ",
            "`id` is neither a key nor in an aggregate",
        ],
    ),
    (
        r#"(group "name" "max(id) - id as rest") (stdout)"#,
        &[
            "`id` is neither a key nor in an aggregate function | it may have many values in a group",
        ],
    ),
    (
        r#"(group "name" "max(sum(id)) as most") (stdout)"#,
        &["an aggregate function is inside of another | computed over many records | use a second"],
    ),
    (
        r#"(group "name" "max(id) + 1") (stdout)"#,
        &["this column has no name | expected `as name`"],
    ),
    (
        r#"(group "*" "count(*) as n") (stdout)"#,
        &["`*` is not a key or a result | expected a column | name the fields that are the key"],
    ),
    (
        r#"(group "name" "bool_and(at) as b") (stdout)"#,
        &["cannot cast timestamp_us to boolean"],
    ),
    (
        r#"(group "name" "corr(id) as c") (stdout)"#,
        &["`corr` does not accept (float64) | invalid argument types | usage: corr("],
    ),
    (
        r#"(group "name" "sum(distinct user.id) as n") (stdout)"#,
        &["cast the argument, for example: sum(x::bigint)"],
    ),
    (
        r#"(group "name" "count(*) as n")"#,
        &["the flow ends without a sink | records would be lost here | end the flow with one of"],
    ),
    (
        r#"(dedupe "*") (stdout)"#,
        &["`*` is not a key or a result | expected a column | name the fields that are the key"],
    ),
    (
        r#"(dedupe "id + name") (stdout)"#,
        &["cannot compute with a string | this is a string"],
    ),
    (
        r#"(where "count(*) > 1") (stdout)"#,
        &[
            "`count` is computed over many records | not a function of one record | use it in a `group`",
        ],
    ),
    (
        r#"(select "upper(*) as a, lower(distinct name) as b") (stdout)"#,
        &["`upper` has no argument `*` | expected a value"],
    ),
];

#[test]
fn errors_of_groups() {
    for (flow, expected) in INVALID {
        let text = format!(
            r#"{{in (files {{:path "a" :format "json"
                             :schema {{:id :int64 :at :timestamp :name :utf8 :user :json}}}})
                pipeline (-> in {flow})}}"#
        );
        let errors = plan_of(&text)
            .err()
            .unwrap_or_else(|| panic!("{flow} has no errors"));
        for wanted in expected {
            let is_shown = errors.iter().any(|error| error.contains(wanted));
            assert!(
                is_shown,
                "{flow}\n  returned {errors:#?}\n  instead of {wanted}"
            );
        }
        assert_eq!(errors.len(), expected.len(), "{flow}: {errors:#?}");
    }
}

#[test]
fn a_group_needs_one_source_that_ends() {
    let cases = [
        (
            r#"{pipeline (-> (files {:path "a" :follow true}) (group "x" "count(*) as n") (stdout))}"#,
            "`files` never ends, so its groups are never complete | waits for the end",
        ),
        (
            r#"{a (stdin) b (files "b") pipeline (-> (all a b) (group "x" "count(*) as n") (stdout))}"#,
            "records of several sources reach a `group` | each source would have its own groups | ",
        ),
        (
            r#"{once (dedupe "x") pipeline (-> (all (stdin) (files "b")) once (stdout))}"#,
            "records of several sources reach a `dedupe` | each source would have its own groups | ",
        ),
        (
            r#"{:settings {:state "redis://r:6379"}
                pipeline (-> (files "a") (group "x" "count(*) as n") (stdout))}"#,
            "`group` cannot be used with `:state` | instances that share the state would each have",
        ),
    ];
    for (text, expected) in cases {
        let errors = plan_of(text).err().unwrap_or_default();
        assert!(
            errors.iter().any(|error| error.contains(expected)),
            "{errors:#?}"
        );
    }
}

#[test]
fn keys_that_are_not_deterministic_lower_the_guarantee() {
    for stage in [
        r#"(dedupe "random()")"#,
        r#"(group "random() as r, count(*) as n")"#,
    ] {
        let plan = plan_of(&format!(
            r#"{{pipeline (-> (files "a.json") {stage} (stdout))}}"#
        ));
        let plan = plan.unwrap_or_else(|errors| panic!("{errors:#?}"));
        let shown = describe(&plan, false);
        let front = shown.lines().find(|line| line.starts_with("  files -> "));
        assert!(
            front.is_some_and(|line| line.ends_with("at least once")),
            "{shown}"
        );
    }
}

#[test]
fn a_plan_with_a_group_has_two_halves() {
    let text = r#"{in (files {:path "a" :format "json"}) by-day (group "day" "count(*) as n, round(avg(ms), 1) as ms")
        pipeline (-> in (where "ms > 0") by-day (where "n > 1") (files "out"))}"#;
    let plan = plan_of(text).unwrap_or_else(|errors| panic!("{errors:#?}"));
    let shown = describe(&plan, false);
    for line in [
        "  -> by-day: day json, avg(ms) float64",
        "  -> by-day: collects groups",
        "by-day (results, after everything was read)",
        "  has \"avg(ms)\" float64, day json, n int64",
        "  -> by-day: day json, n int64, ms float64",
        "  in -> by-day: exactly once",
        "  by-day -> files: exactly once",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
}
