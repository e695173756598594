//! `lookup` with `:reload`: tables that change during a run.

use std::fs::{self, File};
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::harness::feed::Feeder;
use crate::harness::mysql::LogTable;
use crate::harness::output::{all_lines, hidden};
use crate::harness::pipeline::{Membership, Store, kafka_source, pipeline, settings};
use crate::harness::process::Pseidon;
use crate::harness::{Site, wait_until};
use crate::log_table::{FORMATS, Topics, template};

/// Replaces the table: each of four keys has this version.
fn write_table(site: &Site, version: u64) {
    let rows: String = (0..4).map(|key| format!("{key},{version}\n")).collect();
    replace(site, &format!("key,version\n{rows}"));
}

fn replace(site: &Site, content: &str) {
    site.write("table.new", content);
    fs::rename(site.path("table.new"), site.path("table.csv")).expect("renamed");
}

/// Numbered records with the version of the table, in a lane for each key.
fn numbered() -> String {
    r#"{:name "reloaded" :settings {:commit-interval "20ms"}
        in (generate {:record {:n "n" :k "n % 4"} :rate 2000})
        pipeline (-> in (lookup "table.csv" "key = k" "version" {:reload "100ms"})
                     (files {:path "out/{k}" :codec :json :check-freq "10ms"
                             :rollover {:records 50 :idle "300ms"}}))}"#
        .to_owned()
}

/// The numbers and versions of all records, in the order of the numbers.
fn versions(site: &Site) -> Vec<(u64, u64)> {
    let field = |record: &Value, name: &str| record[name].as_u64().expect("a number");
    let parsed = |line: &String| serde_json::from_str::<Value>(line).expect("a record");
    let mut all: Vec<(u64, u64)> = all_lines(&site.path("out"))
        .iter()
        .map(parsed)
        .map(|record| (field(&record, "n"), field(&record, "version")))
        .collect();
    all.sort_unstable();
    all
}

/// Checks that each number is there once, and that later records have no earlier version. Returns
/// the versions.
fn check_versions(site: &Site) -> Vec<u64> {
    let all = versions(site);
    let numbers: Vec<u64> = all.iter().map(|(n, _)| *n).collect();
    assert!(
        numbers.iter().copied().eq(0..numbers.len() as u64),
        "each once"
    );
    let mut versions: Vec<u64> = all.into_iter().map(|(_, version)| version).collect();
    assert!(versions.is_sorted(), "an earlier table was used again");
    versions.dedup();
    versions
}

fn wait_for_version(site: &Site, run: &mut Pseidon, version: u64) {
    wait_until("records have the version", 60, || {
        versions(site).iter().any(|(_, found)| *found == version)
    });
    assert!(run.is_running(), "{}", run.log());
}

#[test]
fn records_get_the_table_of_their_time() {
    let site = Site::new("reload");
    write_table(&site, 1);
    site.write("pipeline.edn", numbered());
    let mut run = site.run("pipeline.edn");
    wait_for_version(&site, &mut run, 1);
    write_table(&site, 2);
    wait_for_version(&site, &mut run, 2);

    // A table that cannot be used changes nothing.
    replace(&site, "key,version\n1,3\n1,4\n");
    let refused = "two rows with the key `1`";
    wait_until("it is refused", 30, || run.log().contains(refused));
    fs::remove_file(site.path("table.csv")).expect("removed");
    wait_until("it is missed", 30, || {
        run.log().contains("table cannot be read")
    });
    let before = versions(&site).len();
    wait_until("the run goes on", 30, || {
        versions(&site).len() > before + 200
    });
    write_table(&site, 5);
    wait_for_version(&site, &mut run, 5);
    run.stop(30);
    assert_eq!(check_versions(&site), [1, 2, 5]);
    let log = run.log();
    assert_eq!(
        log.matches("a table has changed; the run").count(),
        2,
        "{log}"
    );
    assert!(hidden(&site.path("out")).is_empty());
}

