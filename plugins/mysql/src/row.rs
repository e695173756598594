//! One row of the table.

use std::collections::BTreeMap;
use std::fmt;

/// The column whose value is hidden in debug output.
const PASSWORD: &str = "hive_password";

/// A log: the columns of its row when it was read. Two rows are equal if all columns are, so a row
/// that differs from its previous version is a log that has changed.
#[derive(Clone, PartialEq, Eq)]
pub struct LogRow {
    columns: BTreeMap<String, Option<String>>,
}

impl LogRow {
    /// The row with these columns: names in lower case, NULL as `None`.
    pub fn new(columns: BTreeMap<String, Option<String>>) -> LogRow {
        LogRow { columns }
    }

    /// The log's name: the column `log`, and empty when that is NULL.
    pub fn log(&self) -> &str {
        self.column("log").unwrap_or_default()
    }

    /// A column's value; `None` when it is NULL or the table lacks the column.
    pub fn column(&self, name: &str) -> Option<&str> {
        self.columns.get(name)?.as_deref()
    }

    /// All columns of the table, whatever they are.
    pub fn columns(&self) -> &BTreeMap<String, Option<String>> {
        &self.columns
    }

    /// The row as a JSON object, for storage; it includes passwords. [`LogRow::from_text`] parses
    /// it.
    pub fn to_text(&self) -> String {
        let texts = self
            .columns
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into()));
        serde_json::Value::Object(texts.collect()).to_string()
    }

    /// Parses the output of [`LogRow::to_text`].
    ///
    /// # Errors
    ///
    /// Why the string is invalid.
    pub fn from_text(text: &str) -> Result<LogRow, String> {
        match serde_json::from_str(text) {
            Ok(columns) => Ok(LogRow { columns }),
            Err(error) => Err(format!("invalid stored row of a log: {error}")),
        }
    }
}

impl fmt::Debug for LogRow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self
            .columns
            .iter()
            .map(|(name, value)| match (name.as_str(), value) {
                (PASSWORD, Some(_)) => (name, Some("…")),
                (_, value) => (name, value.as_deref()),
            });
        formatter.debug_map().entries(shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[(&str, Option<&str>)]) -> LogRow {
        LogRow::new(
            columns
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)))
                .collect(),
        )
    }

    #[test]
    fn a_row_round_trips_through_text() {
        for columns in [
            &[][..],
            &[
                ("log", Some("clicks")),
                ("format", None),
                ("empty", Some("")),
                ("odd \"name\"", Some("ü\n\u{1}")),
            ][..],
            &[("hive_password", Some("secret"))][..],
        ] {
            let row = row(columns);
            assert_eq!(LogRow::from_text(&row.to_text()).unwrap(), row);
        }
        for wrong in ["", "[]", "{\"log\":1}", "{\"log\":\"a\""] {
            assert!(
                LogRow::from_text(wrong)
                    .unwrap_err()
                    .contains("invalid stored row"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn null_empty_and_missing_columns_differ() {
        let log = row(&[
            ("log", Some("clicks")),
            ("format", None),
            ("quarantine", Some("")),
        ]);
        assert_eq!(
            (
                log.log(),
                log.column("format"),
                log.column("quarantine"),
                log.column("nothing")
            ),
            ("clicks", None, Some(""), None)
        );
        assert_ne!(
            log,
            row(&[
                ("log", Some("clicks")),
                ("format", Some("")),
                ("quarantine", Some(""))
            ])
        );
        assert_ne!(
            log,
            row(&[("log", Some("clicks")), ("quarantine", Some(""))])
        );
    }

    #[test]
    fn debug_output_hides_the_password() {
        let shown = format!(
            "{:?}",
            row(&[("log", Some("clicks")), ("hive_password", Some("secret"))])
        );
        assert!(
            shown.contains("clicks") && !shown.contains("secret"),
            "{shown}"
        );
    }
}
