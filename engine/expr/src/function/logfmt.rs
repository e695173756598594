//! `logfmt`: the pairs `key=value` of a string, as a JSON object.
//!
//! A value in quotes has the escapes of Go's strings, which the libraries for logfmt write. Values are
//! strings; a key without `=` is `true`. If a key is repeated, its first value counts, as in JSON.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, StringBuilder};
use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result, exec_datafusion_err};
use datafusion_expr::{
    ColumnarValue, DocSection, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl,
    Signature, Volatility,
};

use crate::types::json_field;

const SECTION: DocSection = DocSection {
    include: true,
    label: "String Functions",
    description: None,
};

const EXAMPLE: &str = "\
> select logfmt('level=info msg=\"it works\" took=3ms retry');
+------------------------------------------------------------------+
| value                                                            |
+------------------------------------------------------------------+
| {\"level\":\"info\",\"msg\":\"it works\",\"took\":\"3ms\",\"retry\":true} |
+------------------------------------------------------------------+
";

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "Returns the pairs `key=value` of a string as a JSON object of strings. A key without `=` is \
         `true`. A string without a pair, or with a quote that is not closed, makes its record \
         invalid.",
        "logfmt(str)",
    )
    .with_sql_example(EXAMPLE)
    .build()
});

/// `logfmt(string)`
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Logfmt {
    signature: Signature,
}

impl Logfmt {
    pub(super) fn new() -> Logfmt {
        Logfmt {
            signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Logfmt {
    fn name(&self) -> &str {
        "logfmt"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(json_field(self.name())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [texts] = args.args.as_slice() else {
            return Err(exec_datafusion_err!("expected a string"));
        };
        let texts = texts.to_array(args.number_rows)?;
        let (mut objects, mut object) = (StringBuilder::new(), String::new());
        for text in texts.as_string::<i32>() {
            let Some(text) = text else {
                objects.append_null();
                continue;
            };
            object.clear();
            write_object(text, &mut object).map_err(|reason| exec_datafusion_err!("{reason}"))?;
            objects.append_value(&object);
        }
        Ok(ColumnarValue::Array(Arc::new(objects.finish())))
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&DOCUMENTATION)
    }
}

/// Appends the pairs of a string as a JSON object. An error says why it has none.
fn write_object(text: &str, out: &mut String) -> std::result::Result<(), &'static str> {
    let (mut rest, mut keys, mut has_value) = (text.trim(), Vec::new(), false);
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace());
        let key = &rest[..end.unwrap_or(rest.len())];
        if key.is_empty() || key.contains('"') {
            return Err("the string is not logfmt: expected pairs such as key=value");
        }
        rest = &rest[key.len()..];
        let mut value = None;
        if let Some(behind) = rest.strip_prefix('=') {
            let (found, after) = value_of(behind)?;
            (value, rest, has_value) = (Some(found), after, true);
        }
        rest = rest.trim_start();
        if keys.contains(&key) {
            continue;
        }
        out.push(if keys.is_empty() { '{' } else { ',' });
        push_string(key, out);
        out.push(':');
        match value {
            Some(value) => push_string(&value, out),
            None => out.push_str("true"),
        }
        keys.push(key);
    }
    if !has_value {
        return Err("the string has no pair key=value");
    }
    out.push('}');
    Ok(())
}

/// The value at the beginning of a string, and what follows it.
fn value_of(text: &str) -> std::result::Result<(Cow<'_, str>, &str), &'static str> {
    let Some(content) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        return Ok((text[..end].into(), &text[end..]));
    };
    let mut is_escaped = false;
    let end = content.find(|c| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    });
    let end = end.ok_or("a quote of the string is not closed")?;
    let (value, rest) = (&content[..end], &content[end + 1..]);
    if !rest.is_empty() && !rest.starts_with(char::is_whitespace) {
        return Err("a character follows a closing quote of the string");
    }
    Ok((unescaped(value), rest))
}

/// A value without its escapes. An escape that is unknown stays.
fn unescaped(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return value.into();
    }
    let (mut out, mut rest) = (String::with_capacity(value.len()), value);
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let (found, len) = escape(after).unwrap_or(('\\', 0));
        out.push(found);
        rest = &after[len..];
    }
    out.push_str(rest);
    out.into()
}

/// The character of an escape behind its backslash, and the bytes that it has there.
fn escape(text: &str) -> Option<(char, usize)> {
    let digits = |count: usize| {
        let code = u32::from_str_radix(text.get(1..=count)?, 16).ok()?;
        Some((char::from_u32(code)?, 1 + count))
    };
    match text.as_bytes().first()? {
        b'n' => Some(('\n', 1)),
        b't' => Some(('\t', 1)),
        b'r' => Some(('\r', 1)),
        b'"' => Some(('"', 1)),
        b'\\' => Some(('\\', 1)),
        b'u' => digits(4),
        b'U' => digits(8),
        b'x' => digits(2).filter(|(c, _)| c.is_ascii()),
        _ => None,
    }
}

fn push_string(text: &str, out: &mut String) {
    // Writing a string as JSON cannot fail.
    out.push_str(&sonic_rs::to_string(text).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(text: &str) -> std::result::Result<String, &'static str> {
        let mut out = String::new();
        write_object(text, &mut out).map(|()| out)
    }

    #[test]
    fn pairs_become_an_object_of_strings() {
        for (text, expected) in [
            ("a=1", r#"{"a":"1"}"#),
            (
                r#" level=info  msg="it \"works\"" empty= debug n=007 "#,
                r#"{"level":"info","msg":"it \"works\"","empty":"","debug":true,"n":"007"}"#,
            ),
            ("a=1 a=2 b=x=y", r#"{"a":"1","b":"x=y"}"#),
            (
                r#"a="" b="x y" c="\\" d=\n"#,
                r#"{"a":"","b":"x y","c":"\\","d":"\\n"}"#,
            ),
            (r#"a="\n\t\u00e9\x41\d\u12""#, r#"{"a":"\n\téA\\d\\u12"}"#),
            ("ä=ü\tb=\u{1f600}", "{\"ä\":\"ü\",\"b\":\"\u{1f600}\"}"),
        ] {
            assert_eq!(object(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "hello world",
            "=1",
            "a=\"b",
            "a=\"b\"c",
            "\"a\"=1",
            "a=\"\\\"",
        ] {
            assert!(object(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_string_is_an_object_or_refused(text in r#"(?s)([a= "\\nux041\t]|\PC|.){0,40}"#) {
            if let Ok(object) = object(&text) {
                let object: sonic_rs::Value = sonic_rs::from_str(&object).unwrap();
                prop_assert!(sonic_rs::JsonValueTrait::is_object(&object));
            }
        }
    }
}
