//! Tests of who may use what a sink creates, and of what others put in its way.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use pseidon_delivery::WithCauses;
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::geteuid;

use super::*;

/// The mode of each file and folder below a folder, of which `out/b0/clicks…` is one.
fn modes(world: &World) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let mut folders = vec![world.path("out")];
    while let Some(folder) = folders.pop() {
        let mode = fs::metadata(&folder).unwrap().mode() & 0o7777;
        let name = folder.strip_prefix(world.dir.path()).unwrap();
        found.insert(name.to_str().unwrap().to_owned(), mode);
        if folder.is_dir() {
            let entries = fs::read_dir(&folder).unwrap();
            folders.extend(entries.map(|entry| entry.unwrap().path()));
        }
    }
    found
}

fn deliver_with(world: &World, options: &str) -> Result<Run, SinkError> {
    let text = EVERY_5.replace(":null-name", &format!("{options} :null-name"));
    let mut run = world.try_start("lake", &text, input())?;
    run.deliver(0, 7)?;
    Ok(run)
}

#[test]
fn published_files_have_the_mode_and_the_hidden_ones_are_private() {
    for (mode, file, folder) in [
        ("0600", 0o600, 0o700),
        ("640", 0o640, 0o750),
        ("0664", 0o664, 0o775),
    ] {
        let world = World::new();
        let run = deliver_with(&world, &format!(":mode \"{mode}\"")).unwrap();
        let hidden = modes(&world);
        let is_private = |(name, mode): (&String, &u32)| {
            let expected = if name.ends_with("/lock") {
                0o600
            } else {
                0o700
            };
            !name.contains(OPEN) || name.ends_with(".open") || *mode == expected
        };
        assert!(hidden.iter().all(is_private), "{hidden:?}");
        assert!(hidden.keys().any(|name| name.ends_with(".open")));
        run.finish();
        for (name, found) in modes(&world) {
            if !name.contains(OPEN) {
                let expected = if name.ends_with(".json") {
                    file
                } else {
                    folder
                };
                assert_eq!(found, expected, "{name}: {found:o}");
            }
        }
    }
}

#[test]
fn others_cannot_read_by_default() {
    let world = World::new();
    deliver_with(&world, "").unwrap().finish();
    // The umask may take more away.
    assert!(
        modes(&world).values().all(|mode| mode & 0o027 == 0),
        "{:?}",
        modes(&world)
    );
}

#[test]
fn the_owner_is_changed_before_a_file_is_visible() {
    let world = World::new();
    if !geteuid().is_root() {
        let group = fs::metadata(world.dir.path()).unwrap().gid();
        deliver_with(&world, &format!(":owner \":{group}\""))
            .unwrap()
            .finish();
        return;
    }
    deliver_with(&world, ":owner \"1:2\"").unwrap().finish();
    for name in ["out/b0", "out/b0/clicks-0-000000000000.json"] {
        let found = fs::metadata(world.path(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (1, 2), "{name}");
    }
}

#[test]
fn an_unknown_owner_ends_the_run() {
    let error = deliver_with(&World::new(), ":owner \"nosuchuser\"")
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "`:owner`: this machine has no user `nosuchuser`"
    );
    assert!(matches!(error, SinkError::Fatal(_)));
}

#[test]
fn a_file_that_is_copied_to_another_disk_keeps_its_mode() {
    let world = World::new();
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let lake = other.path().join("lake");
    let options = format!(":mode \"0664\" :move-to {{:path \"{}\"}}", lake.display());
    let mut run = deliver_with(&world, &options).unwrap();
    run.writer.flush(None).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while fs::read_dir(&lake).map_or(0, Iterator::count) < 5 {
        assert!(Instant::now() < deadline, "the files are moved");
        std::thread::sleep(Duration::from_millis(5));
    }
    run.finish();
    for entry in fs::read_dir(&lake).unwrap() {
        let found = entry.unwrap().metadata().unwrap();
        assert_eq!(found.mode() & 0o777, 0o664);
    }
    assert_eq!(fs::metadata(&lake).unwrap().mode() & 0o777, 0o775);
}

/// Its file stays hidden, and the others need not wait for it.
#[test]
fn a_link_below_the_base_directory_leads_no_file_away() {
    for is_there_before in [true, false] {
        let world = World::new();
        fs::create_dir_all(world.path("elsewhere")).unwrap();
        fs::create_dir_all(world.path("out")).unwrap();
        let link = || symlink(world.path("elsewhere"), world.path("out/b1")).unwrap();
        if is_there_before {
            link();
        }
        let mut run = deliver_with(&world, "").unwrap();
        if !is_there_before {
            link();
        }
        run.writer.flush(None).unwrap();
        assert_eq!(world.names("elsewhere"), [""; 0]);
        assert_eq!(world.names("out/b0").len(), 1);
        drop(run);
        fs::remove_file(world.path("out/b1")).unwrap();
        world.start(EVERY_5).finish();
        world.assert_exactly_once("out", [7, 0]);
    }
}

#[test]
fn what_others_put_into_the_hidden_folder_is_refused() {
    let world = World::new();
    deliver_with(&world, "").unwrap().finish();
    let pipe = |path: &Path| mkfifoat(CWD, path, Mode::from_raw_mode(0o600)).unwrap();
    let open = world.path("out").join(OPEN);
    // The sink's folder was removed with the last run.
    let run = world.start(EVERY_5);
    let sink = run.setup.instance.as_str().replace('/', "_");
    let folder = fs::read_dir(&open)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.join(&sink).is_dir())
        .unwrap();
    let odd = folder.join("evil");
    for (what, expected) in [
        ("a pipe as a lock", "is not a regular file: remove it"),
        ("a link as a lock", "is not a regular file: remove it"),
        ("a link as a folder", "is a link: remove it"),
    ] {
        match what {
            "a link as a folder" => symlink(world.dir.path(), &odd).unwrap(),
            _ => fs::create_dir(&odd).unwrap(),
        }
        match what {
            "a pipe as a lock" => pipe(&odd.join("lock")),
            "a link as a lock" => symlink(world.path("victim"), odd.join("lock")).unwrap(),
            _ => {}
        }
        let error = deliver_with(&world, "").err().unwrap();
        let shown = WithCauses(&error).to_string();
        assert!(shown.contains(expected), "{what}: {shown}");
        assert!(matches!(error, SinkError::Fatal(_)), "{what}: {error:?}");
        let _ = fs::remove_dir_all(&odd).or_else(|_| fs::remove_file(&odd));
    }
    assert!(!world.path("victim").exists());
    run.finish();
    world.assert_exactly_once("out", [7, 0]);
}

#[test]
fn a_base_directory_that_another_user_made_for_all_is_refused() {
    if !geteuid().is_root() {
        // Only root can make a folder of another user.
        return;
    }
    let world = World::new();
    fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::create_dir(world.path("out")).unwrap();
    chown(world.path("out"), Some(1), None).unwrap();
    let error = deliver_with(&world, "").err().unwrap();
    let shown = WithCauses(&error).to_string();
    assert!(shown.contains("belongs to another user (uid 1)"), "{shown}");
    assert_eq!(world.names("out"), [""; 0]);
}
