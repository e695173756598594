//! The redb store: the conformance suite, and faults that only a file can have.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{
    Commit, CommitRecord, ScopedStore, SinkId, SplitCommit, StagedEntry, StateStore, StoreError,
    WithCauses, conformance,
};
use redb::{Database, TableDefinition};

fn failure(outcome: Result<EmbeddedStore, StoreError>) -> String {
    match outcome {
        Err(StoreError::Failed(reason)) => WithCauses(&reason).to_string(),
        Err(other) => panic!("not StoreError::Failed: {}", WithCauses(&other)),
        Ok(_) => panic!("the file opened"),
    }
}

/// Makes one commit, with the lane `x` ahead.
fn commit_once(store: &EmbeddedStore, sequence: u64) -> Result<(), pseidon_delivery::CommitError> {
    let split = SplitCommit {
        ahead: vec![("x".into(), 1_000_000)],
        ..SplitCommit::to_low("s/0".into(), 1, sequence, sequence)
    };
    store.commit(
        &SinkId::from("lake"),
        &Commit {
            splits: vec![split],
            ..Commit::of("a".into())
        },
    )
}

fn used_file(dir: &Path) -> std::path::PathBuf {
    let store = EmbeddedStore::open(dir, "p").unwrap();
    store
        .take(&SinkId::from("lake"), &["s/0".into()], &"a".into())
        .unwrap();
    for sequence in 0..20 {
        commit_once(&store, sequence).unwrap();
    }
    dir.join("p.redb")
}

#[test]
fn passes_the_conformance_suite() {
    let dir = tempfile::tempdir().unwrap();
    conformance::check(&|pipeline| Box::new(EmbeddedStore::open(dir.path(), pipeline).unwrap()));
    let open = |pipeline: &str| EmbeddedStore::open(dir.path(), pipeline).unwrap();
    conformance::check_operator(&|pipeline| Box::new(open(pipeline)));
}

#[test]
fn git_ignores_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("deep/.pseidon");
    drop(EmbeddedStore::open(&state, "p").unwrap());
    assert_eq!(fs::read_to_string(state.join(".gitignore")).unwrap(), "*\n");
    fs::write(state.join(".gitignore"), "mine").unwrap();
    drop(EmbeddedStore::open(&state, "p").unwrap());
    assert_eq!(
        fs::read_to_string(state.join(".gitignore")).unwrap(),
        "mine"
    );
}

#[test]
fn every_pipeline_name_maps_to_one_file_name() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    for (name, file) in [
        ("a", "a.redb"),
        ("../a", "%2E.%2Fa.redb"),
        (".", "%2E.redb"),
        ("a:b c", "a%3Ab%20c.redb"),
        ("ü", "%C3%BC.redb"),
    ] {
        drop(EmbeddedStore::open(&state, name).unwrap());
        assert!(state.join(file).is_file(), "{name}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A process that is killed while it creates the file leaves a part of it, which redb cannot open.
#[test]
fn what_an_interrupted_creation_leaves_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let part = dir.path().join("p.redb.new-0123");
    fs::write(&part, vec![0; 4096]).unwrap();
    fs::write(dir.path().join("other.redb"), "of another pipeline").unwrap();
    drop(EmbeddedStore::open(dir.path(), "p").unwrap());
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, [".gitignore", "other.redb", "p.redb"]);
}

#[test]
fn many_that_create_the_file_at_once_use_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let opened: Vec<Result<EmbeddedStore, StoreError>> = std::thread::scope(|scope| {
        let open = || EmbeddedStore::open(dir.path(), "p");
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        let open = |thread: std::thread::ScopedJoinHandle<_>| thread.join().unwrap();
        threads.into_iter().map(open).collect()
    });
    let (stores, refused): (Vec<_>, Vec<_>) = opened.into_iter().partition(Result::is_ok);
    assert_eq!(stores.len(), 1, "the file belongs to one of them");
    for refused in refused {
        let reason = failure(refused);
        assert!(reason.contains("in use by another process"), "{reason}");
    }
}

#[test]
fn the_error_of_a_second_process_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let first = EmbeddedStore::open(dir.path(), "p").unwrap();
    let reason = failure(EmbeddedStore::open(dir.path(), "p"));
    for part in [
        "p.redb",
        "in use by another process",
        "wait for it or stop it",
        "redis",
    ] {
        assert!(reason.contains(part), "{part} is not in: {reason}");
    }
    drop(first);
    EmbeddedStore::open(dir.path(), "p").unwrap();
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = used_file(dir.path());
    let database = Database::open(&file).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(TableDefinition::<&str, &str>::new("meta"))
        .unwrap()
        .insert("format", "3")
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let reason = failure(EmbeddedStore::open(dir.path(), "p"));
    assert!(
        reason.contains("p.redb has format 3") && reason.contains("use the version that wrote it"),
        "{reason}"
    );
}

