//! The files of the quarantine.
//!
//! A file is identified by its path. The quarantine never changes a file that is visible, so the
//! state holds a digest of each file, by which a file that was changed nevertheless is noticed.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pseidon_delivery::{Position, ResumeToken, SplitId};
use sha2::{Digest, Sha256};

use super::reader::QuarantineReader;
use super::record::QuarantinedRecord;

/// A file of the quarantine whose records were found invalid at one stage.
#[derive(Debug)]
pub(super) struct QuarantineFile {
    pub(super) path: PathBuf,
    /// Its split in the state.
    pub(super) split: SplitId,
    /// The stage of its records.
    pub(super) stage: String,
    /// The split from which its first record was read first.
    pub(super) first_split: String,
    /// The version of the pipeline that found them invalid, if the first record names it.
    pub(super) version: Option<String>,
    pub(super) records: u64,
    /// Whether records without content are tombstones; see [`QuarantineReader::open`].
    has_tombstones: bool,
    digest: String,
}

impl QuarantineFile {
    /// Reads a file to its end. `None` if it has no record that can be replayed. `has_tombstones`
    /// returns whether records of a stage may have no content. An error names the file, and the line that is
    /// not a quarantined record, or of another stage than those before.
    pub(super) fn read(
        path: &Path,
        split: SplitId,
        has_tombstones: impl Fn(&str) -> bool,
    ) -> Result<Option<QuarantineFile>, String> {
        let mut reader = QuarantineReader::open(path, 0, true)?;
        let Some((_, first)) = reader.record()? else {
            return Ok(None);
        };
        let has_tombstones = has_tombstones(&first.stage);
        let is_counted = |record: &QuarantinedRecord| has_tombstones || record.payload.is_some();
        let mut records = u64::from(is_counted(&first));
        while let Some((at, record)) = reader.record()? {
            if record.stage != first.stage {
                return Err(format!(
                    "{}: line {} is of stage `{}`, and the lines before are of `{}`: the records \
                     of a file must be of one stage",
                    path.display(),
                    at + 1,
                    record.stage,
                    first.stage
                ));
            }
            records += u64::from(is_counted(&record));
        }
        if records == 0 {
            return Ok(None);
        }
        let digest = digest(path).map_err(|error| cannot_read(path, &error))?;
        Ok(Some(QuarantineFile {
            path: path.to_owned(),
            split,
            stage: first.stage,
            first_split: first.split,
            version: first.version,
            records,
            has_tombstones,
            digest,
        }))
    }

    /// Opens the file, to read the records at this position and above.
    pub(super) fn open(&self, from: Position) -> Result<QuarantineReader, String> {
        QuarantineReader::open(&self.path, from, self.has_tombstones)
    }

    /// What the state holds of the file.
    pub(super) fn token(&self) -> ResumeToken {
        self.digest.clone().into()
    }

    /// Checks that the file is the one of which the state holds this.
    pub(super) fn check_unchanged(&self, token: &ResumeToken) -> Result<(), String> {
        match token.as_str() == self.digest {
            true => Ok(()),
            false => Err(changed(&self.path)),
        }
    }
}

/// Checks that a file whose records were all replayed is still the one of which the state holds
/// this.
pub(super) fn check_replayed(path: &Path, token: &ResumeToken) -> Result<(), String> {
    let digest = digest(path).map_err(|error| cannot_read(path, &error))?;
    match token.as_str() == digest {
        true => Ok(()),
        false => Err(changed(path)),
    }
}

/// An error if the file is where another pipeline than the one with this name quarantines records
/// of its stage: below folders with the names of both.
pub(super) fn check_pipeline(file: &QuarantineFile, pipeline: &str) -> Result<(), String> {
    let mut folders = file.path.ancestors().skip(1).map(Path::file_name);
    let (stage, of) = (folders.next().flatten(), folders.next().flatten());
    match (stage, of) {
        (Some(stage), Some(of)) if stage == file.stage.as_str() && of != pipeline => Err(format!(
            "{} is of another pipeline, `{}`: name the folder of this one, or the file",
            file.path.display(),
            of.display()
        )),
        _ => Ok(()),
    }
}

fn changed(path: &Path) -> String {
    format!(
        "{} was changed after records of it were replayed: restore it, put new records into a new \
         file, or forget all replays (docs/quarantine.md)",
        path.display()
    )
}

fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

/// A digest of the content of a file.
fn digest(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => digest.update(&buffer[..read]),
        }
    }
    let digest = digest.finalize();
    let bytes = digest.iter().take(16);
    Ok(bytes.map(|byte| format!("{byte:02x}")).collect())
}

