//! Servers and disks that fail for a while.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::output::{all_lines, count_gapless, files, hidden};
use crate::harness::pipeline::state_in;
use crate::harness::redis::Redis;
use crate::harness::servers::Servers;
use crate::harness::watch::Watcher;
use crate::harness::{Pseidon, Site, wait_until};
use crate::positions::positions;

/// A pipeline that counts into `base`, from a source that does not end.
fn counted(settings: &str, base: &str) -> String {
    format!(
        r#"{{:name "counted" :settings {{:memory "16MiB" :commit-interval "200ms" {settings}}}
            in (generate {{:record {{:n "n" :pad "repeat('x', 200)"}} :rate 4000}})
            pipeline (-> in (files {{:path "{base}/{{n % 3}}" :codec :json :rollover {{:size "40KB" :idle "300ms"}} :check-freq "50ms"}}))}}"#
    )
}

fn expect_progress(site: &Site, folder: &str, pseidon: &mut Pseidon) {
    let before = files(&site.path(folder)).len();
    wait_until("more files become visible", 60, || {
        files(&site.path(folder)).len() > before + 5 || !pseidon.is_running()
    });
    assert!(pseidon.is_running());
}

#[test]
fn redis_is_killed_and_restarted() {
    let site = Site::new("redis-down");
    let mut redis = Redis::down();
    site.write(
        "pipeline.edn",
        counted(&state_in(&site, &redis.url()), "out"),
    );
    let watcher = Watcher::start(&[site.path("out")]);
    let mut pseidon = site.run("pipeline.edn");
    wait_until("it reports that the store does not answer", 20, || {
        pseidon.log().contains("state store")
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(pseidon.is_running(), "it waits for the store");
    redis.up(&site);
    for _ in 0..3 {
        expect_progress(&site, "out", &mut pseidon);
        redis.kill();
        std::thread::sleep(site.random.millis(300..3000));
        redis.up(&site);
    }
    expect_progress(&site, "out", &mut pseidon);
    pseidon.stop(40);
    watcher.finish();
    assert_eq!(hidden(&site.path("out")), Vec::<PathBuf>::new());
    count_gapless(&site.path("out"));
}

/// A `kafka` sink whose broker is down waits for up to a minute in one call, without reporting it
/// before. Both sinks have the same writer thread.
#[test]
fn a_sink_that_hangs_does_not_block_another() {
    let site = Site::new("hanging-sink");
    let servers = Servers::start(&site, &["kafka"]);
    let pipeline = format!(
        r#"{{:name "hanging" :settings {{:writer-threads 1 :memory "64MB"}}
            in (generate {{:record {{:n "n"}} :rate 2000}})
            away (kafka {{:brokers "{}" :topic "away" :transaction {{:age "100ms"}}}})
            here (files {{:path "out" :codec :json :rollover {{:records 100}} :check-freq "50ms"}})
            pipeline (-> in (all away here))}}"#,
        servers.address("PSEIDON_TEST_KAFKA")
    );
    site.write("pipeline.edn", pipeline);
    let mut pseidon = site.run("pipeline.edn");
    expect_progress(&site, "out", &mut pseidon);
    servers.kill("kafka");
    let before = pseidon.log().matches("starting").count();
    for _ in 0..5 {
        expect_progress(&site, "out", &mut pseidon);
    }
    assert_eq!(
        pseidon.log().matches("starting").count(),
        before,
        "it must still hang in the same attempt"
    );
    pseidon.kill();
}

/// Sends records to the topic `clicks`, all of them to one partition.
fn produce_clicks(site: &Site, brokers: &str, value: &str, count: &str) {
    let mut command = site.pseidon();
    command.args(["produce", "--brokers", brokers, "--topic", "clicks"]);
    command.args(["-n", count, "--value", value, "--key", "'k'"]);
    assert!(command.status().expect("it runs").success());
}

