//! Tests with disks that are replaced, not mounted, or not writable.

use super::super::disk::DiskId;
use super::super::entry::Move;
use super::super::host::Host;
use super::*;

/// Commits `count` records, and stops the run before the files are published.
fn commit_only(world: &World, count: u64) {
    let mut run = world.start(EVERY_5);
    run.deliver(0, count).unwrap();
    *world.store.commit_fault.lock() = CommitFault::AnswerLost;
    run.writer.flush(None).unwrap_err();
    drop(run);
    *world.store.commit_fault.lock() = CommitFault::Sound;
}

fn staged(world: &World) -> Vec<StagedEntry> {
    world.store.staged(&"lake".into()).unwrap()
}

/// Mounts another disk at the same path of the same machine. It has the same folders.
fn mount_another_disk(world: &World) {
    fs::rename(world.path("out"), world.path("first")).unwrap();
    for bucket in ["b0", "b1", "b2", "b3", "NULL"] {
        fs::create_dir_all(world.path("out").join(bucket)).unwrap();
    }
}

fn mount_the_first_disk(world: &World) {
    fs::rename(world.path("out"), world.path("second")).unwrap();
    fs::rename(world.path("first"), world.path("out")).unwrap();
}

#[test]
fn a_run_on_another_disk_keeps_the_committed_files_of_the_first() {
    let world = World::new();
    commit_only(&world, 12);
    let committed = staged(&world).len();
    mount_another_disk(&world);
    for _ in 0..2 {
        let run = world.start(EVERY_5);
        assert_eq!(run.splits[0].1, 12, "the records count as delivered");
        run.finish();
        assert_eq!(staged(&world).len(), committed, "nothing is forgotten");
    }
    mount_the_first_disk(&world);
    world.start(EVERY_5).finish();
    world.assert_exactly_once("out", [12, 0]);
    assert_eq!(staged(&world), []);
}

#[test]
fn a_disk_is_recognized_under_another_path() {
    let world = World::new();
    commit_only(&world, 12);
    fs::rename(world.path("out"), world.path("moved")).unwrap();
    let run = world.start(&EVERY_5.replace("out", "moved"));
    assert_eq!(run.splits[0].1, 12);
    run.finish();
    world.assert_exactly_once("moved", [12, 0]);
    assert_eq!(staged(&world), []);
}

#[test]
fn a_missing_directory_with_committed_files_is_not_created() {
    let world = World::new();
    commit_only(&world, 12);
    fs::rename(world.path("out"), world.path("unmounted")).unwrap();
    let error = world.try_start("lake", EVERY_5, input()).err().unwrap();
    let SinkError::Fatal(message) = &error else {
        panic!("{error}")
    };
    let message = message.to_string();
    assert!(
        message.contains("does not exist") && message.contains("mkdir -p"),
        "{message}"
    );
    assert!(!world.path("out").exists());

    fs::create_dir(world.path("out")).unwrap();
    let committed = staged(&world).len();
    world.start(EVERY_5).finish();
    assert_eq!(
        staged(&world).len(),
        committed,
        "the user continues on another disk; the entries stay"
    );
    fs::remove_dir_all(world.path("out")).unwrap();
    fs::rename(world.path("unmounted"), world.path("out")).unwrap();
    world.start(EVERY_5).finish();
    world.assert_exactly_once("out", [12, 0]);
}

/// Replaces the staged entries by those that an earlier version would have written.
fn without_disks(world: &World) {
    for mut entry in staged(world) {
        let moving = Move::from_detail(&entry.detail).unwrap();
        entry.detail = Move {
            disk: None,
            inode: None,
            bytes: None,
            ..moving
        }
        .to_detail();
        world
            .store
            .forget(&"lake".into(), std::slice::from_ref(&entry.id))
            .unwrap();
        let commit = Commit {
            staged: vec![entry],
            ..Commit::of("earlier".into())
        };
        world.store.inner.commit(&"lake".into(), &commit).unwrap();
    }
    // It wrote neither a disk id nor an owner's name.
    fs::remove_dir_all(world.path("out").join(OPEN).join("disk")).unwrap();
    let sink = fs::read_dir(world.path("out").join(OPEN))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| !path.ends_with("disk"))
        .unwrap();
    for run in fs::read_dir(sink).unwrap() {
        fs::write(run.unwrap().path().join("lock"), Host::this().to_text()).unwrap();
    }
}

