//! Published files of logs are moved to where pseidon-hdfs moved them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::harness::mysql::LogTable;
use crate::harness::output::{files, hidden, lines};
use crate::harness::pipeline::{SESSION_MILLIS, state_in};
use crate::harness::topics::produce;
use crate::harness::{Site, brokers, server, wait_until};

fn template(site: &Site, table: &LogTable) -> String {
    format!(
        r#"{{:name "{}"
            :settings {{:etl-threads 2 :io-threads 2 :writer-threads 2 :memory "64MB" :commit-interval "200ms" {}}}
            logs (mysql-logs {{:url "{}" :group "etl" :refresh "300ms"
                   :kafka {{:brokers "{}" :start :earliest
                            :properties {{"session.timeout.ms" "{}" "heartbeat.interval.ms" "500"}}}}}})
            disk-writer (files {{:base-dir ["data-1" "data-2"] :name "{{@topic}}-{{${{log:time}}:%Y-%m-%d-%H}}" :lanes 2
                  :codec "${{log:codec}}" :compression "${{log:compression}}" :write "${{log:write}}"
                  :rollover {{:records 100 :idle "500ms"}} :check-freq "200ms"
                  :move-to {{:path "${{log:base_partition}}/${{log:log_partition}}/{{${{log:time}}:${{log:date}}}}"
                             :prefix "${{host:name}}-" :quarantine "${{log:quarantine}}"}}}})
            pipeline (-> logs disk-writer)}}"#,
        site.name,
        state_in(site, &server("PSEIDON_TEST_REDIS")),
        table.url(),
        brokers(),
        SESSION_MILLIS * 4
    )
}

fn record(number: u64) -> String {
    // Two hours, on both sides of midnight.
    format!(
        "{}\t{number}",
        1_700_000_000_000_u64 + (number % 2) * 7_200_000
    )
}

/// With kills, each record is in one file, in the folder and with the name that pseidon-hdfs used.
#[test]
fn published_files_are_moved_to_their_partitions() {
    let site = Site::new("moved");
    let table = LogTable::new(&site);
    table.add_date_format();
    let base = site.path("lake").display().to_string();
    // Each case has the name of the log, its date_format, and the folders of the two hours.
    let cases = [
        (
            "hourly",
            Some("datehour"),
            [
                "date=20231114/hour=2023111422",
                "date=20231115/hour=2023111500",
            ],
        ),
        ("daily", Some("date"), ["date=20231114", "date=20231115"]),
        ("plain", None, ["date=20231114", "date=20231115"]),
    ];
    let topic = |name: &str| format!("{}-{name}", site.name);
    let send = |numbers: std::ops::Range<u64>| {
        for (name, ..) in &cases {
            for partition in 0..4 {
                produce(
                    &topic(name),
                    partition,
                    numbers
                        .clone()
                        .filter(|number| number / 2 % 4 == partition as u64)
                        .map(record),
                );
            }
        }
    };
    send(0..800);
    for (name, date_format, _) in &cases {
        let partition = format!("web/{name}");
        let row = [
            ("format", "txt:sep=tab;ts=0;msg=1"),
            ("output_format", "gzip"),
            ("base_partition", &base),
            ("log_partition", &partition),
        ];
        table.insert(
            &topic(name),
            &[
                &row[..],
                date_format.map(|format| ("date_format", format)).as_slice(),
            ]
            .concat(),
        );
    }
    site.write("pipeline.edn", template(&site, &table));
    let lake = |name: &str| site.path("lake/web").join(name);
    let numbers = |name: &str| -> BTreeMap<u64, u64> {
        let mut found = BTreeMap::new();
        for line in files(&lake(name)).iter().flat_map(|file| lines(file)) {
            *found
                .entry(line.parse().unwrap_or_else(|_| panic!("`{line}`")))
                .or_insert(0) += 1;
        }
        found
    };
    let mut pseidon = site.run("pipeline.edn");
    for round in 1..4_u64 {
        wait_until("some files are moved", 60, || {
            cases
                .iter()
                .any(|(name, ..)| !files(&lake(name)).is_empty())
        });
        std::thread::sleep(site.random.millis(0..1500));
        pseidon.kill();
        send(round * 800..(round + 1) * 800);
        pseidon = site.run("pipeline.edn");
    }
    for (name, ..) in &cases {
        wait_until(&format!("all of {name} is moved"), 90, || {
            numbers(name).len() == 3200 || !pseidon.is_running()
        });
    }
    pseidon.stop(60);

    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .expect("a name")
        .trim()
        .to_owned();
    for (name, _, folders) in &cases {
        let found = numbers(name);
        let wrong: Vec<_> = (0..3200)
            .filter(|number| found.get(number) != Some(&1))
            .collect();
        assert!(
            wrong.is_empty() && found.len() == 3200,
            "{name}: not exactly once: {wrong:?}"
        );
        for file in files(&lake(name)) {
            let folder = file
                .parent()
                .and_then(|folder| folder.strip_prefix(lake(name)).ok())
                .expect("below its folder")
                .display()
                .to_string();
            let hour = folders
                .iter()
                .position(|expected| *expected == folder)
                .unwrap_or_else(|| panic!("{}", file.display()));
            let file_name = file.file_name().expect("a name").to_string_lossy();
            let start = format!(
                "{host}-{}-{}-",
                topic(name),
                ["2023-11-14-22", "2023-11-15-00"][hour]
            );
            assert!(
                file_name.starts_with(&start) && file_name.ends_with(".txt.gz"),
                "{file_name} does not start with {start}"
            );
            assert!(
                lines(&file)
                    .iter()
                    .all(|line| line.parse::<usize>().is_ok_and(|number| number % 2 == hour)),
                "{file_name}"
            );
        }
    }
    for folder in ["data-1", "data-2", "lake"] {
        assert_eq!(hidden(&site.path(folder)), Vec::<PathBuf>::new());
    }
    let left: Vec<PathBuf> = ["data-1", "data-2"]
        .iter()
        .flat_map(|folder| files(&site.path(folder)))
        .collect();
    assert_eq!(
        left,
        Vec::<PathBuf>::new(),
        "no file stays where it was written"
    );
}
