//! The command line: output, exit codes and signals.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::harness::output::{count_gapless, hidden};
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
fn check_shows_types_and_guarantees() {
    let site = Site::new("check");
    site.write(
        "pipeline.edn",
        r#"{:name "shown"
            in   (files {:path "in/*" :format "json" :schema {:n :int64 :user {:name :utf8}}})
            few  (where "n > 3")
            slim (select "n, user.name as name")
            lake (files {:path "out/{name}" :codec :parquet})
            late (files {:path "late/{now():%Y}" :codec :json})
            pipeline (-> in few slim (all lake late (stdout)))}"#,
    );
    let (code, stdout, stderr) = pseidon(&site, &["check", "pipeline.edn"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    for part in [
        "shown",
        "n int64",
        "name utf8",
        "in -> lake: exactly once",
        "in -> late: at least once",
        "in -> stdout: at least once",
        "now()",
    ] {
        assert!(stdout.contains(part), "`{part}` is missing in\n{stdout}");
    }
}

/// A pipeline that reads its own output never ends; the description of the path says so. A topic of
/// the same name in another cluster is a different topic.
#[test]
fn check_shows_that_a_pipeline_reads_its_own_output() {
    let site = Site::new("check-loop");
    for (sink, is_loop) in [
        ("\"b:1\" :topic \"again\"", true),
        ("\"c:1\" :topic \"again\"", false),
        ("\"b:1\" :topic \"other\"", false),
    ] {
        let text = format!(
            r#"{{:name "loop" in (kafka {{:brokers "a:1,b:1" :topics ["again"]}}) out (kafka {{:brokers {sink}}}) pipeline (-> in out)}}"#
        );
        site.write("pipeline.edn", text);
        let (code, stdout, stderr) = pseidon(&site, &["check", "pipeline.edn"]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{sink}");
        assert_eq!(
            stdout.contains("`out` writes to again, which `in` reads"),
            is_loop,
            "{sink}: {stdout}"
        );
    }
}

#[test]
fn check_shows_all_errors_at_once() {
    let site = Site::new("check-errors");
    site.write(
        "wrong.edn",
        r#"{in   (files {:paht "in/*"})
 few  (where "n > ")
 lake (filez {:path "out"})
 pipeline (-> in few lkae)}"#,
    );
    let (code, stdout, stderr) = pseidon(&site, &["check", "wrong.edn"]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    for part in [
        "wrong.edn",
        "paht",
        "did you mean `path`?",
        "did you mean `files`?",
        "did you mean `lake`?",
        ":2:",
        "errors",
    ] {
        let quoted = part.replace('`', "");
        assert!(
            stderr.contains(part)
                || stderr
                    .replace(['`', ':'], "")
                    .contains(&quoted.replace(':', "")),
            "`{part}` is missing in\n{stderr}"
        );
    }
    let (code, _, stderr_of_run) = pseidon(&site, &["run", "wrong.edn"]);
    assert_eq!((code, stderr_of_run), (2, stderr));
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
fn a_guarantee_that_does_not_hold_is_an_error() {
    let site = Site::new("guarantee");
    site.write("pipeline.edn", r#"{:settings {:guarantee :exactly-once} pipeline (-> (stdin) (files {:path "out" :codec :json}))}"#);
    let (code, _, stderr) = pseidon(&site, &["check", "pipeline.edn"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("at most once"), "{stderr}");
    assert!(
        stderr.contains("standard input cannot be re-read"),
        "{stderr}"
    );
}

#[test]
fn unreadable_files_and_variables_are_named() {
    let site = Site::new("unreadable");
    for arguments in [
        &["run", "none.edn"][..],
        &["check", "none.edn"],
        &["test", "none.edn"],
    ] {
        let (code, _, stderr) = pseidon(&site, arguments);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(stderr.contains("none.edn"), "{stderr}");
    }
    site.write("secret.edn", r#"{:settings {:state "redis://:${env:PSEIDON_NO_SUCH_VARIABLE}@localhost"} pipeline (-> (stdin) (stdout))}"#);
    let (code, _, stderr) = pseidon(&site, &["check", "secret.edn"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("PSEIDON_NO_SUCH_VARIABLE"), "{stderr}");
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
    let (code, stdout, stderr) = pseidon(&site, &["test", "good.edn"]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert!(
        stdout.contains("failures go") && stdout.ends_with("2 passed, 0 failed\n"),
        "{stdout}"
    );
    let (code, stdout, _) = pseidon(&site, &["test", "good.edn", "bad.edn"]);
    assert_eq!(code, 1);
    assert!(
        stdout.ends_with("3 passed, 1 failed\n")
            && stdout.contains(r#""twice":8"#)
            && stdout.contains(r#""twice":9"#),
        "{stdout}"
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
fn plugins_are_listed() {
    let site = Site::new("plugins");
    let (code, stdout, _) = pseidon(&site, &["plugins"]);
    assert_eq!(code, 0);
    for name in [
        "kafka", "files", "generate", "stdin", "stdout", "drop", "where", "select", "json", "txt",
    ] {
        assert!(stdout.contains(name), "{stdout}");
    }
    let (code, stdout, _) = pseidon(&site, &["plugins", "files"]);
    assert_eq!(code, 0);
    assert!(
        stdout.contains(":rollover") && stdout.contains(":follow"),
        "{stdout}"
    );
    let (code, stdout, _) = pseidon(&site, &["plugins", "--json-schema", "drop"]);
    let schema: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (code, &schema["$defs"]["sink drop"]["properties"]),
        (0, &serde_json::json!({}))
    );
    let (code, _, stderr) = pseidon(&site, &["plugins", "filse"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("did you mean `files`?"), "{stderr}");
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
        wait_until("it writes", 30, || !hidden(&site.path("out")).is_empty());
        std::thread::sleep(Duration::from_millis(800));
        let began = Instant::now();
        pseidon.stop(20);
        assert!(
            began.elapsed() < Duration::from_secs(10),
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
    let open_files = || {
        let hidden = hidden(&site.path("out"));
        hidden
            .into_iter()
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "open")
            })
            .collect::<BTreeSet<_>>()
    };
    for (grace, signals) in [("2s", 1), ("60s", 2)] {
        site.write(
            "pipeline.edn",
            endless(&format!(
                ":state \"{}\" :lease \"1s\" :shutdown-grace \"{grace}\"",
                redis.url()
            )),
        );
        let left = open_files();
        let mut pseidon = site.run("pipeline.edn");
        // Files that the previous run left do not count.
        wait_until("it writes", 30, || {
            !open_files().is_subset(&left) && pseidon.is_listening()
        });
        std::thread::sleep(Duration::from_millis(500));
        redis.kill();
        pseidon.terminate();
        if signals == 2 {
            std::thread::sleep(Duration::from_secs(2));
            assert!(pseidon.is_running(), "it uses its grace");
            pseidon.terminate();
        }
        pseidon.expect_exit(1, 12);
        redis.up(&site);
    }
    // Uncommitted records are re-read.
    let left = open_files();
    let mut pseidon = site.run("pipeline.edn");
    wait_until("it writes again", 60, || !open_files().is_subset(&left));
    pseidon.stop(20);
    assert!(count_gapless(&site.path("out")) > 0);
    assert_eq!(hidden(&site.path("out")), Vec::<PathBuf>::new());
}
