//! Recovery from a dead run in difficult cases: its files are on another disk or on one that is
//! lost, or its commit arrives after it died.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::held_commit::HeldCommit;
use crate::harness::output::{count_gapless, files, hidden};
use crate::harness::pipeline::state_in;
use crate::harness::redis::Redis;
use crate::harness::{Pseidon, Site, wait_until};

/// A pipeline that counts into three buckets of `base`.
fn counted(site: &Site, state: &str, base: &str) -> String {
    let state = state_in(site, state);
    format!(
        r#"{{:name "counted" :settings {{:memory "32MB" :commit-interval "200ms" {state}}}
            in (generate {{:record {{:n "n"}} :rate 500}})
            pipeline (-> in (files {{:path "{base}/{{n % 3}}" :codec :json :rollover {{:records 100 :idle "300ms"}} :check-freq "50ms"}}))}}"#
    )
}

/// Starts a run in a new mount namespace, in which the folder `data` is `disk`, as in a container.
fn start_on(site: &Site, disk: &str, fail: &str) -> Pseidon {
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" \"$1\" && exec \"$2\" run \"$3\"";
    command.args(["--map-root-user", "--mount", "sh", "-c", script]);
    command
        .arg(site.path(disk))
        .arg(site.path("data"))
        .arg(env!("CARGO_BIN_EXE_pseidon"))
        .arg(site.path("pipeline.edn"));
    command
        .current_dir(site.path(""))
        .env_remove("PSEIDON_FAIL");
    if !fail.is_empty() {
        command.env("PSEIDON_FAIL", fail);
    }
    site.start(command)
}

fn expect_progress(pseidon: &mut Pseidon, folder: &Path) {
    let before = files(folder).len();
    wait_until("more files become visible", 60, || {
        files(folder).len() > before + 3 || !pseidon.is_running()
    });
    assert!(pseidon.is_running(), "{}", pseidon.log());
}

#[test]
fn committed_files_on_another_disk_at_the_same_path_wait_for_that_disk() {
    let site = Site::new("two-disks");
    let redis = Redis::start(&site);
    site.write("pipeline.edn", counted(&site, &redis.url(), "data/out"));
    for folder in ["data", "disks/first/out", "disks/second/out"] {
        fs::create_dir_all(site.path(folder)).expect("a folder");
    }
    let staged = || {
        redis
            .cli(&["hlen", &format!("{{{}:counted}}:staged:files", site.name)])
            .trim()
            .parse::<u64>()
            .expect("a number")
    };
    start_on(&site, "disks/first", "committed:3").expect_death("committed", 60);
    let committed = staged();
    assert!(committed > 0, "files are committed and not published");
    // In the second round, the folders of the buckets already exist.
    for _ in 0..2 {
        let mut other = start_on(&site, "disks/second", "");
        expect_progress(&mut other, &site.path("disks/second"));
        other.stop(40);
        assert!(
            other
                .log()
                .contains("committed file cannot be published here"),
            "{}",
            other.log()
        );
        assert_eq!(
            staged(),
            committed,
            "the files on the first disk stay in the state"
        );
    }
    let mut back = start_on(&site, "disks/first", "");
    expect_progress(&mut back, &site.path("disks/first"));
    back.stop(40);
    assert_eq!(staged(), 0);
    for disk in ["disks/first", "disks/second"] {
        assert_eq!(hidden(&site.path(disk)), Vec::<std::path::PathBuf>::new());
    }
    count_gapless(&site.path("disks"));
}

/// A disk with committed files is lost. The files are listed, and forgotten only on request.
#[test]
fn files_of_a_lost_disk_are_forgotten_on_request() {
    let site = Site::new("lost-disk");
    let redis = Redis::start(&site);
    site.write("pipeline.edn", counted(&site, &redis.url(), "data/out"));
    for folder in ["data", "disks/lost/out", "disks/new/out"] {
        fs::create_dir_all(site.path(folder)).expect("a folder");
    }
    let staged = |arguments: &[&str]| {
        let output = site
            .pseidon()
            .args(["staged", "pipeline.edn"])
            .args(arguments)
            .output()
            .expect("it starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let (printed, errors) = (text(output.stdout), text(output.stderr));
        (output.status.code(), printed + &errors)
    };
    let nothing = (Some(0), "every committed file is visible\n".to_owned());
    assert_eq!(staged(&[]), nothing);
    start_on(&site, "disks/lost", "committed:3").expect_death("committed", 60);
    let disk = fs::read_dir(site.path("disks/lost/out/.pseidon-open/disk")).expect("an id");
    let disk = disk.flatten().next().expect("an id").file_name();
    let disk = disk.to_str().expect("an id");
    let (code, listed) = staged(&[]);
    assert_eq!(code, Some(0), "{listed}");
    for part in [
        &format!(" on disk {disk}, written by "),
        "not mounted here",
        "/data/out/",
        &format!("pseidon staged pipeline.edn --forget {disk}"),
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }

    let (code, refused) = staged(&["--forget", "00"]);
    assert_eq!(code, Some(1), "{refused}");
    assert!(
        refused.contains("no committed file waits for disk 00"),
        "{refused}"
    );
    // The disk is mounted again: a run publishes its files.
    std::os::unix::fs::symlink(site.path("disks/lost/out"), site.path("data/out")).expect("a link");
    let (code, refused) = staged(&["--forget", disk]);
    assert_eq!(code, Some(1), "{refused}");
    assert!(refused.contains("is mounted here"), "{refused}");
    fs::remove_file(site.path("data/out")).expect("it is there");

    let (code, forgotten) = staged(&["--forget", disk]);
    assert_eq!(code, Some(0), "{forgotten}");
    assert!(forgotten.contains("forgot "), "{forgotten}");
    assert_eq!(staged(&[]), nothing);
    let mut other = start_on(&site, "disks/new", "");
    expect_progress(&mut other, &site.path("disks/new"));
    other.stop(40);
    let log = other.log();
    assert!(!log.contains("cannot be published here"), "{log}");
}

#[test]
fn a_commit_that_reaches_the_store_after_its_sender_died_is_refused() {
    let site = Site::new("held-commit");
    let redis = Redis::start(&site);
    let proxy = HeldCommit::start(redis.url().trim_start_matches("redis://"), 5);
    site.write("pipeline.edn", counted(&site, &proxy.url(), "out"));
    let mut first = site.run("pipeline.edn");
    wait_until("a commit is held", 60, || {
        proxy.is_holding() || !first.is_running()
    });
    first.kill();
    let mut second = site.run("pipeline.edn");
    wait_until("the commit reaches the store", 60, || {
        proxy.answer().is_some() || !second.is_running()
    });
    let answer = proxy.answer().expect("the server has answered");
    assert!(
        !answer.contains("done"),
        "the commit of a dead run was applied: {answer}"
    );
    expect_progress(&mut second, &site.path("out"));
    second.stop(40);
    assert_eq!(hidden(&site.path("out")), Vec::<std::path::PathBuf>::new());
    count_gapless(&site.path("out"));
}
