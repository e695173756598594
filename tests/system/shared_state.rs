//! State that other programs can write to, without a key: what they write there is not run.

use crate::harness::output::{all_lines, files};
use crate::harness::redis::Redis;
use crate::harness::{Site, wait_until};

/// The hash of the staged files of sink `files`.
const STAGED: &str = "{pseidon:shared}:staged:files";
const PLANS: &str = "{pseidon:shared}:plans";

fn copied(redis: &Redis) -> String {
    format!(
        r#"{{:name "shared" :settings {{:state "{}"}}
            in (files "in/*.json")
            pipeline (-> in (files {{:path "out" :codec :json}}))}}"#,
        redis.url()
    )
}

fn staged(site: &Site, arguments: &[&str]) -> String {
    let mut command = site.pseidon();
    command.args(["staged", "pipeline.edn"]).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_staged_entry_of_another_program_moves_no_file() {
    let site = Site::new("planted");
    let redis = Redis::start(&site);
    site.write("pipeline.edn", copied(&redis));
    site.write("in/a.json", "{\"n\":1}\n");
    site.finish("pipeline.edn", 30);

    site.write("victim", "mine");
    site.write("out/victim", "mine");
    let folder = |path: &str| site.path(path).display().to_string();
    let entries = [
        (folder(""), "victim", "stolen"),
        (folder("out"), "victim", "stolen"),
        (folder("out"), "victim", "stolen/../../stolen"),
        (folder("out"), "../victim", "stolen"),
        (folder("out"), ".pseidon-open/../victim", "stolen"),
    ];
    for (number, (base, hidden, visible)) in entries.iter().enumerate() {
        let entry = format!(
            r#"{{"host":"vm 1","base":"{base}","hidden":"{hidden}","visible":"{visible}","extension":"json"}}"#
        );
        redis.cli(&["hset", STAGED, &format!("x/{number}.open"), &entry]);
    }

    site.write("in/b.json", "{\"n\":2}\n");
    let mut run = site.run("pipeline.edn");
    run.expect_exit(0, 30);
    let log = run.log();
    let refused = "committed file cannot be published here";
    assert_eq!(log.matches(refused).count(), entries.len(), "{log}");
    assert!(
        log.contains("is not a base directory of this sink")
            && log.contains("`pseidon staged` lists it"),
        "{log}"
    );
    for victim in ["victim", "out/victim"] {
        let content = std::fs::read_to_string(site.path(victim));
        assert_eq!(content.unwrap(), "mine", "{victim}");
    }

    // A file of another machine, which has folders of its own.
    let disk = "0123456789abcdef0123456789abcdef";
    let theirs = format!(
        r#"{{"host":"vm 1","disk":"{disk}","base":"/theirs","hidden":"h","visible":"v","extension":""}}"#
    );
    redis.cli(&["hset", STAGED, "x/theirs.open", &theirs]);
    let listed = staged(&site, &[]);
    assert!(listed.contains("files: 5 files refused"), "{listed}");
    let forgotten = staged(&site, &["--forget", "refused"]);
    assert_eq!(forgotten, "forgot 5 files that were refused\n");
    let left = staged(&site, &[]);
    let expected = format!("files: 1 file on disk {disk}, written by vm, not mounted here");
    assert!(left.starts_with(&expected), "{left}");
    assert_eq!(left.matches("files: ").count(), 1, "{left}");

    std::fs::remove_file(site.path("out/victim")).unwrap();
    assert_eq!(all_lines(&site.path("out")), [r#"{"n":1}"#, r#"{"n":2}"#]);
}

/// A file that waits for a folder that the pipeline file does not name any more: it is published by
/// a run with the earlier folders.
#[test]
fn a_file_in_an_earlier_folder_waits_for_it() {
    let site = Site::new("earlier-folder");
    let redis = Redis::start(&site);
    let text =
        |folder: &str| copied(&redis).replace(":path \"out\"", &format!(":base-dir \"{folder}\""));
    site.write("pipeline.edn", text("out"));
    site.write("in/a.json", "{\"n\":1}\n");
    let mut command = site.command("pipeline.edn");
    command.env("PSEIDON_FAIL", "committed");
    site.start(command).expect_death("committed", 30);

    for (folder, delivered) in [("other", 0), ("other", 0), ("out", 1)] {
        site.write("pipeline.edn", text(folder));
        site.finish("pipeline.edn", 30);
        let published = files(&site.path("out"));
        assert_eq!(published.len(), delivered, "{folder}");
    }
    assert_eq!(all_lines(&site.path("out")), [r#"{"n":1}"#]);
    assert_eq!(staged(&site, &[]), "every committed file is visible\n");
}

#[test]
fn a_plan_calls_no_program_that_the_pipeline_file_does_not_call() {
    let site = Site::new("planted-plan");
    let redis = Redis::start(&site);
    // Some lanes hardly ever fill a file, so that they are ahead when the run is killed.
    let text = |condition: &str, hook: &str| {
        format!(
            r#"{{:name "shared" :settings {{:state "{}"}}
                in (generate {{:record {{:n "n"}} :rate 2000}})
                pipeline (-> in (where "{condition}") (files {{:path "out/{{n % 4}}/{{n % 100 = 0}}"
                  :codec :json {hook} :rollover {{:records 50 :idle "1h"}} :check-freq "50ms"}}))}}"#,
            redis.url()
        )
    };
    site.write("pipeline.edn", text("n >= 0", ""));
    let mut command = site.command("pipeline.edn");
    command.env("PSEIDON_FAIL", "committed:7");
    site.start(command).expect_death("committed", 30);

    let fingerprint = redis.cli(&["hkeys", PLANS]);
    assert_eq!(fingerprint.lines().count(), 1, "{fingerprint}");
    let plant = |plan: &str| redis.cli(&["hset", PLANS, fingerprint.trim(), plan]);
    let hook = r#":on-close {:command ["touch" "evil"]}"#;
    let changed = text("n >= 0 and true", "");
    let refused = |plan: &str, pipeline: &str, arguments: &[&str], reason: &str| {
        plant(plan);
        site.write("pipeline.edn", pipeline);
        let mut command = site.command("pipeline.edn");
        command.args(arguments);
        let mut run = site.start(command);
        run.expect_exit(1, 30);
        assert!(run.log().contains(reason), "{reason}: {}", run.log());
    };
    let (evil, other) = (text("n >= 0", hook), text("n >= 1", ""));
    let earlier = text("n >= 0", "");
    for (pipeline, arguments) in [(&changed, &[][..]), (&earlier, &["--previous"])] {
        refused(&evil, pipeline, arguments, "put back the `:on-close`");
        refused(&other, pipeline, arguments, "makes another plan now");
    }
    assert!(!site.path("evil").exists());

    plant(&earlier);
    site.write("pipeline.edn", &changed);
    let mut run = site.run("pipeline.edn");
    wait_until("the earlier version has finished", 30, || {
        run.log().contains("the earlier version has finished")
    });
    run.stop(20);
}
