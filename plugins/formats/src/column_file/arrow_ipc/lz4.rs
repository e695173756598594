//! How long an LZ4 frame can be once it is decompressed.

/// The bytes with which a frame begins.
const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

/// The maximum length of any block.
const MAX_BLOCK_BYTES: u64 = 4 << 20;

/// How many bytes a byte of a compressed block can stand for at most.
const MAX_RATIO: u64 = 255;

/// The bit of a block's length that says that it is not compressed.
const NOT_COMPRESSED: u32 = 1 << 31;

/// How many bytes a frame has at most once it is decompressed, which is declared to be `expected`
/// bytes. Up to a block more than that are not counted: the last block of a frame may be short.
pub(super) fn decompressed_most(frame: &[u8], expected: u64) -> u64 {
    // What is not a frame is not decompressed.
    let most = blocks(frame).unwrap_or(0);
    match most > expected.saturating_add(MAX_BLOCK_BYTES) {
        true => most,
        false => expected,
    }
}

/// The sum of the blocks' maximum lengths.
fn blocks(frame: &[u8]) -> Option<u64> {
    let (flags, rest) = frame.strip_prefix(&MAGIC)?.split_first_chunk::<2>()?;
    let has = |bit: u8| usize::from(flags[0] >> bit & 1);
    let (has_checksum, has_length, has_dictionary) = (has(4), has(3), has(0));
    let largest = match flags[1] >> 4 & 7 {
        4 => 64 << 10,
        5 => 256 << 10,
        6 => 1 << 20,
        _ => MAX_BLOCK_BYTES,
    };
    let checksum_of_flags = 1;
    let mut rest = rest.get(8 * has_length + 4 * has_dictionary + checksum_of_flags..)?;
    let mut sum = 0_u64;
    while let Some((length, block)) = rest.split_first_chunk() {
        let length = u32::from_le_bytes(*length);
        let stored = length & !NOT_COMPRESSED;
        if stored == 0 {
            break;
        }
        let most = match length & NOT_COMPRESSED {
            0 => (u64::from(stored) * MAX_RATIO).min(largest),
            _ => u64::from(stored),
        };
        sum += most;
        let end = stored as usize + 4 * has_checksum;
        rest = block.get(end..).unwrap_or_default();
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with these flags, and blocks of these lengths, which are compressed or not.
    fn frame(flags: u8, largest: u8, blocks: &[(u32, bool)]) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &[flags, largest << 4]].concat();
        let optional = 8 * usize::from(flags >> 3 & 1) + 4 * usize::from(flags & 1);
        bytes.resize(bytes.len() + optional + 1, 0xaa);
        for (length, is_compressed) in blocks {
            let mark = if *is_compressed { 0 } else { NOT_COMPRESSED };
            bytes.extend((length | mark).to_le_bytes());
            let checksum = 4 * usize::from(flags >> 4 & 1);
            bytes.resize(bytes.len() + *length as usize + checksum, 0xbb);
        }
        bytes.extend([0; 4]);
        bytes
    }

    #[test]
    fn a_frame_is_as_long_as_its_blocks_can_be() {
        let (many, stored) = (vec![(300, true); 1000], vec![(300, false); 1000]);
        let all = 1000 * (64 << 10);
        for (flags, largest, blocks, expected, most) in [
            (0x40, 7, &many[..1], 10, 10),
            (0x40, 4, &many[..], all, all),
            (0x40, 4, &many[..], all - 1, all - 1),
            (0x40, 4, &many[..], all - MAX_BLOCK_BYTES - 1, all),
            (0x40, 4, &many[..], 0, all),
            (0x58, 4, &many[..], 0, all),
            (0x59, 4, &many[..], 0, all),
            (0x40, 7, &many[..], 0, 1000 * 300 * MAX_RATIO),
            (0x40, 7, &stored[..], 0, 0),
            (0x40, 7, &[(5 << 20, false)], 0, 5 << 20),
        ] {
            let frame = frame(flags, largest, blocks);
            let found = decompressed_most(&frame, expected);
            assert_eq!(found, most, "{flags} {largest} {expected}");
            // What follows the end mark does not count, and neither does what is missing.
            let longer = [&frame[..], &[1; 900]].concat();
            assert_eq!(decompressed_most(&longer, expected), most);
            for cut in [&frame[..frame.len() - 5], &frame[..7], &[], b"other"] {
                assert!(decompressed_most(cut, expected) <= most.max(expected));
            }
        }
    }
}