#[test]
fn a_file_of_another_kind_is_refused() {
    for content in [
        "this is not a database, but a text"
            .repeat(1000)
            .into_bytes(),
        b"x".to_vec(),
        vec![0; 100_000],
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("p.redb"), &content).unwrap();
        let reason = failure(EmbeddedStore::open(dir.path(), "p"));
        assert!(reason.contains("p.redb"), "{reason}");
        assert_eq!(
            fs::read(dir.path().join("p.redb")).unwrap(),
            content,
            "the file is not changed"
        );
    }
}

#[test]
fn the_error_names_a_folder_that_cannot_be_created() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let reason = failure(EmbeddedStore::open(&dir.path().join("file/.pseidon"), "p"));
    assert!(reason.contains("file/.pseidon"), "{reason}");
}

/// A damaged file is refused, or the damage was in an unused part: then everything is there.
/// Opening it never panics.
#[test]
fn damage_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let file = used_file(dir.path());
    let whole = fs::read(&file).unwrap();
    let expected = EmbeddedStore::open(dir.path(), "p")
        .unwrap()
        .records(&SinkId::from("lake"))
        .unwrap();
    let mut refused = 0;
    let damages = (0..whole.len())
        .step_by(499)
        .map(|at| (at, 1))
        .chain((0..whole.len()).step_by(4096).map(|at| (at, 4096)));
    for (at, length) in damages {
        let mut damaged = whole.clone();
        for byte in damaged.iter_mut().skip(at).take(length) {
            *byte ^= 0xA5;
        }
        fs::write(&file, &damaged).unwrap();
        match EmbeddedStore::open(dir.path(), "p") {
            Err(error) => {
                let error = WithCauses(&error).to_string();
                assert!(error.contains("p.redb"), "{error}");
                refused += 1;
            }
            Ok(store) => assert_eq!(
                store.records(&SinkId::from("lake")).unwrap(),
                expected,
                "damage at {at}"
            ),
        }
    }
    assert!(refused > 0);
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    failure(EmbeddedStore::open(dir.path(), "p"));
}

/// Fills the disk, as far as the process can tell, and frees space again. It runs in a process of
/// its own, because the limit is a process's.
#[test]
fn recovers_from_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let test = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        // Exceeding the limit must be an error for the writer instead of a signal.
        .args([
            "-c",
            "trap '' XFSZ; exec \"$0\" --exact in_a_child_process --nocapture",
        ])
        .arg(test)
        .env("PSEIDON_TEST_FULL_DISK", dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("continued after the disk was full"), "{text}");
}

/// The child process of [`recovers_from_a_full_disk`]; does nothing when run directly.
#[test]
fn in_a_child_process() {
    let Some(dir) = std::env::var_os("PSEIDON_TEST_FULL_DISK") else {
        return;
    };
    let limit_file_size = |bytes| {
        let limit = rustix::process::Rlimit {
            current: bytes,
            maximum: None,
        };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
    };
    let store = EmbeddedStore::open(Path::new(&dir), "p").unwrap();
    let sink = SinkId::from("lake");
    store.take(&sink, &["s/0".into()], &"a".into()).unwrap();
    commit_once(&store, 0).unwrap();
    limit_file_size(Some(4096));
    for _ in 0..3 {
        let error = match commit_once(&store, 1) {
            Err(pseidon_delivery::CommitError::Store(error @ StoreError::Unavailable(_))) => error,
            other => panic!("{other:?}"),
        };
        let io_error = std::iter::successors(Some(&error as &dyn Error), |&error| error.source())
            .find_map(|error| error.downcast_ref::<io::Error>());
        assert_eq!(
            io_error.map(io::Error::kind),
            Some(io::ErrorKind::FileTooLarge)
        );
        let path = Path::new(&dir).join("p.redb");
        assert_eq!(
            WithCauses(&error).to_string(),
            format!(
                "state store unavailable: {}: I/O error: File too large (os error 27)",
                path.display()
            )
        );
    }
    limit_file_size(None);
    commit_once(&store, 1).unwrap();
    assert_eq!(store.records(&sink).unwrap()[0].1.sequence, 2);
    println!("continued after the disk was full");
}

