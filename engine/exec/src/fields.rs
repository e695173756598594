//! Which fields had a value in some record. A misspelled name in an expression is a field that no
//! record has, and without this it would go unnoticed. [`added`] are the fields that no schema has.

pub(crate) mod added;

use std::collections::HashMap;

use arrow::array::Array;
use parking_lot::Mutex;
use pseidon_dsl::expr::Path;
use pseidon_plan::chain::{Chain, PlannedSource};
use pseidon_plugin::rows::Rows;

/// The fields of a run that had a value, over all of its attempts.
#[derive(Default)]
pub(crate) struct SeenFields(Mutex<HashMap<String, SourceFields>>);

/// The decoded fields of a source.
struct SourceFields {
    /// Each field with whether a record had a value for it.
    fields: Vec<(Path, bool)>,
    /// A copy of the first record.
    sample: Option<Box<[u8]>>,
    /// The steps that its records pass.
    chain: Chain,
}

/// A field that is used in the pipeline and had no value in any record, or that is removed or
/// renamed and was in no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingField {
    /// The stage of the source.
    pub stage: String,
    /// The field.
    pub path: Path,
    /// The first record that was decoded, for suggestions.
    pub sample: Option<Box<[u8]>>,
}

impl SeenFields {
    /// Notes which fields of decoded records have values.
    pub(crate) fn note(&self, source: &PlannedSource, rows: &Rows) {
        // The columns of a group are there by its definition.
        if rows.is_empty() || source.group.is_some() {
            return;
        }
        let mut sources = self.0.lock();
        if !sources.contains_key(&source.stage) {
            let wanted = source.columns.wanted.iter();
            let (payloads, numbers) = rows.bytes();
            let first = SourceFields {
                fields: wanted.map(|column| (column.path.clone(), false)).collect(),
                sample: payloads.get(numbers.value(0) as usize).map(Box::from),
                chain: source.chain.clone(),
            };
            sources.insert(source.stage.clone(), first);
        }
        let Some(known) = sources.get_mut(&source.stage) else {
            return;
        };
        for ((_, is_seen), column) in known.fields.iter_mut().zip(rows.columns().columns()) {
            *is_seen |= column.null_count() < column.len();
        }
    }

    /// The fields without a value so far, and those of edits that no record had.
    pub(crate) fn missing(&self) -> Vec<MissingField> {
        let sources = self.0.lock();
        let mut missing: Vec<MissingField> = sources
            .iter()
            .flat_map(|(stage, source)| {
                let unseen = source.fields.iter().filter(|(_, is_seen)| !is_seen);
                let unseen = unseen.map(|(path, _)| path.clone());
                let missing = unseen.chain(source.chain.absent_fields());
                missing.map(|path| MissingField {
                    stage: stage.clone(),
                    path,
                    sample: source.sample.clone(),
                })
            })
            .collect();
        missing.sort_by_key(|field| (field.stage.clone(), field.path.to_string()));
        missing.dedup();
        missing
    }
}