/// A stop while a table is reloaded, and a source that ends.
#[test]
fn a_run_with_a_changing_table_stops_and_ends() {
    let site = Site::new("reload-stop");
    write_table(&site, 1);
    site.write("pipeline.edn", numbered());
    for version in 2..8 {
        let mut run = site.run("pipeline.edn");
        wait_for_version(&site, &mut run, version - 1);
        write_table(&site, version);
        std::thread::sleep(site.random.millis(0..250));
        run.stop(30);
    }
    let count = versions(&site).len() + 2000;
    site.write(
        "pipeline.edn",
        numbered().replace(":rate 2000", &format!(":count {count}")),
    );
    site.finish("pipeline.edn", 60);
    let versions = check_versions(&site);
    assert!(
        versions.first() == Some(&1) && versions.last() == Some(&7),
        "{versions:?}"
    );
}

/// The process is killed at any time, also while it finishes what it read with an earlier table.
#[test]
fn tables_change_under_kills() {
    let site = Site::new("reload-kills");
    site.write("pipeline.edn", numbered());
    let mut version = 1;
    for round in 0..12 {
        write_table(&site, version);
        let mut run = site.run("pipeline.edn");
        // Some tables are used before the kill, however slow the machine is.
        if round % 4 == 0 {
            wait_for_version(&site, &mut run, version);
        }
        std::thread::sleep(Duration::from_millis(100) + site.random.millis(0..700));
        version += 1;
        write_table(&site, version);
        std::thread::sleep(site.random.millis(0..700));
        assert!(run.is_running(), "{}", run.log());
        run.kill();
        version += 1;
    }
    write_table(&site, version);
    let mut last = site.run("pipeline.edn");
    wait_for_version(&site, &mut last, version);
    last.stop(30);
    assert!(check_versions(&site).len() > 2);
    assert!(hidden(&site.path("out")).is_empty());
}

/// Instances that share a topic and reload at different times.
#[test]
fn instances_reload_independently() {
    let site = Site::new("reload-instances");
    write_table(&site, 1);
    let text = pipeline(
        &site.name,
        &settings(&site, Store::Redis),
        &kafka_source(&site.name, Membership::Dynamic, ""),
        r#"(files {:path "out/{bucket}" :codec :json :rollover {:records 100 :idle "200ms"} :check-freq "50ms"})"#,
    );
    let flow = "(-> in ";
    assert!(text.contains(flow), "{text}");
    let lookup = r#"(lookup "table.csv" "key = p" "version" {:reload "300ms"})"#;
    site.write(
        "pipeline.edn",
        text.replace(flow, &format!("{flow}{lookup} ")),
    );
    let mut feed = Feeder::new(&site.name, 4);
    feed.send(200);
    let background = feed.in_background(3000);
    let mut runs = [site.run("pipeline.edn"), site.run("pipeline.edn")];
    for version in 2..6 {
        std::thread::sleep(Duration::from_secs(2));
        write_table(&site, version);
    }
    let fed = background.finish().fed();
    let total = fed.total() as usize;
    wait_until("everything is delivered", 120, || {
        all_lines(&site.path("out")).len() >= total
    });
    for run in &mut runs {
        assert!(run.is_running(), "{}", run.log());
        run.stop(40);
    }
    let mut records: Vec<(u64, u64, u64)> = Vec::new();
    for line in all_lines(&site.path("out")) {
        let record: Value = serde_json::from_str(&line).expect("a record");
        let field = |name: &str| record[name].as_u64().expect("a number");
        records.push((field("p"), field("n"), field("version")));
    }
    let found = records.len();
    records.sort_unstable();
    records.dedup_by_key(|(p, n, _)| (*p, *n));
    assert_eq!((found, records.len()), (total, total));
    assert!(records.iter().any(|(_, _, version)| *version > 1));
}

