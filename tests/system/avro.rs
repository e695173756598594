//! Avro as a source: what the sink `files` writes is read back, by columns.

use std::fs;
use std::io::Write;
use std::time::Duration;

use crate::column_files::{FIELDS, KillTest, place, printed, records, run, written};
use crate::harness::output::all_lines;
use crate::harness::{Site, wait_until};

/// Writes records as an Avro file.
fn write_avro(site: &Site, path: &str, schema: &str, records: &str) {
    write_compressed(site, path, schema, records, "snappy");
}

fn write_compressed(site: &Site, path: &str, schema: &str, records: &str, compression: &str) {
    let options = format!(":codec :avro :compression :{compression}");
    place(site, written(site, schema, records, &options), path);
}

const SCHEMA: &str = ":id :int64 :small :int32 :name :utf8 :price :float64 :ok :boolean \
                      :at :timestamp_ms :day :date :sum \"decimal(12, 2)\" :u {:x :int32} \
                      :tags [:utf8]";
const RECORDS: [&str; 3] = [
    r#"{"id":1,"small":-7,"name":"a","price":1.5,"ok":true,"at":"2024-05-01T10:00:00.000Z","day":"2024-05-01","sum":1234567890.05,"u":{"x":7},"tags":["p","q"]}"#,
    r#"{"id":2,"small":null,"name":null,"price":50.5,"ok":null,"at":null,"day":null,"sum":null,"u":{"x":null},"tags":[]}"#,
    r#"{"id":9007199254740993,"small":2147483647,"name":"ü \"q\"","price":-0.25,"ok":false,"at":"1969-12-31T23:59:59.999Z","day":"1969-12-31","sum":-0.01,"u":null,"tags":null}"#,
];

