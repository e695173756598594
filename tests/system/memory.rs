//! Resident memory: pipelines whose output is much larger than their input stay within `:memory`
//! plus a constant, and finish.

use std::fs;

use crate::harness::output::{all_lines, files};
use crate::harness::topics::{create, produce_large};
use crate::harness::{Pseidon, Site, brokers, exchange, wait_until};

/// The `:memory` of each pipeline here, and the memory that a process may use in addition.
const MEMORY: u64 = 32 << 20;
const IN_ADDITION: u64 = 128 << 20;

/// Watches the memory of a run until `is_done` or its end.
fn expect_little_memory(pseidon: &mut Pseidon, seconds: u64, mut is_done: impl FnMut() -> bool) {
    let mut most = 0;
    wait_until("it is done", seconds, || {
        most = most.max(pseidon.memory().map_or(0, |memory| memory.peak));
        !pseidon.is_running() || is_done()
    });
    println!("peak: {} MB", most >> 20);
    assert!(most > 0, "its memory was never measured");
    assert!(
        most < MEMORY + IN_ADDITION,
        "{} MB are resident; :memory is {} MB\n{}",
        most >> 20,
        MEMORY >> 20,
        pseidon.log()
    );
}

fn pipeline(record: &str, count: u64, step: &str, sink: &str) -> String {
    let steps = if step.is_empty() { "" } else { "step" };
    let step = if step.is_empty() {
        String::new()
    } else {
        format!("step {step}")
    };
    format!(
        r#"{{:name "hostile" :settings {{:memory "32MB"}}
            src (generate {{:record {{{record}}} :count {count}}})
            {step}
            out (files {{{sink}}})
            pipeline (-> src {steps} out)}}"#
    )
}

/// Each record becomes a hundred times as large, and zstd has its highest level.
#[test]
fn wide_rows_and_zstd_19() {
    let site = Site::new("wide-rows");
    let sink = r#":path "out" :codec :json :compression :zstd :level 19"#;
    site.write(
        "pipeline.edn",
        pipeline(
            r#":n "n" :u "'u' || (h % 100)""#,
            60_000,
            r#"(select "n, repeat('x', 5000) as w")"#,
            sink,
        ),
    );
    let mut pseidon = site.run("pipeline.edn");
    expect_little_memory(&mut pseidon, 240, || false);
    pseidon.expect_exit(0, 60);
    assert!(
        pseidon.log().contains("records_out=60000"),
        "{}",
        pseidon.log()
    );
}

