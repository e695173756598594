//! Where the blocks of a file are: its footer.

use std::fs::File;
use std::io;

use arrow::datatypes::{DataType, SchemaRef};
use arrow_ipc::{Block, MetadataVersion};
use pseidon_expr::panics::catch_panic;

use super::super::errors::{damaged, incomplete, read_up_to, refused};
use super::cannot_read;

/// The bytes with which a file begins and ends.
pub(super) const MAGIC: &[u8] = b"ARROW1";

/// The length of what follows the footer: its own length, and the bytes at the end.
const TRAILER_BYTES: u64 = 10;

/// The maximum length of a footer.
const MAX_FOOTER_BYTES: u64 = 64 << 20;

/// What the footer of a file says.
pub(super) struct Layout {
    pub(super) schema: SchemaRef,
    pub(super) version: MetadataVersion,
    pub(super) dictionaries: Vec<Block>,
    pub(super) batches: Vec<Block>,
    /// Where the blocks end and the footer begins.
    pub(super) end: u64,
}

impl Layout {
    /// Reads the footer of a file, and checks that its blocks are in the file.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file has no end; `InvalidData` if it is not an Arrow file, or damaged.
    pub(super) fn read(file: &File) -> io::Result<Layout> {
        let (len, start) = (file.metadata()?.len(), read_up_to(file, 0, MAGIC.len())?);
        if !MAGIC.starts_with(&start) {
            return Err(refused(match &start[..] {
                [0xff, 0xff, 0xff, 0xff, ..] => {
                    "it is an Arrow stream, which is not read: write it as a file"
                }
                [b'F', b'E', b'A', b'1', ..] => {
                    "it is a Feather file of version 1, which is not read: write it as version 2"
                }
                _ => "it is not an Arrow file",
            }));
        }
        let trailer_at = len.saturating_sub(TRAILER_BYTES);
        let trailer = read_up_to(file, trailer_at, TRAILER_BYTES as usize)?;
        let size = match trailer.split_first_chunk() {
            Some((size, magic)) if magic == MAGIC => i32::from_le_bytes(*size),
            _ => {
                let what = "it has no end, as an Arrow file that is being written";
                return Err(incomplete(what));
            }
        };
        let fits = |size: &u64| *size <= trailer_at.min(MAX_FOOTER_BYTES);
        let Some(size) = u64::try_from(size).ok().filter(fits) else {
            return Err(damaged("the length of its footer is wrong"));
        };
        let end = trailer_at - size;
        let footer = read_up_to(file, end, size as usize)?;
        let layout = catch_panic(|| Layout::parse(&footer, end)).map_err(damaged)??;
        layout.check()?;
        Ok(layout)
    }

    fn parse(footer: &[u8], end: u64) -> io::Result<Layout> {
        let footer = arrow_ipc::root_as_footer(footer).map_err(damaged)?;
        let schema = footer
            .schema()
            .ok_or_else(|| damaged("its footer has no schema"))?;
        if !schema.endianness().equals_to_target_endianness() {
            return Err(refused("its values are big-endian, which is not read"));
        }
        Ok(Layout {
            schema: arrow_ipc::convert::fb_to_schema(schema).into(),
            version: footer.version(),
            dictionaries: footer
                .dictionaries()
                .into_iter()
                .flatten()
                .copied()
                .collect(),
            batches: footer
                .recordBatches()
                .into_iter()
                .flatten()
                .copied()
                .collect(),
            end,
        })
    }

    fn check(&self) -> io::Result<()> {
        for field in self.schema.fields() {
            if has_union(field.data_type()) {
                return Err(cannot_read(field.name(), "a union of several types"));
            }
        }
        let mut total = 0_u64;
        for block in self.dictionaries.iter().chain(&self.batches) {
            let part = |number: i64| u64::try_from(number).ok();
            let (offset, body) = (part(block.offset()), part(block.bodyLength()));
            let head = part(block.metaDataLength().into()).filter(|head| *head >= 8);
            let size = head
                .zip(body)
                .and_then(|(head, body)| head.checked_add(body));
            let end = offset
                .zip(size)
                .and_then(|(offset, size)| offset.checked_add(size));
            total = total.saturating_add(size.unwrap_or(u64::MAX));
            // Blocks that share bytes could be read again and again.
            if end.is_none_or(|end| end > self.end) || total > self.end {
                return Err(damaged("a block is not in the file"));
            }
        }
        Ok(())
    }
}

fn has_union(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) => true,
        DataType::Struct(fields) => fields.iter().any(|field| has_union(field.data_type())),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => has_union(field.data_type()),
        DataType::Dictionary(_, values) => has_union(values),
        DataType::RunEndEncoded(_, values) => has_union(values.data_type()),
        _ => false,
    }
}
