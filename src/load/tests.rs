//! Planning of pipeline texts: their errors, types, guarantees and fingerprints.

mod expressions;
mod groups;
mod includes;
mod named_flows;

use std::collections::BTreeSet;

use pseidon_dsl::document;
use pseidon_expr::types::field_type_name;
use pseidon_plan::{Guarantee, Operator, Plan, PlanContext, plan};

use crate::registry::registry;

fn plan_of(text: &str) -> Result<Plan, Vec<String>> {
    // A use of a named expression is shown as the text from there to the end of the string.
    let place = |span: pseidon_dsl::Span| {
        let rest = text.get(span.start as usize..).unwrap_or_default();
        rest.split('"').next().unwrap_or_default().to_owned()
    };
    let messages = |errors: Vec<pseidon_dsl::Diagnostic>| {
        errors
            .iter()
            .map(|error| error.with_uses_as_help(place))
            .map(|error| {
                format!(
                    "{} | {} | {}",
                    error.message,
                    error.label,
                    error.help.as_deref().unwrap_or("")
                )
            })
            .collect()
    };
    let document = document::from_edn(text).map_err(messages)?;
    let registry = registry();
    let infer =
        |_: &str,
         _: &dyn pseidon_plugin::source::Source,
         _: &dyn pseidon_plugin::format::Format| Err("there are no records".to_owned());
    let context = PlanContext {
        registry: &registry,
        default_name: "test".into(),
        base: ".".into(),
        text: text.into(),
        infer: &infer,
        tables: &|_| Err("no table can be read here".to_owned()),
        keeps_state: true,
    };
    plan(&document, context).map_err(messages)
}

/// A file whose flow is `chain`, behind a source with the schema `n int64, s utf8, u {id utf8}, l
/// [int64]`.
fn typed(chain: &str) -> String {
    format!(
        "{{in (stdin {{:schema {{:n :int64 :s :utf8 :u {{:id :utf8}} :l [:int64]}}}}) pipeline (-> in {chain})}}"
    )
}

fn untyped(chain: &str) -> String {
    format!("{{in (kafka {{:brokers \"b:9092\" :topics [\"t\"]}}) pipeline (-> in {chain})}}")
}

/// The columns that are decoded from the untyped source.
fn decoded(chain: &str) -> Vec<String> {
    let plan = plan_of(&untyped(chain)).unwrap_or_else(|errors| panic!("{chain}: {errors:?}"));
    plan.sources[0]
        .schema
        .fields()
        .iter()
        .map(|field| format!("{} {}", field.name(), field_type_name(field)))
        .collect()
}

/// A pipeline with an error, as a function and its argument, and what the error must contain.
type InvalidPipeline = (fn(&str) -> String, &'static str, &'static str);

