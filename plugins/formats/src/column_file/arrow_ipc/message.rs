//! The message of a block: what it declares about the bytes behind it.

use std::fs::File;
use std::io;

use arrow_ipc::{Block, Message};
use pseidon_expr::panics::catch_panic;

use super::super::errors::{damaged, read_up_to, refused};

/// The maximum memory of a record batch.
const MAX_MEMORY: u64 = 2 << 30;

/// The length that says that a buffer is not compressed, although others are.
const NOT_COMPRESSED: i64 = -1;

/// The number of rows of a block.
pub(super) fn rows(file: &File, block: &Block) -> io::Result<u64> {
    let head = read_up_to(file, block.offset() as u64, block.metaDataLength() as usize)?;
    catch_panic(|| {
        let batch = parse(&head)?.header_as_record_batch();
        let rows = batch.and_then(|batch| u64::try_from(batch.length()).ok());
        rows.ok_or_else(|| damaged("a record batch has no length"))
    })
    .map_err(damaged)?
}

/// Checks what a block declares, of which the first `head` bytes are the message.
pub(super) fn check(block: &[u8], head: usize) -> io::Result<()> {
    let (head, body) = block
        .split_at_checked(head)
        .ok_or_else(|| damaged("a block is shorter than its message"))?;
    catch_panic(|| {
        let message = parse(head)?;
        let batch = match message.header_as_dictionary_batch() {
            Some(dictionary) => dictionary.data(),
            None => message.header_as_record_batch(),
        };
        match batch {
            Some(batch) => check_batch(&batch, body),
            None => Err(damaged("a block is not a record batch")),
        }
    })
    .map_err(damaged)?
}

/// Parses a message, which follows its length.
fn parse(head: &[u8]) -> io::Result<Message<'_>> {
    let message = match head {
        [0xff, 0xff, 0xff, 0xff, _, _, _, _, message @ ..] => message,
        [_, _, _, _, message @ ..] => message,
        _ => return Err(damaged("a message is too short")),
    };
    arrow_ipc::root_as_message(message).map_err(damaged)
}

fn check_batch(batch: &arrow_ipc::RecordBatch<'_>, body: &[u8]) -> io::Result<()> {
    // A column of nulls has no bytes.
    let most = (body.len() as i64)
        .saturating_mul(8)
        .max(i64::from(i32::MAX));
    let is_count = |count: i64| (0..=most).contains(&count);
    let nodes = batch.nodes().into_iter().flatten();
    let mut counts = nodes.flat_map(|node| [node.length(), node.null_count()]);
    if !(0..=i64::from(i32::MAX)).contains(&batch.length()) || !counts.all(is_count) {
        return Err(damaged("a record batch has more values than bytes"));
    }
    let (mut stored, mut memory) = (0_u64, 0_u64);
    for buffer in batch.buffers().into_iter().flatten() {
        let from = usize::try_from(buffer.offset()).ok();
        let len = usize::try_from(buffer.length()).ok();
        let range = from
            .zip(len)
            .and_then(|(from, len)| Some(from..from.checked_add(len)?));
        let Some(bytes) = range.and_then(|range| body.get(range)) else {
            return Err(damaged("a buffer is not in its block"));
        };
        stored += bytes.len() as u64;
        let declared = match (batch.compression(), bytes.first_chunk()) {
            (None, _) => bytes.len() as i64,
            (Some(_), Some(length)) => match i64::from_le_bytes(*length) {
                NOT_COMPRESSED => bytes.len() as i64,
                length => length,
            },
            (Some(_), None) => 0,
        };
        memory = memory.saturating_add(u64::try_from(declared).unwrap_or(u64::MAX));
    }
    if stored > body.len() as u64 {
        return Err(damaged("the buffers of a block are longer than the block"));
    }
    match memory > MAX_MEMORY {
        true => Err(refused(
            "it has a record batch of more than 2 GiB: write smaller record batches",
        )),
        false => Ok(()),
    }
}
