//! The sandbox (`:sandbox`): folders that are not writable, programs that are not executed, and
//! system calls that are refused.

use std::fs;

use crate::harness::output::all_lines;
use crate::harness::{Site, wait_until};

/// A pipeline in a sandbox with these options, whose sink has these.
fn text(sandbox: &str, sink: &str) -> String {
    format!(
        r#"{{:settings {{:sandbox {{{sandbox}}}}}
            in (files "in/*.ndjson")
            pipeline (-> in (files {{{sink}}}))}}"#
    )
}

fn site(test: &str, sandbox: &str, sink: &str) -> Site {
    let site = Site::new(test);
    site.write("pipeline.edn", text(sandbox, sink));
    site.write("in/1.ndjson", "{\"n\":1}\n");
    fs::create_dir_all(site.path("out")).expect("a folder");
    site
}

/// The options of a sink that calls a shell with this script.
fn on_close(script: &str) -> String {
    format!(r#":path "out/data" :on-close {{:command ["/bin/sh" "-c" "{script}"]}}"#)
}

#[test]
fn a_pipeline_runs_in_its_sandbox() {
    let sandbox = r#":writable ["out"]"#;
    let sink = r#":path "out/data" :rollover {:idle "100ms"}"#;
    let site = site("sandbox-runs", sandbox, sink);
    let once = r#"(files "in/*.ndjson")"#;
    let followed = r#"(files {:path "in/*.ndjson" :follow true})"#;
    site.write("pipeline.edn", text(sandbox, sink).replace(once, followed));
    let mut pseidon = site.run("pipeline.edn");
    wait_until("the record is published", 60, || {
        all_lines(&site.path("out/data")).len() == 1
    });
    // Each thread has the filter of system calls, whenever it was started.
    let tasks = fs::read_dir(format!("/proc/{}/task", pseidon.id())).expect("a process");
    for task in tasks {
        let path = task.expect("a thread").path().join("status");
        let Ok(status) = fs::read_to_string(path) else {
            continue;
        };
        assert!(status.contains("\nSeccomp:\t2\n"), "{status}");
        assert!(status.contains("\nNoNewPrivs:\t1\n"), "{status}");
    }
    pseidon.stop(40);
    // The state was created, and is found again.
    site.write("in/2.ndjson", "{\"n\":2}\n");
    site.write("pipeline.edn", text(sandbox, sink));
    site.run("pipeline.edn").expect_exit(0, 60);
    assert_eq!(all_lines(&site.path("out/data")).len(), 2);
}

#[test]
fn nothing_is_written_in_other_folders() {
    let site = site(
        "sandbox-folders",
        r#":writable ["out"]"#,
        r#":path "other/data""#,
    );
    fs::create_dir_all(site.path("other")).expect("a folder");
    let mut pseidon = site.run("pipeline.edn");
    pseidon.expect_exit(1, 60);
    let log = pseidon.log();
    assert!(log.contains("Permission denied"), "{log}");
    assert_eq!(fs::read_dir(site.path("other")).expect("read").count(), 0);

    // Nothing was lost: with the folder in the list, the record is written.
    site.write(
        "pipeline.edn",
        text(r#":writable ["out" "other"]"#, r#":path "other/data""#),
    );
    site.run("pipeline.edn").expect_exit(0, 60);
    assert_eq!(all_lines(&site.path("other/data")).len(), 1);
}

#[test]
fn programs_are_executed_only_if_that_is_set_and_are_in_the_sandbox_too() {
    let script = "echo done > out/ran; echo x > escaped; unshare -U true && echo x > out/unshared";
    let site = site(
        "sandbox-programs",
        r#":writable ["out"]"#,
        &on_close(script),
    );
    let mut pseidon = site.run("pipeline.edn");
    wait_until("the refusal is reported", 60, || {
        pseidon.log().contains("Operation not permitted")
    });
    pseidon.stop_after_failures(60);
    assert!(!site.path("out/ran").exists());

    let sandbox = r#":writable ["out"] :programs true"#;
    site.write("pipeline.edn", text(sandbox, &on_close(script)));
    let mut pseidon = site.run("pipeline.edn");
    wait_until("the program is executed", 60, || {
        site.path("out/ran").exists()
    });
    let _ = pseidon.wait_exit(60);
    assert!(!site.path("escaped").exists());
    assert!(!site.path("out/unshared").exists());
}

#[test]
fn a_folder_that_does_not_exist_is_an_error() {
    let site = site(
        "sandbox-missing",
        r#":writable ["out" "gone"]"#,
        r#":path "out""#,
    );
    let mut pseidon = site.run("pipeline.edn");
    pseidon.expect_exit(1, 60);
    let log = pseidon.log();
    assert!(
        log.contains("cannot enter the sandbox (`:sandbox`)")
            && log.contains("gone of `:writable` is not a folder; create it before the start"),
        "{log}"
    );
    assert!(all_lines(&site.path("out")).is_empty());
}

/// What a program in the sandbox is answered to system calls that create a namespace, directly or in
/// the x32 ABI of an x86-64 kernel: 1 is EPERM, 38 is ENOSYS.
#[cfg(target_arch = "x86_64")]
#[test]
fn no_other_way_leads_to_a_refused_call() {
    const CALLS: &str = r#"
        my ($clone, $clone3, $unshare, $x32) = (56, 435, 272, 0x40000000);
        my ($user, $net, $child) = (0x10000000, 0x40000000, 17);
        for ([$clone, $user | $child], [$clone, $net | $child], [$x32 | $clone, $user | $child],
             [$x32 | $unshare, $user], [$x32 | 521, 0], [$clone3, 0], [$x32 | $clone3, 0]) {
            my $answer = syscall($_->[0], $_->[1], 0, 0, 0, 0);
            exit if $answer == 0;
            print $answer == -1 ? $! + 0 : "done", " ";
        }"#;
    let site = site(
        "sandbox-calls",
        r#":writable ["out"] :programs true"#,
        &on_close("perl calls.pl > out/answers && mv out/answers out/ran"),
    );
    site.write("calls.pl", CALLS);
    site.run("pipeline.edn").expect_exit(0, 60);
    let answers = fs::read_to_string(site.path("out/ran")).expect("the program is executed");
    assert_eq!(answers, "1 1 1 1 1 38 38 ");
}

#[test]
fn a_replay_is_in_the_sandbox() {
    let site = site("sandbox-replay", r#":writable ["gone"]"#, r#":path "out""#);
    let output = site
        .pseidon()
        .args(["replay", "pipeline.edn", "out"])
        .output()
        .expect("the binary starts");
    let log = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("cannot enter the sandbox"), "{log}");
}