/// Writes a state file as version 1 wrote it.
fn file_of_format_1(file: &Path) {
    type Row = (u64, u64, Option<u64>, &'static str);
    let database = Database::create(file).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction
            .open_table(TableDefinition::<&str, &str>::new("meta"))
            .unwrap();
        for (key, value) in [
            ("format", "1"),
            ("identity", "00ff"),
            ("plan fingerprint", "f1"),
            ("plan text", "{:name \"p\"}"),
        ] {
            meta.insert(key, value).unwrap();
        }
        let mut notes = transaction
            .open_table(TableDefinition::<&str, &str>::new("notes"))
            .unwrap();
        for (key, value) in [
            ("schema:in", "{}"),
            ("clicks/plan", "f2"),
            ("clicks/plan-text", "row"),
            ("views/plan-text", "half"),
        ] {
            notes.insert(key, value).unwrap();
        }
        let mut splits = transaction
            .open_table(TableDefinition::<(&str, &str), Row>::new("splits"))
            .unwrap();
        splits
            .insert(("lake", "s/0"), (3, 12, Some(100), "one\ntwo"))
            .unwrap();
        splits.insert(("lake", "s/1"), (1, 0, None, "")).unwrap();
        splits
            .insert(("clicks/lake", "s/0"), (2, 1, Some(u64::MAX - 1), "two"))
            .unwrap();
        let mut ahead = transaction
            .open_table(TableDefinition::<(&str, &str, &str), u64>::new("ahead"))
            .unwrap();
        ahead.insert(("lake", "s/0", "x"), 150).unwrap();
        let mut staged = transaction
            .open_table(TableDefinition::<(&str, &str), &str>::new("staged"))
            .unwrap();
        staged.insert(("lake", "1"), "detail").unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn a_file_of_format_1_is_migrated() {
    let dir = tempfile::tempdir().unwrap();
    file_of_format_1(&dir.path().join("p.redb"));
    // Opening it a second time finds it up to date.
    for _ in 0..2 {
        let store = EmbeddedStore::open(dir.path(), "p").unwrap();
        assert_eq!(store.identity().unwrap(), "00ff");
        let records = store.records(&SinkId::from("lake")).unwrap();
        let first = CommitRecord {
            epoch: 3,
            sequence: 12,
            low: Some(100),
            ahead: [("x".into(), 150)].into(),
            owners: vec!["one".into(), "two".into()],
            plan: Some("f1".into()),
            ..CommitRecord::default()
        };
        let second = CommitRecord {
            epoch: 1,
            plan: Some("f1".into()),
            ..CommitRecord::default()
        };
        assert_eq!(records, [("s/0".into(), first), ("s/1".into(), second)]);
        assert_eq!(
            store.staged(&SinkId::from("lake")).unwrap(),
            [StagedEntry {
                id: "1".into(),
                detail: "detail".into()
            }]
        );
        assert_eq!(store.plan("f1").unwrap().as_deref(), Some("{:name \"p\"}"));
        assert_eq!(store.note("schema:in").unwrap().as_deref(), Some("{}"));

        let log = ScopedStore::new(Arc::new(store), "clicks");
        let (_, record) = log.records(&SinkId::from("lake")).unwrap().remove(0);
        assert_eq!(
            (record.low, record.plan.as_deref()),
            (Some(u64::MAX - 1), Some("f2"))
        );
        assert_eq!(log.plan("f2").unwrap().as_deref(), Some("row"));
        assert_eq!(log.plans().unwrap(), ["f2"]);
    }
}

/// However little is left of the file, the error says what to do.
#[test]
fn the_error_for_a_truncated_file_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = used_file(dir.path());
    let whole = fs::metadata(&path).unwrap().len();
    for left in [whole / 2, 1000, 100, 1, 0] {
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(left)
            .unwrap();
        let reason = failure(EmbeddedStore::open(dir.path(), "p"));
        assert!(
            reason.contains("Restore the file from a copy"),
            "{left} bytes: {reason}"
        );
        assert_eq!(
            fs::metadata(&path).unwrap().len(),
            left,
            "the file is not changed"
        );
    }
}

#[test]
fn a_folder_that_cannot_be_created_is_an_error_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join(".pseidon");
    std::fs::write(&state, "a file").unwrap();
    let error = EmbeddedStore::open(&state, "p").err().expect("an error");
    let shown = pseidon_delivery::WithCauses(&error).to_string();
    assert!(shown.contains("cannot store state in"), "{shown}");
    assert!(shown.ends_with("may write to"), "{shown}");
}
