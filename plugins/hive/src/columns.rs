//! Converts Hive's columns to an Arrow schema.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::table::{DEFAULT_DATABASE, HiveColumn, TableName};
use crate::{HiveEndpoint, HiveError, database, metastore, server, types};

/// Columns that appear only in the paths of a table's files, not in their records.
const PATH_COLUMNS: [&str; 2] = ["dt", "hr"];

/// Returns the columns of `DATABASE.TABLE` or `TABLE`, in order. `TABLE` is in the database of the
/// HiveServer2 URL, otherwise in `default`. Partition columns, `dt` and `hr` are omitted. Names are
/// in lower case, and all columns are nullable. Takes seconds; at most half a minute for a
/// HiveServer2.
///
/// # Errors
///
/// [`HiveError::Unreachable`] if retrying later may help; [`HiveError::Refused`] if the table does
/// not exist or a column has an unsupported type.
pub fn columns(endpoint: &HiveEndpoint, table: &str) -> Result<SchemaRef, HiveError> {
    let default_database = match endpoint {
        HiveEndpoint::Metastore(_) | HiveEndpoint::Database(_) => DEFAULT_DATABASE,
        HiveEndpoint::Server(server) => &server.database,
    };
    let table = TableName::read(table, default_database)?;
    let columns = match endpoint {
        HiveEndpoint::Metastore(url) => metastore::columns(url, &table)?,
        HiveEndpoint::Database(url) => database::columns(url, &table)?,
        HiveEndpoint::Server(server) => server::columns(server, &table)?,
    };
    schema(&table, columns)
}

fn schema(table: &TableName, columns: Vec<HiveColumn>) -> Result<SchemaRef, HiveError> {
    let mut fields: Vec<Field> = Vec::new();
    for HiveColumn { name, hive_type } in columns {
        let name = name.to_lowercase();
        if PATH_COLUMNS.contains(&name.as_str()) {
            continue;
        }
        if fields.iter().any(|field| *field.name() == name) {
            return Err(HiveError::Refused(
                format!("duplicate column {name} in hive table {table}").into(),
            ));
        }
        let data_type = types::arrow_type(&hive_type).map_err(|reason| {
            let what = format!("hive table {table}: column {name} of type {hive_type}: {reason}");
            HiveError::Refused(what.into())
        })?;
        fields.push(Field::new(name, data_type, true));
    }
    if fields.is_empty() {
        return Err(HiveError::Refused(
            format!("hive table {table} has no columns besides partition columns, dt and hr")
                .into(),
        ));
    }
    Ok(Arc::new(Schema::new(fields)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(columns: &[(&str, &str)]) -> Result<String, String> {
        let table = TableName::read("clicks", "web").unwrap();
        let column = |(name, hive_type): &(&str, &str)| HiveColumn {
            name: (*name).to_owned(),
            hive_type: (*hive_type).to_owned(),
        };
        let schema = schema(&table, columns.iter().map(column).collect())
            .map_err(|error| error.to_string())?;
        assert!(schema.fields().iter().all(|field| field.is_nullable()));
        Ok(schema
            .fields()
            .iter()
            .map(|field| format!("{} {}", field.name(), field.data_type()))
            .collect::<Vec<_>>()
            .join(", "))
    }

    #[test]
    fn path_columns_are_omitted() {
        let columns = [
            ("Id", "bigint"),
            ("dt", "string"),
            ("HR", "int"),
            ("url", "string"),
            ("dthr", "int"),
        ];
        assert_eq!(shown(&columns).unwrap(), "id Int64, url Utf8, dthr Int32");
    }

    #[test]
    fn invalid_columns_are_rejected() {
        for (columns, expected) in [
            (&[][..], "hive table web.clicks has no columns besides"),
            (
                &[("dt", "string")],
                "hive table web.clicks has no columns besides",
            ),
            (
                &[("a", "int"), ("A", "int")],
                "duplicate column a in hive table web.clicks",
            ),
            (
                &[("a", "int"), ("b", "uniontype<int,string>")],
                "hive table web.clicks: column b of type uniontype<int,string>: ",
            ),
        ] {
            let error = shown(columns).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
