//! The listing and the refusals; that files of a lost disk are forgotten is a system test.

use super::*;

fn file(name: &str, disk: Option<&str>, is_here: bool) -> StagedFile {
    StagedFile {
        path: PathBuf::from(format!("/data/{name}.json")),
        disk: disk.map(str::to_owned),
        machine: "etl-1".to_owned(),
        is_here,
    }
}

fn files() -> StagedFiles {
    let many = (0..12).map(|number| {
        let name = format!("{number:02}");
        (name.as_str().into(), file(&name, Some("a1"), false))
    });
    let group = |sink: &str, disk: &str| (SinkId::from(sink), disk.to_owned());
    StagedFiles(BTreeMap::from([
        (group("lake", "a1"), many.collect()),
        (
            group("lake", "b2"),
            vec![("x".into(), file("x", Some("b2"), true))],
        ),
        (
            group("lake", REFUSED),
            vec![("z".into(), file("z", None, false))],
        ),
        (
            group("other", UNKNOWN),
            vec![("y".into(), file("y", None, false))],
        ),
    ]))
}

#[test]
fn files_are_listed_by_sink_and_disk() {
    assert_eq!(
        files().describe("p.edn"),
        "lake: 12 files on disk a1, written by etl-1, not mounted here\n  /data/00.json\n  \
         /data/01.json\n  /data/02.json\n  /data/03.json\n  /data/04.json\n  /data/05.json\n  \
         /data/06.json\n  /data/07.json\n  /data/08.json\n  /data/09.json\n  … and 2 more\n  \
         help: mount the disk and run the pipeline; or, if the disk is lost: \
         pseidon staged p.edn --forget a1\n\
         lake: 1 file on disk b2, written by etl-1, mounted here\n  /data/x.json\n  \
         help: publish them: pseidon run p.edn\n\
         lake: 1 file refused, since other programs can write to the state\n  /data/z.json\n  \
         help: if the pipeline wrote the entry before its folders were changed, run it once with \
         the earlier folders; if another program wrote it, forget it: \
         pseidon staged p.edn --forget refused\n\
         other: 1 file on disk unknown, written by etl-1, not mounted here\n  /data/y.json\n  \
         help: mount the disk and run the pipeline; or, if the disk is lost: \
         pseidon staged p.edn --forget unknown\n"
    );
    let none = StagedFiles::default().describe("p.edn");
    assert_eq!(none, "every committed file is visible\n");
}

#[test]
fn only_files_of_a_disk_that_is_not_mounted_are_forgotten() {
    let files = files();
    assert_eq!(files.on("a1", "p.edn").unwrap()[0].files.len(), 12);
    assert_eq!(files.on(UNKNOWN, "p.edn").unwrap()[0].files.len(), 1);
    assert_eq!(files.on(REFUSED, "p.edn").unwrap()[0].files.len(), 1);
    let refused = |disk: &str| files.on(disk, "p.edn").unwrap_err();
    assert!(refused("b2").contains("is mounted here, with /data/x.json"));
    assert!(refused("c3").contains("no committed file waits for disk c3"));
}
