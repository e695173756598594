//! The bounds of conditions.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field};
use pseidon_dsl::expr::{Expr, Path, PathStep};
use pseidon_expr::Column;
use pseidon_expr::bounds::{Bounds, Extreme};

use crate::fixture::parse;

fn column(name: &str, data_type: DataType) -> Column {
    Column {
        path: Path(vec![PathStep::Field(name.to_owned())]),
        field: Arc::new(Field::new(name, data_type, true)),
    }
}

/// Whether three groups may pass the conditions: `id` is 0 to 9, 10 to 19 and not known,
/// `name` is `a` to `f`, `g` to `p` and not known.
fn may_pass(conditions: &[&str]) -> Vec<bool> {
    let conditions: Vec<Expr> = conditions.iter().map(|text| parse(text)).collect();
    let columns = [
        column("id", DataType::Int64),
        column("name", DataType::Utf8),
        column("ratio", DataType::Float64),
        column("The ID", DataType::Int64),
        Column {
            path: Path(
                ["id", "x"]
                    .map(|name| PathStep::Field(name.to_owned()))
                    .to_vec(),
            ),
            field: Arc::new(Field::new("id.x", DataType::Int64, true)),
        },
    ];
    let bounds = Bounds::of(&conditions.iter().collect::<Vec<_>>(), &columns);
    bounds.may_pass(3, |name, _, extreme| {
        let numbers =
            |values: [Option<i64>; 3]| -> ArrayRef { Arc::new(Int64Array::from(values.to_vec())) };
        let strings = |values: [Option<&str>; 3]| -> ArrayRef {
            Arc::new(StringArray::from(values.to_vec()))
        };
        Some(match (name, extreme) {
            ("id" | "id.x" | "The ID", Extreme::Smallest) => numbers([Some(0), Some(10), None]),
            ("id" | "id.x" | "The ID", Extreme::Largest) => numbers([Some(9), Some(19), None]),
            ("name", Extreme::Smallest) => strings([Some("a"), Some("g"), None]),
            ("name", Extreme::Largest) => strings([Some("f"), Some("p"), None]),
            _ => return None,
        })
    })
}

#[test]
fn groups_are_excluded_by_their_extremes() {
    for (condition, first, second) in [
        ("id = 9", true, false),
        ("\"The ID\" = 9", true, false),
        // The extremes of a column of this name are of another field.
        ("id.x = 9", true, true),
        ("10 = id", false, true),
        ("id = 20", false, false),
        ("id < 10", true, false),
        ("id < 0", false, false),
        ("id <= 0", true, false),
        ("id > 9", false, true),
        ("id >= 19", false, true),
        ("9 < id", false, true),
        ("9 >= id", true, false),
        ("10 > id", true, false),
        ("10 <= id", false, true),
        ("id > 9.5", false, true),
        ("id between 12 and 30", false, true),
        ("id not between 0 and 9", true, true),
        ("id <> 5", true, true),
        ("id = '9'", true, false),
        ("id = '9'::bigint", true, false),
        ("name = 'h'", false, true),
        ("name < 'b' and id >= 0", true, false),
        ("id >= 0 and name < 'b'", true, false),
        ("name is not null and id > 9", false, true),
        ("ratio > 0.5 and id > 9", false, true),
        ("id > 9 or name = 'a'", true, true),
        ("id = null", true, true),
    ] {
        assert_eq!(may_pass(&[condition]), [first, second, true], "{condition}");
    }
    assert_eq!(may_pass(&["name > 'a'", "id > 9"]), [false, true, true]);
}

/// A row that is invalid must not be excluded by what comes after.
#[test]
fn nothing_counts_behind_what_may_be_an_error() {
    for condition in [
        "10 / id > 0 and id > 9",
        "name::bigint = 1 and id > 9",
        "id + 1 > 10 and id > 9",
    ] {
        assert_eq!(may_pass(&[condition]), [true; 3], "{condition}");
        assert_eq!(may_pass(&[condition, "id > 9"]), [true; 3], "{condition}");
    }
    assert_eq!(may_pass(&["id > 9 and 10 / id > 0"]), [false, true, true]);
}
