//! Bencode, as nREPL uses it (BEP 3: <https://www.bittorrent.org/beps/bep_0003.html>).

use std::collections::BTreeMap;

/// How deep values may lie in each other.
const MAX_DEPTH: usize = 16;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bencode {
    Int(i64),
    Text(Vec<u8>),
    List(Vec<Bencode>),
    Dict(BTreeMap<Vec<u8>, Bencode>),
}

/// Why bytes are no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// They may become one when more of them come.
    Short,
    /// They never will.
    Wrong,
}

impl Bencode {
    /// Reads the value with which the bytes begin, and gives what follows it.
    pub(super) fn read(bytes: &[u8]) -> Result<(Bencode, &[u8]), Broken> {
        read(bytes, 0)
    }

    pub(super) fn text(text: &str) -> Bencode {
        Bencode::Text(text.as_bytes().to_vec())
    }

    /// A dictionary of these entries.
    pub(super) fn dict<'a>(entries: impl IntoIterator<Item = (&'a str, Bencode)>) -> Bencode {
        Bencode::Dict(
            entries
                .into_iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value))
                .collect(),
        )
    }

    /// The text of this name in a dictionary.
    pub(super) fn get_text(&self, name: &str) -> Option<String> {
        let Bencode::Dict(entries) = self else {
            return None;
        };
        match entries.get(name.as_bytes())? {
            Bencode::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        }
    }

    /// Adds the value's bytes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Bencode::Int(number) => out.extend(format!("i{number}e").bytes()),
            Bencode::Text(text) => write_text(text, out),
            Bencode::List(items) => {
                out.push(b'l');
                items.iter().for_each(|item| item.write(out));
                out.push(b'e');
            }
            Bencode::Dict(entries) => {
                out.push(b'd');
                for (name, value) in entries {
                    write_text(name, out);
                    value.write(out);
                }
                out.push(b'e');
            }
        }
    }
}

fn write_text(text: &[u8], out: &mut Vec<u8>) {
    out.extend(format!("{}:", text.len()).bytes());
    out.extend(text);
}

fn read(bytes: &[u8], depth: usize) -> Result<(Bencode, &[u8]), Broken> {
    if depth > MAX_DEPTH {
        return Err(Broken::Wrong);
    }
    let (first, rest) = bytes.split_first().ok_or(Broken::Short)?;
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
                let (name, after) = text(rest)?;
                let (value, after) = read(after, depth + 1)?;
                entries.insert(name, value);
                rest = after;
            }
            Ok((Bencode::Dict(entries), &rest[1..]))
        }
        _ => text(bytes).map(|(text, rest)| (Bencode::Text(text), rest)),
    }
}

fn text(bytes: &[u8]) -> Result<(Vec<u8>, &[u8]), Broken> {
    let (length, rest) = number(bytes, b':')?;
    let length = usize::try_from(length).map_err(|_| Broken::Wrong)?;
    let (text, rest) = rest.split_at_checked(length).ok_or(Broken::Short)?;
    Ok((text.to_vec(), rest))
}

/// A number up to its end mark.
fn number(bytes: &[u8], end: u8) -> Result<(i64, &[u8]), Broken> {
    /// The longest number of 64 bits, with its sign.
    const MAX_DIGITS: usize = 20;
    let Some(at) = bytes
        .iter()
        .take(MAX_DIGITS + 1)
        .position(|byte| *byte == end)
    else {
        let may_go_on = bytes.len() <= MAX_DIGITS
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_digit() || *byte == b'-');
        return Err(if may_go_on {
            Broken::Short
        } else {
            Broken::Wrong
        });
    };
    let number = std::str::from_utf8(&bytes[..at])
        .ok()
        .and_then(|digits| digits.parse().ok());
    Ok((number.ok_or(Broken::Wrong)?, &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(value: &Bencode) -> Vec<u8> {
        let mut out = Vec::new();
        value.write(&mut out);
        out
    }

    #[test]
    fn values_are_read_as_they_are_written() {
        let value = Bencode::dict([
            ("op", Bencode::text("eval")),
            (
                "list",
                Bencode::List(vec![
                    Bencode::Int(-7),
                    Bencode::text(""),
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
    fn what_is_cut_off_is_short_and_what_is_wrong_is_wrong() {
        let whole = b"d4:listli-7e3:abce2:op4:evale";
        for end in 0..whole.len() {
            assert_eq!(Bencode::read(&whole[..end]), Err(Broken::Short), "{end}");
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
                Broken::Short
            } else {
                Broken::Wrong
            };
            assert_eq!(Bencode::read(wrong.as_bytes()), Err(expected), "{wrong}");
        }
        assert_eq!(Bencode::read(&deep), Err(Broken::Wrong));
    }
}
