//! What the state keeps of a log: its row with the pipeline, so that a crashed run of it can be
//! finished, and the rows of all logs, for a start while MySQL is not available.

use pseidon_mysql::LogRow;
use serde_json::{Value, json};

/// The plan of a log: its row, and what is kept of the pipeline. [`read_plan`] reads it.
pub(super) fn print_plan(row: &str, pipeline: &str) -> String {
    json!({ "row": row, "pipeline": pipeline }).to_string()
}

/// The row and what is kept of the pipeline; `None` if it is damaged.
pub(super) fn read_plan(stored: &str) -> Option<(LogRow, String)> {
    let stored: Value = serde_json::from_str(stored).ok()?;
    let row = LogRow::from_text(stored.get("row")?.as_str()?).ok()?;
    Some((row, stored.get("pipeline")?.as_str()?.to_owned()))
}

/// The rows as a note. [`read_rows`] reads it.
pub(super) fn print_rows(rows: &[LogRow]) -> String {
    let texts: Vec<String> = rows.iter().map(LogRow::to_text).collect();
    Value::from(texts).to_string()
}

/// The rows of a note; `None` if one of them is damaged.
pub(super) fn read_rows(note: &str) -> Option<Vec<LogRow>> {
    let texts: Vec<String> = serde_json::from_str(note).ok()?;
    let rows = texts.iter().map(|text| LogRow::from_text(text));
    rows.collect::<Result<_, _>>().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row() -> impl Strategy<Value = LogRow> {
        let value = prop::option::of("(\"|\\\\|\\PC){0,5}");
        prop::collection::btree_map("[a-z_]{0,4}|\\PC{0,3}", value, 0..4).prop_map(LogRow::new)
    }

    proptest! {
        #[test]
        fn rows_are_read_as_they_were_or_not_at_all(
            rows in prop::collection::vec(row(), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let printed = print_rows(&rows);
            let cut = printed.chars().take(cut.index(printed.chars().count()));
            prop_assert_eq!(read_rows(&cut.collect::<String>()), None);
            prop_assert_eq!(read_rows(&printed), Some(rows));
        }

        #[test]
        fn a_plan_is_read_as_it_was_or_not_at_all(
            row in row(),
            pipeline in "([{}\"]|\\PC){0,6}",
            cut in any::<prop::sample::Index>(),
        ) {
            let printed = print_plan(&row.to_text(), &pipeline);
            let cut = printed.chars().take(cut.index(printed.chars().count()));
            prop_assert_eq!(read_plan(&cut.collect::<String>()), None);
            prop_assert_eq!(read_plan(&printed), Some((row, pipeline)));
        }

        #[test]
        fn any_string_is_read_or_damaged(
            text in r#"\[("\{("[ab]":("a"|null|1),?){0,2}\}",?){0,2}\]?|\{("(row|pipeline)":("[{}a]{0,3}"|1|null),?){0,3}\}|\PC{0,9}"#,
        ) {
            if let Some(rows) = read_rows(&text) {
                prop_assert_eq!(read_rows(&print_rows(&rows)), Some(rows));
            }
            if let Some((row, pipeline)) = read_plan(&text) {
                let again = read_plan(&print_plan(&row.to_text(), &pipeline));
                prop_assert_eq!(again, Some((row, pipeline)));
            }
        }
    }
}
