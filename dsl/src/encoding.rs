//! The encoding of text files that people write, such as pipeline files: UTF-8, with or without a
//! byte order mark.

#[cfg(any(test, feature = "fuzz"))]
pub mod properties;

/// The text of a file.
///
/// # Errors
/// A sentence with the encoding that it seems to have, and the place where that shows.
pub fn decode(bytes: Vec<u8>) -> Result<String, String> {
    let save = "save it as UTF-8";
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(format!("it is encoded in UTF-16; {save}"));
    }
    if bytes.iter().take(4).filter(|byte| **byte == 0).count() >= 2 {
        return Err(format!(
            "it seems to be encoded in UTF-16 or UTF-32; {save}"
        ));
    }
    let bytes = match bytes.strip_prefix("\u{feff}".as_bytes()) {
        Some(rest) => rest.to_vec(),
        None => bytes,
    };
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let (before, rest) = error.as_bytes().split_at(at);
        let lines = before.split(|byte| *byte == b'\n');
        let (line, column) = lines.enumerate().last().map_or((1, 1), |(number, line)| {
            let text = String::from_utf8_lossy(line);
            (number + 1, text.chars().count() + 1)
        });
        let byte = rest.first().copied().unwrap_or_default();
        format!(
            "the byte {byte:#04x} at line {line}, column {column} is not UTF-8 (in Latin-1 it is \
             `{}`); {save}",
            char::from(byte)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_text() {
        let text = "\u{feff}{in 1}".as_bytes().to_vec();
        assert_eq!(decode(text).as_deref(), Ok("{in 1}"));
    }

    #[test]
    fn other_encodings_are_named_with_the_place() {
        let utf16: Vec<u8> = "{in".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let marked = [&[0xff, 0xfe], utf16.as_slice()].concat();
        for (bytes, expected) in [
            (marked, "it is encoded in UTF-16; save it as UTF-8"),
            (
                utf16,
                "it seems to be encoded in UTF-16 or UTF-32; save it as UTF-8",
            ),
            (
                b"{in\n caf\xe9}".to_vec(),
                "the byte 0xe9 at line 2, column 5 is not UTF-8 (in Latin-1 it is `é`); save it \
                 as UTF-8",
            ),
        ] {
            assert_eq!(decode(bytes), Err(expected.to_owned()));
        }
    }
}
