//! Values without bytes: null, empty records, `fixed` of length 0.

use super::*;

const SCHEMA: &str = r#"{"type":"record","name":"r","fields":[
    {"name":"empty","type":{"type":"record","name":"e","fields":[]}},
    {"name":"nulls","type":{"type":"array","items":"null"}},
    {"name":"null_map","type":{"type":"map","values":"null"}},
    {"name":"inner","type":{"type":"record","name":"i","fields":[
        {"name":"x","type":"null"},{"name":"ok","type":"boolean"},{"name":"y","type":"int"}]}},
    {"name":"fixed","type":{"type":"fixed","name":"f","size":0}},
    {"name":"maybe","type":["null","e"]},
    {"name":"empties","type":{"type":"array","items":"e"}},
    {"name":"nested","type":{"type":"array","items":{"type":"array","items":["f","null"]}}},
    {"name":"null","type":"null"},
    {"name":"n","type":"long"}]}"#;

/// Records, and how their fields are shown.
fn records() -> [(Vec<u8>, &'static str); 3] {
    let items = |count: i64| match count {
        0 => long(0),
        count => [long(count), long(0)].concat(),
    };
    // With the length of the block in bytes, which is 0.
    let sized = |count: i64| [long(-count), long(0), long(0)].concat();
    let map = [long(2), text(b"k"), text(b"l"), long(0)].concat();
    let nested = [
        long(-1),
        long(4),
        long(2),
        long(0),
        long(1),
        long(0),
        long(0),
    ]
    .concat();
    let inner = |ok: u8, y: i64| [vec![ok], long(y)].concat();
    let first = [items(2), map, inner(1, 7), long(1), items(2), nested];
    let second = [
        sized(3),
        items(0),
        inner(0, -1),
        long(0),
        sized(1),
        items(0),
    ];
    let third = [items(0), items(0), inner(1, 1), long(1), items(0), items(0)];
    let shown = [
        "{}|[, ]|{k: , l: }|{x: , ok: true, y: 7}||{}|[{}, {}]|[[, ]]||0",
        "{}|[, , ]|{}|{x: , ok: false, y: -1}|||[{}]|[]||1",
        "{}|[]|{}|{x: , ok: true, y: 1}||{}|[]|[]||2",
    ];
    let record = |fields: [Vec<u8>; 6], n: i64| [fields.concat(), long(n)].concat();
    [
        (record(first, 0), shown[0]),
        (record(second, 1), shown[1]),
        (record(third, 2), shown[2]),
    ]
}

#[test]
fn values_without_bytes_are_read_everywhere() {
    let records = records();
    let all = records
        .iter()
        .flat_map(|(bytes, _)| bytes.clone())
        .collect();
    let bytes = container(SCHEMA, "null", &[(3, all)]);
    for from in 0..3 {
        let (rows, error) = read(&bytes, None, from);
        assert!(error.is_none(), "{error:?}");
        let (columns, expected) = (rows[0].columns(), &records[from as usize..]);
        assert_eq!(rows[0].num_rows(), expected.len());
        for (row, (_, expected)) in expected.iter().enumerate() {
            let shown = columns
                .iter()
                .map(|column| array_value_to_string(column, row).unwrap());
            assert_eq!(shown.collect::<Vec<_>>().join("|"), *expected);
        }
        for (number, column) in columns.iter().enumerate() {
            let schema = rows[0].schema();
            let name = schema.field(number).name();
            let (alone, error) = read(&bytes, Some(&[name]), from);
            assert!(error.is_none(), "{name}: {error:?}");
            assert_eq!(alone[0].column(0), column, "{name}");
        }
    }
    let (rows, _) = read(&bytes, Some(&["null", "fixed"]), 0);
    let types: Vec<&DataType> = rows[0].columns().iter().map(Array::data_type).collect();
    assert_eq!(types, [&DataType::Binary, &DataType::Null]);
    assert_eq!(rows[0].column(0).null_count(), 0);
}

#[test]
fn records_before_a_damaged_one_are_read_with_values_without_bytes() {
    let list = r#"{"type":"array","items":"null"}"#;
    let records = [long(1), long(0), long(2), long(0), vec![0x80]].concat();
    let (rows, error) = read(&container(&schema(list), "null", &[(3, records)]), None, 0);
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    assert!(
        error
            .unwrap()
            .to_string()
            .contains("a number is incomplete")
    );
}