/// Replaces the partitions of the topic `clicks` in a folder by those in another.
fn copy_clicks(from: &Path, to: &Path) {
    let entries = fs::read_dir(from).expect("a folder");
    for partition in entries.map(|entry| entry.expect("an entry").path()) {
        let name = partition.file_name().expect("a name");
        if !name.to_string_lossy().starts_with("clicks-") {
            continue;
        }
        let _ = fs::remove_dir_all(to.join(name));
        let status = Command::new("cp")
            .arg("-a")
            .arg(&partition)
            .arg(to.join(name))
            .status()
            .expect("cp");
        assert!(status.success());
    }
}

/// The log of a partition is replaced by an older copy, which then grows past the position in the
/// state, as after the election of a leader that was not in sync. Its new records must not be
/// mistaken for the records that were read.
#[test]
fn a_log_that_was_truncated_between_two_runs_is_noticed() {
    let site = Site::new("truncated-log");
    let servers = Servers::start(&site, &["kafka"]);
    let brokers = servers.address("PSEIDON_TEST_KAFKA");
    let produce = |value: &str, count: &str| produce_clicks(&site, &brokers, value, count);
    let (data, older) = (servers.path("kafka/data"), site.path("older"));

    produce("'first'", "400");
    servers.kill("kafka");
    fs::create_dir(&older).expect("a folder");
    copy_clicks(&data, &older);
    servers.restart("kafka");
    produce("'lost'", "400");
    site.write(
        "pipeline.edn",
        format!(
            r#"{{:name "truncated" in (kafka {{:brokers "{brokers}" :topics ["clicks"] :format :raw :until :latest}})
                out (files {{:path "out/{{@partition}}" :codec :raw}}) pipeline (-> in out)}}"#
        ),
    );
    site.finish("pipeline.edn", 60);
    // A run that reads on is not taken for one whose log was truncated, although the epoch changed in
    // the middle of what was read.
    produce("'more'", "1");
    site.finish("pipeline.edn", 60);
    let of_partition = |partition: usize| all_lines(&site.path(&format!("out/{partition}")));
    let read: Vec<_> = (0..4).map(of_partition).collect();
    assert_eq!(read.iter().map(Vec::len).sum::<usize>(), 801);

    servers.kill("kafka");
    copy_clicks(&older, &data);
    servers.restart("kafka");
    produce("'other'", "4000");
    let mut again = site.run("pipeline.edn");
    again.expect_exit(1, 60);
    assert!(
        again.log().contains("its log was truncated"),
        "{}",
        again.log()
    );
    let was_read = (0..4).filter(|partition| !read[*partition].is_empty());
    was_read.for_each(|partition| assert_eq!(of_partition(partition), read[partition]));
}

/// The output directory disappears and returns with its contents, as when a disk is unmounted,
/// while nothing can be written in its place. In every other round, it exists but is not writable.
#[test]
fn a_directory_disappears_and_returns() {
    let site = Site::new("vanished");
    site.write("place/disk/kept", "");
    site.write("pipeline.edn", counted("", "place/disk/out"));
    let mode = |name: &str, mode: u32| {
        fs::set_permissions(site.path(name), fs::Permissions::from_mode(mode)).expect("permissions")
    };
    ["", "place", "place/disk"]
        .iter()
        .for_each(|name| mode(name, 0o777));
    let mut pseidon = site.start(site.unprivileged("pipeline.edn"));
    let out = "place/disk/out";
    for round in 0..4 {
        expect_progress(&site, out, &mut pseidon);
        wait_until("it can write again", 60, || !is_blocked(&pseidon));
        let before = trouble(&pseidon);
        let permission_only = round % 2 == 1;
        if permission_only {
            fs::set_permissions(site.path(out), fs::Permissions::from_mode(0o555))
                .expect("permissions");
            hidden(&site.path(out))
                .iter()
                .filter(|path| path.is_dir())
                .for_each(|path| {
                    fs::set_permissions(path, fs::Permissions::from_mode(0o555))
                        .expect("permissions");
                });
        } else {
            mode("place", 0o555);
            fs::rename(site.path("place/disk"), site.path("away")).expect("renamed");
        }
        wait_until("it reports the problem", 30, || {
            trouble(&pseidon) > before || !pseidon.is_running()
        });
        std::thread::sleep(site.random.millis(100..1500));
        assert!(pseidon.is_running(), "it retries");
        if permission_only {
            hidden(&site.path(out))
                .iter()
                .filter(|path| path.is_dir())
                .for_each(|path| {
                    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
                        .expect("permissions");
                });
            fs::set_permissions(site.path(out), fs::Permissions::from_mode(0o777))
                .expect("permissions");
        } else {
            fs::rename(site.path("away"), site.path("place/disk")).expect("renamed");
            mode("place", 0o777);
        }
    }
    expect_progress(&site, out, &mut pseidon);
    pseidon.stop_after_failures(40);
    assert_eq!(hidden(&site.path("place")), Vec::<PathBuf>::new());
    count_gapless(&site.path(out));
}

