//! Configurations of pseidon-etl run unchanged, and as the pipeline file that `pseidon import`
//! prints.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::mysql::LogTable;
use crate::harness::output::{files, hidden, lines};
use crate::harness::servers::free_port;
use crate::harness::topics::{committed, produce};
use crate::harness::{Site, brokers, server, wait_until};

/// A log: its row, its records, and the expected output of each.
struct Case {
    name: &'static str,
    format: &'static str,
    /// The output format; `None` is NULL.
    output: Option<&'static str>,
    ending: &'static str,
    record: fn(u64) -> String,
    written: fn(u64) -> String,
}

const CASES: [Case; 6] = [
    Case {
        name: "txt",
        format: "txt:sep=tab;ts=0;msg=1:",
        output: Some("txt"),
        ending: ".txt",
        record: |number| format!("{}\t{number}\tmore of it", millis(number)),
        written: |number| format!("{number}\tmore of it"),
    },
    Case {
        name: "gzip",
        format: "txt:sep=pipe;ts_sec=1;msg=-3:-1",
        output: Some("gzip"),
        ending: ".gz",
        record: |number| format!("{number}|{}||{}", millis(number) / 1000, noise(number)),
        written: |number| format!("{number}|{}|{}", millis(number) / 1000, noise(number)),
    },
    Case {
        name: "json",
        format: "json:ts=event.at",
        output: Some("json"),
        ending: ".json.gz",
        record: json,
        written: json,
    },
    Case {
        name: "snappy",
        format: "txt:sep=comma;ts=0;msg=:",
        output: Some("snappy"),
        ending: ".snappy",
        record: iso,
        written: iso,
    },
    Case {
        name: "bzip2",
        format: "txt:ts_ms=1;msg=2",
        output: Some("bzip2"),
        ending: ".bz2",
        record: |number| {
            format!(
                "a\u{1}{}\u{1}{number} {}\u{1}b",
                millis(number),
                noise(number)
            )
        },
        written: |number| format!("{number} {}", noise(number)),
    },
    Case {
        name: "null",
        format: "txt:sep=semicolon;ts=0;msg=5",
        output: None,
        ending: ".gz",
        record: |number| format!("{};{number}", millis(number)),
        // A slice that starts past the last field is empty.
        written: |_| String::new(),
    },
];

const RECORDS: u64 = 20_000;
/// The hours of the records' timestamps, in UTC.
const HOURS: [&str; 3] = ["2023-11-14-22", "2023-11-14-23", "2023-11-15-00"];

fn millis(number: u64) -> u64 {
    1_700_000_000_000 + number % 3 * 3_600_000
}

fn iso(number: u64) -> String {
    let hour = [
        "2023-11-14T22:13:20Z",
        "2023-11-15T00:13:20+01:00",
        "2023-11-15T00:13:20.000Z",
    ][number as usize % 3];
    format!("{hour},{number},{}", noise(number))
}

fn json(number: u64) -> String {
    format!(
        r#"{{"n": {number},"event":{{"at":{}}}, "text":"{}"}}"#,
        millis(number),
        noise(number)
    )
}

/// Text that does not compress well.
fn noise(number: u64) -> String {
    format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn host_and_port(url: &str) -> &str {
    url.rsplit(['/', '@']).next().expect("host and port")
}

/// A `pseidon.edn` with every documented key, for the tests' servers. Its group, and that of the
/// rows, is the name of the site.
fn pseidon_edn(site: &Site, table: &LogTable, data_dir: &Path, more: &str) -> String {
    let (_, place) = table.url().split_once('@').expect("a user");
    let (host, port) = brokers()
        .split_once(':')
        .map(|(host, port)| (host.to_owned(), port.to_owned()))
        .expect("host and port");
    format!(
        r#";; All keys that apply here.
{{
 :etl-db-host "//{place}?autoReconnect=true"
 :etl-db-user "root"
 :etl-db-pwd  ""
 :etl-group   "{group}"
 :topic-refresh-freq-ms 500
 :etl-error-threshold   100

 :data-dir "{data_dir}"
 :writer {{:codec :gzip :check-freq 200 :rollover-size 115000000 :rollover-abs-timeout 600000 :parallel-files 3 :rollover-timeout 15000
          :out-buffer-size 500000 :use-buffer false :flush-on-write true :write-multiplier 1 :allow-all-ts true}}

 :consume-step             10
 :kafka-brokers            [{{:host "{host}" :port {port}}}]
 :kafka-use-earliest       true
 :redis-conf               {{:host "{redis}" :heart-beat 5}}
 :kafka-msg-ch-buffer-size 50

 :pool        {{:queue-limit 100 :queue-type :array-queue}}
 :metrics     {{:redis {{:host "redis" :port 6379 :db 0}}}}
 :etl-threads 2
 :io-threads  2

 :monitor-port {monitor}
 :repl-port    {repl}

 ;; added for the new system
 :fatal-errors "{fatal_errors}"
 {more}
}}
"#,
        group = site.name,
        data_dir = data_dir.display(),
        redis = host_and_port(&server("PSEIDON_TEST_REDIS")),
        monitor = free_port(),
        repl = free_port(),
        fatal_errors = site.path("fatalerrors").display(),
    )
}

/// Runs the file until this number of lines is visible, and stops it. Returns the log output.
fn run_until(site: &Site, pipeline: &str, folder: &Path, expected: u64) -> String {
    let mut pseidon = site.run(pipeline);
    wait_until("everything is visible", 150, || {
        let visible: u64 = files(folder)
            .iter()
            .map(|file| lines(file).len() as u64)
            .sum();
        assert!(
            visible <= expected,
            "{visible} lines, but there are only {expected} records"
        );
        visible == expected || !pseidon.is_running()
    });
    assert!(pseidon.is_running());
    pseidon.stop(60);
    assert_eq!(hidden(folder), Vec::<PathBuf>::new());
    pseidon.log()
}

/// The pipeline file that `pseidon import` prints, and its notes.
fn imported(site: &Site, file: &Path) -> (String, String) {
    let output = site
        .pseidon()
        .arg("import")
        .arg(file)
        .output()
        .expect("the binary can be started");
    let notes = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{notes}");
    (String::from_utf8(output.stdout).expect("text"), notes)
}

/// The contents of the files below a folder, by name.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let name = |file: &PathBuf| {
        file.strip_prefix(folder)
            .expect("below the folder")
            .display()
            .to_string()
    };
    files(folder)
        .iter()
        .map(|file| (name(file), fs::read(file).expect("a file")))
        .collect()
}