#[test]
fn what_the_sink_writes_is_read_back_in_each_compression() {
    let site = Site::new("avro-fields");
    for compression in ["none", "gzip", "snappy", "bzip2", "zstd"] {
        let records = RECORDS.join("\n") + "\n";
        write_compressed(&site, "a.avro", SCHEMA, &records, compression);
        let flow = r#"(-> (files "a.avro") (stdout))"#;
        assert_eq!(printed(&site, flow), RECORDS, "{compression}");
    }
    let flow = r#"(-> (files "a.avro") (where "price > 1 and u.x is not null")
        (set "price = price * 2") (select "id, price, tags[1] as second, @offset as row") (stdout))"#;
    let expected = [r#"{"id":1,"price":3.0,"second":"q","row":0}"#];
    assert_eq!(printed(&site, flow), expected);
    // As a table of `lookup`.
    site.write("ids.ndjson", "{\"id\":2}\n{\"id\":3}\n");
    let flow = r#"(-> (files "ids.ndjson") (lookup "a.avro" "id" "price") (stdout))"#;
    let expected = [r#"{"id":2,"price":50.5}"#, r#"{"id":3,"price":null}"#];
    assert_eq!(printed(&site, flow), expected);
    // From Avro to Parquet and back.
    printed(
        &site,
        r#"(-> (files "a.avro") (files {:path "copy" :codec :parquet}))"#,
    );
    let flow =
        r#"(-> (files {:path "copy/*" :format "parquet"}) (files {:path "back" :codec :avro}))"#;
    printed(&site, flow);
    let flow = r#"(-> (files {:path "back/*" :format "avro"}) (stdout))"#;
    assert_eq!(printed(&site, flow), RECORDS);
}

#[test]
fn a_value_that_does_not_fit_is_quarantined_as_json() {
    let site = Site::new("avro-invalid");
    let records = "{\"id\":1,\"name\":\"a\"}\n{\"id\":3000000000,\"name\":\"b\"}\n";
    write_avro(&site, "a.avro", ":id :int64 :name :utf8", records);
    site.write(
        "pipeline.edn",
        r#"{:name "invalid"
            in (files {:path "a.avro" :schema {:id :int32 :name :utf8} })
            pipeline (-> in (files {:path "out" :codec :json}))}"#,
    );
    site.run("pipeline.edn").expect_exit(0, 60);
    assert_eq!(all_lines(&site.path("out")), [r#"{"id":1,"name":"a"}"#]);
    let bad = all_lines(&site.path("quarantine"));
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert!(bad[0].contains("`id` is not int32: 3000000000"), "{bad:?}");
}

#[test]
fn a_damaged_file_keeps_no_other_from_being_read() {
    let site = Site::new("avro-damaged");
    for name in ["a", "b", "c"] {
        // Blocks have 256 KiB, so that the file has several.
        let record = |number: u32| format!("{{\"id\":{number},\"name\":\"{name}\"}}\n");
        let records: String = (0..100_000).map(record).collect();
        let schema = ":id :int64 :name :utf8";
        let path = format!("in/{name}.avro");
        write_compressed(&site, &path, schema, &records, "none");
    }
    let whole = fs::read(site.path("in/b.avro")).expect("a file");
    site.write("in/b.avro", &whole[..whole.len() - 1]);
    site.write(
        "pipeline.edn",
        r#"{:name "damaged" in (files "in/*.avro")
            pipeline (-> in (select "name, id") (files {:path "out" :codec :json}))}"#,
    );
    let mut pseidon = site.run("pipeline.edn");
    pseidon.expect_exit(1, 60);
    let log = pseidon.log();
    assert!(log.contains("in/b.avro"), "{log}");
    assert!(log.contains("it ends in a block"), "{log}");
    let lines = all_lines(&site.path("out"));
    let of = |name: &str| {
        let start = format!("{{\"name\":\"{name}\"");
        lines.iter().filter(|line| line.starts_with(&start)).count()
    };
    assert_eq!((of("a"), of("c")), (100_000, 100_000));
    assert!((50_000..100_000).contains(&of("b")), "{}", of("b"));
    // The repaired file is read on, beside one that is of another format.
    site.write("in/b.avro", &whole);
    site.write("in/d.avro", "{\"id\":1}\n{\"id\":2}\n");
    let mut pseidon = site.run("pipeline.edn");
    pseidon.expect_exit(1, 60);
    let log = pseidon.log();
    assert!(log.contains("in/d.avro: it is not an Avro file"), "{log}");
    let lines = all_lines(&site.path("out"));
    assert_eq!(lines.len(), 300_000);
    assert!(
        lines.windows(2).all(|two| two[0] != two[1]),
        "a record is doubled"
    );
}

#[test]
fn what_cannot_be_read_is_an_error_of_the_file() {
    let site = Site::new("avro-errors");
    write_avro(&site, "a.avro", SCHEMA, RECORDS[0]);
    let union = br#"{"type":"record","name":"r","fields":[{"name":"v","type":["int","string"]}]}"#;
    let mut bytes = b"Obj\x01\x02\x16avro.schema".to_vec();
    bytes.extend([(union.len() as u8) << 1 | 0x80, (union.len() >> 6) as u8]);
    bytes.extend(union);
    bytes.extend([0; 17]);
    site.write("union.avro", bytes);
    for (flow, reason) in [
        (
            r#"(-> (stdin {:format "avro"}) (stdout))"#,
            "this source has no avro records",
        ),
        (
            r#"(-> (files {:path "a.avro" :compression :gzip}) (stdout))"#,
            "leave out :compression",
        ),
        (
            r#"(-> (files "a.avro") (where "pric > 1") (stdout))"#,
            "did you mean `price`",
        ),
        (
            r#"(-> (files "union.avro") (stdout))"#,
            "the field `v` cannot be read: it has a union of int, string",
        ),
        (
            r#"(-> (files {:path "a.avro" :format "avro:x=1"}) (stdout))"#,
            "avro has no settings",
        ),
    ] {
        let (_, log, code) = run(&site, flow);
        assert_eq!(code, Some(2), "{flow}: {log}");
        assert!(log.contains(reason), "{flow}: {log}");
    }
}

/// The records that are read while runs are killed.
const COUNT: u64 = 100_000;

const KILL_TEST: KillTest<'static> = KillTest {
    extension: "avro",
    count: COUNT,
    used: 0..COUNT,
    write: &|site, path, records| write_avro(site, path, FIELDS, records),
};

