//! Changes of records, and that everything else stays as it is.

use std::sync::Arc;

use arrow::array::{Int64Array, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field};
use proptest::prelude::*;
use pseidon_dsl::expr::{Path, PathStep};
use pseidon_plugin::format::{Format, WantedColumn, json_field};

use super::super::{Json, scan};
use super::*;
use crate::testing::rows;

fn path(text: &str) -> Vec<String> {
    text.split('.').map(str::to_owned).collect()
}

fn remove(text: &str) -> FieldChange {
    FieldChange::Remove { path: path(text) }
}

fn rename(from: &str, to: &str) -> FieldChange {
    FieldChange::Rename {
        from: path(from),
        to: path(to),
    }
}

/// Sets a field to JSON text.
fn set(text: &str) -> FieldChange {
    FieldChange::Set {
        path: path(text),
        field: Arc::new(json_field("value")),
    }
}

/// The record after the changes; the fields that are set get these values. It is the same whether
/// or not the decoder says where the fields are.
fn edited(changes: &[FieldChange], values: &[&str], record: &str) -> Result<String, String> {
    let rows = rows(&[Some(record.as_bytes())]);
    let column = |value: &&str| -> ArrayRef { Arc::new(StringArray::from(vec![*value])) };
    let values: Vec<ArrayRef> = values.iter().map(column).collect();
    let editor = JsonEditor::new(changes).unwrap();
    let scanned = edited_row(&editor, &rows, &values);
    if let Some(rows) = located(rows, &editor) {
        assert_eq!(edited_row(&editor, &rows, &values), scanned, "{record}");
    }
    scanned
}

/// The rows with the places of the edited fields. `None` if the decoder finds one invalid.
fn located(rows: Rows, editor: &JsonEditor) -> Option<Rows> {
    let column = WantedColumn {
        path: Path(vec![PathStep::Field("a".to_owned())]),
        field: Arc::new(json_field("a")),
    };
    let mut decoder = Json.decoder("", &[column]).unwrap();
    decoder.locate(&editor.fields());
    let decoded = decoder.decode(&rows.batch().payloads);
    let places = decoded.places.expect("places were asked for");
    decoded.bad.is_empty().then(|| rows.with_places(places))
}

fn edited_row(editor: &JsonEditor, rows: &Rows, values: &[ArrayRef]) -> Result<String, String> {
    let result = editor.edit(rows, values).unwrap();
    match result.bad.first() {
        Some(bad) => Err(bad.reason.clone()),
        None => Ok(String::from_utf8(result.payloads.get(0).unwrap().to_vec()).unwrap()),
    }
}

