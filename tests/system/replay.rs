//! `pseidon replay`: quarantined records pass the repaired pipeline once, also if it is killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use serde_json::{Value, json};

use crate::fail_points::STEPS_TO_FILES;
use crate::harness::output::{all_lines, files, hidden};
use crate::harness::pipeline::state_in;
use crate::harness::redis::Redis;
use crate::harness::topics::{committed_messages, create, send};
use crate::harness::{Site, brokers, wait_until};
use crate::kafka_sink_faults::parts_of;

/// Runs `pseidon replay pipeline.edn` with further arguments. Returns the exit code, and what it
/// printed.
fn replay(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let command = [&["replay", "pipeline.edn"], arguments].concat();
    let output = site
        .pseidon()
        .args(command)
        .output()
        .expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    (
        output.status.code(),
        text(output.stdout) + &text(output.stderr),
    )
}

/// Replays, and expects that the log says this.
fn replayed(site: &Site, arguments: &[&str], said: &str) {
    let (code, log) = replay(site, arguments);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains(said), "expected `{said}` in\n{log}");
}

/// The quarantined records below a folder, each once for each time it was quarantined.
fn quarantined(site: &Site, folder: &str) -> Vec<Value> {
    all_lines(&site.path(folder))
        .iter()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

const NOTHING: &str = "nothing is new";

/// A pipeline with this format and selection.
fn shop(format: &str, columns: &str) -> String {
    format!(
        r#"{{:name "shop"
            in   (files {{:path "in/*" {format}}})
            calc (select "{columns}")
            pipeline (-> in calc (files {{:path "out/good" :codec :json}}))}}"#
    )
}

/// A site with the output and the quarantine of a pipeline that must be repaired.
fn with_invalid_records(test: &str) -> Site {
    let site = Site::new(test);
    let mut input =
        b"{\"n\":0,\"v\":1}\nnot json\n{\"n\":1,\"v\":\"text\"}\n{\"n\":3,\"v\":0}\n".to_vec();
    input.extend_from_slice(b"\xff\xfe broken\n");
    site.write("in/a.ndjson", &input);
    site.write(
        "pipeline.edn",
        shop(
            ":format \"json\" :schema {:n :int64 :v :int64}",
            "n, 10 / v as w",
        ),
    );
    site.finish("pipeline.edn", 60);
    assert_eq!(quarantined(&site, "out/quarantine").len(), 4);
    site
}

