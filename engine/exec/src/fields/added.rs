//! Fields of records that a schema does not have, because the records from which it was inferred did
//! not have them. All fields of the schema are used, so what is lost would go unnoticed.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::Fields;
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
        let Some(known) = &source.columns.all_of else {
            return 0;
        };
        if source.facts.infer.is_none() || rows.is_empty() {
            return 0;
        }
        let (payloads, _) = rows.bytes();
        let (records, names) = match (payloads.columns(), payloads.header()) {
            (Some(columns), _) => {
                let names = columns.schema_ref().fields().iter();
                let names = names.map(|field| field.name().clone());
                of_all(rows, source.without_known(names))
            }
            (None, Some(header)) => of_all(rows, self.names_of_header(source, payloads, header)),
            (None, None) if source.format.framing(&source.format_settings).is_json => {
                of_json(known.fields(), rows)
            }
            (None, None) => return 0,
        };
        if records > 0 {
            let mut sources = self.0.lock();
            let found = &mut sources.entry(source.stage.clone()).or_default().found;
            found.stage.clone_from(&source.stage);
            found.records += records;
            let room = MAX_NAMES.saturating_sub(found.names.len());
            let new = names.into_iter().filter(|name| !found.names.contains(name));
            let new: Vec<String> = new.take(room).collect();
            found.names.extend(new);
        }
        records
    }

    /// The names in the header of these records that the schema does not have.
    fn names_of_header(
        &self,
        source: &PlannedSource,
        records: &Payloads,
        header: &[u8],
    ) -> Vec<String> {
        let mut sources = self.0.lock();
        let additions = sources.entry(source.stage.clone()).or_default();
        match &additions.header {
            Some((known, names)) if **known == *header => names.clone(),
            _ => {
                let names = source.without_known(names_of_header(source, records));
                additions.header = Some((Box::from(header), names.clone()));
                names
            }
        }
    }

    /// The sources with such records.
    pub(crate) fn list(&self) -> Vec<AddedFields> {
        let sources = self.0.lock();
        let found = sources.values().map(|source| source.found.clone());
        found.filter(|found| found.records > 0).collect()
    }
}

/// The number of records with fields that all of the rows have.
fn of_all(rows: &Rows, names: Vec<String>) -> (u64, BTreeSet<String>) {
    let records = if names.is_empty() { 0 } else { rows.len() };
    (records as u64, names.into_iter().collect())
}

/// The number of JSON records with fields that are not known, and some of these fields.
fn of_json(known: &Fields, rows: &Rows) -> (u64, BTreeSet<String>) {
    let (payloads, numbers) = rows.bytes();
    let (mut records, mut names) = (0, BTreeSet::new());
    for number in numbers.values() {
        let record = payloads.get(*number as usize).unwrap_or_default();
        let mut has_new = false;
        new_fields(record, known, &mut |path| {
            has_new = true;
            if names.len() < MAX_NAMES {
                names.insert(path());
            }
        });
        records += u64::from(has_new);
    }
    (records, names)
}

/// The names of the fields in the header of these records.
fn names_of_header(source: &PlannedSource, records: &Payloads) -> Vec<String> {
    let header = records.part(0..0);
    let schema = source.format.infer(&source.format_settings, &[header]);
    let fields = schema.iter().flat_map(|schema| schema.fields());
    fields.map(|field| field.name().clone()).collect()
}
