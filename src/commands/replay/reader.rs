//! Reading a file of the quarantine as batches.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pseidon_delivery::{Position, SplitId};
use pseidon_plugin::batch::{Batch, BatchBuilder, Origin, Split, WantedMetadata};

use super::record::QuarantinedRecord;

/// The approximate number of bytes in a batch.
const BATCH_BYTES: usize = 256 << 10;
const MAX_BATCH: usize = 4096;

/// Reads the records of a file. The position of a record is the number of its line, from 0.
pub(super) struct QuarantineReader {
    path: PathBuf,
    lines: BufReader<File>,
    /// The number of the next line.
    next: Position,
    /// Whether a record without content is a tombstone. Otherwise it stands for a file that cannot be
    /// read further, and is left out.
    has_tombstones: bool,
    /// A record that was read and is not in a batch yet, with its position.
    pending: Option<(Position, QuarantinedRecord)>,
}

impl QuarantineReader {
    /// Opens a file, to read the records at this position and above, with those without content if
    /// `has_tombstones`.
    pub(super) fn open(
        path: &Path,
        from: Position,
        has_tombstones: bool,
    ) -> Result<QuarantineReader, String> {
        let file =
            File::open(path).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
        let mut reader = QuarantineReader {
            path: path.to_owned(),
            lines: BufReader::new(file),
            next: 0,
            has_tombstones,
            pending: None,
        };
        while reader.next < from && reader.line()?.is_some() {}
        Ok(reader)
    }

    /// The number of the next line.
    pub(super) fn position(&self) -> Position {
        self.pending.as_ref().map_or(self.next, |(at, _)| *at)
    }

    /// The next line with its line end; `None` at the end of the file.
    fn line(&mut self) -> Result<Option<Vec<u8>>, String> {
        let mut line = Vec::new();
        let read = self.lines.read_until(b'\n', &mut line);
        read.map_err(|error| format!("cannot read {}: {error}", self.path.display()))?;
        if line.is_empty() {
            return Ok(None);
        }
        self.next += 1;
        Ok(Some(line))
    }

    /// The next record with its position; `None` at the end of the file. An error names the file and
    /// the line.
    pub(super) fn record(&mut self) -> Result<Option<(Position, QuarantinedRecord)>, String> {
        if let Some(pending) = self.pending.take() {
            return Ok(Some(pending));
        }
        loop {
            let at = self.next;
            let Some(line) = self.line()? else {
                return Ok(None);
            };
            let record = QuarantinedRecord::read(&line).map_err(|reason| {
                let (path, line) = (self.path.display(), at + 1);
                format!("{path}: line {line} is not a quarantined record: {reason}")
            })?;
            if self.has_tombstones || record.payload.is_some() {
                return Ok(Some((at, record)));
            }
        }
    }

    /// The next batch of the split `id`; `None` at the end of the file. The records of a batch were
    /// read from the same split, and have the same header.
    pub(super) fn batch(
        &mut self,
        id: &SplitId,
        wanted: WantedMetadata,
    ) -> Result<Option<Batch>, String> {
        let Some((at, mut first)) = self.record()? else {
            return Ok(None);
        };
        let split = Arc::new(Split {
            id: id.clone(),
            topic: std::mem::take(&mut first.topic),
            partition: first.partition,
        });
        let header = first.metadata.header.take();
        let mut origin = Origin {
            split: first.split.as_str().into(),
            positions: Vec::new(),
            metadata: Vec::new(),
        };
        let mut builder = BatchBuilder::new(split.clone(), wanted, 0);
        let size =
            |record: &QuarantinedRecord| record.metadata_text.as_ref().map_or(0, String::len);
        let mut metadata_bytes = size(&first);
        push(&mut builder, &mut origin, at, first, wanted);
        while builder.len() < MAX_BATCH
            && builder.bytes() + metadata_bytes < BATCH_BYTES
            && let Some((at, mut record)) = self.record()?
        {
            let is_together = record.split == origin.split.as_str()
                && record.topic == split.topic
                && record.partition == split.partition
                && record.metadata.header == header;
            if !is_together {
                self.pending = Some((at, record));
                break;
            }
            record.metadata.header = None;
            metadata_bytes += size(&record);
            push(&mut builder, &mut origin, at, record, wanted);
        }
        let mut batch = builder.finish(self.position());
        batch.payloads = batch.payloads.with_header(header.map(Into::into));
        batch.origin = Some(origin);
        Ok(Some(batch))
    }
}

fn push(
    builder: &mut BatchBuilder,
    origin: &mut Origin,
    at: Position,
    mut record: QuarantinedRecord,
    wanted: WantedMetadata,
) {
    record.metadata.check(wanted);
    builder.push(at, record.payload.as_deref(), record.metadata.of_record());
    origin.positions.push(record.position);
    origin.metadata.push(record.metadata_text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(topic: &str, position: u64, header: &str) -> String {
        let metadata = format!(r#"{{"header":"{header}","key":"k{position}"}}"#);
        let split = format!("in:{topic}");
        format!(
            "{{\"stage\":\"in\",\"split\":\"{split}\",\"topic\":\"{topic}\",\"partition\":3,\
             \"position\":{position},\"record\":\"r{position}\",\"metadata\":{metadata}}}\n"
        )
    }

    fn read(lines: &[String], from: u64) -> Vec<Batch> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        std::fs::write(&path, lines.concat()).unwrap();
        let wanted = WantedMetadata {
            key: true,
            ..WantedMetadata::default()
        };
        let mut reader = QuarantineReader::open(&path, from, true).unwrap();
        let mut next = || reader.batch(&"a:replay".into(), wanted).unwrap();
        std::iter::from_fn(&mut next).collect()
    }

    #[test]
    fn a_batch_has_records_of_one_split_and_header() {
        let lines = [
            line("a", 7, "x,y"),
            line("a", 9, "x,y"),
            line("a", 11, "y,x"),
            line("b", 2, "y,x"),
        ];
        let found = |from| -> Vec<String> {
            let batches = read(&lines, from);
            let shown = |batch: &Batch| {
                let payloads = batch.payloads.iter().flatten();
                let payloads: Vec<_> = payloads.map(String::from_utf8_lossy).collect();
                format!(
                    "{} {} {:?} -> {} {:?} from {} {:?} {:?}",
                    batch.split.topic,
                    batch.split.partition,
                    batch.positions,
                    batch.next,
                    payloads,
                    batch.first_split().as_str(),
                    (0..batch.len())
                        .map(|row| batch.first_position(row))
                        .collect::<Vec<_>>(),
                    batch
                        .payloads
                        .header()
                        .map(|header| String::from_utf8_lossy(header)),
                )
            };
            batches.iter().map(shown).collect()
        };
        let all = [
            r#"a 3 [0, 1] -> 2 ["r7", "r9"] from in:a [7, 9] Some("x,y")"#,
            r#"a 3 [2] -> 3 ["r11"] from in:a [11] Some("y,x")"#,
            r#"b 3 [3] -> 4 ["r2"] from in:b [2] Some("y,x")"#,
        ];
        assert_eq!(found(0), all);
        assert_eq!(found(2), all[1..]);
        assert_eq!(found(4), [""; 0]);
    }

    #[test]
    fn a_record_keeps_its_metadata() {
        let batches = read(&[line("a", 7, "x")], 0);
        assert_eq!(
            batches[0].keys.as_ref().map(|keys| keys.value(0)),
            Some(&b"k7"[..])
        );
        let kept = batches[0].metadata(0, WantedMetadata::default());
        assert_eq!(kept.as_deref(), Some(r#"{"header":"x","key":"k7"}"#));
    }
}
