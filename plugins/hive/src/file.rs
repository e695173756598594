//! Schema files: `TABLE.edn` in a folder.

use std::io::ErrorKind;
use std::path::Path;

use arrow::datatypes::SchemaRef;
use pseidon_delivery::Reason;
use pseidon_dsl::encoding;
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
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HiveError::Refused(Reason::caused_by(what, error))),
    };
    let text = encoding::decode(bytes).map_err(invalid)?;
    let schema = read_schema(&text).map_err(invalid)?;
    if schema.fields().is_empty() {
        return Err(invalid("expected at least one column".to_owned()));
    }
    Ok(Some(schema))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use proptest::prelude::*;
    use pseidon_plugin::options::print_schema;

    use super::*;

    fn read(text: &str) -> Result<Option<SchemaRef>, HiveError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("d.t.edn"), text).unwrap();
        read_file(folder.path(), "d.t")
    }

    /// A type as a schema file has it.
    fn data_type() -> impl Strategy<Value = String> {
        let names = [
            ":utf8",
            ":int64",
            ":boolean",
            ":date32",
            ":json",
            ":timestamp_ms",
            ":int",
        ];
        let plain = prop_oneof![
            prop::sample::select(names.to_vec()).prop_map(str::to_owned),
            (0..80_u8, 0..80_u8).prop_map(|(p, s)| format!("\"decimal({p},{s})\"")),
        ];
        plain.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|item| format!("[{item}]")),
                prop::collection::vec(("[a-c]", inner), 0..3).prop_map(|fields| {
                    let fields = fields.iter().map(|(name, of)| format!(":{name} {of}"));
                    format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_schema_file_is_refused_or_means_what_it_prints(
            fields in prop::collection::vec(("[a-z]{1,3}|\"[a-z\\. é]{0,4}\"", data_type()), 0..4),
            at in any::<prop::sample::Index>(),
            added in prop::option::of(r#"[{}\[\]:"a()\\#;]{1,3}"#),
        ) {
            let fields = fields.iter().map(|(name, of)| match name.starts_with('"') {
                true => format!("{name} {of}"),
                false => format!(":{name} {of}"),
            });
            let mut text = format!("{{{}}}", fields.collect::<Vec<_>>().join(", "));
            if let Some(added) = added {
                let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
                text.insert_str(places[at.index(places.len())], &added);
            }
            match read(&text) {
                Ok(schema) => {
                    let schema = schema.unwrap();
                    let again = read(&print_schema(&schema)).unwrap();
                    prop_assert_eq!(again, Some(schema), "{}", text);
                }
                Err(error) => prop_assert!(error.to_string().contains("d.t.edn")),
            }
        }
    }

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
    fn a_schema_file_is_utf_8_with_or_without_a_byte_order_mark() {
        let schema = read("\u{feff}{:a :utf8}").unwrap().unwrap();
        assert_eq!(schema.field(0).name(), "a");
        let folder = tempfile::tempdir().unwrap();
        let utf_16: Vec<u8> = "{:a :utf8}"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        std::fs::write(folder.path().join("d.t.edn"), utf_16).unwrap();
        let error = read_file(folder.path(), "d.t").unwrap_err().to_string();
        assert!(
            error.ends_with("UTF-16 or UTF-32; save it as UTF-8"),
            "{error}"
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
