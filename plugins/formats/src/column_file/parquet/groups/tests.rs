use std::fs::File;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use pseidon_dsl::expr::{Expr, Path, PathStep, parse};
use pseidon_dsl::node::Text;
use pseidon_expr::Column;

use super::super::tests::written;
use super::super::{ColumnReader, ParquetReader, UsedValues};
use super::*;

/// The numbers of the rows that are read of a file for a condition, and the position at its end.
fn read(file: File, condition: &str, fields: &[FieldRef], from: u64) -> (Vec<u64>, u64) {
    let bounds = Bounds::of(&[&parsed(condition)], &columns(fields));
    let used = UsedValues {
        fields: None,
        bounds: Arc::new(bounds),
    };
    let mut reader = ParquetReader::open(file, &used, from).unwrap();
    let mut read = Vec::new();
    while let Some(rows) = reader.next_rows().unwrap() {
        let end = reader.position();
        read.extend(end - rows.num_rows() as u64..end);
    }
    (read, reader.position())
}

fn parsed(condition: &str) -> Expr {
    parse(&Text::plain(condition, 0)).unwrap()
}

fn columns(fields: &[FieldRef]) -> Vec<Column> {
    let column = |field: &FieldRef| Column {
        path: Path(vec![PathStep::Field(field.name().clone())]),
        field: field.clone(),
    };
    fields.iter().map(column).collect()
}

fn field(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("n", data_type, true))
}

/// Rows with these numbers, in this type.
fn rows(numbers: &[i64], data_type: &DataType) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
    let numbers = match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Dictionary(..) => {
            cast(&numbers, &DataType::Utf8).unwrap()
        }
        _ => numbers,
    };
    let values = cast(&numbers, data_type).unwrap();
    RecordBatch::try_from_iter([("n", values)]).unwrap()
}

/// Groups of three rows.
const NUMBERS: [i64; 8] = [1, 2, 3, 51, 52, 53, 5, 6];

#[test]
fn groups_without_a_used_row_are_left_out() {
    let int64 = [field(DataType::Int64)];
    for (condition, expected) in [
        ("n < 10", vec![0, 1, 2, 6, 7]),
        ("n > 10", vec![3, 4, 5]),
        ("n = 5", vec![6, 7]),
        ("n > 60", vec![]),
        ("n > 0", (0..8).collect()),
    ] {
        for from in 0..=8 {
            let file = written(&rows(&NUMBERS, &DataType::Int64));
            let wanted: Vec<u64> = expected
                .iter()
                .copied()
                .filter(|row| *row >= from)
                .collect();
            assert_eq!(
                read(file, condition, &int64, from),
                (wanted, 8),
                "{condition} from {from}"
            );
        }
    }
}

/// Of each type whose groups can be left out, those with a used row are read.
#[test]
fn extremes_are_of_the_type_of_the_field() {
    let numbers = [11, 12, 13, 51, 52, 53, 15, 16];
    let dictionary = DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
    let zone = |unit| DataType::Timestamp(unit, Some("+02:00".into()));
    for (stored, condition) in [
        (DataType::Int8, "n > 20"),
        (DataType::Int32, "n > 20"),
        (DataType::UInt16, "n > 20"),
        (DataType::UInt64, "n > 20"),
        (DataType::Utf8, "n > '20'"),
        (DataType::LargeUtf8, "n > '20'"),
        (dictionary, "n > '20'"),
        (DataType::Decimal128(10, 2), "n > 20"),
        (DataType::Decimal64(10, 2), "n > 20"),
        (DataType::Date32, "n > date '1970-01-21'"),
        (
            DataType::Timestamp(TimeUnit::Millisecond, None),
            "n > timestamp '1970-01-01T00:00:00.020'",
        ),
        (
            zone(TimeUnit::Microsecond),
            "n > '1970-01-01T00:00:00.000020Z'",
        ),
    ] {
        let fields = [field(type_of(&stored))];
        let found = read(written(&rows(&numbers, &stored)), condition, &fields, 0);
        assert_eq!(found, (vec![3, 4, 5], 8), "{stored}");
    }
}

/// Values of another type than the field's may have another order.
#[test]
fn a_field_of_another_type_leaves_nothing_out() {
    let all = ((0..8).collect(), 8);
    for (stored, wanted, condition) in [
        (DataType::Utf8, DataType::Int64, "n > 20"),
        (DataType::Int64, DataType::Utf8, "n > '20'"),
        (DataType::Float64, DataType::Float64, "n > 20"),
    ] {
        let file = written(&rows(&NUMBERS, &stored));
        assert_eq!(read(file, condition, &[field(wanted)], 0), all, "{stored}");
    }
}

/// Old programs compared strings as signed bytes.
#[test]
fn extremes_of_old_programs_do_not_count() {
    for is_old in [false, true] {
        let text = |text: &str| Some(text.as_bytes().to_vec().into());
        let statistics = Statistics::byte_array(text("\u{e9}"), text("z"), None, None, is_old);
        assert_eq!(are_ordered(&statistics), !is_old);
    }
}

#[test]
fn groups_of_null_are_read() {
    let some = rows(&[1, 2, 3], &DataType::Int64);
    let nulls: ArrayRef = Arc::new(Int64Array::from(vec![None, None, None, Some(1)]));
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, true)]);
    let nulls = RecordBatch::try_new(Arc::new(schema), vec![nulls]).unwrap();
    let some = some.with_schema(nulls.schema()).unwrap();
    let all = concat_batches(&nulls.schema(), [&some, &nulls]).unwrap();
    let found = read(written(&all), "n > 5", &[field(DataType::Int64)], 0);
    assert_eq!(found, (vec![3, 4, 5], 7));
}
