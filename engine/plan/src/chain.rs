//! Chains: the compiled steps that process the records of a source.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use pseidon_delivery::SinkId;
use pseidon_dsl::Span;
use pseidon_dsl::expr::{Path, PathStep};
use pseidon_expr::CompiledExpr;
use pseidon_expr::bounds::Bounds;
use pseidon_expr::types::field_type_name;
use pseidon_plugin::format::{Editor, FieldChange, Format};
use pseidon_plugin::group::GroupStage;
use pseidon_plugin::sink::{PreparedSink, Protocol};
use pseidon_plugin::source::{Source, SourceFacts};
use regex::Regex;

use crate::columns::SourceColumns;
use crate::index::SinkIndex;
use crate::lookup::LookupTable;
use crate::rate::Rate;
use crate::sample::Sample;

/// A source with its chain.
#[derive(Clone)]
pub struct PlannedSource {
    /// The name of the stage.
    pub stage: String,
    /// The name of its plugin.
    pub plugin: &'static str,
    /// The source, as its plugin prepared it from the options of the stage.
    pub source: Arc<dyn Source>,
    /// The properties of the source.
    pub facts: SourceFacts,
    /// The format of its records.
    pub format: Arc<dyn Format>,
    /// The settings of the format: the part of the option after the colon, or an empty string.
    pub format_settings: String,
    /// The columns to decode and the metadata to read.
    pub columns: SourceColumns,
    /// The decoded columns as a schema.
    pub schema: SchemaRef,
    /// What the conditions before every other step require of the columns.
    pub bounds: Arc<Bounds>,
    /// The handling of records that cannot be decoded.
    pub policy: Policy,
    /// The steps that process its records.
    pub chain: Chain,
    /// The sinks that its records can reach, including quarantines.
    pub sinks: Vec<SinkIndex>,
    /// The `group` whose results it reads; `None` for a source of the file.
    pub group: Option<Arc<GroupStage>>,
    /// It is read when all sources of lower phases have ended, and all that they read is durable.
    pub phase: usize,
}

impl PlannedSource {
    /// The names without those of known fields, if all fields are used.
    pub fn without_known(&self, names: impl IntoIterator<Item = String>) -> Vec<String> {
        let Some(known) = &self.columns.all_of else {
            return Vec::new();
        };
        let is_new = |name: &String| known.fields().find(name).is_none();
        names.into_iter().filter(is_new).collect()
    }
}

/// A sequence of steps.
#[derive(Clone, Default)]
pub struct Chain {
    /// The steps, in order.
    pub steps: Vec<ChainStep>,
    /// Whether the rows at the end go to the step after the `match` of which this is a branch. The
    /// rows of a branch that ends in a sink do not.
    pub passes_on: bool,
}

impl Chain {
    /// The fields of the record itself that edits of original records change, sorted. An edit whose
    /// records were edited before does not count.
    pub fn edited_fields(&self) -> Vec<String> {
        let mut fields = Vec::new();
        for step in &self.steps {
            match &step.operator {
                Operator::Edit(edit) if edit.changes.is_empty() => {}
                Operator::Edit(edit) => {
                    let joint = edit.joint.as_ref().map(|joint| &joint.editor);
                    fields.extend(joint.unwrap_or(&edit.editor).fields());
                    break;
                }
                Operator::Select(..) => break,
                operator => {
                    let chains = operator.chains().into_iter();
                    fields.extend(chains.flat_map(Chain::edited_fields));
                }
            }
        }
        fields.sort();
        fields.dedup();
        fields
    }