/// All hidden files are removed while nothing is between its commit and its rename: the state has
/// no committed file that is not yet published, and the next one is due only ten seconds later.
#[test]
fn removed_hidden_files_are_rewritten() {
    let site = Site::new("removed");
    site.write(
        "pipeline.edn",
        counted("", "out")
            .replace("/{n % 3}", "")
            .replace(":size \"40KB\" :idle \"300ms\"", ":age \"10s\""),
    );
    let watcher = Watcher::start(&[site.path("out")]);
    let mut pseidon = site.run("pipeline.edn");
    for _ in 0..2 {
        watcher.wait_for(watcher.records() + 1, 60);
        wait_until("nothing is staged", 60, || {
            positions(&site)["staged"] == serde_json::json!({})
        });
        for path in hidden(&site.path("out")) {
            let _ = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
        }
    }
    watcher.wait_for(watcher.records() + 1, 60);
    pseidon.stop_after_failures(40);
    watcher.finish();
    assert_eq!(hidden(&site.path("out")), Vec::<PathBuf>::new());
    count_gapless(&site.path("out"));
}

/// Warnings and errors so far.
fn trouble(pseidon: &Pseidon) -> usize {
    let log = pseidon.log();
    log.matches("WARN").count() + log.matches("ERROR").count()
}

/// Whether a sink has reported that it cannot write, and not yet that it can again. A run that
/// restarts begins with sinks that are not blocked.
fn is_blocked(pseidon: &Pseidon) -> bool {
    let log = pseidon.log();
    let ends = ["can write again", "restarting from the committed positions"];
    log.rfind("cannot write; no records") > ends.iter().filter_map(|end| log.rfind(end)).max()
}

/// The size of files is limited, so writes fail until the limit is lifted.
#[test]
fn failed_writes_are_retried() {
    let site = Site::new("limit");
    let redis = Redis::start(&site);
    // A file that is closed early is small enough to be written.
    let text = counted(&state_in(&site, &redis.url()), "out");
    site.write("pipeline.edn", text.replace(":idle \"300ms\"", ""));
    let watcher = Watcher::start(&[site.path("out")]);
    let mut command = Command::new("sh");
    // Without the signal, such a write returns an error.
    command.args([
        "-c",
        "trap '' XFSZ; ulimit -S -f 16; exec \"$0\" run pipeline.edn 2>log",
        env!("CARGO_BIN_EXE_pseidon"),
    ]);
    command.current_dir(site.path(""));
    let mut pseidon = site.start(command);
    let log = || fs::read_to_string(site.path("log")).unwrap_or_default();
    wait_until("it reports that it cannot write", 30, || {
        log().contains("WARN") || !pseidon.is_running()
    });
    std::thread::sleep(Duration::from_secs(2));
    assert!(pseidon.is_running(), "it retries: {}", log());
    assert_eq!(
        files(&site.path("out")),
        Vec::<PathBuf>::new(),
        "nothing could be written"
    );
    let lifted = Command::new("prlimit")
        .args(["--pid", &pseidon.id().to_string(), "--fsize=unlimited:"])
        .status()
        .expect("prlimit");
    assert!(lifted.success());
    expect_progress(&site, "out", &mut pseidon);
    pseidon.stop(40);
    watcher.finish();
    assert_eq!(hidden(&site.path("out")), Vec::<PathBuf>::new());
    count_gapless(&site.path("out"));
}

