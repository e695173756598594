//! The format of a state file, and the migration of files of earlier formats.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::tables::{self, FORMAT_KEY, META, NOTES, PLANS, RECORDS, SplitKey, value};

/// The version of the table layout. A file with a higher number was written by a newer version of
/// the program.
pub(super) const FORMAT: u64 = 2;

/// Format 1 had (epoch, sequence, low, owners) for each (sink, split), the pipeline's plan in two
/// values of `meta`, and the plan of each topic's pipeline in two notes.
const SPLITS_1: TableDefinition<SplitKey, (u64, u64, Option<u64>, &str)> =
    TableDefinition::new("splits");
const PLAN_FINGERPRINT_1: &str = "plan fingerprint";
const PLAN_TEXT_1: &str = "plan text";
const LOG_PLAN_1: &str = "/plan";
const LOG_PLAN_TEXT_1: &str = "/plan-text";

/// Writes the format into a new file, and migrates a file of an earlier format, in one transaction.
/// The inner error is the format of a file that this version cannot read.
pub(super) fn bring_up_to_date(database: &Database) -> Result<Result<(), String>, redb::Error> {
    let found = value(&database.begin_read()?, META, FORMAT_KEY)?;
    match found.as_deref().map(str::parse::<u64>) {
        Some(Ok(FORMAT)) => return Ok(Ok(())),
        None | Some(Ok(1)) => {}
        Some(_) => return Ok(Err(found.unwrap_or_default())),
    }
    let transaction = database.begin_write()?;
    if found.is_some() {
        from_format_1(&transaction)?;
    }
    transaction
        .open_table(META)?
        .insert(FORMAT_KEY, FORMAT.to_string().as_str())?;
    transaction.commit()?;
    Ok(Ok(()))
}

fn from_format_1(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    let plan = move_plans(transaction)?;
    {
        let old = transaction.open_table(SPLITS_1)?;
        let mut records = transaction.open_table(RECORDS)?;
        for row in old.iter()? {
            let (key, row) = row?;
            let (sink, split) = key.value();
            let (epoch, sequence, low, owners) = row.value();
            let mut record = tables::record_of((epoch, sequence, low, owners, None, None, None));
            record.plan = plan_of_sink(transaction, sink, plan.as_deref())?;
            tables::insert(&mut records, (sink, split), &record)?;
        }
    }
    transaction.delete_table(SPLITS_1)?;
    Ok(())
}

/// Moves the pipeline's plan to the table of plans; returns its fingerprint.
fn move_plans(transaction: &WriteTransaction) -> Result<Option<String>, redb::Error> {
    let mut plans = transaction.open_table(PLANS)?;
    let mut meta = transaction.open_table(META)?;
    let fingerprint = meta
        .remove(PLAN_FINGERPRINT_1)?
        .map(|value| value.value().to_owned());
    let text = meta
        .remove(PLAN_TEXT_1)?
        .map(|value| value.value().to_owned());
    if let (Some(fingerprint), Some(text)) = (&fingerprint, &text) {
        plans.insert(fingerprint.as_str(), text.as_str())?;
    }
    let notes = transaction.open_table(NOTES)?;
    for row in notes.iter()? {
        let (key, text) = row?;
        let Some(log) = key.value().strip_suffix(LOG_PLAN_TEXT_1) else {
            continue;
        };
        if let Some(fingerprint) = notes.get(format!("{log}{LOG_PLAN_1}").as_str())? {
            plans.insert(
                format!("{log}/{}", fingerprint.value()).as_str(),
                text.value(),
            )?;
        }
    }
    Ok(fingerprint)
}

/// The fingerprint of the plan that wrote a sink's records: the pipeline's, or that of the topic's
/// pipeline that the sink belongs to.
fn plan_of_sink(
    transaction: &WriteTransaction,
    sink: &str,
    plan: Option<&str>,
) -> Result<Option<String>, redb::Error> {
    let Some((log, _)) = sink.split_once('/') else {
        return Ok(plan.map(str::to_owned));
    };
    let notes = transaction.open_table(NOTES)?;
    let fingerprint = notes
        .get(format!("{log}{LOG_PLAN_1}").as_str())?
        .map(|value| value.value().to_owned());
    Ok(fingerprint.or_else(|| plan.map(str::to_owned)))
}
