//! Groups of rows: functions of typed and JSON columns, and states that are stored and merged.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int64Array, RecordBatch,
    StringArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;
use pseidon_dsl::Span;
use pseidon_dsl::expr::Literal;
use pseidon_expr::aggregate::{AggregateArg, AggregateCall, Group, Grouping, Groups};
use pseidon_expr::types::json_field;

fn call(name: &str, distinct: bool, args: Vec<AggregateArg>) -> (String, AggregateCall) {
    let call = AggregateCall {
        name: name.to_owned(),
        span: Span::default(),
        distinct,
        args,
    };
    (name.to_owned(), call)
}

/// A call on the input column with this number.
fn of(name: &str, column: usize) -> (String, AggregateCall) {
    call(name, false, vec![AggregateArg::Column(column)])
}

fn batch(columns: Vec<(Field, ArrayRef)>) -> RecordBatch {
    let (fields, arrays): (Vec<FieldRef>, Vec<ArrayRef>) = columns
        .into_iter()
        .map(|(field, array)| (Arc::new(field), array))
        .unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn typed(name: &str, array: ArrayRef) -> (Field, ArrayRef) {
    (Field::new(name, array.data_type().clone(), true), array)
}

fn json(name: &str, values: Vec<Option<&str>>) -> (Field, ArrayRef) {
    (json_field(name), Arc::new(StringArray::from(values)))
}

fn texts(values: Vec<&str>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

/// The rows, each with its values separated by spaces.
fn rows(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let columns: Vec<ArrayFormatter<'_>> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
        .collect();
    (0..batch.num_rows())
        .map(|row| {
            let values = columns.iter().map(|column| column.value(row).to_string());
            values.collect::<Vec<_>>().join(" ")
        })
        .collect()
}

fn grouped(batch: &RecordBatch, keys: usize, calls: &[(String, AggregateCall)]) -> Vec<String> {
    let grouping = Arc::new(Grouping::new(&batch.schema(), keys, calls).unwrap());
    rows(&Groups::results_of(&grouping, batch).unwrap())
}

#[test]
fn json_values_keep_their_kind() {
    let values = [
        Some("5"),
        Some("2.5"),
        Some("\"a!\""),
        Some("\"a\""),
        Some("null"),
        None,
        Some("18446744073709551616"),
        Some("true"),
    ];
    let all = batch(vec![json("v", values.to_vec())]);
    let calls = [of("min", 0), of("max", 0), of("count", 0), of("first", 0)];
    assert_eq!(grouped(&all, 0, &calls), ["2.5 true 6 5"]);
    let numbers = [values[0], values[6], None];
    let all = batch(vec![json("v", numbers.to_vec())]);
    assert_eq!(
        grouped(&all, 0, &[of("sum", 0), of("max", 0)]),
        ["18446744073709551621 18446744073709551616"]
    );
    let fractions = batch(vec![json("v", vec![Some("1"), Some("0.5")])]);
    assert_eq!(grouped(&fractions, 0, &[of("sum", 0)]), ["1.5"]);
    let none = batch(vec![json("v", vec![Some("null"), None])]);
    assert_eq!(
        grouped(&none, 0, &[of("sum", 0), of("min", 0), of("count", 0)]),
        ["NULL NULL 0"]
    );
}

#[test]
fn strings_are_compared_without_quotes_and_escapes() {
    let values = vec![Some("\"a!\""), Some("\"a\""), Some("\"\\u0062\"")];
    let all = batch(vec![json("v", values)]);
    let calls = [of("min", 0), of("max", 0)];
    assert_eq!(grouped(&all, 0, &calls), ["\"a\" \"\\u0062\""]);
}

#[test]
fn equal_zeros_are_one_key_and_count_once() {
    let zeros: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, 0.0, 1.5, -0.0]));
    let singles: ArrayRef = Arc::new(Float32Array::from(vec![-0.0, 0.0, 0.0, -0.0]));
    let all = batch(vec![typed("x", zeros), typed("y", singles)]);
    let distinct = |column| call("count", true, vec![AggregateArg::Column(column)]);
    assert_eq!(
        grouped(&all, 1, &[of("count", 0), distinct(1)]),
        ["0.0 3 1", "1.5 1 1"]
    );
    assert_eq!(grouped(&all, 0, &[distinct(0)]), ["2"]);
}

