//! Tests of a `group`: its input is the rows in front of it, its output the results.

use std::sync::Arc;

use pseidon_delivery::{SplitId, WithCauses};
use pseidon_exec::process::{BadRecord, ProcessOutcome, Processor};
use pseidon_plan::chain::{PlannedSink, PlannedSource};
use pseidon_plan::{Plan, SinkIndex};
use pseidon_plugin::batch::Split;
use pseidon_plugin::rows::Rows;

use super::StageProbe;

/// The source of the results of the `group` with this name.
pub(super) fn results_at<'p>(name: &str, plan: &'p Plan) -> Option<&'p PlannedSource> {
    let mut sources = plan.sources.iter();
    sources.find(|source| source.group.is_some() && source.stage == name)
}

/// The sink of the `group` with this name.
pub(super) fn sink_at(name: &str, plan: &Plan) -> Option<SinkIndex> {
    let mut sinks = plan.sinks.enumerate();
    let is_it = |sink: &PlannedSink| sink.is_group && sink.id.as_str() == name;
    sinks.find_map(|(index, sink)| is_it(sink).then_some(index))
}

/// Groups rows, and processes the results by the chain of their source. Returns the results that are
/// invalid.
pub(super) fn process(
    source: &PlannedSource,
    rows: &Rows,
    probe: &mut StageProbe<'_>,
) -> Result<Vec<BadRecord>, String> {
    let Some(group) = &source.group else {
        return Ok(Vec::new());
    };
    let split = Arc::new(Split {
        id: SplitId::from("test"),
        topic: source.stage.clone(),
        partition: 0,
    });
    let Some(results) = group.preview(rows, split) else {
        return Ok(Vec::new());
    };
    let batch = Arc::new(results.map_err(|error| error.to_string())?);
    let rows = batch.len();
    let mut processor = Processor::new(source, usize::MAX)?;
    processor
        .prepare(&batch, 0..rows)
        .map_err(|reason| WithCauses(&reason).to_string())?;
    let passed = processor
        .process(source, &batch, 0..rows, probe)
        .map_err(|thrown| thrown.to_string())?;
    match passed {
        ProcessOutcome::All(bad) => Ok(bad),
        _ => Err("the output is too large for a test".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use pseidon_expr::{FunctionExample, FunctionReference};

    use super::super::run_test;
    use super::super::tests::plan_of;

    /// The examples of the aggregate functions are true.
    #[test]
    fn aggregate_functions_return_what_their_documentation_shows() {
        let is_aggregate = |function: &FunctionReference| function.section == "Aggregate Functions";
        let all = pseidon_expr::functions().into_iter();
        let examples: Vec<FunctionExample> = all
            .filter(is_aggregate)
            .flat_map(|function| function.examples)
            .collect();
        assert!(examples.len() >= 25, "{}", examples.len());
        for FunctionExample { call, value } in examples {
            let value = match value.parse::<f64>() {
                Ok(_) => value,
                Err(_) if value.starts_with('[') || value == "true" || value == "false" => value,
                Err(_) => format!("\"{value}\""),
            };
            let rows = r#"{:n 1 :s "a" :b true} {:n 2 :s "b" :b true} {:n 3 :s "b" :b false}"#;
            let file = format!(
                r#"{{a (stdin {{:schema {{:n :int64 :s :utf8 :b :boolean}}}})
                     pipeline (-> a (group "{call} as x") (stdout))
                     :tests [{{:name "x" :at group :input [{rows}] :output [{{:x {value}}}]}}]}}"#
            );
            let (document, plan) = plan_of(&file);
            assert_eq!(run_test(&document.tests[0], &plan).unwrap(), None, "{call}");
        }
    }

    #[test]
    fn a_test_at_a_group_and_behind_it() {
        let file = r#"{a (stdin) by-day (group "day" "count(*) as n, sum(size) as size")
            frequent (where "n > 1")
            pipeline (-> a (where "size > 1") by-day frequent (stdout))
            :tests [{:name "at" :at by-day
                     :input [{:day "b" :size 2} {:day "a" :size 3} {:day "b" :size 4.5} {:day "a" :size 1}]
                     :output [{:day "a" :n 1 :size 3} {:day "b" :n 2 :size 6.5}]}
                    {:name "in front" :at where :input [{:size 1} {:size 2}] :output [{:size 2}]}
                    {:name "behind" :at frequent :input [{:day "a" :n 2 :size 1} {:day "b" :n 1}]
                     :output [{:day "a" :n 2 :size 1}]}]}"#;
        let (document, plan) = plan_of(file);
        for test in &document.tests {
            assert_eq!(run_test(test, &plan).unwrap(), None, "{}", test.name);
        }
    }

    #[test]
    fn a_dedupe_passes_on_records_as_they_are() {
        let json = r#"{a (stdin) once (dedupe "id") recent (dedupe "id, user.name" {:keep :last})
            pipeline (-> a once recent (stdout))
            :tests [{:name "first" :at once
                     :input ["{\"id\": 2, \"v\": 1.50}" "{\"id\":1}" "{\"v\":7,\"id\":2}" "{\"v\":8}"]
                     :output [{:v 8} {:id 1} {:id 2 :v 1.50}]}
                    {:name "last" :at recent
                     :input [{:id 1 :user {:name "a"} :v 1} {:id 1 :user {:name "a"} :v 2} {:id 1 :v 3}]
                     :output [{:id 1 :v 3} {:id 1 :user {:name "a"} :v 2}]}]}"#;
        let csv = r#"{a (files {:path "a.csv" :schema {:id :int64 :v :utf8}}) once (dedupe "id % 10" {:on-error :noop})
            pipeline (-> a once (files "out"))
            :tests [{:name "columns" :at once
                     :input ["v,id" "x,12" "y,1" "z,2"]
                     :output [{:id 1 :v "y"} {:id 12 :v "x"}]}]}"#;
        for file in [json, csv] {
            let (document, plan) = plan_of(file);
            for test in &document.tests {
                assert_eq!(run_test(test, &plan).unwrap(), None, "{}", test.name);
            }
        }
    }
}
