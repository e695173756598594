//! A record's headers as they came: names may repeat, and values are bytes or missing.
//!
//! A batch keeps those of each record in one piece of bytes, since most records of most topics have
//! none or a few, and only a sink that copies them looks at them: for each header the length of its
//! name, the name, the length of its value and the value.

/// The length of a value that is missing.
const MISSING: u32 = u32::MAX;

/// Adds a header behind others.
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

/// The headers, in their order.
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

/// Takes a piece with its length before it.
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
    fn headers_come_back_as_they_were() {
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
            "what is cut off is left out"
        );
    }
}
