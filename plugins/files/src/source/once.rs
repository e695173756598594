//! One-shot mode: reads the files that exist, and exits.
//!
//! One thread finds the files and takes them over in groups, and reader threads read them. A file
//! that cannot be read does not stop the others, unless `:on-broken-file` says so: the run fails
//! with its error after they are read, or the file is left behind.
//!
//! Instances that read the same files share them through the state store: each claims a group at a
//! time. A run exits when every file was read to its end by some instance, so an instance that has
//! nothing more to read releases the files that it has read, and checks those that the others
//! release.
//!
//! A compressed file is finished when it was read to its end, which is stored with its size on
//! disk: it is not decoded again. A plain file may grow, and reading resumes at its position. A
//! file that was rewritten, which its bytes before the position show, is read from its start, as a
//! new split.
//!
//! The last line of a plain file may have no line end. `:last-line` decides whether it is read
//! ([`last_line`]); if not, it waits for the next run.
//!
//! [`found_file`] identifies a file and decides what is left to do with it; [`recognition`] finds
//! those that the state knows under another identity. The [`queue`] claims
//! files and takes them over; the [`readers`] read them. [`failures`] collects the errors.

mod failures;
mod found_file;
mod last_line;
mod queue;
mod readers;
mod recognition;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::unbounded;
use pseidon_plugin::source::{SourceError, SourceHandle, SourceSetup, Stopped};

use self::failures::FileFailures;
use self::found_file::{FoundFile, find};
use self::last_line::WaitingLines;
use self::queue::{FileQueue, UnclaimedFile};
use self::readers::Reading;
use self::recognition::{Recognition, WaitingCopy, recognize};
use super::Config;
use super::identity::{file_id, file_of};
use super::options::OnReplacedFile;

/// How long to wait for room in memory before checking again whether the run stops.
const ROOM_POLL: Duration = Duration::from_millis(100);

/// Reads every file from where it was left to its end.
pub(super) fn run(
    config: &Config,
    setup: &SourceSetup,
    handle: &SourceHandle,
) -> Result<(), SourceError> {
    let failures = FileFailures::new(setup, config.on_broken);
    let waiting_lines = WaitingLines::default();
    let files = find_all(config, setup, &failures)?;
    let readers = setup.io_threads.clamp(1, files.len().max(1));
    let (jobs, queued) = unbounded();
    let (ended, ended_splits) = unbounded();
    std::thread::scope(|scope| {
        for _ in 0..readers {
            let reading = Reading {
                config,
                setup,
                handle,
                failures: &failures,
                waiting: &waiting_lines,
            };
            let (queued, ended) = (queued.clone(), ended.clone());
            scope.spawn(move || reading.read_files(&queued, &ended));
        }
        // Only the readers hold a sender now, so the channel closes when all of them have exited.
        drop(ended);
        let read = || -> Result<(), Stopped> {
            let found = identify(config, files, &failures, &waiting_lines);
            let how = Recognition {
                stage: &setup.stage,
                continues_replaced: config.on_replaced == OnReplacedFile::Continue,
                failures: &failures,
            };
            let (unclaimed, waiting) = recognized(found, handle, &how)?;
            let queue = FileQueue {
                handle,
                stage: &setup.stage,
                failures: &failures,
                readers,
                jobs,
                ended_splits,
                unclaimed,
                waiting,
                continued: Vec::new(),
                taken: VecDeque::new(),
                reading: HashMap::new(),
                read: Vec::new(),
            };
            queue.run()?;
            failures.quarantine_unidentified(handle)
        };
        // A stopped run exits like one that has read everything.
        let _: Result<(), Stopped> = read();
    });
    waiting_lines.log(&setup.stage, &config.framing);
    failures.outcome()
}

/// The files that were found, each once.
fn identify(
    config: &Config,
    files: BTreeSet<(PathBuf, String)>,
    failures: &FileFailures<'_>,
    waiting: &WaitingLines,
) -> Vec<FoundFile> {
    let mut seen = HashSet::new();
    files
        .iter()
        .take_while(|_| !failures.stops())
        .filter_map(|(path, shown)| find(config, path, shown, failures, waiting))
        .filter(|file| seen.insert((file.key, file.identity.head)))
        .collect()
}

/// The files with the splits by which the state knows them, and those that wait for the end of such
/// a split. Makes the state forget others.
fn recognized(
    mut files: Vec<FoundFile>,
    handle: &SourceHandle,
    how: &Recognition<'_>,
) -> Result<(VecDeque<UnclaimedFile>, Vec<WaitingCopy>), Stopped> {
    let stage = how.stage;
    let ids = files.iter().map(|file| file_id(stage, &file.key));
    let mut existing: HashSet<String> = ids.collect();
    let waiting = recognize(&mut files, &mut existing, handle, how)?;
    // Without any file, the disk may not be mounted.
    if how.failures.is_empty() && !files.is_empty() {
        handle.forget_finished(move |split| !existing.contains(file_of(split)))?;
    }
    let unclaimed = files.into_iter();
    let unclaimed = unclaimed.map(|file| UnclaimedFile::first(file, stage));
    Ok((unclaimed.collect(), waiting))
}

/// The files that match now. What cannot be read is added to the failures.
fn find_all(
    config: &Config,
    setup: &SourceSetup,
    failures: &FileFailures<'_>,
) -> Result<BTreeSet<(PathBuf, String)>, SourceError> {
    let found = config.find(setup)?;
    for path in &found.special {
        tracing::warn!(stage = setup.stage, path, "not a file; it is skipped");
    }
    for (path, reason) in found.missing {
        failures.add_missing(&path, reason.into());
    }
    if found.files.is_empty() && found.refused.is_empty() {
        tracing::warn!(
            stage = setup.stage,
            path = config.paths.join(", "),
            "no file matches"
        );
    }
    for (display_path, error) in found.refused {
        failures.add_unidentified(&setup.base.join(&display_path), &display_path, error.into());
    }
    Ok(found.files)
}