#[test]
fn a_sum_of_integers_is_an_integer() {
    let most: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 1, -1]));
    let all = batch(vec![typed("n", most.clone())]);
    assert_eq!(
        grouped(&all, 0, &[of("sum", 0)]),
        [i64::MAX.to_string()],
        "no part of the sum overflows"
    );
    assert_eq!(
        grouped(&all.slice(0, 2), 0, &[of("sum", 0)]),
        ["9223372036854775808"]
    );
    let unsigned: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX - 1, 1]));
    let all = batch(vec![typed("n", unsigned)]);
    let grouping = Grouping::new(&all.schema(), 0, &[of("sum", 0)]).unwrap();
    assert_eq!(grouping.output().field(0).data_type(), &DataType::UInt64);
    assert!(!grouping.widens_decimals());
    assert_eq!(grouped(&all, 0, &[of("sum", 0)]), [u64::MAX.to_string()]);
}

#[test]
fn sums_that_are_too_large_do_not_fail() {
    let most = i128::pow(10, 38) - 1;
    let decimals: Decimal128Array = [most, most, most].into_iter().map(Some).collect();
    let decimals: ArrayRef = Arc::new(decimals.with_precision_and_scale(38, 0).unwrap());
    let all = batch(vec![typed("m", decimals)]);
    let calls = [
        of("sum", 0),
        call("sum", true, vec![AggregateArg::Column(0)]),
    ];
    let grouping = Grouping::new(&all.schema(), 0, &calls).unwrap();
    let declared = DataType::Decimal128(38, 0);
    assert_eq!(grouping.output().field(0).data_type(), &declared);
    assert!(grouping.widens_decimals());
    assert_eq!(
        grouped(&all, 0, &calls),
        [format!("2{}7 {most}", "9".repeat(37))]
    );
    let narrow = ["min", "avg", "first_value"].map(|name| of(name, 0));
    let narrow = Grouping::new(&all.schema(), 0, &narrow).unwrap();
    assert!(!narrow.widens_decimals());
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![1e308, 1e308]));
    assert_eq!(
        grouped(&batch(vec![typed("x", floats)]), 0, &[of("sum", 0)]),
        ["inf"]
    );
    for (values, sum) in [
        (["1e308", "1e308", "1"], "NULL"),
        (["-1e308", "-1e308", "-1e308"], "NULL"),
        (
            [
                "170141183460469231731687303715884105727",
                "1",
                "170141183460469231731687303715884105727",
            ],
            "3.402823669209385e38",
        ),
    ] {
        let all = batch(vec![json("v", values.map(Some).to_vec())]);
        assert_eq!(grouped(&all, 0, &[of("sum", 0)]), [sum]);
        // The state of a part is stored.
        let grouping = Arc::new(Grouping::new(&all.schema(), 0, &[of("sum", 0)]).unwrap());
        let mut parts = Groups::new(grouping.clone()).unwrap();
        parts.update(&all.slice(0, 2)).unwrap();
        let stored = parts.take().unwrap();
        parts.update(&all.slice(2, 1)).unwrap();
        parts.merge(&stored).unwrap();
        let stored = parts.take().unwrap();
        assert_eq!(rows(&grouping.results(&stored).unwrap()), [sum]);
    }
}

