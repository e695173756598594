use serde_json::{Map, json};

use super::super::access::Access;
use super::super::follow_up::FollowUp;
use super::*;

const HIDDEN: &str = ".pseidon-open/p.lake.0123abcd";

/// A sink that writes to `/data/a` and `/data/b` and moves files to `/lake`.
fn places() -> PermittedPlaces {
    PermittedPlaces {
        bases: vec!["/data/a".into(), "/data/b".into()],
        hidden: HIDDEN.to_owned(),
        move_to: Some(MoveSettings {
            folder: "/lake".into(),
            prefix: "h-".to_owned(),
            check: true,
            quarantine: Some("/broken".into()),
        }),
    }
}

/// An entry that the sink has written itself.
fn entry() -> Move {
    Move {
        host: Host::this(),
        disk: None,
        inode: None,
        bytes: None,
        base: "/data/a".into(),
        hidden: format!("{HIDDEN}/run-1/1.open"),
        visible: "d=1/clicks-3-000.json.gz".into(),
        extension: "json.gz".into(),
        follow_up: None,
    }
}

fn moved(folder: &str, prefix: &str, quarantine: Option<&str>) -> Move {
    let destination = Destination {
        folder: folder.into(),
        prefix: prefix.to_owned(),
        quarantine: quarantine.map(PathBuf::from),
    };
    Move {
        follow_up: Some(FollowUp {
            records: 1,
            positions: Map::new(),
            destination: Some(destination),
        }),
        ..entry()
    }
}

fn refusal(moving: &Move) -> Option<String> {
    places().refusal(moving)
}

#[test]
fn what_the_sink_writes_is_permitted() {
    let only_reported = Move {
        follow_up: FollowUp::from_json(&json!({ "records": 1, "positions": {} })),
        ..entry()
    };
    for moving in [
        entry(),
        only_reported,
        Move {
            base: "/data/b/".into(),
            visible: "x~1.json".into(),
            ..entry()
        },
        moved("/lake", "", None),
        moved("/lake/d=1/h", "h-", Some("/broken")),
        moved("/lake/", "..", Some("/data/b/quarantine")),
    ] {
        assert_eq!(refusal(&moving), None, "{moving:?}");
    }
}

#[test]
fn a_base_directory_of_another_program_is_refused() {
    for base in ["/", "/data", "/data/a/b", "/data/a/../../etc", "data/a", ""] {
        let moving = Move {
            base: base.into(),
            ..entry()
        };
        let reason = refusal(&moving).expect(base);
        assert!(
            reason.contains("is not a base directory of this sink"),
            "{reason}"
        );
    }
}

#[test]
fn a_file_that_the_sink_has_not_hidden_is_refused() {
    for hidden in [
        "victim".to_owned(),
        "/etc/passwd".to_owned(),
        String::new(),
        HIDDEN.to_owned(),
        format!("{HIDDEN}/"),
        format!("{HIDDEN}/1.open"),
        format!("{HIDDEN}/run-1/lock"),
        format!("{HIDDEN}/run-1/a/1.open"),
        format!("{HIDDEN}/../../1.open"),
        format!("{HIDDEN}/run-1/../../../1.open"),
        format!("{HIDDEN}/../1.open"),
        format!("{HIDDEN}//1.open"),
        format!("{HIDDEN}.other/run-1/1.open"),
        format!("./{HIDDEN}/run-1/1.open"),
        ".pseidon-open/p.other.0123abcd/run-1/1.open".to_owned(),
    ] {
        let moving = Move {
            hidden: hidden.clone(),
            ..entry()
        };
        let reason = refusal(&moving).expect(&hidden);
        assert!(
            reason.contains("is not a hidden file of this sink"),
            "{reason}"
        );
    }
}

#[test]
fn a_name_outside_of_the_base_directory_is_refused() {
    let taken = format!("{HIDDEN}/run-2/1.open");
    for visible in [
        "../stolen",
        "a/../../stolen",
        "/tmp/stolen",
        "a//b",
        "./a",
        "a/.",
        "",
        "a/",
        &taken,
    ] {
        let moving = Move {
            visible: visible.to_owned(),
            ..entry()
        };
        let reason = refusal(&moving).expect(visible);
        assert!(
            reason.contains("is not a file below the base directory"),
            "{reason}"
        );
    }
    // It becomes part of the name if the name is taken.
    let moving = Move {
        extension: "/../../stolen".to_owned(),
        ..entry()
    };
    assert!(refusal(&moving).is_some());
}