    /// The fields of JSON records that edits remove or rename and that no record had so far.
    pub fn absent_fields(&self) -> Vec<Path> {
        let (mut absent, mut joint) = (Vec::new(), None);
        for (number, step) in self.steps.iter().enumerate() {
            let Operator::Edit(edit) = &step.operator else {
                let chains = step.operator.chains().into_iter();
                absent.extend(chains.flat_map(Chain::absent_fields));
                continue;
            };
            // Edits in a row are made at once, or one after the other if that fails.
            if let Some(begun) = &edit.joint {
                joint = Some((number + begun.steps, &begun.editor));
            }
            let joint = joint.filter(|(end, _)| number < *end);
            let editors = [Some(&edit.editor), joint.map(|(_, editor)| editor)];
            let lists: Vec<_> = editors
                .into_iter()
                .flatten()
                .filter_map(|editor| editor.absent())
                .collect();
            let is_absent = |path: &&Vec<String>| {
                !lists.is_empty() && lists.iter().all(|list| list.contains(path))
            };
            let expected = edit.changes.iter().filter_map(FieldChange::expected_path);
            absent.extend(expected.filter(is_absent).map(|path| {
                let fields = path.iter().cloned();
                Path(fields.map(PathStep::Field).collect())
            }));
        }
        absent
    }
}

/// A compiled step of a chain.
#[derive(Clone)]
pub struct ChainStep {
    /// The name of the stage.
    pub stage: String,
    /// The operation of the step.
    pub operator: Operator,
    /// The handling of rows that are invalid in this step.
    pub policy: Policy,
    /// The columns of the record after this step. `None` if the step does not change the columns.
    pub shape: Option<SchemaRef>,
}

/// The operation of a step.
#[derive(Clone)]
pub enum Operator {
    /// Passes on the rows for which this condition is true.
    Where(CompiledExpr),
    /// Builds a new record from these columns, with this schema.
    Select(Vec<CompiledExpr>, SchemaRef),
    /// Changes fields of the record's bytes.
    Edit(RecordEdit),
    /// Repeats each record once for each element of its list. The columns, which are of this schema,
    /// are those before it and the elements.
    Unnest(CompiledExpr, SchemaRef),
    /// Adds the values of the row of this table that has the key, a string. The columns, which are of
    /// this schema, are those before it and the values.
    Lookup(CompiledExpr, Arc<LookupTable>, SchemaRef),
    /// Passes on the rows of this sample.
    Sample(Sample),
    /// Passes on this number of rows of a run. The place in the pipeline file is that of the chains
    /// of all sources that lead there.
    Limit(u64, Span),
    /// Passes on rows no faster than at this rate. The place is as for a limit.
    Throttle(Rate, Span),
    /// Keeps the columns with these indexes for expressions, which are of this schema. The records
    /// do not change.
    Keep(Vec<usize>, SchemaRef),
    /// Each chain receives the same rows. The rows are passed on.
    All(Vec<Chain>),
    /// A row goes to the first chain whose matcher matches its topic.
    Match {
        /// The matchers with their chains, in order.
        branches: Vec<(Matcher, Chain)>,
        /// The chain for all other rows. Without it, they are passed on.
        otherwise: Option<Chain>,
    },
    /// A row goes to the first chain whose condition is true.
    Route {
        /// The conditions with their chains, in order. The chains end with sinks.
        branches: Vec<(CompiledExpr, Chain)>,
        /// The chain for all other rows. Without it, they are passed on.
        otherwise: Option<Chain>,
    },
    /// Writes rows to this sink, and passes them on.
    Sink(SinkIndex),
}

/// Columns with their types, such as `id int64, name utf8`.
pub fn columns(schema: &Schema) -> String {
    let typed = |field: &FieldRef| format!("{} {}", field.name(), field_type_name(field));
    let columns: Vec<String> = schema.fields().iter().map(typed).collect();
    columns.join(", ")
}

impl Operator {
    /// What it does with records, if it has no branches and no sink; otherwise an empty string.
    pub fn describe(&self) -> String {
        match self {
            Operator::Where(condition) => format!("where {}", condition.field().name()),
            Operator::Select(_, schema) => format!("select {}", columns(schema)),
            Operator::Edit(edit) => {
                let changes: Vec<String> =
                    edit.changes.iter().map(FieldChange::to_string).collect();
                changes.join(", ")
            }
            Operator::Unnest(list, _) => format!("each element of {}", list.field().name()),
            Operator::Lookup(key, table, _) => {
                let reload = table.reload();
                let reload = reload.map(|often| format!(", looked at every {often:?} for changes"));
                let reload = reload.unwrap_or_default();
                let (path, column) = (table.path(), table.key());
                let on = match key.field().name() {
                    name if name == column => column.to_owned(),
                    name => format!("{column} = {name}"),
                };
                format!("the row of {path} with {on}{reload}")
            }
            Operator::Sample(sample) => sample.to_string(),
            Operator::Limit(1, _) => "the first record of each run".to_owned(),
            Operator::Limit(records, _) => format!("the first {records} records of each run"),
            Operator::Throttle(rate, _) => format!("at most {rate}"),
            Operator::Keep(..)
            | Operator::All(_)
            | Operator::Match { .. }
            | Operator::Route { .. }
            | Operator::Sink(_) => String::new(),
        }
    }

