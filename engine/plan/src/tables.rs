//! The tables of `lookup`s that a plan uses.

use std::cell::RefCell;
use std::time::Duration;

use arrow::array::RecordBatch;

/// Reads the table of a `lookup`, given its path. An error is a message for the user.
pub type TableReader<'a> = dyn Fn(&str) -> Result<Table, String> + 'a;

/// A table as it was read.
#[derive(Clone, Debug)]
pub struct Table {
    /// All of its rows.
    pub rows: RecordBatch,
    /// A digest of its content.
    pub digest: String,
}

/// A table that a plan uses.
#[derive(Clone, Debug)]
pub struct PlannedTable {
    /// Its path, as in the pipeline file.
    pub path: String,
    /// Its content.
    pub table: Table,
    /// How often it is looked at for changes; `None` if it is not.
    pub reload: Option<Duration>,
}

/// Reads each table once, however many stages use it: all of them see the same content.
pub struct TableCache<'a> {
    read: &'a TableReader<'a>,
    /// Whether a table may be reloaded: a run that continues needs the state.
    pub(crate) allows_reload: bool,
    tables: RefCell<Vec<PlannedTable>>,
}

impl<'a> TableCache<'a> {
    /// Creates a cache without tables.
    pub fn new(read: &'a TableReader<'a>, allows_reload: bool) -> TableCache<'a> {
        TableCache {
            read,
            allows_reload,
            tables: RefCell::default(),
        }
    }

    /// The table at this path, for a stage that has it looked at this often.
    pub fn table(&self, path: &str, reload: Option<Duration>) -> Result<Table, String> {
        let mut tables = self.tables.borrow_mut();
        if let Some(known) = tables.iter_mut().find(|known| known.path == path) {
            known.reload = [known.reload, reload].into_iter().flatten().min();
            return Ok(known.table.clone());
        }
        let table = (self.read)(path)?;
        tables.push(PlannedTable {
            path: path.to_owned(),
            table: table.clone(),
            reload,
        });
        Ok(table)
    }

    /// All tables that were read.
    pub fn into_tables(self) -> Vec<PlannedTable> {
        self.tables.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use arrow::datatypes::Schema;

    use super::*;

    #[test]
    fn a_table_is_read_once_and_looked_at_as_often_as_any_stage_wants() {
        let count = Cell::new(0);
        let read = |path: &str| {
            count.set(count.get() + 1);
            Ok(Table {
                rows: RecordBatch::new_empty(Schema::empty().into()),
                digest: format!("{path} {}", count.get()),
            })
        };
        let cache = TableCache::new(&read, true);
        let seconds = Duration::from_secs;
        for (path, reload, digest) in [
            ("a", None, "a 1"),
            ("b", Some(seconds(9)), "b 2"),
            ("a", Some(seconds(5)), "a 1"),
            ("b", Some(seconds(7)), "b 2"),
            ("b", Some(seconds(8)), "b 2"),
        ] {
            assert_eq!(cache.table(path, reload).unwrap().digest, digest);
        }
        let tables = cache.into_tables();
        let reloads = tables
            .iter()
            .map(|table| (table.path.as_str(), table.reload));
        assert_eq!(
            reloads.collect::<Vec<_>>(),
            [("a", Some(seconds(5))), ("b", Some(seconds(7)))]
        );
    }
}
