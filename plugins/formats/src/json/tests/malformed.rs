//! Tests of malformed records.

use super::*;

/// Malformed records, each with the reason.
const MALFORMED: &[(&[u8], &str)] = &[
    (b"", "the record is empty"),
    (b"  \n", "the record is empty"),
    (
        b" [1]",
        "the record is a JSON array; expected one object per line, as `jq -c '.[]'` writes the \
         elements of an array",
    ),
    (
        b"{ ",
        "the object goes on in the next line; expected one object per line, as `jq -c .` \
         writes it",
    ),
    (b"7", "the record is not a JSON object"),
    (b"null", "the record is not a JSON object"),
    (b"plain text", "the record is not a JSON object"),
    (br#"{"a": 1"#, "invalid JSON: unexpected end of the record"),
    (
        br#"{"a": 1, "b": "x"#,
        "invalid JSON: unexpected end of the record",
    ),
    (
        br#"{"a": 1} x"#,
        "invalid JSON at byte 9: json has non-whitespace trailing characters after the value",
    ),
    (
        br#"{"a": 1}{"a": 2}"#,
        "invalid JSON at byte 8: json has non-whitespace trailing characters after the value",
    ),
    (
        br#"{"a": 1, "b": tru}"#,
        "invalid JSON at byte 17: invalid literal (`true`, `false`, or a `null`) while parsing",
    ),
    (
        br#"{"a": 1, "b": {"c" 1}}"#,
        "invalid JSON at byte 19: expected this character to be a ':' while parsing",
    ),
    (
        br#"{"a": 1, "b": 01}"#,
        "invalid JSON at byte 14: invalid number",
    ),
    (
        br#"{"a": 1, "b": "\u12g4"}"#,
        "invalid JSON at byte 15: invalid \\u escape",
    ),
    (
        br#"{"a": 1, "b": "\u"}"#,
        "invalid JSON at byte 15: invalid \\u escape",
    ),
    (
        b"{\"a\": 1, \"b\": \"\xff\"}",
        "the record is not valid UTF-8",
    ),
];

#[test]
fn malformed_records_are_bad_wherever_the_error_is() {
    let good: &[u8] = br#"{"a": 5}"#;
    for (record, reason) in MALFORMED {
        let decoded = decode(
            &[wanted("a", DataType::Int64)],
            &[Some(good), Some(record), Some(good)],
        );
        let shown: Vec<_> = decoded
            .bad
            .iter()
            .map(|bad| (bad.row, bad.reason.as_str()))
            .collect();
        assert_eq!(shown, [(1, *reason)], "{}", String::from_utf8_lossy(record));
        assert_eq!(
            [0, 2].map(|row| show(&decoded.columns[0], row)),
            ["5", "5"],
            "its neighbours are good"
        );
    }
}

#[test]
fn a_bad_record_leaves_nothing_in_nested_columns() {
    let columns = [
        wanted(
            "a",
            list(object(vec![Field::new("x", DataType::Int64, true)])),
        ),
        wanted("b", DataType::Utf8),
    ];
    let records: [&[u8]; 3] = [
        br#"{"b": "p", "a": [{"x": 1}]}"#,
        br#"{"b": "q", "a": [{"x": 1}, {"x": 2}, {"x": tru"#,
        br#"{"b": "r", "a": [{"x": 3}]}"#,
    ];
    let decoded = decode(&columns, &records.map(Some));
    assert_eq!(decoded.bad.len(), 1);
    let shown = |column: usize| [0, 1, 2].map(|row| show(&decoded.columns[column], row));
    assert_eq!(shown(0), ["[{x: 1}]", "NULL", "[{x: 3}]"]);
    assert_eq!(shown(1), ["p", "NULL", "r"]);
}

#[test]
fn a_value_that_cannot_be_read_whole_is_not_read_in_part() {
    let of = |name: &str, data_type| Field::new(name, data_type, true);
    let pair = object(vec![of("x", DataType::Int64), of("y", DataType::Utf8)]);
    let cases = [
        (pair.clone(), r#"{"x":1e400,"y":"k"}"#),
        (list(DataType::Int64), "[1,2,1e999,4]"),
        (list(DataType::Utf8), r#"["p","\ud800","q"]"#),
        (list(pair), r#"[{"x":1,"y":"\udc00"}]"#),
        (DataType::Utf8, r#""\ud800""#),
    ];
    for (data_type, value) in cases {
        for record in [
            format!(r#"{{"id":1,"a":{value},"b":2}}"#),
            format!(r#"{{"\u0069d":1,"a":{value},"b":2}}"#),
        ] {
            let outcome = one(wanted("a", data_type.clone()), &record);
            assert!(outcome.is_err(), "{record}: {outcome:?}");
        }
    }
}

#[test]
fn deep_nesting_is_bad_and_does_not_overflow_the_stack() {
    let nested = |depth: usize| {
        format!(
            r#"{{"a": 1, "b": {}{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    assert_eq!(
        one(wanted("a", DataType::Int64), &nested(127)),
        Ok("1".to_owned())
    );
    let reason = Err("the record is nested deeper than 128 levels".to_owned());
    assert_eq!(one(wanted("a", DataType::Int64), &nested(128)), reason);
    assert_eq!(one(wanted_json("b"), &nested(1_000_000)), reason);
    assert_eq!(
        one(
            wanted("a", DataType::Int64),
            &format!(r#"{{"b": {}"#, r#"{"b": "#.repeat(500_000))
        ),
        reason
    );
    let text = format!(r#"{{"b": "\"{}", "a": 1}}"#, "[".repeat(10_000));
    assert_eq!(
        one(wanted("a", DataType::Int64), &text),
        Ok("1".to_owned()),
        "brackets in strings do not count"
    );
}
