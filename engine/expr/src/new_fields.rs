//! The fields of a JSON record that a schema does not have, such as one inferred from earlier
//! records.
//!
//! The record was decoded before, so it is known to be an object and well-formed. Its keys are found
//! in one pass over its bytes.

use std::borrow::Cow;

use arrow::datatypes::{DataType, Fields};
use memchr::{memchr, memchr2};

use crate::types::is_json;

/// Calls `found` for each field of a record that is not in `known`, with what writes its path. Fields of objects,
/// and of objects in lists, are known if their parent is; a field of type `json` has all of its
/// parts.
pub fn new_fields(record: &[u8], known: &Fields, found: &mut impl FnMut(&dyn Fn() -> String)) {
    let mut scanner = Scanner { record, at: 0 };
    scanner.object(known, None, found);
}

/// The path of an object in a record. It is written only if a field is found in it.
#[derive(Clone, Copy)]
struct ObjectPath<'p> {
    around: Option<&'p ObjectPath<'p>>,
    name: &'p str,
}

/// The path of a field of an object.
fn path_of(object: Option<&ObjectPath<'_>>, name: &str) -> String {
    match object {
        Some(object) => format!("{}.{name}", path_of(object.around, object.name)),
        None => name.to_owned(),
    }
}

struct Scanner<'a> {
    record: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn object(
        &mut self,
        known: &Fields,
        path: Option<&ObjectPath<'_>>,
        found: &mut impl FnMut(&dyn Fn() -> String),
    ) {
        let mut expected = 0;
        if self.next() != Some(b'{') {
            return;
        }
        self.at += 1;
        while self.next() == Some(b'"') {
            let key = self.string();
            // Behind the colon.
            self.next();
            self.at += 1;
            let name = key_name(key);
            // Most records have their fields in the order of the schema.
            let fields = || known.iter().enumerate();
            let known = fields()
                .skip(expected)
                .chain(fields().take(expected))
                .find(|(_, field)| field.name() == &*name);
            match known {
                Some((_, field)) if is_json(field) => self.skip(),
                Some((_, field)) => {
                    let around = path;
                    let inner = ObjectPath {
                        around,
                        name: &name,
                    };
                    self.value(field.data_type(), &inner, found);
                }
                None => {
                    found(&|| path_of(path, &name));
                    self.skip();
                }
            }
            expected = known.map_or(expected, |(at, _)| at + 1);
            self.comma();
        }
        self.at += 1;
    }

    /// Moves behind a value of a type.
    fn value(
        &mut self,
        known: &DataType,
        path: &ObjectPath<'_>,
        found: &mut impl FnMut(&dyn Fn() -> String),
    ) {
        match (known, self.next()) {
            (DataType::Struct(fields), Some(b'{')) => self.object(fields, Some(path), found),
            (DataType::List(element), Some(b'[')) if !is_json(element) => {
                self.at += 1;
                while !matches!(self.next(), Some(b']' | b'}') | None) {
                    self.value(element.data_type(), path, found);
                    self.comma();
                }
                self.at += 1;
            }
            _ => self.skip(),
        }
    }

    /// The next byte that is not white space, which becomes the current one.
    fn next(&mut self) -> Option<u8> {
        let rest = self.record.get(self.at..)?;
        self.at += rest
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        self.record.get(self.at).copied()
    }

    /// Moves behind a comma, if there is one.
    fn comma(&mut self) {
        if self.next() == Some(b',') {
            self.at += 1;
        }
    }

    /// Moves behind a string and returns it with its quotes.
    fn string(&mut self) -> &'a [u8] {
        let start = self.at;
        self.at += 1;
        while let Some(rest) = self.record.get(self.at..) {
            let Some(end) = memchr2(b'"', b'\\', rest) else {
                self.at = self.record.len();
                break;
            };
            if rest[end] == b'"' {
                self.at += end + 1;
                break;
            }
            self.at += end + 2;
        }
        self.record.get(start..self.at).unwrap_or_default()
    }

    /// Moves behind a value.
    fn skip(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.next() {
            match byte {
                b'"' => _ = self.string(),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                // The end of what is around the value.
                b'}' | b']' | b',' if depth == 0 => return,
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                _ => self.at += 1,
            }
            if depth == 0 && matches!(byte, b'"' | b'}' | b']') {
                return;
            }
        }
    }
}

/// The name that a key has, without its quotes and escapes.
fn key_name(key: &[u8]) -> Cow<'_, str> {
    let inside = key.strip_prefix(b"\"").unwrap_or(key);
    let inside = inside.strip_suffix(b"\"").unwrap_or(inside);
    match memchr(b'\\', inside) {
        Some(_) => sonic_rs::from_slice::<String>(key)
            .unwrap_or_default()
            .into(),
        None => String::from_utf8_lossy(inside),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Field;
    use proptest::prelude::*;

    use super::*;
    use crate::types::json_field;

    fn found(record: &str) -> Vec<String> {
        let known = |name: &str, data_type| Field::new(name, data_type, true);
        let user = DataType::Struct(vec![known("id", DataType::Int64)].into());
        let tags = DataType::List(Arc::new(known("item", user.clone())));
        let fields = vec![
            known("a", DataType::Int64),
            known("user", user),
            known("tags", tags),
            json_field("any"),
        ];
        let mut found = Vec::new();
        new_fields(record.as_bytes(), &fields.into(), &mut |path| {
            found.push(path());
        });
        found
    }

    #[test]
    fn fields_that_are_not_in_the_schema_are_found() {
        for (record, expected) in [
            (r#"{}"#, &[][..]),
            (
                r#" {"a":1, "any":{"x":[1,{"y":2}]}, "user":{"id":1}} "#,
                &[],
            ),
            (r#"{"a":1,"late":2}"#, &["late"]),
            (
                r#"{"late" : {"a":"}"} , "a":1,"new":[[1],"]"]}"#,
                &["late", "new"],
            ),
            (r#"{"user":{"id":1,"name":"\"}"},"a":2}"#, &["user.name"]),
            (r#"{"user":null,"a":-1.5e3,"x":true}"#, &["x"]),
            (
                r#"{"tags":[{"id":1},{"k":2},null],"b":1}"#,
                &["tags.k", "b"],
            ),
            (r#"{"tags":[],"user":5,"\u0061":1,"q\"q":2}"#, &["q\"q"]),
            (r#"{"tags":{"id":1},"é":1}"#, &["é"]),
            ("", &[]),
            ("{", &[]),
            (r#"{"a"#, &[]),
            (r#"{"tags":[}"#, &[]),
        ] {
            assert_eq!(found(record), expected, "{record}");
        }
    }

    proptest! {
        #[test]
        fn any_string_is_read_to_an_end(
            record in r#"\{([{}\[\]:,"\\ 1]|"tags":|"user":\{|"a":){0,30}"#,
        ) {
            found(&record);
        }
    }
}
