//! The command line: output, exit codes and signals.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::harness::output::{all_lines, count_gapless, hidden};
use crate::harness::redis::Redis;
use crate::harness::watch::Watcher;
use crate::harness::{Site, wait_until};

/// Runs a command to its end; returns the exit code, standard output and standard error.
fn output(mut command: Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .expect("the binary can be started");
    (
        status.code().unwrap_or(-1),
        String::from_utf8(stdout).expect("text"),
        String::from_utf8(stderr).expect("text"),
    )
}

fn pseidon(site: &Site, arguments: &[&str]) -> (i32, String, String) {
    let mut command = site.pseidon();
    command.args(arguments);
    output(command)
}

#[test]
fn the_summary_counts_the_files_of_every_place_of_a_sink() {
    let site = Site::new("counts");
    site.write("in.ndjson", "{\"n\":1}\n{\"n\":2}\n");
    let flow = r#"(-> (files "in.ndjson") (all (-> (where "n = 1") (files {:path "a"}))
                                               (-> (where "n = 2") (files {:path "b"}))))"#;
    let (code, _, stderr) = pseidon(&site, &["run", "-e", flow]);
    assert_eq!(code, 0, "{stderr}");
    for part in ["records_out=2", "bytes_out=16", "files=2"] {
        assert!(stderr.contains(part), "`{part}` is missing in\n{stderr}");
    }
}

