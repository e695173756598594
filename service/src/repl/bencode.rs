//! Bencode, the encoding of nREPL (BEP 3: <https://www.bittorrent.org/beps/bep_0003.html>).

use std::collections::BTreeMap;

/// How deep values may be nested.
const MAX_DEPTH: usize = 16;

/// A bencoded value. Strings are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bencode {
    Int(i64),
    Str(Vec<u8>),
    List(Vec<Bencode>),
    Dict(BTreeMap<Vec<u8>, Bencode>),
}

/// Why bytes are not a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BencodeError {
    /// The value may be completed by more bytes.
    Incomplete,
    /// The bytes are invalid, whatever follows.
    Invalid,
}

impl Bencode {
    /// Decodes the value at the start of the bytes, and returns it with the bytes that follow.
    pub(super) fn read(bytes: &[u8]) -> Result<(Bencode, &[u8]), BencodeError> {
        read(bytes, 0)
    }

    pub(super) fn string(text: &str) -> Bencode {
        Bencode::Str(text.as_bytes().to_vec())
    }

    /// A dictionary with these entries.
    pub(super) fn dict<'a>(entries: impl IntoIterator<Item = (&'a str, Bencode)>) -> Bencode {
        Bencode::Dict(
            entries
                .into_iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value))
                .collect(),
        )
    }

    /// The string with this key in a dictionary; `None` if it is missing or not UTF-8.
    pub(super) fn get_str(&self, name: &str) -> Option<String> {
        let Bencode::Dict(entries) = self else {
            return None;
        };
        match entries.get(name.as_bytes())? {
            Bencode::Str(text) => String::from_utf8(text.clone()).ok(),
            _ => None,
        }
    }

    /// Appends the encoded value.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Bencode::Int(number) => out.extend(format!("i{number}e").bytes()),
            Bencode::Str(text) => write_str(text, out),
            Bencode::List(items) => {
                out.push(b'l');
                items.iter().for_each(|item| item.write(out));
                out.push(b'e');
            }
            Bencode::Dict(entries) => {
                out.push(b'd');
                for (name, value) in entries {
                    write_str(name, out);
                    value.write(out);
                }
                out.push(b'e');
            }
        }
    }
}

fn write_str(text: &[u8], out: &mut Vec<u8>) {
    out.extend(format!("{}:", text.len()).bytes());
    out.extend(text);
}

fn read(bytes: &[u8], depth: usize) -> Result<(Bencode, &[u8]), BencodeError> {
    if depth > MAX_DEPTH {
        return Err(BencodeError::Invalid);
    }
    let (first, rest) = bytes.split_first().ok_or(BencodeError::Incomplete)?;
    match first {
        b'i' => {
            let (number, rest) = number(rest, b'e')?;
            Ok((Bencode::Int(number), rest))
        }
        b'l' => {
            let (mut items, mut rest) = (Vec::new(), rest);
            while rest.first() != Some(&b'e') {
                let (item, after) = read(rest, depth + 1)?;
                items.push(item);
                rest = after;
            }
            Ok((Bencode::List(items), &rest[1..]))
        }
        b'd' => {
            let (mut entries, mut rest) = (BTreeMap::new(), rest);
            while rest.first() != Some(&b'e') {
                let (name, after) = string(rest)?;
                let (value, after) = read(after, depth + 1)?;
                entries.insert(name, value);
                rest = after;
            }
            Ok((Bencode::Dict(entries), &rest[1..]))
        }
        _ => string(bytes).map(|(text, rest)| (Bencode::Str(text), rest)),
    }
}

fn string(bytes: &[u8]) -> Result<(Vec<u8>, &[u8]), BencodeError> {
    let (length, rest) = number(bytes, b':')?;
    let length = usize::try_from(length).map_err(|_| BencodeError::Invalid)?;
    let (text, rest) = rest
        .split_at_checked(length)
        .ok_or(BencodeError::Incomplete)?;
    Ok((text.to_vec(), rest))
}