#[test]
fn entries_of_an_earlier_version_are_published_on_their_disk_and_kept_on_others() {
    let world = World::new();
    commit_only(&world, 12);
    without_disks(&world);
    let committed = staged(&world).len();
    mount_another_disk(&world);
    world.start(EVERY_5).finish();
    assert_eq!(
        staged(&world).len(),
        committed,
        "this is not certainly the same disk"
    );
    mount_the_first_disk(&world);
    world.start(EVERY_5).finish();
    world.assert_exactly_once("out", [12, 0]);
    assert_eq!(staged(&world), []);
}

#[test]
fn the_disk_id_stays_when_everything_else_is_removed() {
    let world = World::new();
    let mut run = world.start(EVERY_5);
    let id = DiskId::of(&world.path("out")).unwrap().unwrap();
    run.deliver(0, 1).unwrap();
    run.finish();
    let left: Vec<_> = fs::read_dir(world.path("out").join(OPEN))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["disk"]);
    world.start(EVERY_5).finish();
    assert_eq!(DiskId::of(&world.path("out")).unwrap().unwrap(), id);
}

/// Without its id, a disk cannot be told from another one. What a dead run has left there is its
/// own.
#[test]
fn committed_files_stay_whatever_becomes_of_the_disk_id() {
    let id_folder = |world: &World| world.path("out").join(OPEN).join("disk");
    let world = World::new();
    commit_only(&world, 12);
    fs::remove_dir_all(id_folder(&world)).unwrap();
    world.start(EVERY_5).finish();
    world.assert_exactly_once("out", [12, 0]);
    assert_eq!(staged(&world), []);

    type Damage = fn(&Path);
    let damages: [Damage; 2] = [
        |path| fs::write(path, "not an id").unwrap(),
        |path| fs::create_dir(path).unwrap(),
    ];
    for damage in damages {
        let world = World::new();
        commit_only(&world, 12);
        let (path, aside) = (id_folder(&world), world.path("id"));
        fs::rename(&path, &aside).unwrap();
        damage(&path);
        assert!(world.try_start("lake", EVERY_5, input()).is_err());
        fs::rename(&path, world.path("damaged")).unwrap();
        fs::rename(&aside, &path).unwrap();
        world.start(EVERY_5).finish();
        world.assert_exactly_once("out", [12, 0]);
        assert_eq!(staged(&world), []);
    }
}

#[test]
fn a_committed_file_that_cannot_be_published_does_not_block_the_start() {
    let world = World::new();
    commit_only(&world, 4);
    fs::write(world.path("out/b1"), "in the way").unwrap();
    let run = world.start(EVERY_5);
    let gauge = run
        .setup
        .metrics
        .unpublished_files
        .with_label_values(&["lake"]);
    assert_eq!(gauge.get(), 1);
    assert_eq!(
        run.setup.metrics.troubles(true),
        ["the sink `lake` cannot publish committed files and is retrying"]
    );
    assert_eq!(
        world
            .names("out")
            .iter()
            .filter(|name| !name.contains(OPEN))
            .count(),
        4,
        "the other three, and the file in the way"
    );
    fs::remove_file(world.path("out/b1")).unwrap();
    while gauge.get() > 0 {
        std::thread::yield_now();
    }
    run.finish();
    world.start(EVERY_5).finish();
    world.assert_exactly_once("out", [4, 0]);
    assert_eq!(staged(&world), []);
}

/// The run of another pipeline holds the lock for which earlier versions waited, while it waits for
/// its state store.
#[test]
fn no_run_waits_for_a_lock_of_another_pipeline() {
    let world = World::new();
    fs::create_dir_all(world.path("out").join(OPEN)).unwrap();
    let lock = fs::File::create(world.path("out").join(OPEN).join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut run = world.start(EVERY_5);
    run.deliver(0, 7).unwrap();
    run.finish();
    fs::remove_file(world.path("out").join(OPEN).join("lock")).unwrap();
    world.assert_exactly_once("out", [7, 0]);
}
