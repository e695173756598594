//! The output of flows, without crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::Site;
use crate::harness::output::{all_lines, files, hidden, lines, metadata, numbers, rows};

/// `{"n":7,"user":{"name":"u7"},"status":404,"at":1767225607000,"text":"…"}`
fn event(number: u64) -> String {
    let status = [200, 200, 404, 500][number as usize % 4];
    let at = 1_767_225_600_000 + number * 1000 * 60;
    format!(
        r#"{{"n":{number},"user":{{"name":"u{}"}},"status":{status},"at":{at},"text":"line \"{number}\", é"}}"#,
        number % 10
    )
}

fn events(count: u64) -> String {
    (0..count).map(|number| event(number) + "\n").collect()
}

/// The lines of the files below a folder, by their folder.
fn by_folder(site: &Site, folder: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let base = site.path(folder);
    for path in files(&base) {
        let bucket = path
            .strip_prefix(&base)
            .ok()
            .and_then(|path| path.parent())
            .expect("below the folder")
            .display()
            .to_string();
        found.entry(bucket).or_default().extend(lines(&path));
    }
    found.values_mut().for_each(|lines| lines.sort());
    found
}

const EVERY_CODEC: &str = r#"{:settings {:etl-threads 2}
    in     (files {:path "in/*.ndjson" :schema {:n :int64 :user {:name :utf8} :status :int64 :at :int64 :text :utf8}})
    bad    (where "status >= 400")
    slim   (select "n, user.name as name, status, to_timestamp_millis(at) as at, text")
    errors (files {:path "out/errors/{status}" :codec :json :compression :gzip})
    lake   (files {:path "out/lake/day={at:%Y-%m-%d}/hour={at:%H}" :codec :parquet})
    packed (files {:path "out/packed" :codec :json :compression :zstd :rollover {:records 100}})
    texts  (files {:path "out/texts" :codec :txt})
    as-is  (files {:path "out/as-is" :codec :raw})
    pipeline (-> in (all (-> bad errors)
                         (-> slim (all lake packed))
                         (-> (select "text") texts)
                         as-is))}"#;

#[test]
fn one_source_to_every_codec() {
    let site = Site::new("codecs");
    site.write("in/a.ndjson", events(400));
    site.write(
        "in/b.ndjson",
        (400..700)
            .map(|number| event(number) + "\r\n")
            .collect::<String>(),
    );
    site.write("pipeline.edn", EVERY_CODEC);
    site.finish("pipeline.edn", 60);
    assert_eq!(hidden(&site.path("out")), Vec::<PathBuf>::new());

    let with_status = |status: u64| {
        sorted(
            (0..700)
                .map(event)
                .filter(|line| line.contains(&format!("\"status\":{status}"))),
        )
    };
    assert_eq!(
        by_folder(&site, "out/errors"),
        BTreeMap::from([
            ("404".to_owned(), with_status(404)),
            ("500".to_owned(), with_status(500))
        ])
    );
    assert_eq!(numbers_in_lake(&site.path("out/lake")), (0..700).collect());
    assert_eq!(
        numbers(&site.path("out/packed")),
        (0..700).collect::<Vec<_>>()
    );
    assert!(
        files(&site.path("out/packed"))
            .iter()
            .all(|path| lines(path).len() <= 100)
    );
    assert_eq!(
        all_lines(&site.path("out/texts")),
        sorted((0..700).map(|number| format!("line \"{number}\", é")))
    );
    assert_eq!(
        all_lines(&site.path("out/as-is")),
        sorted((0..700).map(event))
    );
}

fn sorted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines
}

