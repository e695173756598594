//! The row groups of a file that are read.

use std::collections::VecDeque;
use std::ops::Range;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::{cast, nullif};
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use pseidon_expr::bounds::{Bounds, Extreme};

use super::super::types::type_of;

/// Row groups that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupRange {
    pub(super) groups: Range<usize>,
    /// The numbers of their rows.
    pub(super) rows: Range<u64>,
}

impl GroupRange {
    /// Each of the row groups by itself.
    pub(super) fn each(self, metadata: &ArrowReaderMetadata) -> Vec<GroupRange> {
        let mut start = self.rows.start;
        let groups = self.groups.map(|number| {
            let count = rows_of(metadata.metadata().row_group(number));
            let rows = start..u64::saturating_add(start, count);
            start = rows.end;
            GroupRange {
                groups: number..number + 1,
                rows,
            }
        });
        groups.collect()
    }
}

fn rows_of(group: &RowGroupMetaData) -> u64 {
    u64::try_from(group.num_rows()).unwrap_or_default()
}

/// The row groups that may have used rows from row `from` on, and the number of rows of the file.
pub(super) fn used_groups(
    metadata: &ArrowReaderMetadata,
    bounds: &Bounds,
    from: u64,
) -> (VecDeque<GroupRange>, u64) {
    let groups = metadata.metadata().row_groups();
    let may_pass = bounds.may_pass(groups.len(), |name, data_type, extreme| {
        extremes(metadata, name, data_type, extreme)
    });
    let (mut used, mut end) = (VecDeque::<GroupRange>::new(), 0);
    for (number, (group, may_pass)) in groups.iter().zip(may_pass).enumerate() {
        let rows = end..u64::saturating_add(end, rows_of(group));
        end = rows.end;
        if rows.end <= from || !may_pass {
            continue;
        }
        match used.back_mut().filter(|last| last.groups.end == number) {
            Some(last) => {
                last.groups.end = number + 1;
                last.rows.end = rows.end;
            }
            None => used.push_back(GroupRange {
                groups: number..number + 1,
                rows,
            }),
        }
    }
    (used, end)
}

/// An extreme of a field's values in each row group. `None` if the field has another type in the
/// file, in which its values may be ordered differently.
fn extremes(
    metadata: &ArrowReaderMetadata,
    name: &str,
    data_type: &DataType,
    extreme: Extreme,
) -> Option<ArrayRef> {
    let stored = metadata.schema().field_with_name(name).ok()?;
    if type_of(stored.data_type()) != *data_type {
        return None;
    }
    let (schema, groups) = (metadata.schema(), metadata.metadata().row_groups());
    let statistics = StatisticsConverter::try_new(name, schema, metadata.parquet_schema()).ok()?;
    let column = statistics.parquet_column_index()?;
    let extremes = match extreme {
        Extreme::Smallest => statistics.row_group_mins(groups),
        Extreme::Largest => statistics.row_group_maxes(groups),
    };
    let extremes = cast(&extremes.ok()?, data_type).ok()?;
    let unknown = groups.iter().map(|group| Some(!has_order(group, column)));
    nullif(&extremes, &BooleanArray::from_iter(unknown)).ok()
}

/// Whether the extremes of a column are of the order of its type.
fn has_order(group: &RowGroupMetaData, column: usize) -> bool {
    let statistics = group.column(column).statistics();
    statistics.is_some_and(are_ordered)
}

/// Old programs wrote extremes of another order, such as those of signed bytes for strings.
fn are_ordered(statistics: &Statistics) -> bool {
    !statistics.is_min_max_deprecated()
}

#[cfg(test)]
mod tests;
