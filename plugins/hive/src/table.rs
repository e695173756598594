//! The name of a table, and a column as Hive describes it.

use crate::HiveError;

/// The database of a table name without one.
pub(crate) const DEFAULT_DATABASE: &str = "default";

/// A table name in Hive's canonical form: lower case.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TableName {
    pub(crate) database: String,
    pub(crate) table: String,
}

/// A column of a Hive table.
pub(crate) struct HiveColumn {
    pub(crate) name: String,
    /// The type in Hive's syntax: `map<string,int>`.
    pub(crate) hive_type: String,
}

/// Checks that the name is `TABLE` or `DATABASE.TABLE`, of letters, digits, `_`, `$` and `-`. Such
/// a name is also safe as a file name.
pub(crate) fn check(name: &str) -> Result<(), HiveError> {
    let is_plain = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '-'))
    };
    if name.split('.').count() > 2 || !name.split('.').all(is_plain) {
        return Err(HiveError::Refused(
            format!("invalid hive table name `{name}`; expected TABLE or DATABASE.TABLE").into(),
        ));
    }
    Ok(())
}

impl TableName {
    /// Parses `TABLE`, which is in `database`, or `DATABASE.TABLE`. Case is ignored.
    pub(crate) fn read(name: &str, database: &str) -> Result<TableName, HiveError> {
        let name = name.trim();
        check(name)?;
        let (database, table) = name.split_once('.').unwrap_or((database, name));
        Ok(TableName {
            database: database.to_lowercase(),
            table: table.to_lowercase(),
        })
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.database, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_a_database() {
        for (name, expected) in [
            ("clicks", "default.clicks"),
            (" Web.Clicks_2 ", "web.clicks_2"),
            ("a-b.c$d", "a-b.c$d"),
        ] {
            assert_eq!(
                TableName::read(name, DEFAULT_DATABASE).unwrap().to_string(),
                expected
            );
        }
        for wrong in [
            "", " ", ".", "a.", ".a", "a.b.c", "a b", "../a", "a/b", "a'b", "a`b", "a\\b", "a;b",
        ] {
            let error = TableName::read(wrong, DEFAULT_DATABASE).unwrap_err();
            assert!(
                matches!(&error, HiveError::Refused(reason) if reason.to_string().contains("DATABASE.TABLE")),
                "{wrong}: {error:?}"
            );
        }
    }
}
