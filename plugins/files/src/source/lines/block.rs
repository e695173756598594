//! A block of complete lines, and its records as batches.

use std::sync::Arc;

use bytes::Bytes;
use pseidon_delivery::{Position, ResumePoint};
use pseidon_plugin::batch::BYTE_ORDER_MARK;
use pseidon_plugin::{Batch, Payloads, Split};

use super::super::tail::Tail;
use super::record_framing::RecordFraming;

/// The maximum number of records in a batch.
pub(super) const MAX_BATCH_RECORDS: usize = 8192;

/// A block of complete lines.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::source) struct Block {
    /// The bytes of the lines; the last byte is `\n`.
    pub(super) bytes: Bytes,
    /// The position of the first byte.
    pub(super) start: Position,
    /// The position after the last byte; one less if the file ends without a `\n`, which is added
    /// to `bytes`.
    pub(super) end: Position,
    /// The bytes before the block.
    pub(super) before: Tail,
    /// Where the records end.
    pub(super) framing: RecordFraming,
    /// The file's header, if the framing has one.
    pub(super) header: Option<Bytes>,
    /// How many bytes at the beginning are the header and empty lines before it.
    pub(super) header_len: usize,
    /// Longer records are skipped.
    pub(super) max_record: usize,
}

/// An iterator over the records of a block, as batches.
pub(in crate::source) struct Batches<'a> {
    block: Block,
    split: &'a Arc<Split>,
    done: usize,
    tail: Tail,
    /// The header's length, until there is a batch.
    header: usize,
}

impl Block {
    /// The lines as batches of this split.
    pub(in crate::source) fn batches(self, split: &Arc<Split>) -> Batches<'_> {
        let (mut tail, done) = (self.before.clone(), self.header_len);
        tail.push(&self.bytes[..done]);
        Batches {
            tail,
            block: self,
            split,
            done,
            header: done,
        }
    }
}

impl Iterator for Batches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let from = self.done;
        let bytes = &self.block.bytes[from..];
        let start = self.block.start + from as u64;
        // A header without records is covered by a batch without records, if it has a line end.
        let is_header = std::mem::take(&mut self.header) > 0 && start <= self.block.end;
        if bytes.is_empty() && !is_header {
            return None;
        }
        let mut spans: Vec<(u32, u32)> = Vec::new();
        let mut positions = Vec::new();
        // Whether every line so far is a record that ends with just `\n`.
        let mut plain = true;
        let mut line = 0;
        for line_end in self.block.framing.ends(bytes) {
            let mut begin = line;
            if start + line as u64 == 0 && bytes[..line_end].starts_with(BYTE_ORDER_MARK) {
                begin += BYTE_ORDER_MARK.len();
                plain = false;
            }
            match self.block.framing.record(&bytes[begin..line_end]) {
                Some(record) if line_end - line <= self.block.max_record => {
                    plain &= record.len() == line_end - begin;
                    // A block is far smaller than 4 GiB: `:max-record` limits it.
                    spans.push((begin as u32, record.len() as u32));
                    positions.push(start + line as u64);
                }
                _ => plain = false,
            }
            line = line_end + 1;
            if spans.len() == MAX_BATCH_RECORDS {
                break;
            }
        }
        self.done += line;
        let next = (start + line as u64).min(self.block.end);
        self.tail
            .push(&self.block.bytes[from..from + (next - start) as usize]);
        let payloads = Payloads::new(self.block.bytes.slice(from..self.done), spans, plain)
            .with_header(self.block.header.clone());
        let mut batch = Batch::from_payloads(self.split.clone(), payloads, positions, next);
        batch.resume = Some(ResumePoint {
            position: next,
            resume: self.tail.mark().to_resume(),
        });
        Some(batch)
    }
}
