//! Files that declare what they do not have, and types that are not read.

use super::*;

/// Checks that a file of one block is read no further than its first record.
fn assert_refused(of: &str, codec: &str, rows: i64, records: Vec<u8>, reason: &str) {
    let bytes = container(&schema(of), codec, &[(rows, records)]);
    let (found, error) = read(&bytes, None, 0);
    let error = error.unwrap().to_string();
    assert!(error.contains(reason), "{error}; expected {reason}");
    let found = found.iter().map(RecordBatch::num_rows).sum::<usize>();
    assert!(found <= 1, "{reason}");
}

#[test]
fn what_a_block_declares_takes_neither_memory_nor_time() {
    let bomb = zstd::bulk::compress(&vec![0; 300 << 20], 1).unwrap();
    for (codec, rows, records, reason) in [
        ("null", i64::MAX, vec![0], "a block of 1 bytes has"),
        ("null", -1, vec![0], "negative"),
        ("null", 1, vec![0, 0], "more bytes than its records"),
        ("null", 2, vec![0, 0x80], "a number is incomplete"),
        ("null", 1, long(1 << 40), "more than 32 bits"),
        ("snappy", 1, vec![1], "no checksum"),
        ("zstandard", 1, bomb, "more than 256 MiB"),
        ("deflate", 1, vec![7; 9], "cannot be decompressed"),
    ] {
        assert_refused("\"int\"", codec, rows, records, reason);
    }
    let mut bytes = container(&schema("\"int\""), "null", &[]);
    bytes.extend([long(1), long(i64::MAX), vec![0; 40]].concat());
    let (_, error) = read(&bytes, None, 0);
    assert_eq!(error.unwrap().to_string(), "it ends in a block");
}

