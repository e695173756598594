//! Disks that are another one than expected, are not mounted, or cannot be written.

use super::super::disk::DiskId;
use super::super::host::Host;
use super::super::place::Move;
use super::*;

/// Commits `count` records, and ends the run before the files get their names.
fn commit_only(world: &World, count: u64) {
    let mut run = world.start(EVERY_5);
    run.deliver(0, count).unwrap();
    *world.store.mood.lock() = Mood::AnswerLost;
    run.writer.flush(None).unwrap_err();
    drop(run);
    *world.store.mood.lock() = Mood::Sound;
}

fn staged(world: &World) -> Vec<Staged> {
    world.store.staged(&"lake".into()).unwrap()
}

/// Puts another disk at the same path of the same machine. It has all the folders.
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
fn what_is_committed_on_one_disk_is_left_to_it_by_a_run_on_another() {
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
fn a_disk_is_known_under_another_path() {
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
fn a_directory_that_is_missing_is_not_made_while_committed_files_are_in_it() {
    let world = World::new();
    commit_only(&world, 12);
    fs::rename(world.path("out"), world.path("unmounted")).unwrap();
    let error = world.try_start("lake", EVERY_5, input()).err().unwrap();
    let SinkError::Fatal(message) = &error else {
        panic!("{error}")
    };
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
        "the user wants to go on elsewhere; the files are still known"
    );
    fs::remove_dir_all(world.path("out")).unwrap();
    fs::rename(world.path("unmounted"), world.path("out")).unwrap();
    world.start(EVERY_5).finish();
    world.assert_exactly_once("out", [12, 0]);
}

/// Replaces what is staged by what an earlier version would have written.
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
            ..Commit::default()
        };
        world.store.inner.commit(&"lake".into(), &commit).unwrap();
    }
    // It had no file for the id of a disk, and did not write an owner's name.
    fs::remove_file(world.path("out").join(OPEN).join("disk")).unwrap();
    let sink = fs::read_dir(world.path("out").join(OPEN))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_dir())
        .unwrap();
    for run in fs::read_dir(sink).unwrap() {
        fs::write(run.unwrap().path().join("lock"), Host::this().to_text()).unwrap();
    }
}

#[test]
fn what_an_earlier_version_has_committed_is_published_on_its_disk_and_kept_on_others() {
    let world = World::new();
    commit_only(&world, 12);
    without_disks(&world);
    let committed = staged(&world).len();
    mount_another_disk(&world);
    world.start(EVERY_5).finish();
    assert_eq!(
        staged(&world).len(),
        committed,
        "nothing says that this is the disk"
    );
    mount_the_first_disk(&world);
    world.start(EVERY_5).finish();
    world.assert_exactly_once("out", [12, 0]);
    assert_eq!(staged(&world), []);
}

#[test]
fn the_id_of_a_disk_stays_when_everything_else_goes() {
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

#[test]
fn a_committed_file_that_cannot_be_published_holds_up_no_start() {
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
        run.setup.metrics.troubles(),
        ["the sink `lake` cannot publish committed files and tries again"]
    );
    assert_eq!(
        world
            .names("out")
            .iter()
            .filter(|name| !name.contains(OPEN))
            .count(),
        4,
        "the other three, and what is in the way"
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

/// As another pipeline's run does, which holds the lock that earlier versions waited for, and waits
/// for its state store.
#[test]
fn a_lock_that_another_pipeline_holds_is_not_waited_for() {
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