#[test]
fn the_tests_of_a_file_are_run() {
    let site = Site::new("tests-of-a-file");
    let file = |expected: &str| {
        format!(
            r#"{{in (files {{:path "none/*" :format "json"}})
                served (where "status < 500")
                slim (select "user.name as name, status * 2 as twice")
                pipeline (-> in served slim (files {{:path "out" :codec :json}}))
                :tests [{{:name "failures go" :at served :input [{{:status 200 :user {{:name "a"}}}} {{:status 500 :user {{:name "b"}}}}]
                         :output [{{:status 200 :user {{:name "a"}}}}]}}
                        {{:name "slim" :at slim :input [{{:status 4 :user {{:name "a"}}}}] :output [{expected}]}}]}}"#
        )
    };
    site.write("good.edn", file(r#"{:name "a" :twice 8}"#));
    site.write("bad.edn", file(r#"{:name "a" :twice 9}"#));
    let passed = "ok      good.edn: failures go\nok      good.edn: slim\n";
    assert_eq!(
        pseidon(&site, &["test", "good.edn"]),
        (0, format!("{passed}2 passed, 0 failed\n"), String::new())
    );
    let failed = r#"ok      bad.edn: failures go
FAILED  bad.edn: slim
  expected
    {"name":"a","twice":9}
  actual
    {"name":"a","twice":8}

3 passed, 1 failed
"#;
    assert_eq!(
        pseidon(&site, &["test", "good.edn", "bad.edn"]),
        (1, format!("{passed}{failed}"), String::new())
    );
    assert!(
        !site.path("out").exists() && !site.path(".pseidon").exists(),
        "a test writes no files"
    );
}

#[test]
fn an_expression_is_a_filter_in_a_shell_pipe() {
    let site = Site::new("expression");
    let mut command = site.pseidon();
    command.args([
        "run",
        "-e",
        r#"(-> (stdin) (where "n % 3 = 0") (stdout))"#,
        "--log",
        "error",
    ]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input: String = (0..100)
        .map(|n| format!("{{\"n\":{n}, \"as\" : \"it came\"}}\n"))
        .collect();
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
    let expected: String = (0..100)
        .step_by(3)
        .map(|n| format!("{{\"n\":{n}, \"as\" : \"it came\"}}\n"))
        .collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert!(!site.path(".pseidon").exists(), "it keeps no state");

    site.write("in.ndjson", input);
    let (code, stdout, stderr) = pseidon(
        &site,
        &[
            "run",
            "--log",
            "error",
            "-e",
            r#"(-> (files "in.ndjson") (where "n < 2") (select "n + 1 as m") (stdout))"#,
        ],
    );
    assert_eq!(
        (code, stderr.as_str(), stdout.as_str()),
        (0, "", "{\"m\":1}\n{\"m\":2}\n")
    );
}

#[test]
fn the_json_schema_of_a_plugin_without_options_has_no_properties() {
    let site = Site::new("json-schema");
    let (code, stdout, _) = pseidon(&site, &["plugins", "--json-schema", "drop"]);
    let schema: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (code, &schema["$defs"]["sink drop"]["properties"]),
        (0, &serde_json::json!({}))
    );
}

/// The files that are open in the output folder.
fn open_files(site: &Site) -> BTreeSet<PathBuf> {
    let hidden = hidden(&site.path("out"));
    let is_open = |path: &PathBuf| path.extension().is_some_and(|end| end == "open");
    hidden.into_iter().filter(is_open).collect()
}

/// A pipeline that does not end by itself, whose files stay open until it is stopped.
fn endless(settings: &str) -> String {
    format!(
        r#"{{:settings {{{settings}}}
            in (generate {{:record {{:n "n"}} :rate 500}})
            pipeline (-> in (files {{:path "out/{{n % 3}}" :codec :json :rollover {{:size "1GB"}}}}))}}"#
    )
}

#[test]
fn a_signal_stops_a_run_with_everything_delivered() {
    let site = Site::new("sigterm");
    site.write("pipeline.edn", endless(":etl-threads 2"));
    let watcher = Watcher::start(&[site.path("out")]);
    let mut before = 0;
    for _ in 0..3 {
        let mut pseidon = site.run("pipeline.edn");
        wait_until("it writes", 30, || !open_files(&site).is_empty());
        std::thread::sleep(Duration::from_millis(800));
        let began = Instant::now();
        pseidon.stop(20);
        assert!(
            began.elapsed() < Duration::from_secs(25),
            "a graceful stop took {:?}",
            began.elapsed()
        );
        assert_eq!(hidden(&site.path("out")), Vec::<PathBuf>::new());
        let now = count_gapless(&site.path("out"));
        assert!(now > before, "{now} records after {before}");
        before = now;
    }
    watcher.finish();
}

/// A stop that cannot commit takes until the end of the grace, or until a second signal.
#[test]
fn a_blocked_stop_ends() {
    let site = Site::new("held-up");
    let mut redis = Redis::start(&site);
    for (grace, signals) in [("2s", 1), ("60s", 2)] {
        site.write(
            "pipeline.edn",
            endless(&format!(
                ":state \"{}\" :lease \"1s\" :shutdown-grace \"{grace}\"",
                redis.url()
            )),
        );
        let left = open_files(&site);
        let mut pseidon = site.run("pipeline.edn");
        // Files that the previous run left do not count.
        wait_until("it writes", 30, || {
            !open_files(&site).is_subset(&left) && pseidon.is_listening()
        });
        std::thread::sleep(Duration::from_millis(500));
        redis.kill();
        pseidon.terminate();
        if signals == 2 {
            // `timeout` sends its signal to the process and to the group of the process.
            std::thread::sleep(Duration::from_millis(20));
            pseidon.terminate();
            std::thread::sleep(Duration::from_secs(2));
            assert!(pseidon.is_running(), "it uses its grace");
            pseidon.terminate();
        }
        pseidon.expect_exit(1, 12);
        redis.up(&site);
    }
    // Uncommitted records are re-read.
    let left = open_files(&site);
    let mut pseidon = site.run("pipeline.edn");
    wait_until("it writes again", 60, || {
        !open_files(&site).is_subset(&left)
    });
    pseidon.stop(20);
    assert!(count_gapless(&site.path("out")) > 0);
    assert_eq!(hidden(&site.path("out")), Vec::<PathBuf>::new());
}

/// A flow on the command line needs no folder that it may write to. Invalid records are dropped,
/// and the summary says why they are invalid.
#[test]
fn a_flow_on_the_command_line_leaves_nothing_behind() {
    let site = Site::new("flow-leaves-nothing");
    site.write("in.ndjson", "{\"n\":1}\n{\"n\":\"one\"}\nno json\n");
    set_mode(&site, "", 0o555);
    let mut command = site.pseidon();
    command.args([
        "run",
        "-e",
        "(-> (files 'in.ndjson') (select 'n::int as n') (stdout))",
    ]);
    let (code, stdout, stderr) = output(site.without_privileges(command));
    set_mode(&site, "", 0o755);
    assert_eq!((code, stdout.as_str()), (0, "{\"n\":1}\n"), "{stderr}");
    for part in [
        "invalid records stage=\"files\" count=1 reason=\"the record is not a JSON object\" \
         first=\"in.ndjson, line 3\" record=\"no json\"",
        "invalid records stage=\"select\" count=1 reason=\"'one' is not a valid int32\" \
         first=\"in.ndjson, line 2\" record=\"{\\\"n\\\":\\\"one\\\"}\"",
        "quarantined=0 dropped=2",
    ] {
        assert!(stderr.contains(part), "`{part}` is missing in\n{stderr}");
    }
    let left: Vec<_> = std::fs::read_dir(site.path(""))
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name())
        .filter(|name| name != "logs")
        .collect();
    assert_eq!(left, ["in.ndjson"]);
}