#[test]
fn what_a_value_declares_takes_neither_memory_nor_time() {
    let large = r#"["null",{"type":"fixed","name":"f","size":2147483647}]"#;
    let letters = r#"{"type":"enum","name":"e","symbols":["A"]}"#;
    let nulls = [long(i64::MAX), long(0)].concat();
    let too_large = "more than 256 MiB of memory";
    for (of, record, reason) in [
        ("\"string\"", long(i64::MAX), "longer than its block"),
        ("\"bytes\"", long(-5), "a length is negative"),
        ("\"boolean\"", vec![2], "neither true nor false"),
        (large, long(0), too_large),
        (r#"{"type":"array","items":"null"}"#, nulls, too_large),
        (letters, long(1), "a symbol that its type does not have"),
        (r#"["null","int"]"#, long(2), "a branch"),
    ] {
        assert_refused(of, "null", 1, record, reason);
    }
}

#[test]
fn types_that_multiply_are_refused() {
    let record = |number: usize| {
        let before = number
            .checked_sub(1)
            .map_or_else(|| "int".to_owned(), |n| format!("r{n}"));
        let fields = ["x", "y"].map(|name| format!(r#"{{"name":"{name}","type":"{before}"}}"#));
        let fields = fields.join(",");
        format!(
            r#"{{"name":"n{number}","type":{{"type":"record","name":"r{number}","fields":[{fields}]}}}}"#
        )
    };
    let fields = (0..30).map(record).collect::<Vec<_>>().join(",");
    let schema = format!(r#"{{"type":"record","name":"r","fields":[{fields}]}}"#);
    let (_, error) = read(&container(&schema, "null", &[]), None, 0);
    assert!(error.unwrap().to_string().contains("more than 10000 types"));
}

#[test]
fn names_that_multiply_are_refused() {
    let symbols: Vec<String> = (0..100)
        .map(|n| format!("s{n}{}", "_".repeat(1000)))
        .collect();
    let symbols = serde_json::to_string(&symbols).unwrap();
    let color = format!(r#"{{"type":"enum","name":"color","symbols":{symbols}}}"#);
    let long_name = "n".repeat(100_000);
    let long = format!(
        r#"{{"type":"record","name":"color","fields":[{{"name":"{long_name}","type":"int"}}]}}"#
    );
    for (of, uses, is_refused) in [(&color, 39, false), (&color, 800, true), (&long, 800, true)] {
        let mut fields = vec![format!(r#"{{"name":"f0","type":{of}}}"#)];
        fields.extend((1..uses).map(|n| format!(r#"{{"name":"f{n}","type":"color"}}"#)));
        let inner = format!(
            r#"{{"type":"record","name":"u","fields":[{}]}}"#,
            fields.join(",")
        );
        let (_, error) = read(&container(&schema(&inner), "null", &[]), None, 0);
        let reason = error.map_or_else(String::new, |error| error.to_string());
        let expected = "the field `n` cannot be read: it has a type longer than 4 MiB, if each use \
                        of a name is written out: write large enums as strings";
        assert_eq!(reason.starts_with(expected), is_refused, "{uses}: {reason}");
        assert_eq!(reason.is_empty(), !is_refused, "{uses}: {reason}");
    }
}

#[test]
fn a_block_of_items_has_the_length_that_it_declares_whether_it_is_used_or_not() {
    let list = r#"{"type":"array","items":"string"}"#;
    let map = r#"{"type":"map","values":"string"}"#;
    let items = [text(b"a"), text(b"bc")].concat();
    let pair = [text(b"k"), text(b"v")].concat();
    for (of, count, items) in [(list, 2, items), (map, 1, pair)] {
        let used: Option<&[&str]> = None;
        for (difference, fields) in [0, 1, -1, -100, i64::MAX - 9]
            .into_iter()
            .flat_map(|difference| [(difference, used), (difference, Some(&[]))])
        {
            let declared = items.len() as i64 + difference;
            let record = [long(-count), long(declared), items.clone(), long(0)].concat();
            let bytes = container(&schema(of), "null", &[(1, record)]);
            let (rows, error) = read(&bytes, fields, 0);
            let reason = error.map_or_else(String::new, |error| error.to_string());
            let is_damaged = reason.contains("a block of items has another length");
            assert_eq!(is_damaged, difference != 0, "{of} {difference}: {reason}");
            assert_eq!(
                rows.len(),
                usize::from(difference == 0),
                "{of} {difference}"
            );
        }
    }
    // The entries of the header are such a block too.
    let entry = [text(b"avro.schema"), text(schema("\"int\"").as_bytes())].concat();
    for difference in [0, 1, -1] {
        let len = long(entry.len() as i64 + difference);
        let header = [b"Obj\x01".to_vec(), long(-1), len, entry.clone(), long(0)].concat();
        let (_, error) = read(&[header, MARKER.to_vec()].concat(), None, 0);
        let reason = error.map_or_else(String::new, |error| error.to_string());
        let is_damaged = reason.contains("its header has another length");
        assert_eq!(is_damaged, difference != 0, "{difference}: {reason}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let node =
        r#"{"type":"record","name":"node","fields":[{"name":"next","type":["null","node"]}]}"#;
    for (schema, codec, reason) in [
        (
            schema(r#"["null","int","string"]"#),
            "null",
            "the field `n` cannot be read: it has a union of null, int, string; expected a union of null and one type",
        ),
        (schema(r#"["int"]"#), "null", "a union of int"),
        (
            schema(node),
            "null",
            "the field `n.next` cannot be read: it has the type `node`, which contains itself",
        ),
        (schema("\"other\""), "null", "the unknown type `other`"),
        (schema("7"), "null", "a type that is not a name"),
        (schema("\"null\""), "null", "its records have no values"),
        (
            "\"string\"".to_owned(),
            "null",
            "its values are not records",
        ),
        ("{".to_owned(), "null", "its schema is not JSON"),
        (
            schema("\"int\""),
            "xz",
            "its blocks are compressed with `xz`, which is not read",
        ),
        (schema("\"int\""), "zstandart", "write it with `zstandard`"),
    ] {
        let (_, error) = read(&container(&schema, codec, &[]), None, 0);
        let error = error.unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    }
    for bytes in [&b"{\"a\":1}\n"[..], b"PAR1PAR1", b"Obj\x02"] {
        let (_, error) = read(bytes, None, 0);
        assert_eq!(error.unwrap().to_string(), "it is not an Avro file");
    }
}
