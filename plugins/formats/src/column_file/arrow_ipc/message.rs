//! The message of a block: what it declares about the bytes behind it.

use std::fs::File;
use std::io;

use arrow_ipc::{Block, CompressionType, Message};
use pseidon_expr::panics::catch_panic;

use super::super::errors::{damaged, read_up_to, refused};
use super::MAX_MEMORY;
use super::lz4::decompressed_most;

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

/// Checks what a block declares, of which the first `head` bytes are the message. Returns the memory
/// of its buffers in bytes.
pub(super) fn check(block: &[u8], head: usize) -> io::Result<u64> {
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

fn check_batch(batch: &arrow_ipc::RecordBatch<'_>, body: &[u8]) -> io::Result<u64> {
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
    let compression = batch.compression().map(|compression| compression.codec());
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
        memory = memory.saturating_add(memory_of(bytes, compression));
    }
    if stored > body.len() as u64 {
        return Err(damaged("the buffers of a block are longer than the block"));
    }
    match memory > MAX_MEMORY {
        true => Err(refused(
            "it has a record batch of more than 2 GiB: write smaller record batches",
        )),
        false => Ok(memory),
    }
}

/// The memory of a buffer.
fn memory_of(bytes: &[u8], compression: Option<CompressionType>) -> u64 {
    let stored = bytes.len() as u64;
    let Some(compression) = compression else {
        return stored;
    };
    let Some((length, compressed)) = bytes.split_first_chunk() else {
        return 0;
    };
    let declared = match i64::from_le_bytes(*length) {
        NOT_COMPRESSED => return stored,
        length => u64::try_from(length).unwrap_or(u64::MAX),
    };
    match compression {
        // It is decompressed to its end, whatever was declared.
        CompressionType::LZ4_FRAME => declared.max(decompressed_most(compressed, declared)),
        _ => declared,
    }
}
