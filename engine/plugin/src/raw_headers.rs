//! A record's headers as they were read: names may repeat, and values are bytes or missing.
//!
//! A batch stores the headers of each record as one byte string, since most records of most topics
//! have few headers or none, and only a sink that copies them reads them. The layout of each header
//! is: length of the name, name, length of the value, value.

/// The length that stands for a missing value.
const MISSING: u32 = u32::MAX;

/// Appends a header. `None` is a header without a value, which differs from an empty value.
pub fn push(headers: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>) {
    headers.extend_from_slice(&(name.len() as u32).to_le_bytes());
    headers.extend_from_slice(name);
    headers.extend_from_slice(
        &value
            .map_or(MISSING, |value| value.len() as u32)
            .to_le_bytes(),
    );
    headers.extend_from_slice(value.unwrap_or_default());
}

/// The headers, in order.
pub fn iter(mut headers: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    std::iter::from_fn(move || {
        let name = take(&mut headers)?;
        let value = if headers.first_chunk() == Some(&MISSING.to_le_bytes()) {
            headers = headers.get(4..)?;
            None
        } else {
            Some(take(&mut headers)?)
        };
        Some((name, value))
    })
}

/// Splits off a byte string that is preceded by its length.
fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (piece, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *bytes = rest;
    Some(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip() {
        let all: [(&[u8], Option<&[u8]>); 5] = [
            (b"h", Some(b"1")),
            (b"h", Some(b"\xff\xfe")),
            (b"", Some(b"")),
            (b"none", None),
            (b"h", Some(b"2")),
        ];
        let mut bytes = Vec::new();
        all.iter()
            .for_each(|(name, value)| push(&mut bytes, name, *value));
        assert_eq!(iter(&bytes).collect::<Vec<_>>(), all);
        assert_eq!(iter(&[]).count(), 0);
        assert_eq!(
            iter(&bytes[..bytes.len() - 1]).count(),
            4,
            "a truncated header is left out"
        );
    }
}