/// Decodes a number up to its end marker: digits, which may follow a minus sign.
fn number(bytes: &[u8], end: u8) -> Result<(i64, &[u8]), BencodeError> {
    /// The length of the longest 64-bit number with its sign.
    const MAX_DIGITS: usize = 20;
    let mut start = bytes.iter().take(MAX_DIGITS + 1);
    let at = start.position(|byte| *byte == end);
    let text = &bytes[..at.unwrap_or(bytes.len())];
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    // Checked also if the end marker is missing: what is refused does not depend on how the bytes
    // arrive.
    if text.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BencodeError::Invalid);
    }
    let at = at.ok_or(BencodeError::Incomplete)?;
    let number = std::str::from_utf8(text)
        .ok()
        .and_then(|digits| digits.parse().ok());
    Ok((number.ok_or(BencodeError::Invalid)?, &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(value: &Bencode) -> Vec<u8> {
        let mut out = Vec::new();
        value.write(&mut out);
        out
    }

    #[test]
    fn encoded_values_are_decoded() {
        let value = Bencode::dict([
            ("op", Bencode::string("eval")),
            (
                "list",
                Bencode::List(vec![
                    Bencode::Int(-7),
                    Bencode::string(""),
                    Bencode::Dict(BTreeMap::new()),
                ]),
            ),
        ]);
        let written = bytes(&value);
        assert_eq!(
            String::from_utf8_lossy(&written),
            "d4:listli-7e0:dee2:op4:evale"
        );
        assert_eq!(Bencode::read(&written), Ok((value, &b""[..])));
        assert_eq!(Bencode::read(b"i1ei2e"), Ok((Bencode::Int(1), &b"i2e"[..])));
    }

    #[test]
    fn truncated_values_are_incomplete_and_malformed_ones_invalid() {
        let whole = b"d4:listli-7e3:abce2:op4:evale";
        for end in 0..whole.len() {
            assert_eq!(
                Bencode::read(&whole[..end]),
                Err(BencodeError::Incomplete),
                "{end}"
            );
        }
        let deep = [b"l".repeat(100), b"e".repeat(100)].concat();
        for wrong in [
            "ie",
            "i1x",
            "x",
            "-1:a",
            "d1:a",
            "di1ei2ee",
            "99999999999999999999:",
            "123456789012345678901234",
            "i1.5e",
        ] {
            let expected = if wrong == "d1:a" {
                BencodeError::Incomplete
            } else {
                BencodeError::Invalid
            };
            assert_eq!(Bencode::read(wrong.as_bytes()), Err(expected), "{wrong}");
        }
        assert_eq!(Bencode::read(&deep), Err(BencodeError::Invalid));
    }

    fn value() -> impl Strategy<Value = Bencode> {
        let text = || prop::collection::vec(any::<u8>(), 0..12);
        let plain = prop_oneof![
            any::<i64>().prop_map(Bencode::Int),
            text().prop_map(Bencode::Str),
        ];
        plain.prop_recursive(4, 20, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Bencode::List),
                prop::collection::btree_map(text(), inner, 0..4).prop_map(Bencode::Dict),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_round_trip(value in value(), next in prop::collection::vec(any::<u8>(), 0..4)) {
            let written = bytes(&value);
            let followed = [written.as_slice(), &next].concat();
            prop_assert_eq!(Bencode::read(&followed), Ok((value, next.as_slice())));
            for end in 0..written.len() {
                let read = Bencode::read(&written[..end]);
                prop_assert_eq!(read, Err(BencodeError::Incomplete), "{}", end);
            }
        }

        // The bytes of a connection arrive in pieces.
        #[test]
        fn what_is_read_does_not_depend_on_how_it_arrives(
            bytes in "(i|e|l|d|1:a|0:|[+]|-|[0-9]|i5e|:|.){0,9}|i[+-]?[0-9]{0,21}[-e]|[dl]{0,20}",
        ) {
            let read = Bencode::read(bytes.as_bytes());
            for end in 0..bytes.len() {
                match Bencode::read(&bytes.as_bytes()[..end]) {
                    Err(BencodeError::Incomplete) => {}
                    Err(BencodeError::Invalid) => {
                        prop_assert_eq!(&read, &Err(BencodeError::Invalid), "{}", end);
                    }
                    Ok((value, _)) => {
                        prop_assert_eq!(read.as_ref().map(|(value, _)| value), Ok(&value));
                    }
                }
            }
            if let Ok((value, _)) = read {
                let written = self::bytes(&value);
                prop_assert_eq!(Bencode::read(&written), Ok((value, &b""[..])));
            }
        }
    }
}
