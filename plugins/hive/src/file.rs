//! Schema files: `TABLE.edn` in a folder.

use std::io::ErrorKind;
use std::path::Path;

use arrow::datatypes::SchemaRef;
use pseidon_delivery::Reason;
use pseidon_plugin::options::read_schema;

use crate::{HiveError, table};

/// Reads the columns from `TABLE.edn` in this folder, in the form of `:schema` (`{:id :int64, :tags
/// [:utf8]}`). Returns `None` if the file does not exist. `DATABASE.TABLE` is read from
/// `DATABASE.TABLE.edn`. The columns are returned as written in the file, in its order.
///
/// # Errors
///
/// [`HiveError::Refused`] if the name is not a valid table name, or the file cannot be read or is
/// not a schema.
pub fn read_file(folder: &Path, table: &str) -> Result<Option<SchemaRef>, HiveError> {
    let table = table.trim();
    table::check(table)?;
    let path = folder.join(format!("{table}.edn"));
    let what = format!("schema file {}", path.display());
    let invalid = |reason: String| HiveError::Refused(format!("{what}: {reason}").into());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HiveError::Refused(Reason::caused_by(what, error))),
    };
    let schema = read_schema(&text).map_err(invalid)?;
    if schema.fields().is_empty() {
        return Err(invalid("expected at least one column".to_owned()));
    }
    Ok(Some(schema))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn columns_are_read_in_order() {
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
        assert_eq!(read_file(folder.path(), "clicks").unwrap(), None);
        assert_eq!(
            read_file(&folder.path().join("missing"), "clicks").unwrap(),
            None
        );
    }

    #[test]
    fn invalid_schema_files_are_named_in_errors() {
        let folder = tempfile::tempdir().unwrap();
        for (text, expected) in [
            ("{:a :inmt64}", "inmt64"),
            ("{", "clicks.edn"),
            ("{}", "at least one column"),
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
                .contains("invalid hive table name")
        );
    }
}