const INVALID_PIPELINES: [InvalidPipeline; 43] = [
    (
        typed,
        "(where \"n + 1\") (stdout)",
        "the condition of `where` must be boolean",
    ),
    (
        typed,
        "(where \"m > 1\") (stdout)",
        "the record has no field `m`",
    ),
    (typed, "(where \"n > 1\")", "records would be lost here"),
    (
        typed,
        "(all (stdout) (where \"n > 1\"))",
        "records would be lost here",
    ),
    (typed, "(stdin) (stdout)", "`stdin` is a source"),
    (
        typed,
        "(select \"n, s as n\") (stdout)",
        "duplicate column `n`",
    ),
    (
        typed,
        "(select \"* except (nn)\") (stdout)",
        "the record has no field `nn` to exclude | unknown field | did you mean `n`?",
    ),
    (
        typed,
        "(select \"n as a\") (where \"n > 1\") (stdout)",
        "unknown column `n`",
    ),
    (
        untyped,
        "(set \"a = 1, a.b = 2\") (stdout)",
        "`a` and `a.b` overlap | second change",
    ),
    (
        untyped,
        "(remove \"a, a\") (stdout)",
        "`a` is changed twice | second change",
    ),
    (
        untyped,
        "(select \"*, a as x, b as x\") (stdout)",
        "`x` is changed twice | second change",
    ),
    (
        untyped,
        "(select \"* except (a[0])\") (stdout)",
        "`a[0]` is an element of a list",
    ),
    (
        untyped,
        "(set \"a[0] = 1\") (stdout)",
        "`a[0]` is an element of a list | expected a field | set the whole list",
    ),
    (untyped, "(set \"a 1\") (stdout)", "expected `=`"),
    (untyped, "(rename \"a = b\") (stdout)", "expected `as`"),
    (
        untyped,
        "(set \"u.a = 1\") (where \"u is not null\") (stdout)",
        "`u` is used as a whole after `u.a` was changed",
    ),
    (
        typed,
        "(set \"u.id = 'x'\") (files {:path \"o\" :codec :parquet})",
        "`u` is used as a whole after `u.id` was changed | a part of it was changed before",
    ),
    (
        untyped,
        "(remove \"a\") (where \"a > 1\") (stdout)",
        "unknown column `a`",
    ),
    (
        untyped,
        "(match \"a\" (set \"x = 1\") :else (remove \"x\")) (where \"x > 1\") (stdout)",
        "unknown column `x`",
    ),
    (
        typed,
        "(select \"u\") (set \"u.id = 1\") (stdout)",
        "`u.id` is a part of a column | expected a column",
    ),
    (
        untyped,
        "(where \"a + 0.5 > 1 and lower(a) = 'x'\") (stdout)",
        "`a` is used as float64 and as utf8",
    ),
    (
        untyped,
        "(files {:path \"o\" :codec :parquet})",
        "the fields of these records are not known",
    ),
    (
        untyped,
        "(select \"a\") (files {:path \"o\" :codec :parquet})",
        "parquet needs a type for every column; give one to `a`",
    ),
    (
        untyped,
        "(stdot)",
        "unknown plugin `stdot` | not a plugin | did you mean `stdout`?",
    ),
    (
        untyped,
        "(filter \"a > 1\") (stdout)",
        "unknown plugin `filter` | not a plugin | did you mean `where`?",
    ),
    (
        untyped,
        "(console)",
        "unknown plugin `console` | not a plugin | did you mean `stdout`?",
    ),
    (
        untyped,
        "(gizmo)",
        "transforms: where, select, set, remove, rename, parse, unnest, lookup, sample, limit, throttle, group, dedupe; sinks: ",
    ),
    (
        untyped,
        "(stdout {:formt :json})",
        "`stdout` has no option `:formt` | unknown option | did you mean `:format`?",
    ),
    (untyped, "(stdout {:format :jsn})", "did you mean `:json`?"),
    (
        untyped,
        "(stdout {:format :json} {:format :json})",
        "`stdout` does not accept these arguments",
    ),
    (
        untyped,
        "(match \"a\" (select \"x\") :else (select \"y\")) (stdout)",
        "the branches of this `match` pass on records with different columns",
    ),
    (
        untyped,
        "(match #r\"t\" (match #r\"1\" (select \"x\") :else (select \"y\")) :else (select \"x\")) (stdout)",
        "pass on records with different columns",
    ),
    (
        untyped,
        "(where \"x > 1\" {:on-error :ignore}) (stdout)",
        "unknown error policy `ignore`",
    ),
    (
        str::to_owned,
        "{pipeline (-> (stdout))}",
        "`stdout` is not a source",
    ),
    (
        str::to_owned,
        "{pipeline (match \"a\" (stdout))}",
        "`match` has no input",
    ),
    (
        str::to_owned,
        "{pipeline (-> (stdin {:format \"xml\"}) (stdout))}",
        "unknown format `xml`",
    ),
    (
        str::to_owned,
        "{pipeline (-> (files {:path \"x\" :format :json :schema :infer}) (stdout))}",
        "there are no records",
    ),
    (
        str::to_owned,
        "{:name \"a/b\" pipeline (-> (stdin) (stdout))}",
        "invalid pipeline name `a/b`",
    ),
    (
        str::to_owned,
        "{:settings {:memory \"1MB\"} pipeline (-> (stdin) (stdout))}",
        "`:memory` is too small",
    ),
    (
        str::to_owned,
        "{:settings {:etl-threads 0} pipeline (-> (stdin) (stdout))}",
        "`:etl-threads` is out of range",
    ),
    (
        str::to_owned,
        "{:settings {:token \"a\" :token-file \"b\"} pipeline (-> (stdin) (stdout))}",
        "`:token` and `:token-file` cannot be combined",
    ),
    (
        str::to_owned,
        "{:settings {:guarantee :exactly-once} pipeline (-> (stdin) (stdout))}",
        "delivers at most once",
    ),
    (
        str::to_owned,
        "{x (where \"a > 1\") pipeline (-> (stdin) (stdout))}",
        "unused stage `x`",
    ),
];

