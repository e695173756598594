//! Folders and files that `files` cannot use.
//!
//! The files of a folder that the process may not read for a while are neither missing nor gone, so
//! what was read of them must not be forgotten: it would be delivered again. A folder in which a
//! sink's files can never appear ends the run, and a pipe does not stop the source.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::output::all_lines;
use crate::harness::{Site, wait_until};

fn set_mode(site: &Site, name: &str, mode: u32) {
    fs::set_permissions(site.path(name), Permissions::from_mode(mode)).expect("permissions");
}

/// A pipeline that forgets finished files at once when they are gone.
fn text(options: &str) -> String {
    format!(
        r#"{{:name "refused" :settings {{:forget-after "0s"}}
            in (files {{:path ["in/*/*.ndjson" "in/*/*.gz" "in/a/one.log"]
                        :format "json" {options}}})
            pipeline (-> in (files {{:path "out" :rollover {{:idle "100ms"}}}}))}}"#
    )
}

fn site(test: &str) -> Site {
    let site = Site::new(test);
    site.write("pipeline.edn", text(""));
    site.write("in/a/1.ndjson", "{\"n\":1}\n");
    site.write("in/b/2.ndjson", "{\"n\":2}\n");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(b"{\"n\":3}\n").expect("compressed");
    site.write("in/a/3.gz", gzip.finish().expect("compressed"));
    site.write("in/a/one.log", "{\"n\":4}\n");
    set_mode(&site, "", 0o777);
    site
}

fn expect_lines(site: &Site, count: u64) {
    let expected: Vec<String> = (1..=count).map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(all_lines(&site.path("out")), expected);
}

#[test]
fn a_bucket_whose_folder_cannot_be_made_does_not_hold_up_the_others() {
    let site = Site::new("no-bucket");
    let text = r#"{in (files "in/*.ndjson") pipeline (-> in (files {:path "out/{n}"}))}"#;
    site.write("pipeline.edn", text);
    site.write(
        "in/1.ndjson",
        "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}\n",
    );
    site.write("out/1", "");
    std::os::unix::fs::symlink("none", site.path("out/2")).expect("a link");
    let mut pseidon = site.run("pipeline.edn");
    pseidon.expect_exit(1, 60);
    let log = pseidon.log();
    for expected in [
        "out/1 is not a folder: remove it, or write to another folder",
        "out/2 is a link to a folder that does not exist: remove it",
        "error: 2 committed files could not be brought to the place where readers look",
    ] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    for n in [3, 4] {
        let lines = all_lines(&site.path(&format!("out/{n}")));
        assert_eq!(lines, [format!("{{\"n\":{n}}}")]);
    }

    fs::remove_file(site.path("out/1")).expect("removed");
    fs::remove_file(site.path("out/2")).expect("removed");
    site.run("pipeline.edn").expect_exit(0, 60);
    assert_eq!(all_lines(&site.path("out")).len(), 4);
}

#[test]
fn a_bucket_whose_folder_may_not_be_written_does_not_hold_up_the_others() {
    let site = Site::new("refused-bucket");
    let text = r#"{in (files "in/*.ndjson") pipeline (-> in (files {:path "out/{n}/{n}"}))}"#;
    site.write("pipeline.edn", text);
    site.write("in/1.ndjson", "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n");
    for (folder, mode) in [
        ("out/1", 0o555),
        ("out/2/2", 0o555),
        ("out/2", 0o777),
        ("out", 0o777),
    ] {
        fs::create_dir_all(site.path(folder)).expect("a folder");
        set_mode(&site, folder, mode);
    }
    set_mode(&site, "", 0o777);
    let run = |code| {
        let mut pseidon = site.start(site.unprivileged("pipeline.edn"));
        pseidon.expect_exit(code, 60);
        pseidon.log()
    };
    let log = run(1);
    for expected in [
        "out/1/1: Permission denied (os error 13); allow it",
        "out/2/2/",
        "error: 2 committed files could not be brought to the place where readers look",
    ] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    assert_eq!(all_lines(&site.path("out")), ["{\"n\":3}"]);
    for folder in ["out/1", "out/2/2"] {
        set_mode(&site, folder, 0o777);
    }
    run(0);
    assert_eq!(all_lines(&site.path("out")).len(), 3);
}

#[test]
fn a_folder_to_move_to_that_cannot_be_made_fails_the_run() {
    let site = Site::new("no-move");
    let text = r#"{in (files "in/*.ndjson")
                   pipeline (-> in (files {:path "out" :move-to {:path "done"}}))}"#;
    site.write("pipeline.edn", text);
    site.write("in/1.ndjson", "{\"n\":1}\n");
    site.write("done", "");
    for _ in 0..2 {
        let mut pseidon = site.run("pipeline.edn");
        pseidon.expect_exit(1, 60);
        assert!(pseidon.log().contains("done is not a folder"));
    }
    fs::remove_file(site.path("done")).expect("removed");
    site.run("pipeline.edn").expect_exit(0, 60);
    assert_eq!(all_lines(&site.path("done")).len(), 1);
}

