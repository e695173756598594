//! `pseidon test`: runs the `:tests` of a pipeline file.
//!
//! The input of a test is processed as one batch of its source, by the same chain as in a run. The
//! output of one stage is compared with the expected records. No sink is opened.

mod group;

use std::fmt::Arguments;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use pseidon_delivery::{SplitId, WithCauses};
use pseidon_dsl::document::Test;
use pseidon_dsl::printable::printable_lines;
use pseidon_dsl::{Diagnostic, Document, Node, NodeKind};
use pseidon_exec::process::{ProcessOutcome, Processor, RowReceiver};
use pseidon_expr::Scope;
use pseidon_formats::{OutputFormat, RecordEncoder};
use pseidon_plan::chain::{Chain, ChainStep, PlannedSource};
use pseidon_plan::{Plan, SinkIndex};
use pseidon_plugin::batch::{Batch, BatchBuilder, RecordMeta, Split, WantedMetadata};
use pseidon_plugin::rows::{BadRow, Rows};
use pseidon_plugin::sink::{RecordShape, SinkInput};
use serde_json::Value;

use crate::cli::{Exit, ParameterArgs};
use crate::load::{self, Parameters, PipelineText};
use crate::output;

/// Runs the tests of these files and prints the result of each. Stops at the first invalid file.
pub(crate) fn test(files: &[PathBuf], parameters: &ParameterArgs) -> Exit {
    match try_test(files, parameters) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn try_test(files: &[PathBuf], parameters: &ParameterArgs) -> Result<Exit, Exit> {
    let (mut passed, mut failed) = (0, 0);
    for file in files {
        let (text, document, plan) = load_all(file, parameters)?;
        if document.tests.is_empty() {
            print(format_args!(
                "none    {}: the file has no `:tests`",
                text.name
            ))?;
        }
        for test in &document.tests {
            match run_test(test, &plan) {
                Ok(None) => {
                    print(format_args!("ok      {}: {}", text.name, test.name))?;
                    passed += 1;
                }
                Ok(Some(difference)) => {
                    print(format_args!(
                        "FAILED  {}: {}\n{difference}",
                        text.name, test.name
                    ))?;
                    failed += 1;
                }
                Err(error) => return Err(text.show(&[*error])),
            }
        }
    }
    print(format_args!("{passed} passed, {failed} failed"))?;
    Ok(if failed == 0 {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// Prints a line of the results.
fn print(line: Arguments<'_>) -> Result<(), Exit> {
    match output::print(&printable_lines(&format!("{line}\n"))) {
        Exit::Done => Ok(()),
        exit => Err(exit),
    }
}

fn load_all(
    file: &Path,
    parameters: &ParameterArgs,
) -> Result<(PipelineText, Document, Plan), Exit> {
    let text = load::read(file, Parameters::new(&parameters.set))?.with_includes()?;
    let document = text.document()?;
    let plan = text.plan(&document)?;
    Ok((text, document, plan))
}

/// The errors of the tests of a document that show without running them: stages that do not exist,
/// and inputs that are not records.
pub(super) fn errors(document: &Document, plan: &Plan) -> Vec<Diagnostic> {
    let error_of = |test: &Test| {
        source_of(test, plan)
            .and_then(|source| batch_of(test, source))
            .err()
    };
    let errors = document.tests.iter().filter_map(error_of);
    errors.map(|error| *error).collect()
}

/// The source with the stage of a test.
fn source_of<'p>(test: &Test, plan: &'p Plan) -> Result<&'p PlannedSource, Box<Diagnostic>> {
    let name = test.at.0.to_string();
    let has_it = |source: &&PlannedSource| source.stage == name || has_stage(&source.chain, &name);
    plan.sources.iter().find(has_it).ok_or_else(|| {
        Box::new(Diagnostic::new(
            test.at.1,
            format!("unknown stage `{name}`"),
            "not a stage of the flow",
        ))
    })
}

/// Runs a test. Returns how the output differs from what is expected, or `None` if it does not.
fn run_test(test: &Test, plan: &Plan) -> Result<Option<String>, Box<Diagnostic>> {
    let name = test.at.0.to_string();
    let source = source_of(test, plan)?;
    let at_span =
        |reason: String| Box::new(Diagnostic::new(test.span, "cannot run the test", reason));
    let batch = Arc::new(batch_of(test, source)?);
    let mut probe = StageProbe {
        stage: &name,
        seen: None,
        group: group::sink_at(&name, plan),
        arrived: None,
    };
    let mut processor = Processor::new(source, usize::MAX).map_err(at_span)?;
    processor
        .prepare(&batch, 0..batch.len())
        .map_err(|reason| at_span(WithCauses(&reason).to_string()))?;
    let passed = processor
        .process(source, &batch, 0..batch.len(), &mut probe)
        .map_err(|thrown| at_span(thrown.to_string()))?;
    let ProcessOutcome::All(mut bad) = passed else {
        return Err(at_span("the output is too large for a test".to_owned()));
    };
    let mut last = source;
    if let Some(behind) = group::results_at(&name, plan)
        && let Some(rows) = probe.arrived.take()
    {
        bad.extend(group::process(behind, &rows, &mut probe).map_err(at_span)?);
        last = behind;
    }
    let actual = match probe.seen {
        Some(rows) => values_of(&rows, last).map_err(at_span)?,
        None => Vec::new(),
    };
    let expected: Vec<Value> = test.output.iter().map(value_of).collect();
    if actual == expected {
        return Ok(None);
    }
    let mut difference = String::from("  expected\n");
    expected
        .iter()
        .for_each(|record| difference.push_str(&format!("    {record}\n")));
    difference.push_str("  actual\n");
    actual
        .iter()
        .for_each(|record| difference.push_str(&format!("    {record}\n")));
    for record in bad {
        difference.push_str(&format!(
            "  input {} is invalid in stage `{}`: {}\n",
            record.number + 1,
            record.stage,
            record.reason
        ));
    }
    Ok(Some(difference))
}

fn has_stage(chain: &Chain, name: &str) -> bool {
    chain.steps.iter().any(|step| {
        let mut chains = step.operator.chains().into_iter();
        step.stage == name || chains.any(|chain| has_stage(chain, name))
    })
}

/// The input as a batch. A map is a record in JSON, with its metadata under `"@topic"`, `"@key"`
/// and `"@timestamp"`; a string is the bytes of a record. If the format has a header, the first
/// string is the header.
fn batch_of(test: &Test, source: &PlannedSource) -> Result<Batch, Box<Diagnostic>> {
    let mut topic = source.stage.clone();
    let mut records = Vec::new();
    let framing = source.format.framing(&source.format_settings);
    let (header, inputs) = match test.input.split_first() {
        Some((first, rest)) if framing.has_header => (Some(header_of(first)?), rest),
        _ => (None, &test.input[..]),
    };
    for input in inputs {
        let record = match value_of(input) {
            Value::String(text) => TestRecord {
                payload: text,
                key: None,
                timestamp: None,
            },
            Value::Object(mut fields) => {
                if let Some(Value::String(given)) = fields.remove("@topic") {
                    topic = given;
                }
                let key = fields
                    .remove("@key")
                    .and_then(|key| key.as_str().map(str::to_owned));
                let timestamp = fields.remove("@timestamp").and_then(|at| at.as_i64());
                TestRecord {
                    payload: Value::Object(fields).to_string(),
                    key,
                    timestamp,
                }
            }
            _ => {
                return Err(Box::new(Diagnostic::new(
                    input.span,
                    "invalid record",
                    "expected a map or a string",
                )));
            }
        };
        records.push(record);
    }
    let split = Split {
        id: SplitId::from("test"),
        topic,
        partition: 0,
    };
    let wanted = WantedMetadata {
        timestamp: true,
        key: true,
        ..WantedMetadata::default()
    };
    let mut builder = BatchBuilder::new(Arc::new(split), wanted, 0);
    for (position, record) in records.iter().enumerate() {
        let meta = RecordMeta {
            timestamp: record.timestamp,
            key: record.key.as_ref().map(String::as_bytes),
            ..RecordMeta::default()
        };
        builder.push(position as u64, Some(record.payload.as_bytes()), meta);
    }
    let mut batch = builder.finish(records.len() as u64);
    batch.payloads = batch.payloads.with_header(header);
    Ok(batch)
}

/// The header of a test's records.
fn header_of(input: &Node) -> Result<Bytes, Box<Diagnostic>> {
    match &input.kind {
        NodeKind::Str(text) => Ok(Bytes::from(text.value.clone())),
        _ => Err(Box::new(Diagnostic::new(
            input.span,
            "the records of this test have no header",
            "expected the header as a string, such as \"id,name\"",
        ))),
    }
}

/// A record of a test's input.
struct TestRecord {
    payload: String,
    key: Option<String>,
    timestamp: Option<i64>,
}

/// Keeps the rows that come out of one stage; `None` if none did.
struct StageProbe<'a> {
    stage: &'a str,
    seen: Option<Rows>,
    /// The sink of the stage, if it is one that groups.
    group: Option<SinkIndex>,
    /// The rows that this sink received.
    arrived: Option<Rows>,
}

impl RowReceiver for StageProbe<'_> {
    fn decoded(&mut self, source: &PlannedSource, rows: &Rows) {
        if source.stage == self.stage {
            self.seen = Some(rows.clone());
        }
    }

    fn arrive(&mut self, sink: SinkIndex, rows: Rows) -> Vec<BadRow> {
        if self.group == Some(sink) {
            self.arrived = Some(rows);
        }
        Vec::new()
    }

    fn passed(&mut self, step: &ChainStep, rows: &Rows) {
        // A stage may be several steps; its output is that of the last.
        if step.stage == self.stage {
            self.seen = Some(rows.clone());
        }
    }

    fn watches(&self, step: &ChainStep) -> bool {
        step.stage == self.stage
    }
}

