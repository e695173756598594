//! Fields of records that a schema does not have, because the records from which it was inferred did
//! not have them. All fields of the schema are used, so what is lost would go unnoticed.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use pseidon_expr::new_fields::new_fields;
use pseidon_plan::chain::PlannedSource;
use pseidon_plugin::Payloads;
use pseidon_plugin::rows::Rows;

/// How many names are kept.
const MAX_NAMES: usize = 10;

/// The records of a source with fields that its inferred schema does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddedFields {
    /// The stage of the source.
    pub stage: String,
    /// How many records have such fields.
    pub records: u64,
    /// The first ten of these fields.
    pub names: BTreeSet<String>,
}

/// The added fields of each source of a run, over all of its attempts.
#[derive(Default)]
pub(crate) struct SeenAdditions(Mutex<BTreeMap<String, SourceAdditions>>);

#[derive(Default)]
struct SourceAdditions {
    found: AddedFields,
    /// The last header, and the names in it that the schema does not have.
    header: Option<(Box<[u8]>, Vec<String>)>,
}

impl SeenAdditions {
    /// Notes the fields of decoded records. Returns how many records have fields that the schema
    /// does not have.
    pub(crate) fn note(&self, source: &PlannedSource, rows: &Rows) -> u64 {
        if source.facts.infer.is_none() || source.columns.all_of.is_none() || rows.is_empty() {
            return 0;
        }
        let (payloads, _) = rows.bytes();
        let mut sources = self.0.lock();
        let additions = sources.entry(source.stage.clone()).or_default();
        additions.found.stage.clone_from(&source.stage);
        let records = match (payloads.columns(), payloads.header()) {
            (Some(columns), _) => {
                let names = columns.schema_ref().fields().iter();
                let names = names.map(|field| field.name().clone());
                additions.add(rows, source.without_known(names))
            }
            (None, Some(header)) => {
                let is_known = |known: &(Box<[u8]>, _)| *known.0 == **header;
                if !additions.header.as_ref().is_some_and(is_known) {
                    let names = source.without_known(names_of_header(source, payloads));
                    additions.header = Some((Box::from(&**header), names));
                }
                let header = additions.header.as_ref();
                let names = header.map_or(Vec::new(), |(_, names)| names.clone());
                additions.add(rows, names)
            }
            (None, None) if source.format.framing(&source.format_settings).is_json => {
                additions.add_json(source, rows)
            }
            (None, None) => 0,
        };
        additions.found.records += records;
        records
    }

    /// The sources with such records.
    pub(crate) fn list(&self) -> Vec<AddedFields> {
        let sources = self.0.lock();
        let found = sources.values().map(|source| source.found.clone());
        found.filter(|found| found.records > 0).collect()
    }
}

impl SourceAdditions {
    fn name(&mut self, name: String) {
        if self.found.names.len() < MAX_NAMES {
            self.found.names.insert(name);
        }
    }

    /// Adds fields that all of the rows have. Returns the number of rows that have some.
    fn add(&mut self, rows: &Rows, names: Vec<String>) -> u64 {
        let has_names = !names.is_empty();
        names.into_iter().for_each(|name| self.name(name));
        if has_names { rows.len() as u64 } else { 0 }
    }

    fn add_json(&mut self, source: &PlannedSource, rows: &Rows) -> u64 {
        let Some(known) = &source.columns.all_of else {
            return 0;
        };
        let (payloads, numbers) = rows.bytes();
        let mut records = 0;
        for number in numbers.values() {
            let record = payloads.get(*number as usize).unwrap_or_default();
            let mut has_new = false;
            new_fields(record, known.fields(), &mut |name| {
                has_new = true;
                self.name(name);
            });
            records += u64::from(has_new);
        }
        records
    }
}

/// The names of the fields in the header of these records.
fn names_of_header(source: &PlannedSource, records: &Payloads) -> Vec<String> {
    let header = records.part(0..0);
    let schema = source.format.infer(&source.format_settings, &[header]);
    let fields = schema.iter().flat_map(|schema| schema.fields());
    fields.map(|field| field.name().clone()).collect()
}