#[test]
fn each_error_is_shown_with_help() {
    for (pipeline, flow, expected) in INVALID_PIPELINES {
        let text = pipeline(flow);
        let errors = plan_of(&text)
            .err()
            .unwrap_or_else(|| panic!("{text} has no errors"));
        assert!(
            errors.iter().any(|error| error.contains(expected)),
            "{text}\n  returned {errors:#?}\n  instead of {expected}"
        );
    }
}

#[test]
fn independent_errors_are_shown_at_once() {
    let text = "{:settings {:memry 1} in (stdin {:fromat :json}) out (stdout {:frmat :json}) pipeline (-> in (where \"a >\") (whre \"b\") out)}";
    let errors = plan_of(text).err().unwrap();
    for expected in [":memry", ":fromat", ":frmat", "whre"] {
        assert!(
            errors.iter().any(|error| error.contains(expected)),
            "{expected} is not in {errors:#?}"
        );
    }
    assert_eq!(errors.len(), 5, "{errors:#?}");
}

#[test]
fn only_named_fields_are_decoded_with_the_type_of_their_use() {
    assert_eq!(decoded("(stdout)"), [""; 0]);
    assert_eq!(decoded("(where \"a > 1\") (stdout)"), ["a json"]);
    assert_eq!(decoded("(where \"a + 1 > 1\") (stdout)"), ["a json"]);
    assert_eq!(decoded("(where \"a + 0.5 > 1\") (stdout)"), ["a float64"]);
    // Edits: only what expressions use is decoded, under its name in the record.
    assert_eq!(
        decoded("(remove \"a, b.c\") (rename \"d as e\") (stdout)"),
        [""; 0]
    );
    assert_eq!(
        decoded(
            "(set \"b = a + 0.5\") (rename \"c as d, u as v\") (where \"b > 1 and d - 1 > 0 and v.id is not null\") (stdout)"
        ),
        ["a float64", "c json", "u.id json"]
    );
    assert_eq!(
        decoded("(select \"*, lower(a) as b, * except (c)\") (stdout)"),
        ["a utf8"]
    );
    assert_eq!(
        decoded("(where \"a + 1.5 > 0 and a - 10 < 0\") (stdout)"),
        ["a float64"]
    );
    assert_eq!(
        decoded("(where \"u.id like 'x%'\") (stdout)"),
        ["u.id json"]
    );
    assert_eq!(
        decoded("(where \"lower(u.id) like 'x%'\") (stdout)"),
        ["u.id utf8"]
    );
    assert_eq!(
        decoded("(select \"a, u.id as id\") (stdout)"),
        ["a json", "u.id json"]
    );
    assert_eq!(
        decoded("(select \"u.id as id\") (where \"id % 0.5 = 0\") (stdout)"),
        ["u.id float64"],
        "a renamed column takes its type from later uses"
    );
}