fn topic(site: &Site, case: &Case) -> String {
    format!("{}-{}", site.name, case.name)
}

/// Sends the records of all cases, and inserts their rows.
fn feed_cases(site: &Site, table: &LogTable) {
    for case in &CASES {
        let topic = topic(site, case);
        produce(&topic, 0, (0..RECORDS).map(case.record));
        let columns = [("format", case.format), ("log_group", &site.name)];
        let output = case.output.map(|output| ("output_format", output));
        table.insert(&topic, &[&columns[..], output.as_slice()].concat());
    }
}

/// Checks that the files below a folder have the names and the lines that the cases expect, and
/// that there are no others.
fn check_cases(site: &Site, folder: &Path, found: &BTreeMap<String, Vec<u8>>) {
    let mut seen = 0;
    for case in &CASES {
        for (number, hour) in HOURS.iter().enumerate() {
            let start = format!("{}-{hour}-", topic(site, case));
            let names: Vec<&String> = found
                .keys()
                .filter(|name| name.starts_with(&start))
                .collect();
            assert!(
                !names.is_empty() && names.iter().all(|name| name.ends_with(case.ending)),
                "{start}…{}: {names:?}",
                case.ending
            );
            let written: Vec<String> = names
                .iter()
                .flat_map(|name| lines(&folder.join(name)))
                .collect();
            let expected: Vec<String> = (0..RECORDS)
                .skip(number)
                .step_by(HOURS.len())
                .map(case.written)
                .collect();
            assert!(
                written == expected,
                "{start}: {} lines in place of {}",
                written.len(),
                expected.len()
            );
            seen += names.len();
        }
    }
    assert_eq!(seen, found.len(), "unexpected files: {:?}", found.keys());
}

#[test]
fn it_runs_unchanged_and_imported() {
    let site = Site::new("legacy");
    let table = LogTable::new(&site);
    feed_cases(&site, &table);
    let (old, new) = (site.path("data-old"), site.path("data-new"));
    let edn = site.write(
        "pseidon.edn",
        pseidon_edn(&site, &table, &old, ":shoe-size 43 :etl-grup \"etl\""),
    );
    let total = RECORDS * CASES.len() as u64;

    let log = run_until(&site, "pseidon.edn", &old, total);
    // Each unknown key and each key without effect is reported in one line.
    for note in [
        "`:shoe-size` is unknown",
        "`:etl-grup` is unknown",
        "`:consume-step` no longer has an effect",
        "`:pool` no longer has an effect",
    ] {
        let times = log
            .lines()
            .filter(|line| line.contains("WARN") && line.contains(note))
            .count();
        assert_eq!(times, 1, "`{note}` in\n{log}");
    }

    let (pipeline, notes) = imported(&site, &edn);
    assert!(notes.contains("did you mean `:etl-group`?"), "{notes}");
    let regrouped = format!("{}-imported", site.name);
    let pipeline = pipeline.replace(&format!("\"{}\"", site.name), &format!("\"{regrouped}\""));
    site.write(
        "imported.edn",
        pipeline.replace(&old.display().to_string(), &new.display().to_string()),
    );
    table.regroup(&regrouped);
    run_until(&site, "imported.edn", &new, total);

    let (old_files, new_files) = (contents(&old), contents(&new));
    assert_eq!(
        old_files.keys().collect::<Vec<_>>(),
        new_files.keys().collect::<Vec<_>>()
    );
    let different: Vec<&String> = old_files
        .keys()
        .filter(|name| old_files[*name] != new_files[*name])
        .collect();
    assert!(different.is_empty(), "their contents differ: {different:?}");
    check_cases(&site, &old, &old_files);
    assert_eq!(
        fs::read_to_string(site.path("fatalerrors")).unwrap_or_default(),
        ""
    );
}

