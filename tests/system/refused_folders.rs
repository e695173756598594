//! Folders of the source `files` that the process may not read for a while.
//!
//! Their files are neither missing nor gone, so what was read of them must not be forgotten: it
//! would be delivered again.

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
