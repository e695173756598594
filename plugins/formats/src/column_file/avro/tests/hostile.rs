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
