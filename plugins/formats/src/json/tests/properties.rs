//! Properties: the decoder agrees with serde_json, and no record makes it panic.

use arrow::datatypes::Float64Type;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // serde_json parses other floats slightly inexactly by default.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[ab\"\\\\é]{1,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn steps() -> impl Strategy<Value = Path> {
    let step = prop_oneof![
        "[ab\"\\\\é]{1,2}".prop_map(PathStep::Field),
        (0..3_u32).prop_map(PathStep::Index)
    ];
    prop::collection::vec(step, 0..3).prop_map(|mut steps| {
        steps.insert(0, PathStep::Field("a".to_owned()));
        Path(steps)
    })
}

fn at<'a>(value: &'a Value, path: &Path) -> Option<&'a Value> {
    path.0.iter().try_fold(value, |value, step| match step {
        PathStep::Field(name) => value.as_object()?.get(name),
        PathStep::Index(index) => value.as_array()?.get(*index as usize),
    })
}

/// Columns of most types, at a few paths.
fn some_columns() -> Vec<WantedColumn> {
    let inner = object(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", list(DataType::Utf8), true),
        json_field("c"),
    ]);
    vec![
        wanted_json("a"),
        wanted("a", DataType::Int64),
        wanted("a.b", DataType::Timestamp(TimeUnit::Millisecond, None)),
        wanted("b", DataType::Decimal128(10, 2)),
        wanted("b[0]", list(inner.clone())),
        wanted("b.a", inner),
        wanted("a[1]", DataType::Date32),
        wanted("a[0]", DataType::Binary),
        wanted("b[1]", DataType::Float32),
    ]
}

proptest! {
    #[test]
    fn values_match_serde_json(value in value(), pretty in any::<bool>(), paths in prop::collection::vec(steps(), 1..4)) {
        let document = serde_json::json!({"b": 1, "a": value, "é": []});
        let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
        let columns: Vec<_> = paths.iter().map(|path| WantedColumn { path: path.clone(), field: Arc::new(json_field("c")) }).collect();
        let decoded = decode(&columns, &[Some(text.as_bytes())]);
        prop_assert_eq!(&decoded.bad, &[]);
        for (path, column) in paths.iter().zip(&decoded.columns) {
            let column = column.as_string::<i32>();
            let found = column.is_valid(0).then(|| serde_json::from_str::<Value>(column.value(0)).unwrap());
            prop_assert_eq!(found.as_ref(), at(&document, path).filter(|value| !value.is_null()), "{}", path);
        }
        for (path, data_type) in paths.iter().zip([DataType::Int64, DataType::Utf8, DataType::Boolean]) {
            let column = WantedColumn { path: path.clone(), field: Arc::new(Field::new("c", data_type.clone(), true)) };
            let decoded = decode(&[column], &[Some(text.as_bytes())]);
            let expected = match (at(&document, path), data_type) {
                (None | Some(Value::Null), _) => Some("NULL".to_owned()),
                (Some(Value::String(text)), DataType::Utf8) => Some(text.clone()),
                (Some(Value::Bool(value)), DataType::Boolean) => Some(value.to_string()),
                (Some(Value::Number(number)), DataType::Int64) => {
                    let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= 9e15).map(|float| float as i64);
                    number.as_i64().or(whole).map(|number| number.to_string())
                }
                _ => None,
            };
            prop_assert_eq!(decoded.bad.is_empty(), expected.is_some());
            prop_assert_eq!(show(&decoded.columns[0], 0), expected.unwrap_or("NULL".to_owned()));
        }
    }

    #[test]
    fn floats_are_exact(float in any::<f64>()) {
        let decoded = decode(&[wanted("a", DataType::Float64)], &[Some(format!("{{\"a\": {float:e}}}").as_bytes())]);
        prop_assert_eq!(&decoded.bad, &[]);
        prop_assert_eq!(decoded.columns[0].as_primitive::<Float64Type>().value(0), float);
    }

    #[test]
    fn validity_matches_serde_json(value in value(), at in any::<prop::sample::Index>(), junk in "[{}\\[\\]\",:\\\\u0129eE+.tfn \u{1}é-]{0,3}", cut in 0..4_usize) {
        let mut text = serde_json::json!({"b": 1, "a": value}).to_string();
        let at = text.char_indices().map(|(at, _)| at).nth(at.index(text.chars().count())).unwrap_or(0);
        let end = text[at..].char_indices().nth(cut).map_or(text.len(), |(offset, _)| at + offset);
        text.replace_range(at..end, &junk);
        let decoded = decode(&[wanted_json("x")], &[Some(text.as_bytes())]);
        let valid = text.trim_ascii_start().starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        prop_assert_eq!(decoded.bad.is_empty(), valid, "{} {:?}", text, decoded.bad);
    }

    #[test]
    fn never_panics(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4)) {
        let records: Vec<_> = records.iter().map(|record| Some(record.as_slice())).collect();
        decode(&some_columns(), &records);
    }

    #[test]
    fn never_panics_on_json_like_input(records in prop::collection::vec("\\{\"[ab]\": ?(\"?[-0-9T:.+Zez]{0,36}\"?|[\\[\\]{}\",:\\\\u0d8abcn -]{0,30})\\}?", 0..6)) {
        let records: Vec<_> = records.iter().map(|record| Some(record.as_bytes())).collect();
        decode(&some_columns(), &records);
    }
}