#[test]
fn keys_are_ordered_and_null_is_one_of_them() {
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![
        Some(10),
        None,
        Some(-1),
        None,
        Some(2),
    ]));
    let all = batch(vec![
        typed("k", keys),
        typed("s", texts(vec!["a", "b", "c", "d", "e"])),
    ]);
    let args = vec![
        AggregateArg::Column(1),
        AggregateArg::Literal(Literal::Str("+".to_owned())),
    ];
    let calls = [
        call("count", false, Vec::new()),
        call("string_agg", false, args),
    ];
    assert_eq!(
        grouped(&all, 1, &calls),
        ["NULL 2 b+d", "-1 1 c", "2 1 e", "10 1 a"]
    );
}

/// Another Arrow or DataFusion may encode keys and states in another way. Then groups that are on
/// disk cannot be read: `THIS_VERSION` in `plugins/group/src/table.rs` has to be increased.
#[test]
fn stored_bytes_do_not_change() {
    let all = batch(vec![
        typed("k", texts(vec!["ab"])),
        typed("n", Arc::new(Int64Array::from(vec![7]))),
        typed("x", Arc::new(Float64Array::from(vec![0.5]))),
        typed("b", Arc::new(BooleanArray::from(vec![true]))),
    ]);
    let calls = [
        call("count", false, Vec::new()),
        of("sum", 1),
        of("avg", 2),
        of("min", 0),
        of("bool_and", 3),
        call("count", true, vec![AggregateArg::Column(0)]),
    ];
    let grouping = Arc::new(Grouping::new(&all.schema(), 1, &calls).unwrap());
    let mut groups = Groups::new(grouping).unwrap();
    groups.update(&all).unwrap();
    let stored = groups.take().unwrap();
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let shown: Vec<String> = stored
        .iter()
        .map(|group| format!("{} {}", hex(&group.key), hex(&group.state)))
        .collect();
    let (key, state) = (
        "02616200000000000002",
        "018000000000000001018000000000000000000000000000000701000000000000000101bfe0000000000000\
         026162000000000000020101020261620000000000ff00020000000000000201",
    );
    assert_eq!(shown, [format!("{key} {state}")]);
}

proptest! {
    /// However rows are divided, and in whatever order their states are merged, the results are
    /// those of all rows at once.
    #[test]
    fn merged_states_have_the_same_results(
        values in prop::collection::vec((0..4_i64, prop::option::of(-9..9_i64)), 1..60),
        cuts in prop::collection::vec(0..60_usize, 0..4),
    ) {
        let keys: Int64Array = values.iter().map(|(key, _)| Some(*key)).collect();
        let numbers: Int64Array = values.iter().map(|(_, value)| *value).collect();
        let strings: Vec<Option<String>> =
            values.iter().map(|(_, value)| value.map(|value| value.to_string())).collect();
        let strings = strings.iter().map(Option::as_deref).collect();
        let all = batch(vec![
            typed("k", Arc::new(keys)),
            typed("n", Arc::new(numbers)),
            json("j", strings),
        ]);
        let calls = [
            call("count", false, Vec::new()),
            call("count", true, vec![AggregateArg::Column(1)]),
            of("sum", 1), of("min", 1), of("max", 1), of("avg", 1), of("median", 1),
            of("first", 1), of("last", 1), of("array_agg", 1), of("sum", 2), of("max", 2),
        ];
        let grouping = Arc::new(Grouping::new(&all.schema(), 1, &calls).unwrap());
        let at_once = rows(&Groups::results_of(&grouping, &all).unwrap());
        let mut stored: Vec<Group> = Vec::new();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(values.len())).collect();
        cuts.extend([0, values.len()]);
        cuts.sort_unstable();
        for range in cuts.windows(2) {
            let part = all.slice(range[0], range[1] - range[0]);
            let mut groups = Groups::new(grouping.clone()).unwrap();
            groups.update(&part).unwrap();
            let new = groups.take().unwrap();
            groups.merge(&stored).unwrap();
            groups.merge(&new).unwrap();
            stored = groups.take().unwrap();
        }
        prop_assert_eq!(rows(&grouping.results(&stored).unwrap()), at_once);
    }
}
