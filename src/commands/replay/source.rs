//! The source of a replay: the files of the quarantine with the records of one stage.

use std::sync::Arc;
use std::time::Duration;

use pseidon_delivery::Position;
use pseidon_plugin::batch::{Batch, Payloads, Split};
use pseidon_plugin::source::{
    Reread, Source, SourceError, SourceExit, SourceFacts, SourceHandle, SourceSetup, SplitStart,
};

use super::files::QuarantineFile;

/// How often splits are shared with other instances.
const SHARE_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait for room at once.
const ROOM_INTERVAL: Duration = Duration::from_millis(100);

/// Reads quarantined records. Each file is a split.
pub(super) struct QuarantineSource {
    files: Vec<QuarantineFile>,
}

impl QuarantineSource {
    pub(super) fn new(files: Vec<QuarantineFile>) -> QuarantineSource {
        QuarantineSource { files }
    }
}

impl Source for QuarantineSource {
    fn facts(&self) -> SourceFacts {
        SourceFacts {
            format: "json".into(),
            format_span: None,
            schema: None,
            infer: None,
            splits_bytes: false,
            reads_columns: false,
            reread: Reread::Exact,
            finite: true,
            topic_may_change: false,
        }
    }

    fn sample(&self, setup: &SourceSetup, count: usize) -> Result<Vec<Payloads>, SourceError> {
        let mut samples = Vec::new();
        let mut left = count;
        for file in &self.files {
            let mut reader = file.open(0).map_err(fatal)?;
            while left > 0
                && let Some(batch) = reader.batch(&file.split, setup.wanted).map_err(fatal)?
            {
                let rows = batch.len().min(left);
                left -= rows;
                samples.push(batch.payloads.part(0..rows));
            }
        }
        Ok(samples)
    }

    fn run(&self, setup: &SourceSetup, handle: SourceHandle) -> Result<(), SourceExit> {
        let mut left: Vec<&QuarantineFile> = self.files.iter().collect();
        while !left.is_empty() {
            let found = left.iter().map(|file| file.split.clone()).collect();
            let granted = handle.share_splits(found)?.granted;
            if granted.is_empty() {
                // Another instance replays them. This one stays, in case that one dies.
                handle.sleep(SHARE_INTERVAL)?;
                continue;
            }
            let (mine, others) = left
                .into_iter()
                .partition(|file| granted.contains(&file.split));
            replay(mine, setup, &handle)?;
            left = others;
        }
        Ok(())
    }
}

/// Replays files that were granted to this instance.
fn replay(
    files: Vec<&QuarantineFile>,
    setup: &SourceSetup,
    handle: &SourceHandle,
) -> Result<(), SourceExit> {
    let splits: Vec<Arc<Split>> = files.iter().map(|file| split(file, setup)).collect();
    let known = handle.take(splits.clone())?;
    let mut begun = Vec::new();
    for ((file, split), known) in files.into_iter().zip(&splits).zip(known) {
        if let Some(resume) = known.as_ref().and_then(|known| known.resume.as_ref()) {
            file.check_unchanged(resume).map_err(fatal)?;
        }
        match known {
            Some(known) if known.is_finished => {}
            known => begun.push((file, split, known.map_or(0, |known| known.position))),
        }
    }
    let start = |(file, split, position): &(&QuarantineFile, &Arc<Split>, Position)| SplitStart {
        split: (*split).clone(),
        position: *position,
        resume: Some(file.token()),
    };
    handle.begin(begun.iter().map(start).collect())?;
    for (file, split, from) in begun {
        emit(file, split, from, setup, handle)?;
    }
    handle.release(splits)?;
    Ok(())
}

/// Emits the records of a file from this position on.
fn emit(
    file: &QuarantineFile,
    split: &Arc<Split>,
    from: Position,
    setup: &SourceSetup,
    handle: &SourceHandle,
) -> Result<(), SourceExit> {
    let mut reader = file.open(from).map_err(fatal)?;
    loop {
        while !handle.wait_for_room(ROOM_INTERVAL)? {}
        match reader.batch(&file.split, setup.wanted).map_err(fatal)? {
            Some(batch) => handle.emit(batch)?,
            None => break,
        }
    }
    handle.emit(Batch::end_of(split.clone(), reader.position()))?;
    Ok(())
}

/// The split of a file. Its batches have the topic and the partition of their records.
fn split(file: &QuarantineFile, setup: &SourceSetup) -> Arc<Split> {
    Arc::new(Split {
        id: file.split.clone(),
        topic: setup.stage.clone(),
        partition: 0,
    })
}

fn fatal(reason: String) -> SourceError {
    SourceError::Fatal(reason.into())
}
