//! Which part of the flow a quarantined record passes.

use std::path::PathBuf;

use pseidon_plan::chain::{Chain, Operator};

use super::*;
use crate::load::{Parameters, TextKind};

/// The plan of a flow whose stages are `in`, `calc`, the conditions `odd` and `big`, and sinks.
fn plan_of(flow: &str) -> Plan {
    let stages = [
        (
            "in",
            r#"(files "in/*" {:format "json" :schema {:n :int64 :list :json}})"#,
        ),
        ("calc", r#"(select "n")"#),
        ("odd", r#"(where "n % 2 = 1")"#),
        ("big", r#"(where "n > 9")"#),
        ("one", r#"(files {:path "out/1" :codec :json})"#),
        ("two", r#"(files {:path "out/2" :codec :json})"#),
    ];
    let words: Vec<&str> = flow.split([' ', '(', ')']).collect();
    let used = stages.iter().filter(|(name, _)| words.contains(name));
    let used: Vec<String> = used
        .map(|(name, stage)| format!("{name} {stage}"))
        .collect();
    let text = format!("{{{} pipeline {flow}}}", used.join(" "));
    let text = PipelineText {
        name: "test".into(),
        text,
        kind: TextKind::Edn,
        base: PathBuf::from("."),
        default_name: "test".into(),
        parameters: Parameters::default(),
        tables: Default::default(),
    };
    let document = text
        .document()
        .unwrap_or_else(|_| panic!("invalid: {flow}"));
    text.plan(&document)
        .unwrap_or_else(|_| panic!("invalid: {flow}"))
}

/// The stages of a chain, with those of its branches in parentheses.
fn stages(chain: &Chain) -> String {
    let step = |step: &pseidon_plan::ChainStep| {
        let branches = step.operator.chains().into_iter().map(|branch| {
            let mark = if branch.passes_on { " >" } else { "" };
            format!("{}{mark}", stages(branch))
        });
        let branches: Vec<String> = branches.collect();
        let is_sink = matches!(step.operator, Operator::Sink(_));
        let mark = if is_sink { "!" } else { "" };
        match branches.is_empty() {
            true => format!("{}{mark}", step.stage),
            false => format!("{}({})", step.stage, branches.join(" | ")),
        }
    };
    let steps: Vec<String> = chain.steps.iter().map(step).collect();
    steps.join(" ")
}

/// What the records of a stage pass, or why they cannot be replayed.
fn passed(flow: &str, stage: &str) -> String {
    let plan = plan_of(flow);
    match plan.replay(stage, Arc::new(QuarantineSource::new(Vec::new()))) {
        Err(reason) => reason,
        Ok(source) => {
            assert_eq!(source.stage, stage);
            stages(&source.chain)
        }
    }
}

#[test]
fn a_record_passes_what_is_in_front_of_its_stage_and_reaches_what_is_behind() {
    let cases = [
        // The source could not decode it: it was delivered nowhere.
        ("(-> in one calc two)", "in", "one! calc two!"),
        // A sink in front has it. What is in front has the name of the stage now.
        ("(-> in odd one calc big two)", "calc", "calc calc big two!"),
        ("(-> in odd one calc big two)", "big", "big big big two!"),
        // A `limit` is one of runs, and does not leave records behind.
        ("(-> in (limit 3) calc one)", "in", "calc one!"),
        ("(-> in odd (limit 3) calc one)", "calc", "calc calc one!"),
        // A sink passes on what it refuses.
        ("(-> in one calc two)", "one", "one!"),
        ("(-> in one calc two)", "two", "two two!"),
        // Other branches of `all` have it, and so has what follows.
        (
            "(-> in (all (-> odd one) (-> calc big two)))",
            "calc",
            "calc(calc big two!)",
        ),
        (
            "(-> in calc (all one (-> odd (drop))) big two)",
            "odd",
            "odd odd(odd drop!)",
        ),
        ("(-> in calc (all one) big two)", "big", "big big two!"),
        // Only one branch of `match` and `route` has it, and another one may match now.
        (
            "(-> in (match \"a\" (-> one calc (drop)) :else (-> odd two)))",
            "calc",
            "calc(calc drop! | odd two!)",
        ),
        (
            "(-> in one (route \"n > 5\" (-> calc two) \"n > 7\" (drop)) (drop))",
            "calc",
            "calc(calc two! | drop!) drop#2!",
        ),
        (
            "(-> in one (route \"n > 5\" (-> calc two)) (drop))",
            "route",
            "route(calc two!) drop!",
        ),
        // A branch that passes on the record may have delivered it; one that ends with a sink has
        // not.
        (
            "(-> in (match \"a\" (-> one odd) \"b\" two) big (drop))",
            "big",
            "big(big > | two!) big drop!",
        ),
        // What follows the branch has the record too.
        (
            "(-> in (match \"a\" (-> one odd)) two)",
            "one",
            "one(one!) two!",
        ),
        (
            "(-> in (match \"a\" (-> (all (-> calc one)) odd)) two)",
            "calc",
            "calc(calc(calc one!)) two!",
        ),
        (
            "(-> in (match \"a\" (-> big odd)) two)",
            "big",
            "big(big odd >) two!",
        ),
    ];
    for (flow, stage, expected) in cases {
        assert_eq!(passed(flow, stage), expected, "{stage} of {flow}");
    }
}

#[test]
fn what_cannot_be_replayed_says_why() {
    let cases = [
        ("(-> in one)", "calc", "is not a stage of the pipeline"),
        (
            "(-> in (unnest \"list\") calc one)",
            "calc",
            "is behind an `unnest`",
        ),
        (
            "(-> in (unnest \"list\") calc one)",
            "unnest",
            "unnest unnest calc one!",
        ),
        (
            "(-> in calc (group \"n\" \"count(*) as c\") one)",
            "calc",
            "is in front of a `group`",
        ),
        (
            "(-> in (group \"n\" \"count(*) as c\") odd one)",
            "odd",
            "is behind a `group`",
        ),
        (
            "(-> (files \"*.parquet\" {:schema {:n :int64}}) one)",
            "files",
            "reads `parquet`",
        ),
    ];
    for (flow, stage, expected) in cases {
        let reason = passed(flow, stage);
        assert!(reason.starts_with(expected), "{stage} of {flow}: {reason}");
    }
}

#[test]
fn only_the_sinks_behind_the_stage_and_the_quarantine_are_reached() {
    let plan = plan_of("(-> in (all (-> odd one) (-> calc two)))");
    let source = plan.replay("calc", Arc::new(QuarantineSource::new(Vec::new())));
    let sinks = source.unwrap_or_else(|reason| panic!("{reason}")).sinks;
    let ids: Vec<String> = sinks
        .iter()
        .map(|sink| plan.sinks[*sink].id.to_string())
        .collect();
    assert_eq!(ids, ["in.quarantine", "two"]);
}