#[test]
fn records_that_are_valid_now_reach_the_same_sinks_once() {
    let site = with_invalid_records("replay");
    let repaired = shop(
        ":format \"json\" :schema {:n :int64}",
        "n, @topic as t, @offset as at",
    );
    site.write("pipeline.edn", repaired);
    let (code, printed) = replay(&site, &["--dry-run"]);
    assert_eq!(code, Some(0), "{printed}");
    let counted = "would replay 4 records of 2 files: 2 valid, 2 invalid again\n";
    assert!(printed.starts_with(counted), "{printed}");
    for reason in ["is not a JSON object", "is not valid UTF-8"] {
        let line = format!("\n  1 at in: the record {reason}\n");
        assert!(printed.contains(&line), "{printed}");
    }

    let said = "replayed 4 records: 2 valid, 2 invalid again";
    replayed(&site, &[], said);
    let expected = [
        r#"{"n":0,"w":10}"#,
        r#"{"n":1,"t":"in/a.ndjson","at":23}"#,
        r#"{"n":3,"t":"in/a.ndjson","at":42}"#,
    ];
    assert_eq!(all_lines(&site.path("out/good")), expected);
    // Those that are still invalid are quarantined again as they were, with the reason of now.
    let twice = quarantined(&site, "out/quarantine/shop/in");
    let still = |record: &&Value| record["record"] == "not json" || record["record"].is_null();
    let places: Vec<_> = twice
        .iter()
        .filter(still)
        .map(|record| format!("{} {}", record["split"], record["position"]))
        .collect();
    assert_eq!(places.len(), 4, "{twice:?}");
    assert_eq!(
        places.iter().collect::<BTreeSet<_>>().len(),
        2,
        "{places:?}"
    );

    // They are not replayed while the pipeline stays as it is.
    replayed(&site, &[], NOTHING);
    replayed(
        &site,
        &[],
        "2 records that this version of the pipeline has found invalid",
    );
    assert_eq!(all_lines(&site.path("out/good")), expected);
    assert_eq!(quarantined(&site, "out/quarantine").len(), 6);

    // Another repair replays only them.
    site.write("pipeline.edn", shop(":format \"raw\"", "@offset as at"));
    replayed(&site, &[], "replayed 2 records: 2 valid, 0 invalid again");
    let delivered = all_lines(&site.path("out/good"));
    let new = [r#"{"at":14}"#, r#"{"at":56}"#];
    assert_eq!(delivered, [&new[..], &expected[..]].concat());
    replayed(&site, &[], NOTHING);
    assert_eq!(all_lines(&site.path("out/good")), delivered);
    assert_eq!(hidden(&site.path("out")), Vec::<PathBuf>::new());
    // The pipeline itself reads nothing again.
    site.finish("pipeline.edn", 60);
    assert_eq!(all_lines(&site.path("out/good")), delivered);
}

#[test]
fn the_same_version_replays_its_records_only_on_request() {
    let site = with_invalid_records("replay-again");
    replayed(&site, &[], NOTHING);
    let said = "replayed 4 records: 0 valid, 4 invalid again";
    replayed(&site, &["--again"], said);
    assert_eq!(quarantined(&site, "out/quarantine").len(), 8);
}

#[test]
fn stages_and_files_are_selected() {
    let site = with_invalid_records("replay-selected");
    site.write("pipeline.edn", shop(":format \"raw\"", "@offset as at"));
    replayed(&site, &["--stage", "calc"], "replayed 1 record: 1 valid");
    let of_in = files(&site.path("out/quarantine/shop/in"));
    let file = of_in[0].to_str().expect("a name");
    replayed(&site, &[file], "replayed 3 records: 3 valid");
    replayed(&site, &[], NOTHING);
    let delivered = all_lines(&site.path("out/good"));
    assert_eq!(delivered.len(), 5, "{delivered:?}");
}

#[test]
fn what_cannot_be_replayed_is_named() {
    let site = Site::new("replay-errors");
    let refused = |arguments: &[&str], parts: &[&str]| {
        let (code, log) = replay(&site, arguments);
        assert_eq!(code, Some(1), "{log}");
        for part in parts {
            assert!(log.contains(part), "`{part}` is not in\n{log}");
        }
    };
    site.write("pipeline.edn", shop(":format \"json\"", "n"));
    refused(
        &[],
        &[
            "there are no quarantined records in out/quarantine/shop",
            "help: if they are elsewhere",
        ],
    );
    refused(&["nowhere"], &["cannot read nowhere: "]);
    site.write("aside/a.json", "");
    let stage = ["aside", "--stage", "calk"];
    let help = "did you mean `calc`?";
    refused(&stage, &["`calk` is not a stage of pipeline.edn", help]);
    let line = |stage: &str| {
        json!({"stage": stage, "split": "s", "topic": "t", "partition": 0, "position": 1,
               "record": "{}", "record_base64": null})
    };
    let (good, other) = (line("in"), line("gone"));
    site.write("aside/a.json", format!("{good}\n{{\"n\":1}}\n"));
    refused(
        &["aside"],
        &["a.json: line 2 is not a quarantined record: it has no `stage`"],
    );
    site.write("aside/a.json", format!("{other}\n"));
    let removed =
        "the records of stage `gone` cannot be replayed: it is not a stage of the pipeline";
    refused(&["aside"], &[removed, "--stage STAGE"]);
    refused(&["aside", "--dry-run"], &[removed]);
    site.write("aside/b.json", format!("{good}\n"));
    refused(&["aside"], &[removed]);
    replayed(
        &site,
        &["aside", "--stage", "in"],
        "replayed 1 record: 1 valid",
    );
    // A file of which the state holds positions must stay as it is.
    site.write("aside/b.json", format!("{good}\n{good}\n"));
    refused(
        &["aside", "--stage", "in"],
        &["b.json was changed after records of it were replayed"],
    );

    let noop =
        shop(":format \"json\" :on-error :noop", "n").replace("\"n\"", "\"n\" {:on-error :noop}");
    let noop = noop.replace(":codec :json", ":codec :json :on-error :noop");
    site.write("pipeline.edn", noop);
    refused(&[], &["no stage of pipeline.edn quarantines records"]);
}

/// Another branch and a sink in front of the stage have delivered the record already.
#[test]
fn a_record_reaches_only_the_sinks_behind_its_stage() {
    let site = Site::new("replay-branches");
    let pipeline = |divided: &str| {
        format!(
            r#"{{:name "branches"
                in    (files "in/*" {{:format "json" :schema {{:n :int64 :v :int64}}}})
                whole (files {{:path "out/whole" :codec :json}})
                calc  (select "n, {divided} as w")
                good  (files {{:path "out/good" :codec :json}})
                other (files {{:path "out/other" :codec :json}})
                pipeline (-> in (all (-> whole calc good) (-> (select "n") other)))}}"#
        )
    };
    site.write("in/a.ndjson", "{\"n\":0,\"v\":1}\n{\"n\":1,\"v\":0}\n");
    site.write("pipeline.edn", pipeline("10 / v"));
    site.finish("pipeline.edn", 60);
    site.write("pipeline.edn", pipeline("v"));
    replayed(&site, &[], "replayed 1 record: 1 valid");
    let good = [r#"{"n":0,"w":10}"#, r#"{"n":1,"w":0}"#];
    assert_eq!(all_lines(&site.path("out/good")), good);
    assert_eq!(
        all_lines(&site.path("out/other")),
        [r#"{"n":0}"#, r#"{"n":1}"#]
    );
    let whole = [r#"{"n":0,"v":1}"#, r#"{"n":1,"v":0}"#];
    assert_eq!(all_lines(&site.path("out/whole")), whole);
}

/// A record of CSV has line ends, and its columns are those of the header of its file.
#[test]
fn a_record_of_several_lines_is_replayed_with_its_header() {
    let site = Site::new("replay-csv");
    let pipeline = |id: &str| {
        format!(
            r#"{{:name "csv" in (files "in/*" {{:format "csv" :schema {{:id {id} :name :utf8}}}})
                pipeline (-> in (select "id, name") (files {{:path "out" :codec :json}}))}}"#
        )
    };
    site.write("in/a.csv", "id,name\n1,Ann\nx,\"Bo\nC\"\n");
    site.write("in/b.csv", "name,id\n\"D\nE\",y\n");
    site.write("pipeline.edn", pipeline(":int64"));
    site.finish("pipeline.edn", 60);
    site.write("pipeline.edn", pipeline(":utf8"));
    replayed(&site, &["quarantine"], "replayed 2 records: 2 valid");
    let expected = [
        r#"{"id":"x","name":"Bo\nC"}"#,
        r#"{"id":"y","name":"D\nE"}"#,
        r#"{"id":1,"name":"Ann"}"#,
    ];
    assert_eq!(all_lines(&site.path("out")), expected);
}

