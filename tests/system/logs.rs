//! Files as a source: read once, or followed while they rotate, with kills at random times.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::feed::{FedRecords, LogWriter, line};
use crate::harness::output::check;
use crate::harness::pipeline::{Layout, Store, files_sink, pipeline, settings};
use crate::harness::watch::Watcher;
use crate::harness::{Pseidon, Site, wait_until};
use crate::kills::settle;

const BUCKETS: u64 = 4;

/// Plain files, gzip of one and of several members, and Zstandard.
#[test]
fn files_that_are_read_once() {
    let site = Site::new("files-once");
    let fed = FedRecords {
        counts: vec![15_000; 6],
        buckets: BUCKETS,
    };
    for (partition, count) in fed.counts.iter().enumerate() {
        let partition = partition as u64;
        let text: Vec<String> = (0..*count)
            .map(|number| line(BUCKETS, partition, number) + "\n")
            .collect();
        match partition {
            0 => site.write("in/0.ndjson", text.concat()),
            1 => site.write("in/1.ndjson", text.concat().trim_end()),
            2 => site.write("in/2.ndjson.gz", gzip(&text.concat())),
            3 => site.write(
                "in/3.ndjson.gz",
                text.chunks(800)
                    .flat_map(|part| gzip(&part.concat()))
                    .collect::<Vec<u8>>(),
            ),
            4 => site.write(
                "in/4.ndjson.zst",
                zstd::encode_all(text.concat().as_bytes(), 3).expect("zstd"),
            ),
            _ => site.write("in/deeper/5.json", text.concat()),
        };
    }
    let source = "(files {:path \"in/**/*\" :format \"json\"})";
    site.write(
        "pipeline.edn",
        pipeline(
            &site.name,
            &settings(&site, Store::Embedded),
            source,
            &files_sink(Layout::GzipBySize),
        ),
    );
    let watcher = Watcher::start(&[site.path("out")]);
    // Every other instance makes a few commits, and is killed between a commit and the last rename
    // of its files.
    let mut deaths = 0;
    for _ in 0..12 {
        let mut command = site.command("pipeline.edn");
        command.env("PSEIDON_FAIL", format!("renamed:{}", site.random.of(1..8)));
        deaths += u64::from(site.start(command).died(60));
        let mut pseidon = site.run("pipeline.edn");
        std::thread::sleep(site.random.millis(40..300));
        pseidon.kill();
    }
    assert!(
        deaths >= 4,
        "only {deaths} kills after a commit: there was too little to do"
    );
    site.finish("pipeline.edn", 120);
    let files = check(&site.path("out"), &fed).files;
    // Everything is delivered: another run has nothing to do.
    site.finish("pipeline.edn", 60);
    watcher.finish();
    assert_eq!(check(&site.path("out"), &fed).files, files);
}

pub(crate) fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder
        .write_all(text.as_bytes())
        .expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

/// Two log files: one is rotated by renaming, the other by truncation. Records that are truncated
/// before they are read are lost, so that happens when everything is visible.
#[test]
fn rotated_log_files() {
    let site = Site::new("logs");
    let source = "(files {:path [\"logs-in/renamed.log*\" \"logs-in/emptied.log\"] :format \"json\" :follow true :poll \"50ms\"})";
    site.write(
        "pipeline.edn",
        pipeline(
            &site.name,
            &settings(&site, Store::Embedded),
            source,
            &files_sink(Layout::GzipByRecords),
        ),
    );
    site.write("logs-in/unrelated", "not read\n");
    let mut fed = FedRecords {
        counts: Vec::new(),
        buckets: BUCKETS,
    };
    let mut renamed = LogWriter::create(site.path("logs-in/renamed.log"), &mut fed);
    let mut emptied = LogWriter::create(site.path("logs-in/emptied.log"), &mut fed);
    let watcher = Watcher::start(&[site.path("out")]);
    let mut running: Option<Pseidon> = None;
    let mut rotations = 0;
    for step in 0..40 {
        renamed.append(site.random.of(0..400), &mut fed);
        emptied.append(site.random.of(1..200), &mut fed);
        match running.as_mut() {
            None => running = Some(site.run("pipeline.edn")),
            Some(pseidon) if site.random.of(0..3) == 0 => {
                pseidon.kill();
                running = None;
            }
            Some(_) => {}
        }
        if site.random.of(0..3) == 0 {
            rotations += 1;
            renamed.rotate(
                &site.path(&format!("logs-in/renamed.log.{rotations}")),
                &mut fed,
            );
        }
        if step % 5 == 4 {
            let mut pseidon = running.take().unwrap_or_else(|| site.run("pipeline.edn"));
            wait_until("everything so far is visible", 60, || {
                watcher.records() >= fed.total() || !pseidon.is_running()
            });
            // Sometimes no instance runs when it happens.
            if site.random.of(0..2) == 0 {
                pseidon.kill()
            } else {
                running = Some(pseidon)
            }
            emptied.truncate(&mut fed);
        }
        std::thread::sleep(site.random.millis(50..600));
    }
    if let Some(mut pseidon) = running.take() {
        pseidon.kill();
    }
    settle(&site, &watcher, fed.total());
    watcher.finish();
    check(&site.path("out"), &fed);
}