/// A folder that `:on-error` names is used by a flow on the command line too.
#[test]
fn a_flow_on_the_command_line_quarantines_where_it_is_told() {
    let site = Site::new("flow-quarantine");
    site.write("in.ndjson", "no json\n");
    let flow =
        "(-> (files {:path 'in.ndjson' :on-error {:quarantine 'bad'}}) (where 'n > 1') (stdout))";
    let (code, _, stderr) = pseidon(&site, &["run", "-e", flow]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("quarantined=1 dropped=0"), "{stderr}");
    assert_eq!(all_lines(&site.path("bad")).len(), 1);
}

/// A field that no record has is NULL, so a misspelled name is reported at the end.
#[test]
fn a_field_that_no_record_has_is_reported() {
    let site = Site::new("missing-field");
    site.write(
        "in.ndjson",
        "{\"id\":1,\"user\":{\"name\":\"a\"},\"installed-size\":5}\n{\"id\":2,\"late\":3}\n",
    );
    let run = |stages: &str| {
        let flow = format!("(-> (files 'in.ndjson') {stages} (stdout))");
        let (code, _, stderr) = pseidon(&site, &["run", "-e", &flow]);
        assert_eq!(code, 0, "{stderr}");
        stderr
    };
    let notes = |stages: &str| -> Vec<String> {
        let start = "no record had a value for this field stage=\"files\" ";
        run(stages)
            .lines()
            .filter_map(|line| Some(line.split_once(start)?.1.to_owned()))
            .collect()
    };
    for stages in [
        r#"(where "idd = 2 or user.nmae = 'a' or other is null")"#,
        r#"(remove "idd") (rename "user.nmae as n, other as o")"#,
        r#"(set "x = 1") (remove "idd, user.nmae") (where "x = 1") (remove "other")"#,
        r#"(select "*, 1 as x, * except (idd, other)") (remove "user.nmae")"#,
    ] {
        let expected = [
            "field=idd did_you_mean=\"id\"",
            "field=other",
            "field=user.nmae did_you_mean=\"user.name\"",
        ];
        assert_eq!(notes(stages), expected, "{stages}");
    }
    // Without quotes, it is a difference.
    let of_a_hyphen = notes(r#"(where "installed-size > 1")"#);
    assert_eq!(
        of_a_hyphen,
        [
            r#"field=installed did_you_mean="\"installed-size\"""#,
            r#"field=size did_you_mean="\"installed-size\"""#,
        ]
    );
    for stages in [
        r#"(where "id = 2 or user.name = 'a' or late = 3")"#,
        r#"(set "x = 1") (remove "late") (rename "user.name as id")"#,
        r#"(where "id > 2") (remove "idd")"#,
        "",
    ] {
        assert_eq!(notes(stages), [""; 0], "{stages}");
    }
}

/// A field that appears after the records from which the schema was inferred is not written: it is
/// counted and named.
#[test]
fn fields_that_an_inferred_schema_does_not_have_are_reported() {
    let run = |files: &[(&str, &str)], source: &str, stages: &str| {
        let site = Site::new("added-fields");
        for (name, content) in files {
            site.write(name, content);
        }
        let flow = format!("(-> (files {source}) {stages})");
        let (code, stdout, stderr) = pseidon(&site, &["run", "-e", &flow]);
        assert_eq!(code, 0, "{stderr}");
        (stdout, stderr)
    };
    let reported = |stage: &str, records: u64, fields: &str| {
        format!(
            "records have fields that the inferred schema does not have stage=\"{stage}\" \
             records={records} fields=\"{fields}\""
        )
    };
    let mut records = "{\"a\":1,\"o\":{\"x\":1}}\n".repeat(1500);
    records += "{\"a\":2,\"late\":1}\n{\"a\":3,\"o\":{\"y\":2}}\n";
    let json = [("in.ndjson", records.as_str())];
    let infer = "{:path 'in.ndjson' :schema :infer}";
    for stages in [
        "(select '*') (stdout)",
        "(files {:path 'out' :codec :parquet})",
    ] {
        let (_, stderr) = run(&json, infer, stages);
        let expected = reported("files", 2, "late,o.y");
        assert!(
            stderr.contains(&expected),
            "{expected} is missing in\n{stderr}"
        );
        assert!(stderr.contains("pseidon infer FILE"), "{stderr}");
    }
    // Records that are written as they came keep their fields, and a `select` names those it wants.
    for stages in ["(stdout)", "(select 'a') (stdout)"] {
        let (_, stderr) = run(&json, infer, stages);
        assert!(!stderr.contains("have fields that"), "{stderr}");
    }
    let csv = [
        ("a.csv", "a,b\n1,2\n"),
        ("b.csv", "b,late,a\n3,4,5\n6,7,8\n"),
    ];
    let first = format!("a,b\n{}", "1,2\n".repeat(1000));
    let csv = [("a.csv", first.as_str()), csv[1]];
    let (_, stderr) = run(
        &csv,
        "{:path '*.csv' :schema :infer}",
        "(select '*') (stdout)",
    );
    let expected = reported("files", 2, "late");
    assert!(
        stderr.contains(&expected),
        "{expected} is missing in\n{stderr}"
    );
}

fn set_mode(site: &Site, name: &str, mode: u32) {
    std::fs::set_permissions(site.path(name), std::fs::Permissions::from_mode(mode))
        .expect("permissions");
}

#[test]
fn parameters_of_a_file_have_values_and_defaults() {
    let site = Site::new("parameters");
    site.write("a.ndjson", "{\"n\":1}\n{\"n\":2}\n");
    site.write(
        "pipeline.edn",
        r#"{pipeline (-> (files "${set:from}.ndjson") (where "n >= ${set:least:-2}") (stdout))}"#,
    );
    let run = |arguments: &[&str]| {
        let output = site.pseidon().args(arguments).output();
        let output = output.expect("the binary can be started");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("text"))
    };
    let check = ["check", "pipeline.edn"];
    let (code, text) = run(&check);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("no value; add --set from=VALUE"), "{text}");
    let (code, text) = run(&[&check[..], &["--set", "form=a", "--set", "from=a"]].concat());
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("did you mean `--set from=…`?"), "{text}");
    let (code, text) = run(&[&check[..], &["--set", "from"]].concat());
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("expected NAME=VALUE"), "{text}");
    let flow = r#"(-> (files "${set:from}.ndjson") (where "n >= ${set:least:-2}") (stdout))"#;
    for (set, expected) in [("least=1", 2), ("least=", 1), ("from=a", 1)] {
        let (code, text) = run(&["run", "-e", flow, "--set", "from=a", "--set", set]);
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(text.matches("{\"n\":").count(), expected, "{set}: {text}");
    }
    // A value is never a part of the syntax.
    let (_, text) = run(&["run", "-e", flow, "--set", "from=\") (x", "--log", "error"]);
    assert!(text.contains("file not found"), "{text}");
}