#[test]
fn a_pipeline_of_plugins_runs() {
    let site = Site::new("legacy-plugins");
    let table = LogTable::new(&site);
    let topic = |name: &str| format!("{}-{name}", site.name);
    for name in ["errors", "debug", "clicks"] {
        let kept = (0..30).map(|number| format!("{}\t{name} {number}", millis(number)));
        let noise = (0..5).map(|number| format!("{}\tnoise", millis(number)));
        produce(&topic(name), 0, kept.chain(noise));
        table.insert(
            &topic(name),
            &[
                ("format", "txt:sep=tab;ts=0;msg=1"),
                ("output_format", "txt"),
                ("log_group", &site.name),
            ],
        );
    }
    let data = site.path("data");
    let plugins = format!(
        r#":plugins {{keep   (where "msg <> 'noise'")
            alarms (kafka {{:brokers "{}" :topic "{}"}})
            beside (files {{:path "beside" :codec :txt :write "msg" :rollover {{:idle "500ms"}} :check-freq "200ms"}})
            old    pseidon.plugin.IncPlugin
            pipeline (-> keep (all disk-writer (match "{}" alarms #r"-(debug|trace)$" beside)))}}"#,
        brokers(),
        topic("alarms"),
        topic("errors")
    );
    site.write("pseidon.edn", pseidon_edn(&site, &table, &data, &plugins));
    let log = run_until(&site, "pseidon.edn", &data, 90);
    assert!(
        log.contains("the class `pseidon.plugin.IncPlugin` is not supported"),
        "{log}"
    );

    let kept = |name: &str| -> Vec<String> {
        sorted((0..30).map(|number| format!("{name} {number}")).collect())
    };
    for name in ["errors", "debug", "clicks"] {
        let start = topic(name);
        let of_topic = files(&data).into_iter().filter(|file| {
            file.file_name()
                .is_some_and(|found| found.to_string_lossy().starts_with(&start))
        });
        assert_eq!(
            sorted(of_topic.flat_map(|file| lines(&file)).collect()),
            kept(name)
        );
    }
    assert_eq!(
        sorted(
            files(&site.path("beside"))
                .iter()
                .flat_map(|file| lines(file))
                .collect()
        ),
        kept("debug")
    );
    let alarms = committed(&topic("alarms")).concat();
    let expected = (0..30)
        .map(|number| format!("{}\terrors {number}", millis(number)))
        .collect();
    assert_eq!(
        sorted(alarms),
        sorted(expected),
        "an unchanged record keeps its bytes"
    );
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[test]
fn a_class_is_refused() {
    let site = Site::new("legacy-class");
    let table = LogTable::new(&site);
    let plugins = ":plugins {count pseidon.plugin.IncPlugin pipeline (-> count disk-writer)}";
    site.write(
        "pseidon.edn",
        pseidon_edn(&site, &table, &site.path("data"), plugins),
    );
    let mut pseidon = site.run("pseidon.edn");
    pseidon.expect_exit(2, 20);
    let log = pseidon.log();
    assert!(
        log.contains(
            "`pseidon.plugin.IncPlugin` is a Java or Clojure class, which is not supported"
        ),
        "{log}"
    );
    assert!(
        log.contains("(where"),
        "the help shows the equivalent: {log}"
    );
}

/// The shipped files are valid, including legacy configurations and their conversions; `import` of
/// each legacy file prints the pipeline file beside it.
#[test]
fn shipped_files_are_valid() {
    let site = Site::new("shipped");
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut checked = 0;
    for file in files(&conf) {
        let name = file.display().to_string();
        if !name.ends_with(".edn") && !name.ends_with(".toml") {
            continue;
        }
        let mut command = site.pseidon();
        let output = command
            .arg("check")
            .arg(&file)
            .env("ETL_DB_PWD", "secret")
            .output()
            .expect("the binary can be started");
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        checked += 1;
        if file
            .parent()
            .is_some_and(|folder| folder.ends_with("legacy"))
            && !name.ends_with(".pipeline.edn")
        {
            let beside = fs::read_to_string(name.replace(".edn", ".pipeline.edn"))
                .expect("its pipeline file is beside it");
            assert_eq!(imported(&site, &file).0, beside, "{name}");
        }
    }
    assert!(checked >= 16, "only {checked} files");
}