/// The numbers of the rows of the stage `lake`, each of which is checked.
fn numbers_in_lake(lake: &Path) -> BTreeSet<u64> {
    let mut seen = BTreeSet::new();
    for path in files(lake) {
        assert!(
            !metadata(&path).is_empty(),
            "{} has no metadata",
            path.display()
        );
        for row in rows(&path) {
            let number: u64 = row["n"].parse().expect("a number");
            let (hour, minute) = (number / 60, number % 60);
            assert!(
                path.display()
                    .to_string()
                    .contains(&format!("/day=2026-01-01/hour={hour:02}/")),
                "{number} is in {}",
                path.display()
            );
            assert!(
                row["at"].starts_with(&format!("2026-01-01T{hour:02}:{minute:02}:00")),
                "{row:?}"
            );
            assert_eq!(row["name"], format!("u{}", number % 10));
            assert_eq!(row["text"], format!("line \"{number}\", é"));
            assert!(seen.insert(number), "{number} occurs twice");
        }
    }
    seen
}

#[test]
fn records_are_matched_by_topic() {
    let site = Site::new("match");
    for (topic, numbers) in [
        ("clicks.log", 0..10),
        ("orders-eu.log", 10..20),
        ("orders-us.log", 20..30),
        ("other.log", 30..40),
    ] {
        site.write(
            &format!("in/{topic}"),
            numbers
                .map(|number| event(number) + "\n")
                .collect::<String>(),
        );
    }
    site.write(
        "pipeline.edn",
        r#"{in (files {:path "in/*.log" :format "json"})
            pipeline (-> in (match "in/clicks.log"   (files {:path "out/clicks" :codec :json})
                                   #r"orders-.*"     (files {:path "out/orders/{@topic}" :codec :json})
                                   :else             (files {:path "out/rest" :codec :json})))}"#,
    );
    site.finish("pipeline.edn", 60);
    let of = |range: std::ops::Range<u64>| range.map(event).collect::<Vec<_>>();
    let found = by_folder(&site, "out");
    assert_eq!(found["clicks"], of(0..10));
    assert_eq!(found["rest"], of(30..40));
    let orders: Vec<(&String, &Vec<String>)> = found
        .iter()
        .filter(|(folder, _)| folder.starts_with("orders/"))
        .collect();
    assert_eq!(
        orders
            .iter()
            .map(|(_, lines)| (*lines).clone())
            .collect::<Vec<_>>(),
        [of(10..20), of(20..30)]
    );
}

/// Values in paths cannot escape from the output folder, create hidden files or be empty.
#[test]
fn hostile_buckets_stay_inside() {
    let site = Site::new("hostile-buckets");
    let long = "x".repeat(1000);
    let values = [
        "../../up",
        "/etc/passwd",
        "..",
        ".",
        ".hidden",
        "",
        "a/b",
        "a\\u0000b",
        "a\\nb",
        "%2e%2e",
        "é",
        "__HIVE_DEFAULT_PARTITION__",
        &long,
    ];
    let mut text: String = values
        .iter()
        .enumerate()
        .map(|(n, value)| format!("{{\"n\":{n},\"v\":\"{value}\"}}\n"))
        .collect();
    text.push_str(&format!(
        "{{\"n\":{},\"v\":null}}\n{{\"n\":{}}}\n",
        values.len(),
        values.len() + 1
    ));
    site.write("deep/in/a.ndjson", text);
    site.write(
        "deep/pipeline.edn",
        r#"{in (files {:path "in/*"  :format "json" :schema {:n :int64 :v :utf8}})
            pipeline (-> in (files {:path "out/base/{v}/end" :codec :json}))}"#,
    );
    site.finish("deep/pipeline.edn", 60);
    assert_eq!(
        numbers(&site.path("deep/out/base")),
        (0..values.len() as u64 + 2).collect::<Vec<_>>()
    );
    assert_eq!(hidden(&site.path("deep/out")), Vec::<PathBuf>::new());
    let beside: BTreeSet<PathBuf> = files(&site.path(""))
        .into_iter()
        .filter(|path| !path.starts_with(site.path("logs")))
        .collect();
    assert!(
        beside
            .iter()
            .all(|path| path.starts_with(site.path("deep"))),
        "{beside:?}"
    );
    let folders = by_folder(&site, "deep/out/base");
    assert_eq!(
        folders["__HIVE_DEFAULT_PARTITION__/end"].len(),
        4,
        "null, missing, empty and the name itself: {folders:?}"
    );
    assert!(
        folders
            .keys()
            .all(|folder| folder.matches('/').count() == 1),
        "{folders:?}"
    );
}