#[test]
fn files_are_read_once() {
    KILL_TEST.read_once("avro-kills");
}

#[test]
fn followed_files_are_read_once() {
    KILL_TEST.follow("avro-follow", |_, _| {});
}

/// The blocks of an Avro file that has more than one: where they end.
fn block_ends(bytes: &[u8]) -> Vec<usize> {
    let marker = &bytes[bytes.len() - 16..];
    let is_end = |end: &usize| bytes[..*end].ends_with(marker);
    (16..=bytes.len()).filter(is_end).collect()
}

#[test]
fn blocks_that_are_appended_are_read_by_the_next_run() {
    let site = Site::new("avro-appended");
    let all = records(0..COUNT / 5);
    write_compressed(&site, "a.avro", FIELDS, &all, "none");
    let whole = fs::read(site.path("a.avro")).expect("a file");
    let ends = block_ends(&whole);
    assert!(ends.len() > 3, "{ends:?}");
    site.write(
        "pipeline.edn",
        r#"{:name "appended" in (files "in/*.avro")
            pipeline (-> in (files {:path "out" :codec :json}))}"#,
    );
    let mut before = 0;
    // The first end is that of the header.
    for end in ends {
        site.write("in/a.avro", &whole[..end]);
        for _ in 0..2 {
            site.run("pipeline.edn").expect_exit(0, 60);
        }
        let found = all_lines(&site.path("out")).len();
        assert!(found > before || before == 0, "{found}");
        before = found;
    }
    let mut expected: Vec<&str> = all.lines().collect();
    expected.sort_unstable();
    assert!(all_lines(&site.path("out")) == expected);
}

#[test]
fn blocks_that_are_appended_to_a_followed_file_are_read() {
    let site = Site::new("avro-growing");
    let all = records(0..COUNT / 5);
    write_compressed(&site, "a.avro", FIELDS, &all, "none");
    let whole = fs::read(site.path("a.avro")).expect("a file");
    let ends = block_ends(&whole);
    site.write(
        "pipeline.edn",
        r#"{:name "growing" in (files {:path "in/*.avro" :follow true :poll "50ms"})
            pipeline (-> in (files {:path "out" :codec :json :check-freq "10ms"
                                    :rollover {:idle "100ms"}}))}"#,
    );
    // A part of a block waits for the rest.
    site.write("in/a.avro", &whole[..ends[1] + 100]);
    // The file never shrinks below what was read of it.
    let path = site.path("in/a.avro");
    let file = || {
        let options = fs::OpenOptions::new().append(true).open(&path);
        options.expect("the file is there")
    };
    let append = |bytes: &[u8]| file().write_all(bytes).expect("it can grow");
    let mut pseidon = site.run("pipeline.edn");
    let visible = || all_lines(&site.path("out")).len();
    wait_until("the first block is read", 60, || visible() > 0);
    let first = visible();
    // A writer that recovers cuts the part of a block off. The source sees that within some polls.
    file().set_len(ends[1] as u64).expect("it can be cut");
    std::thread::sleep(Duration::from_secs(2));
    append(&whole[ends[1]..ends[2]]);
    wait_until("the second block is read", 60, || visible() > first);
    pseidon.stop(60);
    append(&whole[ends[2]..]);
    let mut pseidon = site.run("pipeline.edn");
    let mut expected: Vec<&str> = all.lines().collect();
    expected.sort_unstable();
    wait_until("everything is read", 60, || visible() >= expected.len());
    pseidon.stop(60);
    assert!(all_lines(&site.path("out")) == expected);
}

