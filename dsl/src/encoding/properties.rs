//! What holds for the bytes of any text file: for the tests, and for the fuzz target.

use super::decode;

/// The text of a file is its bytes without the byte order mark; other bytes are refused with what
/// to do.
pub fn check_encoding(bytes: &[u8]) {
    let without_mark = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    match decode(bytes.to_vec()) {
        Ok(text) => assert_eq!(text.as_bytes(), without_mark),
        Err(reason) => {
            assert!(reason.ends_with("; save it as UTF-8"), "{reason}");
            let zeros = bytes.iter().take(4).filter(|byte| **byte == 0).count();
            assert!(
                std::str::from_utf8(bytes).is_err() || zeros >= 2,
                "{reason}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_the_text_or_refused_with_a_place(
            text in "[a-z\n]{4}\\PC{0,6}",
            wrong in prop::collection::vec(0x80..=0xff_u8, 0..4),
            has_mark in any::<bool>(),
        ) {
            let mark = if has_mark { "\u{feff}".as_bytes() } else { b"" };
            let bytes = [mark, text.as_bytes(), &wrong].concat();
            check_encoding(&bytes);
            if let Err(reason) = decode(bytes) {
                let line = text.split('\n').count();
                prop_assert!(reason.contains(&format!(" at line {line},")), "{reason}");
            }
        }

        #[test]
        fn any_text_in_utf_16_is_refused_if_it_begins_as_a_pipeline(
            text in "[{(\\[#;a-z][a-z :]\\PC{0,9}",
            has_mark in any::<bool>(),
            is_big in any::<bool>(),
        ) {
            let mark = if has_mark { "\u{feff}" } else { "" };
            let text = format!("{mark}{text}");
            let bytes = text.encode_utf16().flat_map(|unit| match is_big {
                true => unit.to_be_bytes(),
                false => unit.to_le_bytes(),
            });
            let bytes: Vec<u8> = bytes.collect();
            check_encoding(&bytes);
            let reason = decode(bytes).unwrap_err();
            prop_assert!(reason.contains("UTF-16"), "{reason}");
        }

        #[test]
        fn any_bytes_are_a_text_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            check_encoding(&bytes);
        }
    }
}