#[test]
fn a_toml_file_is_equivalent() {
    let site = Site::new("toml");
    site.write("in/a.ndjson", events(300));
    site.write(
        "edn.edn",
        r#"{:name "edn"
            :settings {:memory "64MB"}
            in   (files {:path "in/*.ndjson" :schema {:n :int64 :user {:name :utf8} :status :int64}})
            few  (where "status >= 400")
            slim (select "n, user.name as name, status")
            out  (files {:path "out-edn/{name}" :codec :json :rollover {:records 7}})
            pipeline (-> in few slim out)}"#,
    );
    site.write(
        "toml.toml",
        r#"name = "toml"
pipeline = "(-> in few slim out)"
[settings]
memory = "64MB"
[stages.in]
files = { path = "in/*.ndjson", schema = { n = "int64", user = { name = "utf8" }, status = "int64" } }
[stages.few]
where = "status >= 400"
[stages.slim]
select = "n, user.name as name, status"
[stages.out]
files = { path = "out-toml/{name}", codec = "json", rollover = { records = 7 } }
"#,
    );
    site.finish("edn.edn", 60);
    site.finish("toml.toml", 60);
    let contents = |folder: &str| {
        let base = site.path(folder);
        let mut all: Vec<(String, String)> = Vec::new();
        for path in files(&base) {
            let bucket = path
                .strip_prefix(&base)
                .expect("below")
                .parent()
                .expect("a folder")
                .display()
                .to_string();
            all.push((bucket, fs::read_to_string(&path).expect("text")));
        }
        all.sort();
        all
    };
    let from_edn = contents("out-edn");
    assert!(from_edn.len() >= 10, "{} files", from_edn.len());
    assert_eq!(from_edn, contents("out-toml"));
}

/// Many more buckets than open files are allowed, with the smallest possible memory.
#[test]
fn hundreds_of_buckets_in_little_memory() {
    let site = Site::new("buckets");
    site.write(
        "pipeline.edn",
        r#"{:settings {:memory "16MiB" :etl-threads 2 :writer-threads 2}
            in (generate {:record {:n "n" :bucket "h % 600" :pad "repeat('x', 50 + h % 100)"} :count 24000 :splits 3})
            pipeline (-> in (files {:path "out/{bucket}" :codec :json :compression :gzip :max-open-files 100}))}"#,
    );
    let mut pseidon = site.finish("pipeline.edn", 200);
    assert!(!pseidon.is_running());
    assert_eq!(numbers(&site.path("out")), (0..24000).collect::<Vec<_>>());
    assert_eq!(by_folder(&site, "out").len(), 600);
    assert_eq!(hidden(&site.path("out")), Vec::<PathBuf>::new());
}

/// What a branch requires of a field is nothing to the other branches.
#[test]
fn a_branch_changes_no_value_of_another() {
    let records = [
        r#"{"a":"7","s":[2]}"#,
        r#"{"a":5,"s":"x"}"#,
        r#"{"a":5.0,"s":1}"#,
        r#"{"a":9007199254740993,"s":null}"#,
    ];
    for branch in [
        r#"(where "abs(a) > 1 and length(s) > 0")"#,
        r#"(where "(a & 1) = 1 and upper(s) = 'X'")"#,
        r#"(where "a::float64 > 1 and ltrim(s) <> ''") (select "sqrt(a) as a, s")"#,
    ] {
        for other in [r#"(select "a, s")"#, ""] {
            let site = Site::new("branches");
            site.write("in.ndjson", records.join("\n"));
            site.write(
                "pipeline.edn",
                format!(
                    r#"{{in (files "in.ndjson")
                        pipeline (-> in (all (-> {branch} (drop))
                                             (-> {other} (files {{:path "out" :codec :json}}))))}}"#
                ),
            );
            site.finish("pipeline.edn", 30);
            assert_eq!(all_lines(&site.path("out")), records, "{branch} {other}");
        }
    }
}
