//! Arrow IPC as a source. The files are written from what the sink `files` writes as Parquet.

use std::fs::{self, File};

use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::column_files::{FIELDS, KillTest, printed, run, written};
use crate::harness::output::all_lines;
use crate::harness::{Site, wait_until};

/// Writes records as an Arrow file, in batches of at most 1024 rows.
pub(crate) fn write_arrow(
    site: &Site,
    path: &str,
    schema: &str,
    records: &str,
    zip: Option<CompressionType>,
) {
    let written = written(site, schema, records, ":codec :parquet");
    let rows = ParquetRecordBatchReaderBuilder::try_new(File::open(&written).expect("a file"));
    let rows = rows.and_then(|rows| rows.build()).expect("a Parquet file");
    let options = IpcWriteOptions::default().try_with_compression(zip);
    let schema = arrow::array::RecordBatchReader::schema(&rows);
    let to = site.write(path, "");
    let to = File::create(to).expect("a file");
    let mut writer = FileWriter::try_new_with_options(to, &schema, options.expect("an option"))
        .expect("a file can be begun");
    for batch in rows {
        writer
            .write(&batch.expect("rows"))
            .expect("rows are written");
    }
    writer.finish().expect("a file is written");
    fs::remove_dir_all(site.path("written")).expect("a folder");
}

const SCHEMA: &str = ":id :int64 :name :utf8 :price :float64 :at :timestamp_ms :day :date \
                      :sum \"decimal(12, 2)\" :u {:x :int32} :tags [:utf8]";
const RECORDS: [&str; 2] = [
    r#"{"id":1,"name":"a","price":1.5,"at":"2024-05-01T10:00:00.000Z","day":"2024-05-01","sum":1234567890.05,"u":{"x":7},"tags":["p","q"]}"#,
    r#"{"id":9007199254740993,"name":null,"price":-0.25,"at":null,"day":null,"sum":null,"u":null,"tags":[]}"#,
];

#[test]
fn fields_are_known_and_used_by_stages() {
    let site = Site::new("arrow-fields");
    let zips = [
        None,
        Some(CompressionType::LZ4_FRAME),
        Some(CompressionType::ZSTD),
    ];
    for (zip, path) in zips.into_iter().zip(["a.arrow", "b.feather", "c.arrow"]) {
        write_arrow(&site, path, SCHEMA, &(RECORDS.join("\n") + "\n"), zip);
        let flow = format!(r#"(-> (files "{path}") (stdout))"#);
        assert_eq!(printed(&site, &flow), RECORDS, "{zip:?}");
    }
    let flow = r#"(-> (files "a.arrow") (where "price > 1 and u.x is not null")
        (select "id, tags[1] as second, @offset as row") (stdout))"#;
    assert_eq!(printed(&site, flow), [r#"{"id":1,"second":"q","row":0}"#]);
    site.write("stream.arrow", [0xff, 0xff, 0xff, 0xff, 8, 0, 0, 0]);
    let (_, log, code) = run(&site, r#"(-> (files "stream.arrow") (stdout))"#);
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("it is an Arrow stream"), "{log}");
}

#[test]
fn a_damaged_file_keeps_no_other_from_being_read() {
    let site = Site::new("arrow-damaged");
    for name in ["a", "b", "c"] {
        let record = |number: u32| format!("{{\"id\":{number},\"name\":\"{name}\"}}\n");
        let records: String = (0..10_000).map(record).collect();
        let path = format!("in/{name}.arrow");
        write_arrow(&site, &path, ":id :int64 :name :utf8", &records, None);
    }
    let mut whole = fs::read(site.path("in/a.arrow")).expect("a file");
    site.write("in/a.arrow", &whole[..whole.len() - 1]);
    whole = fs::read(site.path("in/b.arrow")).expect("a file");
    // At least one of ten batches.
    let len = whole.len();
    whole[len * 8 / 10..len * 19 / 20].fill(0xee);
    site.write("in/b.arrow", &whole);
    site.write(
        "pipeline.edn",
        r#"{:name "damaged" in (files {:path "in/*.arrow" :schema {:id :int64 :name :utf8}})
            pipeline (-> in (select "name, id") (files {:path "out" :codec :json}))}"#,
    );
    let mut pseidon = site.run("pipeline.edn");
    pseidon.expect_exit(1, 60);
    let log = pseidon.log();
    assert!(log.contains("and 1 more cannot be read"), "{log}");
    let lines = all_lines(&site.path("out"));
    let of = |name: &str| {
        let start = format!("{{\"name\":\"{name}\"");
        lines.iter().filter(|line| line.starts_with(&start)).count()
    };
    assert_eq!((of("a"), of("c")), (0, 10_000));
    assert!((5_000..10_000).contains(&of("b")), "{}", of("b"));
}

/// The records that are read while runs are killed.
const COUNT: u64 = 40_000;

#[test]
fn files_are_read_once() {
    let killed = KillTest {
        extension: "arrow",
        count: 3 * COUNT,
        used: 0..3 * COUNT,
        write: &|site, path, records| write_arrow(site, path, FIELDS, records, None),
    };
    killed.read_once("arrow-kills");
}

#[test]
fn a_followed_file_is_read_when_it_is_complete_and_when_it_is_rewritten() {
    let site = Site::new("arrow-follow");
    for (path, record) in [("a.arrow", "{\"id\":1}\n"), ("b.arrow", "{\"id\":2}\n")] {
        write_arrow(&site, path, ":id :int64", record, None);
    }
    let read = |path: &str| fs::read(site.path(path)).expect("a file");
    let whole = read("a.arrow");
    site.write("in/a.arrow", &whole[..whole.len() - 3]);
    site.write("in/b.arrow", read("b.arrow"));
    site.write(
        "pipeline.edn",
        r#"{:name "follow"
            in (files {:path "in/*.arrow" :follow true :poll "50ms" :schema {:id :int64}})
            pipeline (-> in (files {:path "out" :codec :json :check-freq "10ms"
                                    :rollover {:idle "100ms"}}))}"#,
    );
    let mut pseidon = site.run("pipeline.edn");
    let mut expected = vec!["{\"id\":2}".to_owned()];
    wait_until("the complete file is read", 60, || {
        all_lines(&site.path("out")) == expected
    });
    site.write("in/a.arrow", &whole);
    expected.insert(0, "{\"id\":1}".to_owned());
    wait_until("the other file is read", 60, || {
        all_lines(&site.path("out")) == expected
    });
    // The inode stays, as with `cp`.
    site.write("in/a.arrow", read("b.arrow"));
    expected.push("{\"id\":2}".to_owned());
    wait_until("the new content is read", 60, || {
        all_lines(&site.path("out"))[..] == [expected[0].as_str(), "{\"id\":2}", "{\"id\":2}"]
    });
    pseidon.stop(60);
}
