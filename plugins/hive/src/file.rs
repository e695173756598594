//! Schema files: `TABLE.edn` in a folder.

use std::io::ErrorKind;
use std::path::Path;

use arrow::datatypes::SchemaRef;
use pseidon_plugin::options::read_schema;

use crate::{HiveError, table};

/// The columns that `TABLE.edn` in this folder names, in the form of `:schema` (`{:id :int64, :tags
/// [:utf8]}`); `None` when there is no such file. `DATABASE.TABLE` is looked for as
/// `DATABASE.TABLE.edn`. The columns are as the file has them, in its order.
///
/// # Errors
///
/// [`HiveError::Refused`] when the name cannot be a table's, or the file cannot be read or is no
/// schema.
pub fn read_file(folder: &Path, table: &str) -> Result<Option<SchemaRef>, HiveError> {
    let table = table.trim();
    table::check(table)?;
    let path = folder.join(format!("{table}.edn"));
    let wrong = |reason: String| {
        HiveError::Refused(format!("the schema file {}: {reason}", path.display()))
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let schema = read_schema(&text).map_err(wrong)?;
    if schema.fields().is_empty() {
        return Err(wrong("it names no column".to_owned()));
    }
    Ok(Some(schema))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn a_schema_file_gives_the_columns_in_order() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("web.clicks.edn"),
            r#"{:user :utf8, :at :timestamp_ms, :price "decimal(10,2)"}"#,
        )
        .unwrap();
        let schema = read_file(folder.path(), "web.clicks").unwrap().unwrap();
        assert_eq!(
            schema
                .fields()
                .iter()
                .map(|field| field.name().as_str())
                .collect::<Vec<_>>(),
            ["user", "at", "price"]
        );
        assert_eq!(schema.field(2).data_type(), &DataType::Decimal128(10, 2));
        assert_eq!(read_file(folder.path(), "clicks"), Ok(None));
        assert_eq!(
            read_file(&folder.path().join("missing"), "clicks"),
            Ok(None)
        );
    }

    #[test]
    fn a_file_that_is_no_schema_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (text, expected) in [
            ("{:a :inmt64}", "inmt64"),
            ("{", "clicks.edn"),
            ("{}", "no column"),
            ("[1]", "map"),
        ] {
            std::fs::write(folder.path().join("clicks.edn"), text).unwrap();
            let error = read_file(folder.path(), "clicks").unwrap_err().to_string();
            assert!(
                error.contains("clicks.edn") && error.contains(expected),
                "{text}: {error}"
            );
        }
        std::fs::create_dir(folder.path().join("folder.edn")).unwrap();
        assert!(read_file(folder.path(), "folder").is_err());
        assert!(
            read_file(folder.path(), "../clicks")
                .unwrap_err()
                .to_string()
                .contains("no name of a hive table")
        );
    }
}