const COUNT: usize = 20_000;

/// A pipeline with this schema and condition.
fn counted(settings: &str, kind: &str, condition: &str) -> String {
    format!(
        r#"{{:name "counted" :settings {{:memory "32MB" :commit-interval "50ms" {settings}}}
            in (files "in/*" {{:format "json" :schema {{:n {kind}}}}})
            pipeline (-> in (where "{condition}")
                      (files {{:path "out/good" :codec :json :rollover {{:records 50}}}}))}}"#
    )
}

/// Kills replays at each step, the last at this one, and then replays the rest.
fn killed_at_each_step(site: &Site, settings: &str, last: &str) {
    let line = |n: usize| format!("{{\"n\":\"r{n}\"}}");
    let lines: String = (0..COUNT).map(|n| line(n) + "\n").collect();
    site.write("in/a.ndjson", lines);
    site.write("pipeline.edn", counted(settings, ":int64", "n > 0"));
    site.finish("pipeline.edn", 60);
    assert_eq!(quarantined(site, "out/quarantine").len(), COUNT);
    site.write("pipeline.edn", counted(settings, ":utf8", "n <> 'r7'"));
    let kill = |step: &str, time: u64| {
        let mut command = site.pseidon();
        command.args(["replay", "pipeline.edn"]);
        command.env("PSEIDON_FAIL", format!("{step}:{time}"));
        site.start(command).expect_death(step, 60);
    };
    for step in ["taken", "recovered", "begun"].iter().chain(STEPS_TO_FILES) {
        kill(step, 1);
        if STEPS_TO_FILES.contains(step) {
            kill(step, site.random.of(2..4));
        }
    }
    for step in ["republished", "buried"] {
        kill("committed", 1);
        kill(step, 1);
    }
    kill(last, 1);
    replayed(site, &[], "");
    replayed(site, &[], NOTHING);
    let mut expected: Vec<String> = (0..COUNT).filter(|n| *n != 7).map(line).collect();
    expected.sort();
    assert_eq!(all_lines(&site.path("out/good")), expected);
    // A replay that was killed when it had done everything leaves the lock of its folder.
    let mut left = hidden(&site.path("out"));
    left.retain(|path| path.is_file() && !path.ends_with("lock"));
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[test]
fn killed_at_each_step_embedded() {
    let site = Site::new("replay-steps-embedded");
    killed_at_each_step(&site, "", "flushed");
}

#[test]
fn killed_at_each_step_redis() {
    let site = Site::new("replay-steps-redis");
    let redis = Redis::start(&site);
    let settings = format!("{} :lease \"1s\"", state_in(&site, &redis.url()));
    killed_at_each_step(&site, &settings, "released");
}

/// Lanes that a killed replay left ahead are those of its version of the pipeline.
#[test]
fn a_killed_replay_is_finished_with_its_version() {
    let site = Site::new("replay-previous");
    let line = |n: usize| format!("{{\"n\":\"r{n}\"}}");
    let lines: String = (0..3000).map(|n| line(n) + "\n").collect();
    site.write("in/a.ndjson", lines);
    site.write("pipeline.edn", counted("", ":int64", "n > 0"));
    site.finish("pipeline.edn", 60);
    let repaired = |condition: &str| {
        let three_lanes = counted("", ":utf8", condition);
        three_lanes.replace("out/good", "out/good/{@offset % 3}")
    };
    site.write("pipeline.edn", repaired("n <> 'r7'"));
    let mut command = site.pseidon();
    command.args(["replay", "pipeline.edn"]);
    command.env("PSEIDON_FAIL", "committed:1");
    site.start(command).expect_death("committed", 60);
    site.write("pipeline.edn", repaired("n <> 'r8'"));
    let (code, log) = replay(&site, &[]);
    assert_eq!(code, Some(1), "{log}");
    let help = "help: finish that run with its own version: pseidon replay --previous pipeline.edn";
    assert!(log.contains(help), "{log}");
    replayed(&site, &["--previous"], "0 invalid again");
    replayed(&site, &[], NOTHING);
    let mut expected: Vec<String> = (0..3000).filter(|n| *n != 7).map(line).collect();
    expected.sort();
    assert_eq!(all_lines(&site.path("out/good")), expected);
}

/// A second replay is refused while the first has the state file, and a run is not disturbed.
#[test]
fn a_replay_has_a_state_of_its_own() {
    let site = with_invalid_records("replay-state");
    let following = shop(":format \"json\" :follow true :schema {:n :int64}", "n");
    let soon = ":codec :json :check-freq \"50ms\" :rollover {:idle \"200ms\"}";
    site.write("pipeline.edn", following.replace(":codec :json", soon));
    let mut running = site.run("pipeline.edn");
    let read = |name: &str, n: u32| {
        site.write(&format!("in/{name}.ndjson"), format!("{{\"n\":{n}}}\n"));
        let line = format!("{{\"n\":{n}}}");
        wait_until("the run reads a new file", 60, || {
            all_lines(&site.path("out/good")).contains(&line)
        });
    };
    read("before", 71);
    let mut command = site.pseidon();
    command.args(["replay", "pipeline.edn"]);
    command.env("PSEIDON_FREEZE", "begun:1");
    let mut frozen = site.start(command);
    wait_until("it freezes", 60, || frozen.is_frozen());
    let (code, log) = replay(&site, &[]);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("shop%2Freplay.redb"), "{log}");
    read("meanwhile", 72);
    frozen.wake();
    frozen.expect_exit(0, 60);
    let said = "replayed 4 records: 2 valid, 2 invalid again";
    assert!(frozen.log().contains(said), "{}", frozen.log());
    read("after", 73);
    running.stop(40);
    assert_eq!(all_lines(&site.path("out/good")).len(), 6);
    let states = fs::read_dir(site.path(".pseidon")).expect("the folder of states");
    let states: BTreeSet<String> = states
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".redb"))
        .collect();
    let expected = ["shop%2Freplay.redb", "shop.redb"].map(str::to_owned);
    assert_eq!(states, BTreeSet::from(expected));
}