/// The rows as JSON values, to be compared with the expected ones.
fn values_of(rows: &Rows, source: &PlannedSource) -> Result<Vec<Value>, String> {
    let name = source.format.name();
    // The records of a test for a format without bytes are JSON.
    let is_json = name == "json" || !source.format.has_bytes();
    let is_columns = rows.is_changed() || rows.batch().payloads.columns().is_some();
    let record = if is_columns {
        RecordShape::Columns(rows.columns().schema())
    } else {
        RecordShape::AsCame {
            format: if is_json { "json" } else { name }.to_owned(),
        }
    };
    let format = if is_columns || is_json {
        OutputFormat::Json
    } else {
        OutputFormat::Raw
    };
    let encoder = RecordEncoder::new(
        format,
        &SinkInput {
            scope: Scope::default(),
            record,
        },
    )?;
    let mut encoded = encoder.values(rows).map_err(|error| error.to_string())?;
    let mut values = Vec::new();
    for row in 0..rows.len() {
        let mut bytes = Vec::new();
        encoded.encode(row, &mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        values.push(if format == OutputFormat::Json {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        } else {
            Value::String(text)
        });
    }
    Ok(values)
}

/// An EDN value as JSON; a keyword or symbol becomes its name.
fn value_of(node: &Node) -> Value {
    match &node.kind {
        NodeKind::Nil => Value::Null,
        NodeKind::Bool(value) => Value::Bool(*value),
        NodeKind::Int(number) => Value::from(*number),
        NodeKind::Float(number) => Value::from(*number),
        NodeKind::BigInt(digits) | NodeKind::Decimal(digits) => {
            digits.parse::<f64>().map_or(Value::Null, Value::from)
        }
        NodeKind::Char(character) => Value::String(character.to_string()),
        NodeKind::Str(text) | NodeKind::Regex(text) => Value::String(text.value.clone()),
        NodeKind::Symbol(name) | NodeKind::Keyword(name) => Value::String(name.to_string()),
        NodeKind::List(items) | NodeKind::Vector(items) | NodeKind::Set(items) => {
            items.iter().map(value_of).collect()
        }
        NodeKind::Map(entries) => {
            let key = |node: &Node| match value_of(node) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            Value::Object(
                entries
                    .iter()
                    .map(|(name, value)| (key(name), value_of(value)))
                    .collect(),
            )
        }
        NodeKind::Tagged(_, value) => value_of(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each file in `examples/` can be planned, and its tests pass.
    #[test]
    fn the_examples_pass_their_tests() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
        let files = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let is_pipeline = |path: &PathBuf| {
            path.extension()
                .is_some_and(|extension| extension == "edn" || extension == "toml")
        };
        let pipelines: Vec<PathBuf> = files.filter(is_pipeline).collect();
        assert!(pipelines.len() >= 4, "{folder} lacks examples");
        for file in &pipelines {
            let (_, document, plan) = load_all(file, &ParameterArgs::default())
                .unwrap_or_else(|_| panic!("{} is invalid; see above", file.display()));
            for test in &document.tests {
                let outcome = run_test(test, &plan).unwrap();
                assert_eq!(outcome, None, "{}: {}", file.display(), test.name);
            }
        }
    }

    pub(super) fn plan_of(flow: &str) -> (Document, Plan) {
        let text = PipelineText {
            name: "test".into(),
            text: flow.into(),
            kind: load::TextKind::Edn,
            base: PathBuf::from("."),
            default_name: "test".into(),
            parameters: Parameters::default(),
            tables: Default::default(),
        };
        let document = text
            .document()
            .unwrap_or_else(|_| panic!("the document is invalid"));
        let plan = text
            .plan(&document)
            .unwrap_or_else(|_| panic!("the plan is invalid"));
        (document, plan)
    }

    fn outcome(tests: &str) -> Option<String> {
        let file = format!(
            r#"{{a (stdin {{:schema {{:n :int64 :s :utf8}}}})
                 kept (where "n > 1" {{:on-error :noop}})
                 pipeline (-> a kept (match "t" (select "n, @key as k") :else (select "n * 2 as n, @topic as k")) (stdout))
                 :tests [{tests}]}}"#
        );
        let (document, plan) = plan_of(&file);
        run_test(&document.tests[0], &plan).unwrap()
    }

    #[test]
    fn a_test_compares_the_output_of_a_stage() {
        let passes = [
            r#"{:name "x" :at kept :input [{:n 1} {:n 2 :other [1 2]}] :output [{:n 2 :other [1 2]}]}"#,
            r#"{:name "x" :at match :input [{:n 2}] :output [{:n 4 :k "a"}]}"#,
            r#"{:name "x" :at match :input [{:n 3 "@topic" "t" "@key" "k"}] :output [{:n 3 :k "k"}]}"#,
            r#"{:name "x" :at kept :input [] :output []}"#,
            r#"{:name "x" :at kept :input ["{\"n\": 5}"] :output [{:n 5}]}"#,
        ];
        for test in passes {
            assert_eq!(outcome(test), None, "{test}");
        }
    }

    #[test]
    fn a_failing_test_shows_the_difference_and_the_invalid_input() {
        let differs =
            outcome(r#"{:name "x" :at kept :input [{:n 2} {:n "two"}] :output [{:n 3}]}"#).unwrap();
        assert!(
            differs.contains(
                r#"expected
    {"n":3}"#
            ),
            "{differs}"
        );
        assert!(
            differs.contains(
                r#"actual
    {"n":2}"#
            ),
            "{differs}"
        );
        assert!(
            differs.contains("input 2 is invalid in stage `a`"),
            "{differs}"
        );
    }
}
