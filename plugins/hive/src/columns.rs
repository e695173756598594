//! From what Hive says to a schema.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};

use crate::table::{STANDARD_DATABASE, TableName};
use crate::{HiveError, Place, database, metastore, server, types};

/// Columns that a table has for the place of its files only, not in their records.
const OF_THE_PATH: [&str; 2] = ["dt", "hr"];

/// A column as Hive says it.
pub(crate) struct Column {
    pub(crate) name: String,
    /// As Hive writes types: `map<string,int>`.
    pub(crate) hive_type: String,
}

/// The columns of `DATABASE.TABLE` or `TABLE` (in the database that the URL of a HiveServer2 names,
/// else in `default`), in order. Partition columns are not among them, nor are `dt` and `hr`; names
/// are in lower case, and all may be null. Takes seconds, half a minute at most where a HiveServer2
/// is asked.
///
/// # Errors
///
/// [`HiveError::Unreachable`] when asking again later may work; [`HiveError::Refused`] when there
/// is no such table, or when it has a column whose type has no counterpart.
pub fn columns(place: &Place, table: &str) -> Result<SchemaRef, HiveError> {
    let standard_database = match place {
        Place::Metastore(_) | Place::Database(_) => STANDARD_DATABASE,
        Place::Server(server) => &server.database,
    };
    let table = TableName::read(table, standard_database)?;
    let columns = match place {
        Place::Metastore(url) => metastore::columns(url, &table)?,
        Place::Database(url) => database::columns(url, &table)?,
        Place::Server(server) => server::columns(server, &table)?,
    };
    schema(&table, columns)
}

fn schema(table: &TableName, columns: Vec<Column>) -> Result<SchemaRef, HiveError> {
    let mut fields: Vec<Field> = Vec::new();
    for Column { name, hive_type } in columns {
        let name = name.to_lowercase();
        if OF_THE_PATH.contains(&name.as_str()) {
            continue;
        }
        if fields.iter().any(|field| *field.name() == name) {
            return Err(HiveError::Refused(format!(
                "hive table {table} has two columns {name}"
            )));
        }
        let data_type = types::arrow_type(&hive_type).map_err(|reason| {
            HiveError::Refused(format!(
                "hive table {table}: column {name} of type {hive_type}: {reason}"
            ))
        })?;
        fields.push(Field::new(name, data_type, true));
    }
    if fields.is_empty() {
        return Err(HiveError::Refused(format!(
            "hive table {table} has no columns besides those of its partitions, dt and hr"
        )));
    }
    Ok(Arc::new(Schema::new(fields)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(columns: &[(&str, &str)]) -> Result<String, String> {
        let table = TableName::read("clicks", "web").unwrap();
        let column = |(name, hive_type): &(&str, &str)| Column {
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
    fn columns_of_the_path_are_left_out() {
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
    fn what_is_wrong_is_named() {
        for (columns, expected) in [
            (&[][..], "hive table web.clicks has no columns besides"),
            (
                &[("dt", "string")],
                "hive table web.clicks has no columns besides",
            ),
            (
                &[("a", "int"), ("A", "int")],
                "hive table web.clicks has two columns a",
            ),
            (
                &[("a", "int"), ("b", "uniontype<int,string>")],
                "hive table web.clicks: column b of type uniontype<int,string>: ",
            ),
        ] {
            let mistake = shown(columns).unwrap_err();
            assert!(mistake.starts_with(expected), "{mistake}");
        }
    }
}