#[test]
fn a_rewritten_file_is_another_one() {
    let site = Site::new("avro-rewritten");
    site.write(
        "pipeline.edn",
        r#"{:name "rewritten" in (files "in/*.avro")
            pipeline (-> in (files {:path "out" :codec :json}))}"#,
    );
    let mut expected = Vec::new();
    for record in [
        r#"{"id":1,"name":"a"}"#,
        r#"{"id":2,"name":"b"}"#,
        r#"{"id":3,"name":"longer"}"#,
    ] {
        write_avro(&site, "b.avro", ":id :int64 :name :utf8", record);
        // The inode stays, as with `cp`.
        site.write("in/a.avro", fs::read(site.path("b.avro")).expect("a file"));
        expected.push(record);
        for _ in 0..2 {
            site.run("pipeline.edn").expect_exit(0, 60);
            assert_eq!(all_lines(&site.path("out")), expected);
        }
    }
}

const MARKER: [u8; 16] = [7; 16];

/// The header of a file with this schema.
fn header(schema: &str) -> Vec<u8> {
    // A length has 7 bits in each byte, lowest first, of twice the number.
    let len = [(schema.len() << 1) as u8 | 0x80, (schema.len() >> 6) as u8];
    let start = &b"Obj\x01\x02\x16avro.schema"[..];
    [start, &len, schema.as_bytes(), &[0], &MARKER].concat()
}

/// A block of one short record.
fn block(record: &[u8]) -> Vec<u8> {
    [&[2, 2 * record.len() as u8], record, &MARKER].concat()
}

/// The file has another size whenever it is looked at.
#[test]
fn a_file_that_never_stops_growing_is_followed_from_its_first_block() {
    let site = Site::new("avro-growing");
    site.write(
        "pipeline.edn",
        r#"{:name "growing" in (files {:path "in/*.avro" :follow true :poll "200ms"})
            pipeline (-> in (files {:path "out" :codec :json :rollover {:records 1}}))}"#,
    );
    let schema =
        r#"{"type":"record","name":"r","fields":[{"name":"n","type":"long"}],"doc":"a long one"}"#;
    // Without a block it has no records, and is not known by its content yet.
    let path = site.write("in/a.avro", header(schema));
    let mut pseidon = site.run("pipeline.edn");
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(path)
        .expect("a file");
    let mut written = 0_u32;
    wait_until("the first records", 60, || {
        file.write_all(&block(&[2 * (written % 60) as u8]))
            .expect("a block");
        written += 1;
        !all_lines(&site.path("out")).is_empty()
    });
    pseidon.stop(60);
    let once = fs::read_to_string(site.path("pipeline.edn")).expect("a file");
    site.write(
        "pipeline.edn",
        once.replace(":follow true :poll \"200ms\"", ""),
    );
    site.finish("pipeline.edn", 60);
    let mut expected: Vec<String> = (0..written)
        .map(|number| format!("{{\"n\":{}}}", number % 60))
        .collect();
    expected.sort_unstable();
    assert_eq!(all_lines(&site.path("out")), expected);
}

/// Values that have no bytes in a file are read as what they are.
#[test]
fn nulls_and_empty_records_are_read_inside_of_others() {
    let site = Site::new("avro-without-bytes");
    let schema = r#"{"type":"record","name":"r","fields":[{"name":"e","type":
        {"type":"record","name":"e","fields":[]}},{"name":"l","type":{"type":"array","items":"null"}},
        {"name":"u","type":{"type":"record","name":"u","fields":[{"name":"x","type":"null"},
        {"name":"n","type":"int"}]}},{"name":"m","type":{"type":"map","values":["null","e"]}}]}"#;
    let record = [&[4, 0, 14][..], &[4, 2, b'k', 0, 2, b'l', 2, 0]].concat();
    site.write("a.avro", [header(schema), block(&record)].concat());
    let all = r#"{"e":{},"l":[null,null],"u":{"x":null,"n":7},"m":{"k":null,"l":{}}}"#;
    let flow = r#"(-> (files "a.avro") (stdout))"#;
    assert_eq!(printed(&site, flow), [all]);
    let flow = r#"(-> (files "a.avro") (select "l, u.n as n, u.x is null as x") (stdout))"#;
    assert_eq!(
        printed(&site, flow),
        [r#"{"l":[null,null],"n":7,"x":true}"#]
    );
}
