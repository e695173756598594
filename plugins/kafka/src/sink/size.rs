//! How large a record is where the broker measures it: in its batch, after compression.

use std::io::Write;

/// What a batch of version 2 has before its records.
const BATCH_HEADER: usize = 61;
/// A record's attributes, time delta and offset delta where it is alone in its batch.
const RECORD_HEAD: usize = 3;
/// What our compression may differ from the client's, as a part of the size: within this the broker
/// decides.
const TOLERANCE: usize = 16;

/// How the client compresses batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Snappy,
    Zstd,
    /// One that is not computed here.
    Other,
}

impl Compression {
    /// What a property of the client means.
    pub(super) fn from_property(value: Option<&str>) -> Compression {
        match value {
            None | Some("none") => Compression::None,
            Some("gzip") => Compression::Gzip,
            Some("snappy") => Compression::Snappy,
            Some("zstd") => Compression::Zstd,
            Some(_) => Compression::Other,
        }
    }

    /// The size of a batch of one record, as small as it may be: what the broker takes for certain
    /// to be too large is larger.
    pub(super) fn least_batch(self, parts: &Parts<'_>) -> usize {
        let parts_together = || {
            [
                parts.key.unwrap_or_default(),
                parts.value.unwrap_or_default(),
            ]
            .concat()
        };
        let compressed = match self {
            Compression::None => return parts.batch(),
            Compression::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder
                    .write_all(&parts_together())
                    .and_then(|()| encoder.finish())
                    .map(|bytes| bytes.len())
                    .ok()
            }
            Compression::Snappy => snap::raw::Encoder::new()
                .compress_vec(&parts_together())
                .map(|bytes| bytes.len())
                .ok(),
            Compression::Zstd => zstd::bulk::compress(&parts_together(), 0)
                .map(|bytes| bytes.len())
                .ok(),
            Compression::Other => None,
        };
        compressed.map_or(0, |size| BATCH_HEADER + size - size / TOLERANCE)
    }
}

/// What a record consists of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parts<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    /// How many headers there are.
    pub(super) headers: usize,
    /// The bytes of their names, values and lengths.
    pub(super) header_bytes: usize,
}

impl Parts<'_> {
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

/// The bytes of a header in a record.
pub(super) fn header(name: &[u8], value: Option<&[u8]>) -> usize {
    varint(name.len()) + name.len() + value.map_or(1, |value| varint(value.len()) + value.len())
}

/// The bytes of a length in Kafka's zigzag encoding.
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
    fn a_compressed_record_counts_with_its_compressed_size() {
        let value = vec![b'x'; 20_000];
        let parts = Parts {
            value: Some(&value),
            ..Parts::default()
        };
        for (property, most) in [("gzip", 300), ("snappy", 2000), ("zstd", 300), ("lz4", 0)] {
            let compression = Compression::from_property(Some(property));
            assert!(
                compression.least_batch(&parts) <= most,
                "{property}: {}",
                compression.least_batch(&parts)
            );
        }
        assert_eq!(
            Compression::from_property(None).least_batch(&parts),
            BATCH_HEADER + 3 + RECORD_HEAD + 1 + 3 + 20_000 + 1
        );
    }
}
