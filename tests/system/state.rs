//! State that is in use by another process, was left by another version of the pipeline, or is
//! lost.

use crate::harness::feed::Feeder;
use crate::harness::output::{all_lines, check, count_gapless, files, numbers};
use crate::harness::pipeline::{
    Layout, Membership, Store, files_sink, kafka_source, pipeline, settings, state_in,
};
use crate::harness::redis::Redis;
use crate::harness::watch::Watcher;
use crate::harness::{Site, wait_until};
use crate::logs::gzip;

fn generated(state: &str, condition: &str) -> String {
    format!(
        r#"{{:name "counted" :settings {{{state}}}
            in (generate {{:record {{:n "n"}} :rate 2000}})
            pipeline (-> in (where "{condition}") (files {{:path "out/{{n % 4}}" :codec :json :rollover {{:records 50 :idle "300ms"}} :check-freq "50ms"}}))}}"#
    )
}

#[test]
fn a_second_process_is_refused() {
    let site = Site::new("second");
    site.write("pipeline.edn", generated("", "n >= 0"));
    let mut first = site.run("pipeline.edn");
    wait_until("the first one writes", 30, || {
        !files(&site.path("out")).is_empty()
    });
    let mut second = site.run("pipeline.edn");
    second.expect_exit(1, 20);
    assert!(
        second.log().contains("is in use by another process"),
        "{}",
        second.log()
    );
    assert!(first.is_running());
    first.stop(20);
    count_gapless(&site.path("out"));
}