/// Together, the strings of a batch exceed the limit of a column, 2 GiB. Each alone is small.
#[test]
fn a_batch_that_exceeds_a_column_is_processed_in_parts() {
    let site = Site::new("in-parts");
    let sink = r#":path "out" :codec :json"#;
    let step = r#"(select "n, octet_length(repeat(u, 100000)) as bytes")"#;
    site.write(
        "pipeline.edn",
        pipeline(r#":n "n" :u "'u' || (10 + h % 90)""#, 12_000, step, sink),
    );
    let mut pseidon = site.run("pipeline.edn");
    expect_little_memory(&mut pseidon, 240, || false);
    pseidon.expect_exit(0, 60);
    let lines = all_lines(&site.path("out"));
    assert_eq!(lines.len(), 12_000);
    assert!(
        lines
            .iter()
            .all(|line| line.ends_with(r#","bytes":300000}"#)),
        "{:?}",
        lines.first()
    );
}

/// One record would exceed the limit. It is quarantined, and the others are delivered.
#[test]
fn a_record_that_would_be_too_large_is_invalid() {
    let site = Site::new("too-large");
    let record = r#":n "n" :u "case when n % 1000 = 7 then repeat('y', 100) else 'y' end""#;
    let step = r#"(select "n, octet_length(repeat(u, 1000000)) as bytes")"#;
    site.write(
        "pipeline.edn",
        pipeline(record, 2000, step, r#":path "out/good" :codec :json"#),
    );
    let mut pseidon = site.run("pipeline.edn");
    expect_little_memory(&mut pseidon, 240, || false);
    pseidon.expect_exit(0, 60);
    assert_eq!(all_lines(&site.path("out/good")).len(), 1998);
    let bad: Vec<serde_json::Value> = all_lines(&site.path("out/quarantine"))
        .iter()
        .map(|line| serde_json::from_str(line).expect("json"))
        .collect();
    let mut positions: Vec<u64> = bad
        .iter()
        .filter_map(|record| record["position"].as_u64())
        .collect();
    positions.sort_unstable();
    assert_eq!(positions, [7, 1007]);
    assert!(bad.iter().all(|record| {
        record["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("repeat would produce 100000000 bytes"))
    }));
}

/// Each function makes up to gigabytes of a batch whose records have a kilobyte.
#[test]
fn functions_whose_results_are_much_larger_than_their_arguments() {
    let functions = [
        "rpad(u, 100000)",
        "replace(u, 'u', u)",
        "regexp_replace(u, 'u', u, 'g')",
        "to_char(now(), repeat('%d', 5 * octet_length(u)))",
        "encode(encode(encode(repeat(u, 20), 'hex'), 'hex'), 'hex')",
        "array_to_string(string_to_array(u, 'u'), u)",
        "concat_ws(u, repeat(u, 20), repeat(u, 20), repeat(u, 20), repeat(u, 20))",
    ];
    for function in functions {
        let site = Site::new("wide-functions");
        let step = format!(r#"(where "octet_length({function}) > octet_length(u)")"#);
        let record = r#":n "n" :u "repeat('u', 1000)""#;
        let sink = r#":path "out" :codec :json"#;
        site.write("pipeline.edn", pipeline(record, 2000, &step, sink));
        let mut pseidon = site.run("pipeline.edn");
        println!("{function}");
        expect_little_memory(&mut pseidon, 240, || false);
        pseidon.expect_exit(0, 60);
        let is_done = pseidon.log().contains("records_out=2000");
        assert!(is_done, "{function}: {}", pseidon.log());
    }
}

/// A group has a list of all values. It must fit into memory, so the run stops before it does not.
#[test]
fn a_group_that_would_be_too_large_stops_the_run() {
    let site = Site::new("large-group");
    site.write(
        "pipeline.edn",
        r#"{:name "large-group" :settings {:memory "32MB"}
            src (generate {:record {:u "repeat('u', 10000)"} :count 20000})
            lists (group {:keys "1 as one" :aggregates "array_agg(u) as us"})
            pipeline (-> src lists (files {:path "out" :codec :json}))}"#,
    );
    let mut pseidon = site.run("pipeline.edn");
    expect_little_memory(&mut pseidon, 240, || false);
    pseidon.expect_exit(1, 60);
    let reason = "a group has values of more than 4000000 bytes together";
    assert!(pseidon.log().contains(reason), "{}", pseidon.log());
}

/// Each file has a compressor for each column.
#[test]
fn parquet_in_300_buckets_and_zstd_19() {
    let site = Site::new("buckets");
    let sink =
        r#":path "out/{b}" :codec :parquet :compression :zstd :level 19 :max-open-files 400"#;
    site.write(
        "pipeline.edn",
        pipeline(
            r#":n "n" :b "h % 300" :t "repeat('y', 200)" :r "r""#,
            60_000,
            "",
            sink,
        ),
    );
    let mut pseidon = site.run("pipeline.edn");
    expect_little_memory(&mut pseidon, 240, || false);
    pseidon.expect_exit(0, 60);
    assert!(files(&site.path("out")).len() >= 300);
}

/// The sink cannot write, because its folder is a file. Records wait, and no more are read.
#[test]
fn a_blocked_sink() {
    let site = Site::new("blocked-sink");
    let sink = r#":path "out/{n % 3}" :codec :json :rollover {:size "1MB"}"#;
    let text = pipeline(
        r#":n "n" :u "'u' || (h % 100)""#,
        100_000_000,
        r#"(select "n, repeat('x', 2000) as w")"#,
        sink,
    );
    site.write("pipeline.edn", text);
    let mut pseidon = site.run("pipeline.edn");
    wait_until("files are written", 60, || {
        ["0", "1", "2"]
            .iter()
            .all(|bucket| !files(&site.path("out").join(bucket)).is_empty())
    });
    for bucket in ["0", "1", "2"] {
        site.write(bucket, "in the way");
        exchange(&site.path("out").join(bucket), &site.path(bucket));
    }
    // The budget has to be full for a while before anything can go wrong.
    let mut looks = 0;
    expect_little_memory(&mut pseidon, 120, || {
        looks += u32::from(is_blocked(&site));
        looks > 200
    });
    pseidon.kill();
}

/// Whether the log output reports that something cannot be written.
fn is_blocked(site: &Site) -> bool {
    fs::read_to_string(site.path("logs/000.log")).is_ok_and(|log| log.contains("WARN"))
}

/// Reads large records, of which `bytes` is the length of this value.
fn read_large(name: &str, count: usize, [key, header]: [usize; 2], value: &str) {
    let site = Site::new(name);
    create(&site.name, &[]);
    produce_large(&site.name, count, key, header);
    let text = format!(
        r#"{{:name "{0}" :settings {{:memory "32MB"}}
            src (kafka {{:brokers "{1}" :topics ["{0}"] :until :latest}})
            step (select "@offset as n, octet_length({value}) as bytes")
            pipeline (-> src step (files {{:path "out" :codec :json}}))}}"#,
        site.name,
        brokers()
    );
    site.write("pipeline.edn", text);
    let mut pseidon = site.run("pipeline.edn");
    expect_little_memory(&mut pseidon, 240, || false);
    pseidon.expect_exit(0, 60);
    let lines = all_lines(&site.path("out"));
    assert_eq!(lines.len(), count);
    let expected = format!(",\"bytes\":{}}}", key.max(header));
    assert!(
        lines.iter().all(|line| line.ends_with(&expected)),
        "{:?}",
        lines.first()
    );
}

/// Keys count like payloads: a batch does not contain thousands of large ones. librdkafka does not
/// count them.
#[test]
fn big_keys() {
    read_large("big-keys", 1500, [200_000, 1], "@key");
}

#[test]
fn the_biggest_keys() {
    read_large("biggest-keys", 300, [900_000, 1], "@key");
}

#[test]
fn big_headers() {
    read_large("big-headers", 1500, [1, 200_000], "@headers.h");
}
