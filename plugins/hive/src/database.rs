//! Reads columns from the metastore's own tables in MySQL. `DBS`, `TBLS`, `SDS` (storage
//! descriptors) and `COLUMNS_V2` have had these columns since Hive 0.8. A table's partition columns
//! are in `PARTITION_KEYS`, so they are not returned here.

use std::collections::BTreeSet;

use pseidon_delivery::Reason;
use pseidon_mysql::TableError;
use pseidon_mysql::database::{Database, Row};

use crate::HiveError;
use crate::table::{HiveColumn, TableName};

const STATEMENT: &str = "select t.TBL_ID as table_id, c.COLUMN_NAME as column_name, c.TYPE_NAME as type_name
    from DBS d join TBLS t on t.DB_ID = d.DB_ID join SDS s on s.SD_ID = t.SD_ID left join COLUMNS_V2 c on c.CD_ID = s.CD_ID
    where d.NAME = ? and t.TBL_NAME = ? order by c.INTEGER_IDX";

/// The name of the server in messages.
const DATABASE: &str = "the metastore's database";

/// Returns the table's columns, in order.
pub(crate) fn columns(url: &str, table: &TableName) -> Result<Vec<HiveColumn>, HiveError> {
    let rows = Database::new(url, None, None)
        .and_then(|database| database.execute(STATEMENT, &[&table.database, &table.table]))
        .map_err(|error| match error {
            TableError::Unreachable(reason) => {
                HiveError::Unreachable(Reason::caused_by(DATABASE, reason))
            }
            TableError::Refused(reason) => HiveError::Refused(Reason::caused_by(DATABASE, reason)),
        })?;
    let tables: BTreeSet<_> = rows.iter().map(|row| row.get("table_id")).collect();
    match tables.len() {
        0 => Err(HiveError::Refused(
            format!("hive table {table} not found").into(),
        )),
        1 => Ok(rows.into_iter().filter_map(column).collect()),
        // Metastores since Hive 3 may hold several catalogs.
        _ => Err(HiveError::Refused(
            format!("hive table {table} exists in several catalogs of the metastore").into(),
        )),
    }
}

/// Returns `None` for the only row of a table without columns.
fn column(mut row: Row) -> Option<HiveColumn> {
    let mut take = |name: &str| row.remove(name).flatten();
    Some(HiveColumn {
        name: take("column_name")?,
        hive_type: take("type_name")?,
    })
}
