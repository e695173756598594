//! Three rows with columns of all types, and helpers that compile and evaluate expressions over
//! them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeListArray,
    Float64Array, Int32Array, Int64Array, ListArray, StringArray, StructArray,
    TimestampMillisecondArray, UInt8Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use pseidon_dsl::Diagnostic;
use pseidon_dsl::expr::{Expr, Meta, Path, PathStep};
use pseidon_dsl::node::Text;
use pseidon_expr::types::{field_type_name, json_field};
use pseidon_expr::{Column, CompiledExpr, Input, Scope, compile};

/// The number of rows in the fixture.
pub(crate) const ROWS: usize = 3;

fn columns() -> Vec<(&'static str, Field, ArrayRef)> {
    fn plain(name: &'static str, array: impl Array + 'static) -> (&'static str, Field, ArrayRef) {
        (
            name,
            Field::new(name, array.data_type().clone(), true),
            Arc::new(array),
        )
    }
    fn json(name: &'static str, values: Vec<Option<&str>>) -> (&'static str, Field, ArrayRef) {
        (name, json_field(name), Arc::new(StringArray::from(values)))
    }
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let user_fields = Fields::from(vec![
        text("id"),
        Field::new("age", DataType::Int64, true),
        json_field("more"),
    ]);
    let user = StructArray::new(
        user_fields,
        vec![
            Arc::new(StringArray::from(vec!["u1", "u2", "hidden"])),
            Arc::new(Int64Array::from(vec![Some(30), None, Some(99)])),
            Arc::new(StringArray::from(vec![
                Some(r#"{"k":"v"}"#),
                Some("[]"),
                Some("1"),
            ])),
        ],
        Some(NullBuffer::from(vec![true, true, false])),
    );
    // The elements have the name that Parquet has for them.
    let tags = ListArray::new(
        Arc::new(Field::new("element", DataType::Utf8, true)),
        OffsetBuffer::from_lengths([2, 0, 1]),
        Arc::new(StringArray::from(vec!["a", "b", "hidden"])),
        Some(NullBuffer::from(vec![true, true, false])),
    );
    let point_fields = Fields::from(vec![Field::new("x", DataType::Int64, true)]);
    let points = ListArray::new(
        Arc::new(Field::new_list_field(
            DataType::Struct(point_fields.clone()),
            true,
        )),
        OffsetBuffer::from_lengths([1, 2, 0]),
        Arc::new(StructArray::new(
            point_fields,
            vec![Arc::new(Int64Array::from(vec![10, 20, 21]))],
            None,
        )),
        None,
    );
    let pair = FixedSizeListArray::new(
        Arc::new(Field::new_list_field(DataType::Int64, true)),
        2,
        Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5, 6])),
        Some(NullBuffer::from(vec![true, false, true])),
    );
    vec![
        plain("status", Int64Array::from(vec![Some(200), Some(404), None])),
        plain("small", Int32Array::from(vec![1, 2, 3])),
        plain("byte", UInt8Array::from(vec![0, 7, 255])),
        plain("big", Int64Array::from(vec![i64::MAX, i64::MIN, 0])),
        plain(
            "price",
            Float64Array::from(vec![Some(1.5), None, Some(-2.0)]),
        ),
        plain(
            "name",
            StringArray::from(vec![Some("Ann"), Some("bob%"), None]),
        ),
        plain(
            "ok",
            BooleanArray::from(vec![Some(true), Some(false), None]),
        ),
        plain(
            "at",
            TimestampMillisecondArray::from(vec![Some(1_709_251_198_123), Some(0), None])
                .with_timezone("UTC"),
        ),
        plain("day", Date32Array::from(vec![Some(19782), Some(0), None])),
        plain(
            "amount",
            Decimal128Array::from(vec![Some(1050), Some(-1), None])
                .with_precision_and_scale(10, 2)
                .unwrap(),
        ),
        plain(
            "raw",
            BinaryArray::from(vec![Some(b"ab".as_slice()), None, Some(b"")]),
        ),
        (
            "user",
            Field::new("user", user.data_type().clone(), true),
            Arc::new(user),
        ),
        plain("tags", tags),
        plain("points", points),
        plain("pair", pair),
        json("any", vec![Some(r#""12""#), Some("12"), None]),
        json(
            "word",
            vec![Some(r#""h\u00e9llo \"x\"""#), Some("true"), Some("null")],
        ),
        json(
            "deep",
            vec![
                Some(r#"{"a":[1,{"b":"x"}],"n":null}"#),
                Some(r#"{"a":"text"}"#),
                Some("3"),
            ],
        ),
        json(
            "mixed",
            vec![Some("12.5"), Some("9007199254740993"), Some(r#""abc""#)],
        ),
        json("broken", vec![Some("{"), Some(r#""\x""#), Some("1")]),
        json("huge", vec![Some("1e400"), Some("1"), None]),
    ]
}

/// The scope of expressions in tests.
pub(crate) fn scope() -> Scope {
    let column = |(name, field, _): (&str, Field, ArrayRef)| Column {
        path: Path(vec![PathStep::Field(name.to_owned())]),
        field: Arc::new(field),
    };
    let mut scope = Scope {
        columns: columns().into_iter().map(column).collect(),
    };
    let path = |steps: &[&str]| {
        Path(
            steps
                .iter()
                .map(|step| PathStep::Field((*step).to_owned()))
                .collect(),
        )
    };
    scope.columns.push(Column {
        path: path(&["geo", "city"]),
        field: Arc::new(Field::new("geo.city", DataType::Utf8, true)),
    });
    scope.columns.push(Column {
        path: path(&["user", "more", "k"]),
        field: Arc::new(Field::new("user.more.k", DataType::Int64, true)),
    });
    scope
}

fn input(input: &Input) -> ArrayRef {
    let at = match input {
        Input::Column(at) => *at,
        Input::Meta(Meta::Topic) => return Arc::new(StringArray::from(vec!["t1", "t1", "t2"])),
        Input::Meta(Meta::Partition) => return Arc::new(Int32Array::from(vec![0, 1, 0])),
        Input::Meta(Meta::Offset) => return Arc::new(Int64Array::from(vec![10, 11, 12])),
        Input::Meta(Meta::Timestamp) => {
            return Arc::new(
                TimestampMillisecondArray::from(vec![Some(1_709_251_198_123), None, Some(0)])
                    .with_timezone("UTC"),
            );
        }
        Input::Meta(Meta::Key) => {
            return Arc::new(StringArray::from(vec![Some("k"), None, Some("")]));
        }
        Input::Meta(Meta::Headers(None)) => {
            return Arc::new(StringArray::from(vec![r#"{"h":"1"}"#, "{}", "{}"]));
        }
        Input::Meta(Meta::Headers(Some(name))) => {
            return Arc::new(StringArray::from(vec![Some(name.as_str()), None, None]));
        }
    };
    match columns().into_iter().nth(at) {
        Some((_, _, array)) => array,
        None if at == columns().len() => {
            Arc::new(StringArray::from(vec![Some("Rome"), Some("Oslo"), None]))
        }
        None => Arc::new(Int64Array::from(vec![7, 8, 9])),
    }
}

/// Parses an expression.
pub(crate) fn parse(text: &str) -> Expr {
    pseidon_dsl::expr::parse(&Text::plain(text, 0))
        .unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
}

/// Parses and compiles an expression.
pub(crate) fn compiled(text: &str) -> Result<CompiledExpr, Vec<Diagnostic>> {
    compile(&parse(text), &scope())
}

/// The values of a compiled expression.
pub(crate) fn evaluate(compiled: &CompiledExpr) -> Result<ArrayRef, String> {
    let inputs = compiled.inputs().iter().map(input).collect();
    let values = compiled
        .evaluate(inputs, ROWS)
        .map_err(|error| error.to_string())?;
    assert_eq!(values.len(), ROWS);
    assert_eq!(values.data_type(), compiled.field().data_type());
    Ok(values)
}

/// The value of a compiled expression for each row, as if each were a batch of its own.
pub(crate) fn evaluate_rows(compiled: &CompiledExpr) -> Vec<Result<ArrayRef, String>> {
    let inputs: Vec<ArrayRef> = compiled.inputs().iter().map(input).collect();
    let row = |row| {
        let inputs = inputs.iter().map(|input| input.slice(row, 1)).collect();
        let value = compiled.evaluate(inputs, 1);
        let value = value.map_err(|error| error.to_string())?;
        assert_eq!(value.len(), 1);
        assert_eq!(value.data_type(), compiled.field().data_type());
        Ok(value)
    };
    (0..ROWS).map(row).collect()
}

/// The values as strings.
pub(crate) fn shown(values: &ArrayRef) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(values, &options).unwrap();
    (0..values.len())
        .map(|row| formatter.value(row).to_string())
        .collect()
}

/// Checks cases of an expression, its type and its three values.
pub(crate) fn check(cases: &[(&str, &str, [&str; 3])]) {
    let mut wrong = Vec::new();
    for (text, expected_type, expected) in cases {
        let compiled = match compiled(text) {
            Ok(compiled) => compiled,
            Err(errors) => {
                wrong.push(format!("{text}: {errors:?}"));
                continue;
            }
        };
        match evaluate(&compiled) {
            Ok(values) if shown(&values) == *expected => {}
            Ok(values) => wrong.push(format!("{text}: {:?}", shown(&values))),
            Err(error) => wrong.push(format!("{text}: {error}")),
        }
        let found = field_type_name(compiled.field());
        if found != *expected_type {
            wrong.push(format!("{text} is {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