/// The state does not grow forever: files that were read to their end and deleted are forgotten
/// after a while.
#[test]
fn deleted_files_are_forgotten() {
    let site = Site::new("forgotten");
    let text = |forget_after: &str| {
        format!(
            r#"{{:name "forgotten" :settings {{:forget-after "{forget_after}"}}
                in (files {{:path "in/*.gz" :format :raw}}) pipeline (-> in (files {{:path "out" :codec :raw}}))}}"#
        )
    };
    let forgotten = |log: &str| {
        log.lines()
            .filter(|line| line.contains("removed finished splits"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    (0..40).for_each(|number| {
        _ = site.write(&format!("in/{number}.gz"), gzip(&format!("{number}\n")))
    });
    site.write("pipeline.edn", text("1d"));
    site.finish("pipeline.edn", 30);
    (0..30).for_each(|number| {
        std::fs::remove_file(site.path(&format!("in/{number}.gz"))).expect("it is there")
    });
    let early = site.finish("pipeline.edn", 30);
    assert_eq!(
        forgotten(&early.log()),
        Vec::<String>::new(),
        "a day has not passed"
    );

    site.write("pipeline.edn", text("0s"));
    let log = site.finish("pipeline.edn", 30).log();
    assert!(
        forgotten(&log).iter().any(|line| line.contains("count=30")),
        "{log}"
    );
    let log = site.finish("pipeline.edn", 30).log();
    assert_eq!(
        forgotten(&log),
        Vec::<String>::new(),
        "forgotten files are not forgotten again"
    );
    assert_eq!(
        all_lines(&site.path("out")).len(),
        40,
        "existing files are not re-read"
    );
}

#[test]
fn state_that_is_lost_during_a_run_ends_it() {
    let site = Site::new("emptied");
    let redis = Redis::start(&site);
    site.write(
        "pipeline.edn",
        generated(&state_in(&site, &redis.url()), "n >= 0"),
    );
    let watcher = Watcher::start(&[site.path("out")]);
    let mut pseidon = site.run("pipeline.edn");
    watcher.wait_for(500, 30);
    redis.empty();
    pseidon.expect_exit(1, 30);
    let log = pseidon.log();
    assert!(
        log.contains("lost data") && log.contains("Restore the store"),
        "{log}"
    );
    watcher.finish();
    // Lanes are committed by themselves, so the run may end between two of them. Each has its own
    // records once and without a gap.
    for lane in 0..4 {
        let found = numbers(&site.path(&format!("out/{lane}")));
        let expected: Vec<u64> = (0..found.len() as u64).map(|at| 4 * at + lane).collect();
        assert_eq!(found, expected, "lane {lane}");
    }
}

/// The offsets of the Kafka group are ahead of the state: the state was lost, and continuing would
/// duplicate records.
#[test]
fn state_that_is_lost_between_runs_is_noticed() {
    let site = Site::new("forgotten");
    let redis = Redis::start(&site);
    let settings = format!(
        "{{:commit-interval \"200ms\" {}}}",
        state_in(&site, &redis.url())
    );
    let source = |more: &str| kafka_source(&site.name, Membership::Dynamic, more);
    site.write(
        "pipeline.edn",
        pipeline(
            &site.name,
            &settings,
            &source(""),
            &files_sink(Layout::GzipByRecords),
        ),
    );
    let mut feed = Feeder::new(&site.name, 3);
    let fed = feed.send(1000).fed();
    let watcher = Watcher::start(&[site.path("out")]);
    let mut pseidon = site.run("pipeline.edn");
    watcher.wait_for(fed.total(), 60);
    pseidon.stop(20);
    redis.empty();
    let mut pseidon = site.run("pipeline.edn");
    pseidon.expect_exit(1, 30);
    let log = pseidon.log();
    assert!(
        log.contains("the state may have been lost") && log.contains(":on-missing-state"),
        "{log}"
    );

    // The user configures that the offsets of the group are correct.
    let text = pipeline(
        &site.name,
        &settings,
        &source(":on-missing-state :group"),
        &files_sink(Layout::GzipByRecords),
    );
    site.write("pipeline.edn", text);
    let fed = feed.send(500).fed();
    let mut pseidon = site.run("pipeline.edn");
    watcher.wait_for(fed.total(), 60);
    pseidon.stop(20);
    watcher.finish();
    check(&site.path("out"), &fed);
}

/// Runs that end at the current end of the topic: each reads only the records since the previous
/// one.
#[test]
fn a_run_until_the_latest_ends() {
    let site = Site::new("until");
    let source = kafka_source(&site.name, Membership::Dynamic, ":until :latest");
    site.write(
        "pipeline.edn",
        pipeline(
            &site.name,
            &settings(&site, Store::Embedded),
            &source,
            &files_sink(Layout::Parquet),
        ),
    );
    let mut feed = Feeder::new(&site.name, 3);
    for records in [1500, 10, 700] {
        let fed = feed.send(records).fed();
        site.finish("pipeline.edn", 60);
        check(&site.path("out"), &fed);
    }
}

#[test]
fn two_files_with_one_name_and_one_folder_are_warned_about() {
    const WARNING: &str = "was one of another file with the same name";
    let site = Site::new("state-one-name");
    site.write("in.ndjson", "{\"id\":1}\n");
    let text = r#"{:name "clicks" pipeline (-> (files "in.ndjson") (files "out"))}"#;
    site.write("a.edn", text);
    site.write("b.edn", text);
    let warns = |file: &str| site.finish(file, 30).log().contains(WARNING);
    assert!(!warns("a.edn"), "no file was run before");
    assert!(!warns("a.edn"), "it is the same file");
    assert!(warns("b.edn"));
    let log = site.finish("a.edn", 30).log();
    assert!(log.contains("b.edn"), "{log}");
    // A link to the file is not another one, and a file that was renamed is not either.
    std::os::unix::fs::symlink("a.edn", site.path("link.edn")).expect("a link");
    assert!(!warns("link.edn"));
    std::fs::rename(site.path("a.edn"), site.path("c.edn")).expect("renamed");
    assert!(!warns("c.edn"));
    site.write("d.edn", text.replace("clicks", "others"));
    assert!(!warns("d.edn"), "another name has another state");
}