    /// The chains of its branches, in order; none if it has no branches.
    pub fn chains(&self) -> Vec<&Chain> {
        match self {
            Operator::All(chains) => chains.iter().collect(),
            Operator::Match {
                branches,
                otherwise,
            } => {
                let chains = branches.iter().map(|(_, chain)| chain);
                chains.chain(otherwise).collect()
            }
            Operator::Route {
                branches,
                otherwise,
            } => {
                let chains = branches.iter().map(|(_, chain)| chain);
                chains.chain(otherwise).collect()
            }
            Operator::Where(_)
            | Operator::Select(..)
            | Operator::Edit(_)
            | Operator::Unnest(..)
            | Operator::Lookup(..)
            | Operator::Sample(_)
            | Operator::Limit(..)
            | Operator::Throttle(..)
            | Operator::Keep(..)
            | Operator::Sink(_) => Vec::new(),
        }
    }
}

/// A change of fields of the record's bytes.
#[derive(Clone)]
pub struct RecordEdit {
    /// The values of the fields that are set.
    pub exprs: Vec<CompiledExpr>,
    /// Makes `changes` in the bytes; created by [`Format::editor`].
    pub editor: Arc<dyn Editor>,
    /// What is set, removed and renamed. If it is empty, records pass unchanged.
    pub changes: Vec<FieldChange>,
    /// The columns that are still valid after it, as indexes of those before.
    pub kept: Vec<usize>,
    /// The columns after it: those that are kept, then the values.
    pub columns: SchemaRef,
    /// This edit with those that follow it, if they can be made at once.
    pub joint: Option<JointEdit>,
}

/// Edits in a row that can be made at once: the result is that of one after the other, except for
/// records that one of them finds invalid.
#[derive(Clone)]
pub struct JointEdit {
    /// The number of steps, at least two.
    pub steps: usize,
    /// Makes the changes of all of them. Its values are those of the steps, one after the other.
    pub editor: Arc<dyn Editor>,
}

/// A compiled pattern of `match`.
#[derive(Clone)]
pub enum Matcher {
    /// Matches a topic that is equal to this string.
    Text(String),
    /// Matches a topic that contains a match of this regular expression.
    Regex(Regex),
}

impl Matcher {
    /// Whether the pattern matches a topic.
    pub fn matches(&self, topic: &str) -> bool {
        match self {
            Matcher::Text(text) => text == topic,
            Matcher::Regex(regex) => regex.is_match(topic),
        }
    }
}

/// The handling of invalid rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The first of them fails the run.
    Throw,
    /// The rows are counted and dropped.
    Noop,
    /// The rows are written to this sink.
    Quarantine(SinkIndex),
}

/// A use of a sink in the flow.
pub struct PlannedSink {
    /// Its name in the state store.
    pub id: SinkId,
    /// The name of its plugin.
    pub plugin: &'static str,
    /// The sink, prepared for the rows that reach this place.
    pub prepared: Arc<dyn PreparedSink>,
    /// The protocol by which it makes lanes durable.
    pub protocol: Protocol,
    /// The folder that it writes below, if it has one, relative to that of the pipeline file.
    pub folder: Option<String>,
    /// Whether it is a quarantine, which receives only invalid rows.
    pub is_quarantine: bool,
    /// Whether it is the half of a `group` that collects. Its records do not leave the pipeline.
    pub is_group: bool,
    /// The nondeterministic expressions before it and in it.
    pub nondeterminism: Vec<String>,
    /// The number of retries after a transient failure, and the wait before each. `None` retries
    /// without a limit.
    pub retry: Option<(u64, Duration)>,
}