#[test]
fn a_destination_outside_of_the_folders_of_the_sink_is_refused() {
    for (moving, expected) in [
        (moved("/etc", "", None), "is not below /lake"),
        (moved("/", "", None), "is not below /lake"),
        (moved("/lake/../etc", "", None), "is not below /lake"),
        (moved("lake", "", None), "is not below /lake"),
        (
            moved("/lake", "../", None),
            "is not the beginning of a name",
        ),
        (
            moved("/lake", "", Some("/etc")),
            "is not the folder of this sink's broken files",
        ),
        (
            moved("/lake", "", Some("/broken/a")),
            "is not the folder of this sink's broken files",
        ),
    ] {
        let reason = refusal(&moving).expect(expected);
        assert!(reason.contains(expected), "{reason}");
    }
    let unmoved = PermittedPlaces {
        move_to: None,
        ..places()
    };
    let reason = unmoved.refusal(&moved("/lake", "", None)).unwrap();
    assert!(reason.contains("this sink has no `:move-to`"), "{reason}");
    assert_eq!(unmoved.refusal(&entry()), None);
}

/// The pipeline file is started as `b/../p.edn` and then as `p.edn`.
#[test]
fn another_way_to_the_same_folder_is_permitted() {
    let dir = tempfile::tempdir().unwrap();
    let path = |path: &str| dir.path().join(path);
    fs::create_dir_all(path("b")).unwrap();
    fs::create_dir_all(path("lake")).unwrap();
    let places = PermittedPlaces {
        move_to: Some(MoveSettings {
            folder: path("lake"),
            quarantine: Some(path("broken")),
            ..places().move_to.unwrap()
        }),
        ..places()
    };
    let moving = |folder: &str, quarantine: &str| {
        let text = |name: &str| path(name).to_str().unwrap().to_owned();
        moved(&text(folder), "", Some(&text(quarantine)))
    };
    for (folder, quarantine, is_permitted) in [
        ("b/../lake/d=1", "b/../broken", true),
        ("b/../lake/d=1/../x", "broken", false),
        ("b/../other", "broken", false),
        ("lake", "b/../lake", false),
    ] {
        let refusal = places.refusal(&moving(folder, quarantine));
        assert_eq!(refusal.is_none(), is_permitted, "{folder}: {refusal:?}");
    }
}

/// With shared state, each machine sees the entries of all, also those of its own folders.
#[test]
fn an_entry_of_another_machine_is_not_refused() {
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk_of = |dir: &tempfile::TempDir| {
        let access = Access::of_mode("0640");
        Some(DiskId::of_or_new(dir.path(), &access).unwrap())
    };
    let places = PermittedPlaces {
        bases: vec![own.path().to_owned()],
        ..places()
    };
    let theirs = Move {
        host: Host::from_text("etl-2 another-boot"),
        disk: DiskId::from_text("0123456789abcdef0123456789abcdef"),
        ..entry()
    };
    assert!(theirs.disk.is_some());
    let without_disk = |moving: &Move| Move {
        disk: None,
        ..moving.clone()
    };
    for moving in [theirs.clone(), without_disk(&theirs)] {
        assert!(places.refusal(&moving).is_some(), "it is not applied here");
        assert_eq!(places.refusal_on_disks(&moving), None, "{moving:?}");
    }
    let elsewhere = Move {
        base: other.path().to_owned(),
        ..theirs
    };
    let mounted = Move {
        disk: disk_of(&other),
        ..elsewhere.clone()
    };
    let outside = Move {
        disk: disk_of(&own),
        visible: "../stolen".to_owned(),
        ..elsewhere.clone()
    };
    let of_this_host = Move {
        host: Host::this(),
        ..without_disk(&elsewhere)
    };
    for moving in [mounted, outside, of_this_host] {
        assert!(places.refusal_on_disks(&moving).is_some(), "{moving:?}");
    }
}