#[test]
fn an_argument_with_a_secret_is_a_warning() {
    let site = Site::new("secret-arguments");
    let pipeline = |hook: &str| {
        format!(
            "{{:name \"a\"\n out (files {{:path \"out\" :on-close {hook}}})\n \
             pipeline (-> (stdin) out)}}"
        )
    };
    for (hook, places) in [
        (
            r#"{:command ["put" "a" "x${env:TOKEN_OF_TEST}"]}"#,
            &["pipeline.edn:2:57"][..],
        ),
        (
            r#"{:command ["put" "${host:name}"] :env {"TOKEN" "${env:TOKEN_OF_TEST}"}}"#,
            &[],
        ),
        (r#"{:post "http://h/${env:TOKEN_OF_TEST}"}"#, &[]),
    ] {
        site.write("pipeline.edn", pipeline(hook));
        let mut command = site.pseidon();
        command
            .args(["check", "pipeline.edn"])
            .env("TOKEN_OF_TEST", "hunter2hunter2");
        let output = command.output().expect("the binary can be started");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).expect("text");
        assert!(output.status.success(), "{text}");
        let warnings: Vec<&str> = text
            .lines()
            .filter(|line| line.contains(" WARN "))
            .collect();
        assert_eq!(warnings.len(), places.len(), "{hook}: {text}");
        for (warning, place) in warnings.iter().zip(places) {
            assert!(
                warning.contains(place) && warning.contains("`:env`"),
                "{warning}"
            );
        }
    }
}
