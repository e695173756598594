//! How much memory rows take as columns of values.
//!
//! A few bytes of a file can stand for a lot of memory: a column of nulls has none, all rows may
//! have the same value of a dictionary, a run or a view, and lists of a fixed length repeat whatever
//! has no bytes. So a batch is passed on in parts by what its rows take without that, and a row that
//! takes too much is an error.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericByteViewArray, GenericListViewArray, OffsetSizeTrait, RunArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    ByteViewType, DataType, Int16Type, Int32Type, Int64Type, RunEndIndexType, UInt64Type,
};
use arrow::error::ArrowError;

/// What an element of a list takes beside its value, in bytes.
const ITEM_MEMORY: u64 = 8;

/// What a value takes beside its bytes if it has no fixed length.
const VALUE_MEMORY: u64 = 4;

/// The memory of these rows of a column in bytes, about. What is more than `limit` is not counted
/// further.
pub(super) fn expanded_memory(
    values: &ArrayRef,
    rows: Range<usize>,
    limit: u64,
) -> Result<u64, ArrowError> {
    let count = rows.len() as u64;
    let bytes = |range: Range<u64>| range.end - range.start + count * VALUE_MEMORY;
    Ok(match values.data_type() {
        DataType::Utf8 => bytes(ends(values.as_string::<i32>().value_offsets(), &rows)),
        DataType::LargeUtf8 => bytes(ends(values.as_string::<i64>().value_offsets(), &rows)),
        DataType::Binary => bytes(ends(values.as_binary::<i32>().value_offsets(), &rows)),
        DataType::LargeBinary => bytes(ends(values.as_binary::<i64>().value_offsets(), &rows)),
        DataType::Utf8View => views(values.as_string_view(), &rows),
        DataType::BinaryView => views(values.as_binary_view(), &rows),
        DataType::List(_) => {
            let lists = values.as_list::<i32>();
            items(
                lists.values(),
                ends(lists.value_offsets(), &rows),
                count,
                limit,
            )?
        }
        DataType::LargeList(_) => {
            let lists = values.as_list::<i64>();
            items(
                lists.values(),
                ends(lists.value_offsets(), &rows),
                count,
                limit,
            )?
        }
        DataType::Map(..) => {
            let maps = values.as_map();
            let entries: ArrayRef = Arc::new(maps.entries().clone());
            items(&entries, ends(maps.value_offsets(), &rows), count, limit)?
        }
        DataType::FixedSizeList(_, len) => {
            let (lists, len) = (values.as_fixed_size_list(), *len as u64);
            let range = rows.start as u64 * len..rows.end as u64 * len;
            items(lists.values(), range, count, limit)?
        }
        DataType::ListView(_) => list_views(values.as_list_view::<i32>(), rows, limit)?,
        DataType::LargeListView(_) => list_views(values.as_list_view::<i64>(), rows, limit)?,
        DataType::Struct(_) => {
            let mut memory = count;
            for column in values.as_struct().columns() {
                memory += expanded_memory(column, rows.clone(), limit)?;
            }
            memory
        }
        DataType::Dictionary(..) => {
            let dictionary = values.as_any_dictionary();
            let keys = dictionary.keys().slice(rows.start, rows.len());
            let keys = cast(&keys, &DataType::UInt64)?;
            let places = keys.as_primitive::<UInt64Type>().iter();
            let places = places.map(|place| place.map(|place| place as usize));
            repeated(dictionary.values(), places, limit)?
        }
        DataType::RunEndEncoded(ends, _) => match ends.data_type() {
            DataType::Int16 => runs(values.as_run::<Int16Type>(), rows, limit)?,
            DataType::Int32 => runs(values.as_run::<Int32Type>(), rows, limit)?,
            _ => runs(values.as_run::<Int64Type>(), rows, limit)?,
        },
        other => count * width(other),
    })
}

/// The bytes of a value whose type has a fixed length.
fn width(data_type: &DataType) -> u64 {
    match data_type {
        DataType::FixedSizeBinary(len) => (*len as u64).max(1),
        other => other.primitive_width().unwrap_or(1) as u64,
    }
}

/// Where the values of these rows begin and end.
fn ends<O: OffsetSizeTrait>(offsets: &[O], rows: &Range<usize>) -> Range<u64> {
    let at = |row: usize| {
        offsets
            .get(row)
            .map_or(0, |offset| offset.as_usize() as u64)
    };
    at(rows.start)..at(rows.end)
}

/// The memory of `count` lists, whose elements these are.
fn items(values: &ArrayRef, range: Range<u64>, count: u64, limit: u64) -> Result<u64, ArrowError> {
    let memory = count * VALUE_MEMORY + (range.end - range.start).saturating_mul(ITEM_MEMORY);
    let range = range.start as usize..range.end as usize;
    match memory > limit {
        true => Ok(memory),
        false => Ok(memory + expanded_memory(values, range, limit)?),
    }
}

/// The memory of strings or bytes, which may share them.
fn views<T: ByteViewType + ?Sized>(values: &GenericByteViewArray<T>, rows: &Range<usize>) -> u64 {
    let views = values.views().get(rows.clone()).unwrap_or_default();
    // The length of a value is in the first four bytes of its view.
    let bytes = views
        .iter()
        .map(|view| u64::from(*view as u32) + VALUE_MEMORY);
    bytes.sum()
}

/// The memory of lists, which may share their elements.
fn list_views<O: OffsetSizeTrait>(
    lists: &GenericListViewArray<O>,
    rows: Range<usize>,
    limit: u64,
) -> Result<u64, ArrowError> {
    let list = |row: usize| {
        let start = lists.value_offset(row).as_usize() as u64;
        let end = start + lists.value_size(row).as_usize() as u64;
        items(lists.values(), start..end, 1, limit)
    };
    sum_up_to(limit, rows.map(list))
}

/// The memory of the values of runs, each of which several rows have.
fn runs<R: RunEndIndexType>(
    values: &RunArray<R>,
    rows: Range<usize>,
    limit: u64,
) -> Result<u64, ArrowError> {
    let places = rows.map(|row| Some(values.get_physical_index(row)));
    repeated(values.values(), places, limit)
}

/// The memory of the values at these places, each as often as its place is there. `None` is null.
fn repeated(
    values: &ArrayRef,
    places: impl Iterator<Item = Option<usize>>,
    limit: u64,
) -> Result<u64, ArrowError> {
    if let Some(width) = values.data_type().primitive_width() {
        return Ok(places.count() as u64 * width as u64);
    }
    let value = |place: Option<usize>| match place {
        Some(place) => expanded_memory(values, place..place + 1, limit),
        None => Ok(VALUE_MEMORY),
    };
    sum_up_to(limit, places.map(value))
}

/// Adds numbers up until they are more than `limit`.
fn sum_up_to(
    limit: u64,
    parts: impl Iterator<Item = Result<u64, ArrowError>>,
) -> Result<u64, ArrowError> {
    let mut sum = 0;
    for part in parts {
        sum += part?;
        if sum > limit {
            break;
        }
    }
    Ok(sum)
}