#[test]
fn a_source_that_would_read_its_own_output_is_an_error() {
    let site = Site::new("own-output");
    fs::create_dir_all(site.path("d/e")).expect("a folder");
    std::os::unix::fs::symlink("d", site.path("link")).expect("a link");
    let cases = [
        ("d/*.json", r#"{:path "d"}"#, true),
        ("d/**/*.json", r#"{:path "d/{n}"}"#, true),
        ("link/*.json", r#"{:path "d"}"#, true),
        ("d/*.json", r#"{:path "out" :move-to {:path "d"}}"#, true),
        ("d/**/*", r#"{:path "d/out" :codec :txt}"#, true),
        // Invalid records are quarantined beside the output.
        ("d/*/*/*/*", r#"{:path "d/out"}"#, true),
        (
            "d/*.json",
            r#"{:path "d" :codec :json :compression :gzip}"#,
            false,
        ),
        ("d/in-*.json", r#"{:path "d"}"#, false),
        ("d/*.json", r#"{:path "d/out"}"#, false),
        ("d/*.json", r#"{:path "out"}"#, false),
    ];
    for (path, sink, is_error) in cases {
        let text = format!(
            r#"{{in (files {{:path "{path}" :format "json"}}) out (files {sink}) pipeline (-> in out)}}"#
        );
        site.write("pipeline.edn", &text);
        let mut check = site.pseidon();
        check.arg("check").arg(site.path("pipeline.edn"));
        let output = check.output().expect("pseidon");
        let shown = String::from_utf8_lossy(&output.stderr);
        let expected = "`in` would read the files that ";
        assert_eq!(shown.contains(expected), is_error, "{text}: {shown}");
        assert_eq!(output.status.code() == Some(2), is_error, "{text}: {shown}");
    }
}

#[test]
fn files_in_a_refused_folder_fail_the_run_after_the_others_are_read() {
    let site = site("refused");
    let run = |code| {
        let mut pseidon = site.start(site.unprivileged("pipeline.edn"));
        pseidon.expect_exit(code, 60);
        pseidon.log()
    };
    run(0);
    expect_lines(&site, 4);

    set_mode(&site, "in/a", 0o000);
    site.write("in/b/5.ndjson", "{\"n\":5}\n");
    let log = run(1);
    assert!(
        log.contains("error: source `in`: cannot read in/a: Permission denied (os error 13) (and 1 more cannot be read)\n"),
        "{log}"
    );
    expect_lines(&site, 5);

    // The folder that has it may not be read either.
    set_mode(&site, "in/a", 0o755);
    set_mode(&site, "in", 0o000);
    let log = run(1);
    assert!(
        log.contains("error: source `in`: cannot read in: Permission denied (os error 13) (and 1 more cannot be read)\n"),
        "{log}"
    );

    set_mode(&site, "in", 0o755);
    run(0);
    expect_lines(&site, 5);
}

#[test]
fn files_in_a_refused_folder_are_followed_once_it_can_be_read() {
    let site = site("refused-follow");
    site.start(site.unprivileged("pipeline.edn"))
        .expect_exit(0, 60);
    expect_lines(&site, 4);

    // A follower forgets finished files that are gone when it starts. The compressed file is
    // finished and not gone.
    set_mode(&site, "in/a", 0o000);
    site.write("pipeline.edn", text(":follow true :poll \"20ms\""));
    let mut pseidon = site.start(site.unprivileged("pipeline.edn"));
    wait_until("it reports the folder", 60, || {
        let log = pseidon.log();
        log.contains("cannot look for files; retrying") && log.contains("Permission denied")
    });
    let wait_for = |count: usize| {
        wait_until("everything is visible", 60, || {
            all_lines(&site.path("out")).len() >= count
        });
    };
    site.write("in/b/5.ndjson", "{\"n\":5}\n");
    wait_for(5);
    set_mode(&site, "in/a", 0o755);
    site.write("in/a/6.ndjson", "{\"n\":6}\n");
    wait_for(6);
    pseidon.stop(40);
    let warnings = pseidon.log().matches("cannot look for files").count();
    // The folder, which two globs name, and the plain path.
    assert_eq!(warnings, 2, "{}", pseidon.log());
    expect_lines(&site, 6);
}

#[test]
fn a_folder_in_which_no_file_can_appear_ends_the_run() {
    let site = Site::new("unusable-folder");
    let other = tempfile::tempdir_in("/dev/shm").expect("a second file system at /dev/shm");
    site.write(
        "pipeline.edn",
        r#"{in (files "in.ndjson")
            pipeline (-> in (files "out/{k}"))}"#,
    );
    site.write(
        "in.ndjson",
        "{\"n\":1,\"k\":\"a/b\"}\n{\"n\":2,\"k\":\"a\"}\n",
    );
    fs::create_dir_all(site.path("out")).expect("a folder");
    let fails_with = |expected: &str| {
        let mut pseidon = site.run("pipeline.edn");
        pseidon.expect_exit(1, 60);
        assert!(pseidon.log().contains(expected), "{}", pseidon.log());
    };
    std::os::unix::fs::symlink(other.path(), site.path("out/a")).expect("a link");
    fails_with("out/a is on another file system than");
    fs::remove_file(site.path("out/a")).expect("removed");
    site.finish("pipeline.edn", 60);
    assert_eq!(all_lines(&site.path("out")).len(), 2);
    assert_eq!(fs::read_dir(other.path()).expect("a folder").count(), 0);
}

#[test]
fn pipes_are_skipped() {
    let site = Site::new("pipe");
    site.write(
        "pipeline.edn",
        r#"{in (files {:path "in/*" :format "json"}) pipeline (-> in (files "out"))}"#,
    );
    site.write("in/a.json", "{\"n\":1}\n");
    let made = std::process::Command::new("mkfifo")
        .arg(site.path("in/pipe"))
        .status();
    assert!(made.expect("mkfifo exists").success());
    let log = site.finish("pipeline.edn", 60).log();
    assert!(log.contains("not a file; it is skipped"), "{log}");
    assert_eq!(all_lines(&site.path("out")), ["{\"n\":1}"]);
}
