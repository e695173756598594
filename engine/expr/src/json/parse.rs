//! Strings that contain JSON.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion_common::{Result, exec_datafusion_err};
use pseidon_dsl::printable::beginning;
use sonic_rs::Value;

use super::{MAX_SHOWN, map_texts};
use crate::scalar::ColumnFunction;

/// A function that checks that strings are JSON, and returns them as JSON values.
///
/// # Errors
/// A string is not JSON. With `is_try`, it becomes NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct JsonParse {
    pub(crate) is_try: bool,
}

impl ColumnFunction for JsonParse {
    const NAME: &'static str = "json_parse";

    fn result(&self) -> DataType {
        DataType::Utf8
    }

    fn call(&self, values: &ArrayRef) -> Result<ArrayRef> {
        map_texts(values, |text, out| {
            match sonic_rs::from_str::<Value>(text) {
                Ok(_) if text.contains(['\n', '\r']) => out.append_value(on_one_line(text)),
                Ok(_) => out.append_value(text.trim_ascii()),
                Err(_) if self.is_try => out.append_null(),
                Err(_) => {
                    let text = beginning(text, MAX_SHOWN);
                    return Err(exec_datafusion_err!("'{text}' is not JSON"));
                }
            }
            Ok(())
        })
    }
}

/// Valid JSON without the white space between its tokens: a record is a line.
fn on_one_line(json: &str) -> String {
    let (mut in_string, mut is_escaped) = (false, false);
    let is_kept = |next: &char| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match next {
            '"' if !was_escaped => in_string = !in_string,
            '\\' if in_string => is_escaped = !was_escaped,
            _ => {}
        }
        in_string || !next.is_ascii_whitespace()
    };
    json.chars().filter(is_kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_between_tokens_are_removed() {
        let json = "{\n  \"a b\": [1, \"\\\\\", \"\\\" \"],\r\n\"c\": null }";
        let expected = r#"{"a b":[1,"\\","\" "],"c":null}"#;
        assert_eq!(on_one_line(json), expected);
    }
}