#[test]
fn the_decoder_locates_fields() {
    let records = [
        r#"{"a":1,"b":2,"c":3}"#,
        r#" { "c" : 3 , "b" : { "c" : 4 } } "#,
        r#"{"b":1}"#,
        "{}",
    ];
    let lines = records.map(|record| Some(record.as_bytes()));
    let editor = JsonEditor::new(&[remove("c"), set("b.c")]).unwrap();
    let rows = located(rows(&lines), &editor).unwrap();
    let places = rows.places().unwrap();
    let (b, c) = (places.number("b").unwrap(), places.number("c").unwrap());
    let text = |row: usize, field| {
        let place = rows.places_of(row)?.get(field)?;
        let parts = [
            place.start..place.name,
            place.name..place.name_end,
            place.value..place.end.get(),
        ];
        Some(parts.map(|part| &records[row][part.start as usize..part.end as usize]))
    };
    assert_eq!(text(0, b), Some([",", r#""b""#, "2"]));
    assert_eq!(text(0, c), Some([",", r#""c""#, "3"]));
    assert_eq!(text(1, b), Some([" , ", r#""b""#, r#"{ "c" : 4 }"#]));
    assert_eq!(text(1, c), Some([" ", r#""c""#, "3"]));
    assert_eq!(text(2, c), None);
    let ends = [18, 30, 6, 1];
    for (row, end) in ends.into_iter().enumerate() {
        assert_eq!(rows.places_of(row).unwrap().end.get(), end, "{row}");
    }
}

/// An editor changes each field of a name, and a name may have escapes.
#[test]
fn records_whose_fields_are_not_clear_are_not_located() {
    let editor = JsonEditor::new(&[remove("b")]).unwrap();
    for record in [
        r#"{"b":1,"a":2,"b":3}"#,
        r#"{"a":1,"\u0062":3}"#,
        r#"{"a":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]],"b":1}"#,
    ] {
        let rows = located(rows(&[Some(record.as_bytes())]), &editor).unwrap();
        assert!(rows.places_of(0).is_none(), "{record}");
    }
}

/// The places of a row are those of its record, whichever rows are left.
#[test]
fn places_stay_with_their_records() {
    let records = [
        r#"{"a":1,"b":2}"#,
        r#"{"b":1}"#,
        r#"{ "b" : 1, "c":2 }"#,
        r#"{"c":[],"b":{}}"#,
    ];
    let lines = records.map(|record| Some(record.as_bytes()));
    let editor = JsonEditor::new(&[remove("b")]).unwrap();
    let rows = located(rows(&lines), &editor).unwrap();
    let kept = rows.take(&UInt32Array::from(vec![1, 2, 2, 3])).unwrap();
    let result = editor.edit(&kept.slice(1, 3), &[]).unwrap();
    let found = [0, 1, 2].map(|row| result.payloads.get(row).unwrap());
    let expected = [r#"{ "c":2 }"#, r#"{ "c":2 }"#, r#"{"c":[]}"#];
    assert_eq!(found, expected.map(str::as_bytes));
}

#[test]
fn numbers_and_words_of_fields_that_stay_are_not_checked() {
    for value in [
        "12ab",
        "1.2.3",
        "2024-01-01",
        "truex",
        "0x1F",
        "NaN",
        "01",
        "1.",
    ] {
        let record = format!(r#"{{"v":{value},"q":1,"w":{value}}}"#);
        let expected = format!(r#"{{"v":{value},"w":{value}}}"#);
        assert_eq!(edited(&[remove("q")], &[], &record), Ok(expected));
    }
}

#[test]
fn fields_are_set_in_place_or_appended() {
    for (changes, values, record, expected) in [
        (
            vec![set("a")],
            vec!["9"],
            r#"{"a":1,"b":2}"#,
            r#"{"a":9,"b":2}"#,
        ),
        (
            vec![set("b")],
            vec!["9"],
            r#"{ "a" : 1 , "b" : [2] }"#,
            r#"{ "a" : 1 , "b" : 9 }"#,
        ),
        (
            vec![set("c")],
            vec![r#""x""#],
            r#"{"a":1}"#,
            r#"{"a":1,"c":"x"}"#,
        ),
        (vec![set("c")], vec!["1"], "{}", r#"{"c":1}"#),
        (vec![set("c")], vec!["1"], " { } ", r#" {"c":1 } "#),
        (
            vec![set("c"), set("a")],
            vec!["3", "1"],
            r#"{"a":0}"#,
            r#"{"a":1,"c":3}"#,
        ),
        (
            vec![set("u.m")],
            vec!["1"],
            r#"{"u":{"n":2}}"#,
            r#"{"u":{"n":2,"m":1}}"#,
        ),
        (
            vec![set("u.m")],
            vec!["1"],
            r#"{"a":2}"#,
            r#"{"a":2,"u":{"m":1}}"#,
        ),
        (
            vec![set("u.m"), set("u.v.w")],
            vec!["1", "2"],
            r#"{"u":null}"#,
            r#"{"u":{"m":1,"v":{"w":2}}}"#,
        ),
        (
            vec![set("a")],
            vec!["9"],
            r#"{"a":1,"a":2,"b":3}"#,
            r#"{"a":9,"b":3}"#,
        ),
        (
            vec![set("é\"")],
            vec!["9"],
            r#"{"\u00e9\"":1}"#,
            r#"{"\u00e9\"":9}"#,
        ),
        (vec![set("k\"ey")], vec!["9"], "{}", r#"{"k\"ey":9}"#),
    ] {
        assert_eq!(
            edited(&changes, &values, record),
            Ok(expected.to_owned()),
            "{record}"
        );
    }
}

#[test]
fn fields_are_removed_wherever_they_are() {
    for (removed, record, expected) in [
        (vec!["a"], r#"{"a":1,"b":2}"#, r#"{"b":2}"#),
        (vec!["b"], r#"{"a":1,"b":2}"#, r#"{"a":1}"#),
        (vec!["a"], r#"{ "a": 1, "b": 2 }"#, r#"{ "b": 2 }"#),
        (vec!["a", "b"], r#"{"a":1,"b":2}"#, "{}"),
        (
            vec!["a", "c"],
            r#"{"a":1,"b":2,"c":{"d":"}"},"e":[]}"#,
            r#"{"b":2,"e":[]}"#,
        ),
        (vec!["a"], r#"{"a":1,"b":2,"a":3}"#, r#"{"b":2}"#),
        (
            vec!["password"],
            r#"{"pass\u0077ord":1,"b":2}"#,
            r#"{"b":2}"#,
        ),
        (vec!["u.m"], r#"{"u":{"m":1,"n":2}}"#, r#"{"u":{"n":2}}"#),
        (
            vec!["u.m"],
            r#"{"u":{"m":1},"u":{"m":2}}"#,
            r#"{"u":{},"u":{}}"#,
        ),
        (vec!["u.m"], r#"{"u":"text"}"#, r#"{"u":"text"}"#),
        (vec!["u.m"], r#"{"u":null}"#, r#"{"u":null}"#),
        (vec!["x"], r#"{"a":1.50e+3}"#, r#"{"a":1.50e+3}"#),
    ] {
        let changes: Vec<_> = removed.into_iter().map(remove).collect();
        assert_eq!(
            edited(&changes, &[], record),
            Ok(expected.to_owned()),
            "{record}"
        );
    }
}

#[test]
fn fields_are_renamed_in_place_or_moved() {
    for (changes, record, expected) in [
        (
            vec![rename("a", "z")],
            r#"{"a" : 1,"b":2}"#,
            r#"{"z" : 1,"b":2}"#,
        ),
        (vec![rename("a", "b")], r#"{"b":2,"a":1}"#, r#"{"b":1}"#),
        (vec![rename("a", "b")], r#"{"c":2}"#, r#"{"c":2}"#),
        (
            vec![rename("u.m", "u.mail")],
            r#"{"u":{"m":1}}"#,
            r#"{"u":{"mail":1}}"#,
        ),
        (
            vec![rename("u.m", "mail")],
            r#"{"u":{"m":[1, 2]},"x":0}"#,
            r#"{"u":{},"x":0,"mail":[1, 2]}"#,
        ),
        (
            vec![rename("m", "u.m")],
            r#"{"m":1,"u":{"n":2}}"#,
            r#"{"u":{"n":2,"m":1}}"#,
        ),
        (vec![rename("m", "u.m")], r#"{"m":1}"#, r#"{"u":{"m":1}}"#),
        (vec![rename("m", "u.m")], r#"{"x":1}"#, r#"{"x":1}"#),
    ] {
        assert_eq!(
            edited(&changes, &[], record),
            Ok(expected.to_owned()),
            "{record}"
        );
    }
}

#[test]
fn what_cannot_be_changed_is_invalid() {
    for (record, reason) in [
        (r#"{"u":"text"}"#, "`u` is a string; expected an object"),
        (r#"{"u":[1]}"#, "`u` is a list; expected an object"),
        (r#"{"u":1"#, "`u` is a number; expected an object"),
        (r#"{"a":1"#, "unexpected end"),
        (r#"{"u":{}} x"#, "invalid JSON"),
        ("1", "the record is not a JSON object"),
        ("", "the record is not a JSON object"),
        (r#"{"a":}"#, "invalid JSON at byte 5: expected a value"),
        (r#"{"a":1,}"#, "invalid JSON at byte 7: expected a key"),
        (r#"{,"a":1}"#, "invalid JSON at byte 1: expected a key"),
        (
            r#"{"a":1 "b":2}"#,
            "invalid JSON at byte 7: expected `,` or `}`",
        ),
        (
            r#"{"a":[1}}"#,
            "invalid JSON at byte 7: expected the other closing bracket",
        ),
        (r#"{"a":"b"#, "unexpected end"),
        (r#"{"a"#, "unexpected end"),
        (r#"{"a":[[["#, "unexpected end"),
    ] {
        let error = edited(&[set("u.m")], &["1"], record).unwrap_err();
        assert!(error.contains(reason), "{record}: {error}");
    }
}

#[test]
fn a_field_that_would_replace_another_must_exist() {
    for (change, record) in [
        (rename("a", "b"), r#"{"b":2}"#),
        (rename("a", "u.b"), r#"{"u":{"b":2}}"#),
    ] {
        let error = edited(&[change], &[], record).unwrap_err();
        let reason = "`b` exists, but the field that is renamed to it does not";
        assert_eq!(error, reason, "{record}");
    }
}

#[test]
fn values_are_encoded_as_in_a_new_record() {
    let rows = rows(&[Some(b"{}"), Some(b"{\"n\":0}")]);
    let changes = [FieldChange::Set {
        path: path("n"),
        field: Arc::new(Field::new("n", DataType::Int64, true)),
    }];
    let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(i64::MAX), None]));
    let result = JsonEditor::new(&changes)
        .unwrap()
        .edit(&rows, &[values])
        .unwrap();
    assert_eq!(
        result.payloads.get(0).unwrap(),
        br#"{"n":9223372036854775807}"#
    );
    assert_eq!(result.payloads.get(1).unwrap(), br#"{"n":null}"#);
}

#[test]
fn a_record_without_a_payload_stays_one() {
    let rows = rows(&[Some(b"{\"a\":1}"), None, Some(b"{}")]);
    let editor = JsonEditor::new(&[remove("a")]).unwrap();
    let result = editor.edit(&rows, &[]).unwrap();
    assert_eq!(result.bad, []);
    let payloads: Vec<_> = (0..3).map(|row| result.payloads.get(row)).collect();
    assert_eq!(payloads, [Some(&b"{}"[..]), None, Some(&b"{}"[..])]);
    assert_eq!(result.payloads.lines(0, 3), None);
}

/// A JSON value.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".{0,5}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            object(inner),
        ]
    })
}

#[test]
fn fields_that_no_record_had_are_absent() {
    let changes = [remove("a"), rename("b.c", "d"), remove("é"), set("s")];
    let editor = JsonEditor::new(&changes).unwrap();
    assert_eq!(editor.absent(), None, "no record was edited");
    for (record, absent) in [
        (r#"{"b":{"a":1},"s":1}"#, &["a", "b.c", "é"][..]),
        (r#"{"b":{"c":null}}"#, &["a", "é"]),
        (r#"{"A":1}"#, &["a", "é"]),
        (r#"{"a":1,"\u00e9":2}"#, &[]),
        ("{}", &[]),
    ] {
        let rows = rows(&[Some(record.as_bytes())]);
        let values: ArrayRef = Arc::new(StringArray::from(vec!["1"]));
        edited_row(&editor, &rows, &[values]).unwrap();
        let found = editor.absent().unwrap();
        let found: Vec<_> = found.iter().map(|path| path.join(".")).collect();
        assert_eq!(found, absent, "{record}");
    }
}

fn object(
    value: impl Strategy<Value = serde_json::Value>,
) -> impl Strategy<Value = serde_json::Value> {
    prop::collection::btree_map("[ab\"é]{1,2}", value, 0..4)
        .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect()))
}

proptest! {
    /// An edit is what it would be on the parsed record.
    #[test]
    fn an_edit_equals_the_edit_of_the_parsed_record(
        record in object(json()),
        keys in prop::collection::btree_set("[ab\"é]{1,2}", 1..3),
        pretty: bool,
        removes: bool,
    ) {
        let text = if pretty {
            serde_json::to_string_pretty(&record).unwrap()
        } else {
            record.to_string()
        };
        let mut expected = record.as_object().unwrap().clone();
        let mut changes = Vec::new();
        for key in &keys {
            let path = vec![key.clone()];
            if removes {
                expected.remove(key);
                changes.push(FieldChange::Remove { path });
            } else {
                expected.insert(key.clone(), 7.into());
                changes.push(FieldChange::Set { path, field: Arc::new(json_field("v")) });
            }
        }
        let values = if removes { vec![] } else { vec!["7"; keys.len()] };
        let edited = edited(&changes, &values, &text).unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&edited).unwrap();
        prop_assert_eq!(parsed, serde_json::Value::Object(expected));
    }

    /// The fast scan accepts all valid objects that are not deep.
    #[test]
    fn valid_records_are_scanned(record in object(json()), pretty: bool) {
        let text = if pretty {
            serde_json::to_string_pretty(&record).unwrap()
        } else {
            record.to_string()
        };
        let (mut at, mut count) = (scan::after_open(text.as_bytes()).unwrap(), 0);
        while let Some(entry) = scan::next_entry(text.as_bytes(), at, count == 0) {
            (at, count) = (entry.end, count + 1);
        }
        prop_assert!(scan::is_closed(text.as_bytes(), at));
        prop_assert_eq!(Some(count), record.as_object().map(serde_json::Map::len));
    }

    /// No record panics, and the result of a valid one is valid.
    #[test]
    fn no_record_panics(record in "[{}\\[\\],:\"ab\\\\ 1u]{0,20}") {
        let is_valid = |text: &str| {
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok()
        };
        for change in [remove("a"), set("a.b"), rename("a", "b.a")] {
            let outcome = edited(std::slice::from_ref(&change), &["1"], &record);
            if let Ok(edited) = outcome && is_valid(&record) {
                prop_assert!(is_valid(&edited), "{}", edited);
            }
        }
    }
}