/// A small file system for one test, in a mount namespace. It is gone when the processes in the
/// namespace have ended.
pub(crate) struct SmallDisk {
    holder: Child,
    folder: PathBuf,
}

impl SmallDisk {
    pub(crate) fn mount(site: &Site) -> SmallDisk {
        let folder = site.path("disk");
        fs::create_dir(&folder).expect("a folder");
        let script =
            "mount -t tmpfs -o size=8m small \"$0\" && touch \"$0/mounted\" && exec sleep infinity";
        let holder = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", script])
            .arg(&folder)
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare is part of util-linux");
        let mut disk = SmallDisk { holder, folder };
        wait_until("the small disk is mounted", 20, || {
            let ended = disk.holder.try_wait().expect("a child");
            assert!(
                ended.is_none(),
                "this test requires permission to mount a file system in a new namespace (see unshare(1))"
            );
            disk.path("mounted").exists()
        });
        disk
    }

    /// A path on the disk, from outside of its namespace.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let inside = self.folder.strip_prefix("/").expect("an absolute path");
        Path::new("/proc")
            .join(self.holder.id().to_string())
            .join("root")
            .join(inside)
            .join(name)
    }

    /// Whether there is no space for the files of a commit.
    fn is_full(&self) -> bool {
        let space = rustix::fs::statvfs(self.path("")).expect("a mounted disk");
        space.f_bavail * space.f_frsize < 1 << 20
    }

    /// Starts a run in the namespace.
    pub(crate) fn start(&self, site: &Site) -> Pseidon {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.holder.id().to_string(),
            "--user",
            "--preserve-credentials",
            "--mount",
            "--",
        ]);
        command
            .arg(env!("CARGO_BIN_EXE_pseidon"))
            .arg("run")
            .arg(site.path("pipeline.edn"));
        site.start(command)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The disk is repeatedly full, until files are removed.
#[test]
fn a_full_disk_blocks_the_run() {
    let site = Site::new("full-disk");
    // A disk that holds less than is read in three seconds, and more than one batch.
    site.write(
        "pipeline.edn",
        counted("", "disk/out").replace("'x', 200", "'x', 800"),
    );
    let disk = SmallDisk::mount(&site);
    let mut pseidon = disk.start(&site);
    let kept = site.path("kept");
    fs::create_dir(&kept).expect("a folder");
    let mut moved = 0;
    let mut free_space = || {
        for path in files(&disk.path("out")) {
            moved += 1;
            fs::copy(&path, kept.join(format!("{moved}.json"))).expect("copied");
            fs::remove_file(&path).expect("removed");
        }
    };
    for _ in 0..3 {
        // What waits in memory may fill the disk again before it reports that it can write.
        wait_until("it reports that the disk is full", 60, || {
            (is_blocked(&pseidon) && disk.is_full()) || !pseidon.is_running()
        });
        std::thread::sleep(site.random.millis(500..2000));
        assert!(pseidon.is_running(), "it retries");
        free_space();
    }
    pseidon.terminate();
    wait_until("it stops", 40, || {
        free_space();
        !pseidon.is_running()
    });
    pseidon.expect_exit(0, 1);
    free_space();
    assert_eq!(hidden(&disk.path("out")), Vec::<PathBuf>::new());
    assert!(count_gapless(&kept) > 5000);
}