#[test]
fn the_guarantee_of_a_path_is_that_of_its_weakest_part() {
    let guarantee = |text: &str| {
        let plan = plan_of(text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
        plan.guarantees
            .iter()
            .map(|path| path.guarantee)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        guarantee(&untyped("(files {:path \"o/{@topic}\"})")),
        [Guarantee::ExactlyOnce]
    );
    assert_eq!(
        guarantee(&untyped("(kafka {:brokers \"b:1\" :topic \"t\"})")),
        [Guarantee::ExactlyOnce]
    );
    assert_eq!(
        guarantee(&untyped("(files {:path \"o/{now():%Y}\"})")),
        [Guarantee::AtLeastOnce]
    );
    assert_eq!(
        guarantee(&untyped("(where \"random() < 0.5\") (files {:path \"o\"})")),
        [Guarantee::AtLeastOnce]
    );
    assert_eq!(
        guarantee(&untyped(
            "(match \"t\" (where \"random() < 0.5\")) (files {:path \"o\"})"
        )),
        [Guarantee::AtLeastOnce]
    );
    assert_eq!(
        guarantee(&untyped(
            "(match \"t\" (-> (where \"random() < 0.5\") (stdout))) (files {:path \"o\"})"
        )),
        [Guarantee::AtLeastOnce, Guarantee::ExactlyOnce]
    );
    assert_eq!(
        guarantee(&untyped("(all (stdout) (files {:path \"o\"}))")),
        [Guarantee::AtLeastOnce, Guarantee::ExactlyOnce]
    );
    assert_eq!(
        guarantee("{pipeline (-> (stdin) (files {:path \"o\"}))}"),
        [Guarantee::AtMostOnce]
    );
    assert_eq!(
        guarantee(
            "{pipeline (-> (files {:path \"x\" :format :json :follow true}) (files {:path \"o/{@topic}\"}))}"
        ),
        [Guarantee::AtLeastOnce]
    );
}

#[test]
fn a_branch_that_ends_in_a_sink_does_not_pass_on_its_rows() {
    for (branch, expected) in [
        ("(files {:path \"o\"})", false),
        ("(files {:path \"o\" :codec :parquet})", false),
        ("(where \"n > 1\")", true),
        ("(all (files {:path \"o\"}))", true),
    ] {
        let plan = plan_of(&typed(&format!("(match \"t\" {branch}) (stdout)")))
            .unwrap_or_else(|errors| panic!("{branch}: {errors:?}"));
        let Operator::Match { branches, .. } = &plan.sources[0].chain.steps[0].operator else {
            panic!("{branch} is not in a match");
        };
        assert_eq!(branches[0].1.passes_on, expected, "{branch}");
    }
}

/// These are the fields whose places the decoder tells the edits.
#[test]
fn the_fields_that_edits_change_first_are_known() {
    for (chain, expected) in [
        (r#"(where "a = 1") (stdout)"#, [].as_slice()),
        (r#"(set "b = upper(a), u.v = a") (stdout)"#, &["b", "u"]),
        (
            r#"(set "b = a") (remove "c") (rename "d as e") (stdout)"#,
            &["b", "c", "d", "e"],
        ),
        // The second edit is not made together with the first, so its records are others.
        (
            r#"(set "b = a") (set "b = upper(b), c = 1") (stdout)"#,
            &["b"],
        ),
        (r#"(select "a") (stdout)"#, &[]),
        (
            r#"(match "t" (-> (remove "b") (stdout)) :else (-> (set "c = a") (stdout)))"#,
            &["b", "c"],
        ),
        (
            r#"(all (-> (remove "b") (stdout))) (where "a = 1") (remove "d") (stdout)"#,
            &["b", "d"],
        ),
    ] {
        let plan = plan_of(&untyped(chain)).unwrap_or_else(|errors| panic!("{chain}: {errors:?}"));
        assert_eq!(plan.sources[0].chain.edited_fields(), expected, "{chain}");
    }
}

#[test]
fn the_fingerprint_covers_lanes_and_contents() {
    let fingerprint = |chain: &str| {
        plan_of(&untyped(chain))
            .unwrap_or_else(|errors| panic!("{chain}: {errors:?}"))
            .fingerprint
    };
    let base = fingerprint("(where \"a > 1\") (files {:path \"o/{b}\" :rollover {:size \"1MB\"}})");
    assert_eq!(
        fingerprint(
            "(where  \"a>1\")   (files {:path \"o/{b}\" :rollover {:size \"2MB\" :idle \"5s\"}})"
        ),
        base
    );
    let others = [
        "(where \"a > 2\") (files {:path \"o/{b}\"})",
        "(where \"a > 1\") (files {:path \"o/{c}\"})",
        "(where \"a > 1\") (files {:path \"o/{b}\" :codec :raw})",
        "(where \"a > 1\") (all (files {:path \"o/{b}\"}))",
    ];
    let sample = |step: &str| fingerprint(&format!("(sample {step}) (files {{:path \"o\"}})"));
    let samples = [
        "\"1%\"",
        "\"2%\"",
        "\"1%\" {:by \"a\"}",
        "\"1%\" {:by \"b\"}",
    ];
    let distinct: BTreeSet<String> = samples.into_iter().map(sample).collect();
    assert_eq!(distinct.len(), samples.len());
    let from = |brokers: &str| {
        let text = format!(
            "{{pipeline (-> (kafka {{:brokers \"{brokers}\" :topics [\"t\"] :until :latest}}) (files {{:path \"o\"}}))}}"
        );
        plan_of(&text)
            .unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
            .fingerprint
    };
    assert_eq!(
        from("one:9092"),
        from("two:9092"),
        "the addresses of brokers are not part of the fingerprint"
    );
    for other in others {
        assert_ne!(fingerprint(other), base, "{other}");
    }
}