/// Records of Kafka with everything that an expression can use, and to a sink that copies them.
#[test]
fn records_from_kafka_keep_their_metadata() {
    let site = Site::new("replay-kafka");
    let header = |key, value| Header { key, value };
    let headers = OwnedHeaders::new().insert(header("h", Some(&b"1"[..])));
    let records: [BaseRecord<'_, [u8], [u8]>; 2] = [
        BaseRecord::to(&site.name)
            .partition(0)
            .key(&b"the key"[..])
            .payload(&b"{\"n\":\n\"x\"}"[..])
            .timestamp(1_600_000_000_000)
            .headers(headers),
        BaseRecord::to(&site.name)
            .partition(0)
            .payload(&b"{\"n\":\"y\"}"[..])
            .timestamp(1_600_000_000_001),
    ];
    send(records);
    let (brokers, name) = (brokers(), &site.name);
    let columns = "n, @topic = '{name}' as t, @partition as p, @offset as o, @key as k, \
                   @headers as h, @timestamp::bigint as at";
    let pipeline = |kind: &str| {
        format!(
            r#"{{:name "{name}"
                in   (kafka {{:brokers "{brokers}" :topics ["{name}"] :schema {{:n {kind}}} :until :latest}})
                copy (kafka {{:brokers "{brokers}" :topic "{name}-out" :positions-topic "{name}-positions"}})
                pipeline (-> in (all copy
                                     (-> (select "{}") (files {{:path "out/good" :codec :json}}))))}}"#,
            columns.replace("{name}", name)
        )
    };
    create(&format!("{name}-out"), &[]);
    site.write("pipeline.edn", pipeline(":int64"));
    site.finish("pipeline.edn", 60);
    let metadata: Vec<Value> = quarantined(&site, "out/quarantine")
        .iter()
        .map(|record| record["metadata"].clone())
        .collect();
    assert_eq!(metadata.len(), 2);
    assert!(
        metadata.iter().any(|metadata| metadata["key"] == "the key"
            && metadata["headers"] == json!({"h": "1"})
            && metadata["timestamp"] == 1_600_000_000_000_i64),
        "{metadata:?}"
    );
    site.write("pipeline.edn", pipeline(":utf8"));
    replayed(&site, &[], "replayed 2 records: 2 valid");
    replayed(&site, &[], NOTHING);
    let expected = [
        r#"{"n":"x","t":true,"p":0,"o":0,"k":"the key","h":{"h":"1"},"at":1600000000000}"#,
        r#"{"n":"y","t":true,"p":0,"o":1,"k":null,"h":null,"at":1600000000001}"#,
    ];
    assert_eq!(all_lines(&site.path("out/good")), expected);
    let parts = |topic: &str| -> Vec<_> {
        committed_messages(topic)
            .concat()
            .iter()
            .map(parts_of)
            .collect()
    };
    assert_eq!(parts(&format!("{name}-out")), parts(name));
}
