//! The size of a record as the broker measures it: in its batch, after compression.

use std::io::Write;

/// The size of the header of a version 2 batch.
const BATCH_HEADER: usize = 61;
/// The size of a record's attributes, time delta and offset delta if it is alone in its batch.
const RECORD_HEAD: usize = 3;
/// The computed size may differ from the client's by one part in this many; within that tolerance
/// the broker decides.
const TOLERANCE: usize = 16;

/// The codec with which the client compresses batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchCompression {
    None,
    Gzip,
    Snappy,
    Zstd,
    /// A codec that is not computed here.
    Other,
}

impl BatchCompression {
    /// The codec of a value of the client's property.
    pub(super) fn from_property(value: Option<&str>) -> BatchCompression {
        match value {
            None | Some("none") => BatchCompression::None,
            Some("gzip") => BatchCompression::Gzip,
            Some("snappy") => BatchCompression::Snappy,
            Some("zstd") => BatchCompression::Zstd,
            Some(_) => BatchCompression::Other,
        }
    }

    /// The minimum size of a batch of this record alone: a record whose minimum exceeds the limit
    /// is certainly refused.
    pub(super) fn min_batch(self, parts: &RecordParts<'_>) -> usize {
        let parts_together = || {
            [
                parts.key.unwrap_or_default(),
                parts.value.unwrap_or_default(),
            ]
            .concat()
        };
        let compressed = match self {
            BatchCompression::None => return parts.batch(),
            BatchCompression::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder
                    .write_all(&parts_together())
                    .and_then(|()| encoder.finish())
                    .map(|bytes| bytes.len())
                    .ok()
            }
            BatchCompression::Snappy => snap::raw::Encoder::new()
                .compress_vec(&parts_together())
                .map(|bytes| bytes.len())
                .ok(),
            BatchCompression::Zstd => zstd::bulk::compress(&parts_together(), 0)
                .map(|bytes| bytes.len())
                .ok(),
            BatchCompression::Other => None,
        };
        compressed.map_or(0, |size| BATCH_HEADER + size - size / TOLERANCE)
    }
}

/// The parts of a record that determine its size.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RecordParts<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    /// The number of headers.
    pub(super) headers: usize,
    /// The size of their names, values and length fields, in bytes.
    pub(super) header_bytes: usize,
}

impl RecordParts<'_> {
    /// The size of an uncompressed batch of this record alone.
    pub(super) fn batch(&self) -> usize {
        let part =
            |bytes: Option<&[u8]>| bytes.map_or(1, |bytes| varint(bytes.len()) + bytes.len());
        let body = RECORD_HEAD
            + part(self.key)
            + part(self.value)
            + varint(self.headers)
            + self.header_bytes;
        BATCH_HEADER + varint(body) + body
    }
}

/// The size of one header in a record, in bytes.
pub(super) fn header(name: &[u8], value: Option<&[u8]>) -> usize {
    varint(name.len()) + name.len() + value.map_or(1, |value| varint(value.len()) + value.len())
}

/// The size of a length in Kafka's zigzag encoding, in bytes.
fn varint(length: usize) -> usize {
    let bits = usize::BITS - (length << 1).leading_zeros();
    (bits.max(1) as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_zigzag_varints() {
        for (length, bytes) in [(0, 1), (63, 1), (64, 2), (8191, 2), (8192, 3), (1 << 20, 4)] {
            assert_eq!(varint(length), bytes, "{length}");
        }
    }

    #[test]
    fn a_compressed_record_is_measured_after_compression() {
        let value = vec![b'x'; 20_000];
        let parts = RecordParts {
            value: Some(&value),
            ..RecordParts::default()
        };
        for (property, most) in [("gzip", 300), ("snappy", 2000), ("zstd", 300), ("lz4", 0)] {
            let compression = BatchCompression::from_property(Some(property));
            assert!(
                compression.min_batch(&parts) <= most,
                "{property}: {}",
                compression.min_batch(&parts)
            );
        }
        assert_eq!(
            BatchCompression::from_property(None).min_batch(&parts),
            BATCH_HEADER + 3 + RECORD_HEAD + 1 + 3 + 20_000 + 1
        );
    }
}