/// The files at these paths, and those below them that are not hidden, by name. An error names a
/// path that cannot be read.
pub(super) fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for path in paths {
        collect(path, &mut found).map_err(|error| cannot_read(path, &error))?;
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn collect(path: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        found.push(path.canonicalize()?);
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            collect(&entry.path(), found)?;
        }
    }
    Ok(())
}

/// The split of a file with a canonical path. Below the folder of the pipeline file, the path is
/// relative to that, so that the whole folder can be moved.
///
/// The name does not end with a topic and a partition, as that of a split of Kafka does: so the
/// output files of a replay have other names than those of the pipeline.
pub(super) fn split_of(path: &Path, base: &Path) -> SplitId {
    let base = base.canonicalize();
    let relative = base
        .as_ref()
        .ok()
        .and_then(|base| path.strip_prefix(base).ok());
    format!("{}:replay", relative.unwrap_or(path).display()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stage: &str) -> String {
        format!(
            "{{\"stage\":\"{stage}\",\"split\":\"s\",\"topic\":\"t\",\"partition\":0,\
             \"position\":1,\"record\":\"r\",\"version\":\"v1\"}}\n"
        )
    }

    #[test]
    fn files_are_found_in_folders_and_hidden_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        for name in ["b/2.json", "b/.open/3.json", ".4.json", "a.json"] {
            let path = base.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, line("in")).unwrap();
        }
        let found = find(&[base.clone(), base.join("a.json")]).unwrap();
        assert_eq!(found, [base.join("a.json"), base.join("b/2.json")]);
        assert_eq!(split_of(&found[1], &base).as_str(), "b/2.json:replay");
        let elsewhere = split_of(&found[1], &base.join("b/.open"));
        let absolute = format!("{}:replay", found[1].display());
        assert_eq!(elsewhere.as_str(), absolute);
        let missing = base.join("missing");
        let error = find(std::slice::from_ref(&missing)).unwrap_err();
        assert!(
            error.starts_with(&format!("cannot read {}: ", missing.display())),
            "{error}"
        );
    }

    #[test]
    fn a_file_has_records_of_one_stage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let read = |content: &str| {
            fs::write(&path, content).unwrap();
            QuarantineFile::read(&path, "a:replay".into(), |_| false)
        };
        let file = read(&(line("in") + &line("in"))).unwrap().unwrap();
        assert_eq!((file.stage.as_str(), file.records), ("in", 2));
        assert_eq!(file.version.as_deref(), Some("v1"));
        assert!(read("").unwrap().is_none());
        let of_a_file = line("in").replace("\"r\"", "null");
        assert!(read(&of_a_file).unwrap().is_none());
        let file = read(&(of_a_file + &line("in"))).unwrap().unwrap();
        assert_eq!(file.records, 1);
        let mut reader = file.open(0).unwrap();
        assert_eq!(reader.record().unwrap().map(|(at, _)| at), Some(1));
        let error = read(&(line("in") + &line("calc"))).unwrap_err();
        assert!(error.contains("line 2 is of stage `calc`"), "{error}");
        let error = read(&(line("in") + "x\n")).unwrap_err();
        assert!(
            error.contains("line 2 is not a quarantined record"),
            "{error}"
        );
    }

    #[test]
    fn a_file_of_another_pipeline_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let is_refused = |place: &str| {
            let path = folder.path().join(place).join("a.json");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, line("in")).unwrap();
            let file = QuarantineFile::read(&path, "a:replay".into(), |_| false);
            check_pipeline(&file.unwrap().unwrap(), "shop").is_err()
        };
        assert!(is_refused("quarantine/billing/in"));
        assert!(!is_refused("quarantine/shop/in"));
        assert!(!is_refused("aside/2026-11"));
    }

    #[test]
    fn a_file_that_was_changed_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        fs::write(&path, line("in")).unwrap();
        let file = QuarantineFile::read(&path, "a:replay".into(), |_| false)
            .unwrap()
            .unwrap();
        assert_eq!(check_replayed(&path, &file.token()), Ok(()));
        assert_eq!(file.check_unchanged(&file.token()), Ok(()));
        let is_changed = |result: Result<(), String>| {
            result.is_err_and(|error| error.contains("was changed after"))
        };
        fs::write(&path, line("on")).unwrap();
        let other = QuarantineFile::read(&path, "a:replay".into(), |_| false)
            .unwrap()
            .unwrap();
        assert!(is_changed(other.check_unchanged(&file.token())));
        assert!(is_changed(check_replayed(&path, &file.token())));
        fs::write(&path, line("in").repeat(2)).unwrap();
        assert!(is_changed(check_replayed(&path, &file.token())));
    }
}
