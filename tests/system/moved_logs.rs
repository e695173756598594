//! Published files of logs are moved to where pseidon-hdfs moved them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::harness::mysql::LogTable;
use crate::harness::output::{files, hidden, lines};
use crate::harness::pipeline::{SESSION_MILLIS, state_in};
use crate::harness::topics::produce;
use crate::harness::{Site, brokers, server, wait_until};

fn template(site: &Site, table: &LogTable) -> String {
    format!(
        r#"{{:name "{}"
            :settings {{:etl-threads 2 :io-threads 2 :writer-threads 2 :memory "64MB" :commit-interval "200ms" :shutdown-grace "5m" {}}}
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

/// A log, and where its files are moved to.
struct Case {
    name: &'static str,
    date_format: Option<&'static str>,
    /// The folders of the two hours.
    folders: [&'static str; 2],
}

const CASES: [Case; 3] = [
    Case {
        name: "hourly",
        date_format: Some("datehour"),
        folders: [
            "date=20231114/hour=2023111422",
            "date=20231115/hour=2023111500",
        ],
    },
    Case {
        name: "daily",
        date_format: Some("date"),
        folders: ["date=20231114", "date=20231115"],
    },
    Case {
        name: "plain",
        date_format: None,
        folders: ["date=20231114", "date=20231115"],
    },
];

impl Case {
    fn topic(&self, site: &Site) -> String {
        format!("{}-{}", site.name, self.name)
    }

    /// Sends records with these numbers to the four partitions.
    fn send(&self, site: &Site, numbers: Range<u64>) {
        for partition in 0..4 {
            let of_partition = numbers
                .clone()
                .filter(|number| number / 2 % 4 == partition as u64);
            produce(&self.topic(site), partition, of_partition.map(record));
        }
    }

    fn insert(&self, site: &Site, table: &LogTable) {
        let base = site.path("lake").display().to_string();
        let partition = format!("web/{}", self.name);
        let row = [
            ("format", "txt:sep=tab;ts=0;msg=1"),
            ("output_format", "gzip"),
            ("base_partition", &base),
            ("log_partition", &partition),
        ];
        let date_format = self.date_format.map(|format| ("date_format", format));
        table.insert(
            &self.topic(site),
            &[&row[..], date_format.as_slice()].concat(),
        );
    }

    /// The folder that the files are moved to.
    fn lake(&self, site: &Site) -> PathBuf {
        site.path("lake/web").join(self.name)
    }

    /// The record numbers in the moved files, each with the number of its occurrences.
    fn numbers(&self, site: &Site) -> BTreeMap<u64, u64> {
        let mut found = BTreeMap::new();
        let files = files(&self.lake(site));
        for line in files.iter().flat_map(|file| lines(file)) {
            *found
                .entry(line.parse().unwrap_or_else(|_| panic!("`{line}`")))
                .or_insert(0) += 1;
        }
        found
    }

    /// Checks that this number of records is moved, each to one file.
    fn check_numbers(&self, site: &Site, sent: u64) {
        let found = self.numbers(site);
        let wrong: Vec<_> = (0..sent)
            .filter(|number| found.get(number) != Some(&1))
            .collect();
        assert!(
            wrong.is_empty() && found.len() as u64 == sent,
            "{}: not exactly once: {wrong:?}",
            self.name
        );
    }

    /// Checks that a moved file has the folder, the name and the records of one hour.
    fn check_file(&self, site: &Site, host: &str, file: &Path) {
        let folder = file
            .parent()
            .and_then(|folder| folder.strip_prefix(self.lake(site)).ok())
            .expect("below its folder")
            .display()
            .to_string();
        let hour = self
            .folders
            .iter()
            .position(|expected| *expected == folder)
            .unwrap_or_else(|| panic!("{}", file.display()));
        let file_name = file.file_name().expect("a name").to_string_lossy();
        let start = format!(
            "{host}-{}-{}-",
            self.topic(site),
            ["2023-11-14-22", "2023-11-15-00"][hour]
        );
        assert!(
            file_name.starts_with(&start) && file_name.ends_with(".txt.gz"),
            "{file_name} does not start with {start}"
        );
        assert!(
            lines(file)
                .iter()
                .all(|line| line.parse::<usize>().is_ok_and(|number| number % 2 == hour)),
            "{file_name}"
        );
    }
}

/// With kills, each record is in one file, in the folder and with the name that pseidon-hdfs used.
#[test]
fn published_files_are_moved_to_their_partitions() {
    let site = Site::new("moved");
    let table = LogTable::new(&site);
    table.add_date_format();
    CASES.iter().for_each(|case| case.send(&site, 0..800));
    CASES.iter().for_each(|case| case.insert(&site, &table));
    site.write("pipeline.edn", template(&site, &table));
    let mut pseidon = site.run("pipeline.edn");
    let moved = || -> usize {
        CASES
            .iter()
            .map(|case| files(&case.lake(&site)).len())
            .sum()
    };
    let mut before = 0;
    for round in 1..4_u64 {
        wait_until("more files are moved", 60, || moved() > before);
        std::thread::sleep(site.random.millis(0..1500));
        pseidon.kill();
        before = moved();
        let numbers = round * 800..(round + 1) * 800;
        CASES
            .iter()
            .for_each(|case| case.send(&site, numbers.clone()));
        pseidon = site.run("pipeline.edn");
    }
    for case in &CASES {
        wait_until(&format!("all of {} is moved", case.name), 90, || {
            case.numbers(&site).len() == 3200 || !pseidon.is_running()
        });
    }
    pseidon.stop(60);

    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    for case in &CASES {
        case.check_numbers(&site, 3200);
        for file in files(&case.lake(&site)) {
            case.check_file(&site, host.trim(), &file);
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