/// Standard input goes on in the middle of a line, and its header is that of the first line.
#[test]
fn standard_input_goes_on_where_it_was() {
    let site = Site::new("reload-stdin");
    write_table(&site, 1);
    site.write(
        "pipeline.edn",
        r#"{:name "stdin"
            in (stdin {:format "csv" :schema {:n :int64 :k :int64}})
            pipeline (-> in (lookup "table.csv" "key = k" "version" {:reload "100ms"})
                         (files {:path "out" :codec :json :check-freq "10ms" :rollover {:records 1}}))}"#,
    );
    let mut command = site.pseidon();
    command.args(["run", "pipeline.edn"]).stdin(Stdio::piped());
    command.stderr(File::create(site.path("run.log")).expect("a log"));
    let mut run = command.spawn().expect("it starts");
    let mut input = run.stdin.take().expect("a pipe");
    let mut write = |text: &str| input.write_all(text.as_bytes()).expect("written");
    write("k,n\n0,0\n1,1\n2,");
    wait_until("the first lines are read", 30, || {
        versions(&site).len() == 2
    });
    write_table(&site, 2);
    let log = || fs::read_to_string(site.path("run.log")).expect("a log");
    wait_until("the table is noticed", 30, || {
        log().contains("a table has changed; the run")
    });
    write("2\n");
    let mut count = 3;
    wait_until("lines get the other table", 30, || {
        write(&format!("{},{count}\n", count % 4));
        count += 1;
        versions(&site).iter().any(|(_, version)| *version == 2)
    });
    drop(input);
    assert!(run.wait().expect("it ends").success(), "{}", log());
    check_versions(&site);
    assert_eq!(versions(&site).len() as u64, count);
}

/// A change that comes while an earlier version is finished is not forgotten.
#[test]
fn a_change_after_a_crash_is_used() {
    let site = Site::new("reload-crash");
    write_table(&site, 1);
    site.write("pipeline.edn", numbered());
    for (step, version) in [("committed:5", 2), ("committed:9", 4), ("begun:1", 6)] {
        let mut command = site.command("pipeline.edn");
        command.env("PSEIDON_FAIL", step);
        let name = step.split(':').next().unwrap_or(step);
        site.start(command).expect_death(name, 30);
        write_table(&site, version);
        let mut run = site.run("pipeline.edn");
        std::thread::sleep(site.random.millis(0..300));
        write_table(&site, version + 1);
        wait_for_version(&site, &mut run, version + 1);
        run.stop(30);
    }
    assert_eq!(check_versions(&site).last(), Some(&7));
}

/// The logs of a template use a table that is reloaded for all of them.
#[test]
fn the_logs_of_a_template_reload_their_table() {
    let site = Site::new("reload-logs");
    let table = LogTable::new(&site);
    let mut topics = Topics::new(&site, 2);
    topics.send_all(20);
    let put = |folder: &str| replace(&site, &format!("name,folder\nx,{folder}\n"));
    put("one");
    let lookup = r#"(lookup "table.csv" "name = 'x'" "folder" {:reload "200ms"})"#;
    let text = template(&site, &table, "");
    let text = text.replace("(-> logs out)", &format!("(-> logs {lookup} out)"));
    site.write(
        "pipeline.edn",
        text.replace("out/{@topic}", "out/{folder}/{@topic}"),
    );
    for name in &topics.names {
        table.set(name, FORMATS[0], "txt");
    }
    let mut run = site.run("pipeline.edn");
    let delivered = |folder: &str| all_lines(&site.path(&format!("out/{folder}"))).len();
    wait_until("the first records are delivered", 60, || {
        delivered("one") == 40
    });
    put("two");
    let reloaded = "a table has changed; the run";
    wait_until("the table is noticed", 30, || run.log().contains(reloaded));
    topics.send_all(20);
    wait_until("the other records are delivered", 60, || {
        delivered("one") + delivered("two") == 80
    });
    // A log reloads its table some time after that was noticed.
    let mut sent = 80;
    wait_until("records get the new table", 60, || {
        topics.send_all(1);
        sent += topics.names.len();
        delivered("two") > 0
    });
    run.stop(60);
    assert_eq!(delivered("one") + delivered("two"), sent);
    assert!(hidden(&site.path("out")).is_empty());
}
