//! `regexp_match`: the groups of the first match of a regular expression.
//!
//! A group that took no part in the match is NULL, as in PostgreSQL, so that each group keeps its
//! place in the list. DataFusion's function leaves it out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field};
use datafusion_common::{Result, exec_datafusion_err};
use datafusion_expr::{
    ColumnarValue, DocSection, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};
use regex::Regex;

/// The group of the functions of regular expressions, as DataFusion names it.
pub(super) const SECTION: DocSection = DocSection {
    include: true,
    label: "Regular Expression Functions",
    description: None,
};

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "Returns the groups of the first match.",
        "regexp_match(str, regexp[, flags])",
    )
    .build()
});

/// `regexp_match(string, pattern[, flags])`
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct RegexpMatch {
    signature: Signature,
}

impl RegexpMatch {
    pub(super) fn new() -> RegexpMatch {
        let strings = |count| TypeSignature::Exact(vec![DataType::Utf8; count]);
        RegexpMatch {
            signature: Signature::one_of(vec![strings(2), strings(3)], Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for RegexpMatch {
    fn name(&self) -> &str {
        "regexp_match"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(
            DataType::Utf8,
            true,
        ))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args
            .args
            .iter()
            .map(|arg| arg.to_array(args.number_rows))
            .collect::<Result<Vec<_>>>()?;
        let strings: Vec<&StringArray> = arrays
            .iter()
            .filter_map(|array| array.as_string_opt())
            .collect();
        let (text, pattern, flags) = match strings.as_slice() {
            [text, pattern] => (text, pattern, None),
            [text, pattern, flags] => (text, pattern, Some(flags)),
            _ => return Err(exec_datafusion_err!("expected two or three strings")),
        };
        let mut patterns = Patterns::default();
        let mut lists = ListBuilder::new(StringBuilder::new());
        for row in 0..text.len() {
            let is_null = text.is_null(row)
                || pattern.is_null(row)
                || flags.is_some_and(|flags| flags.is_null(row));
            if is_null {
                lists.append_null();
                continue;
            }
            let flags = flags.map_or("", |flags| flags.value(row));
            let regex = patterns.get(pattern.value(row), flags)?;
            append_groups(regex, text.value(row), &mut lists);
        }
        let lists: ArrayRef = Arc::new(lists.finish());
        Ok(ColumnarValue::Array(lists))
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&DOCUMENTATION)
    }
}

/// Appends the groups of the first match, or the whole match if the pattern has no group, or NULL
/// if there is no match.
fn append_groups(regex: &Regex, text: &str, lists: &mut ListBuilder<StringBuilder>) {
    let Some(found) = regex.captures(text) else {
        lists.append_null();
        return;
    };
    let from = usize::from(found.len() > 1);
    for group in found.iter().skip(from) {
        lists
            .values()
            .append_option(group.map(|group| group.as_str()));
    }
    lists.append(true);
}

/// Compiled patterns, by the pattern and its flags: most batches have only one.
#[derive(Default)]
struct Patterns<'a>(HashMap<(&'a str, &'a str), Regex>);

impl<'a> Patterns<'a> {
    fn get(&mut self, pattern: &'a str, flags: &'a str) -> Result<&Regex> {
        match self.0.entry((pattern, flags)) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(unknown) => {
                let text = if flags.is_empty() {
                    pattern.to_owned()
                } else {
                    format!("(?{flags}){pattern}")
                };
                let regex = Regex::new(&text)
                    .map_err(|_| exec_datafusion_err!("invalid regular expression '{text}'"))?;
                Ok(unknown.insert(regex))
            }
        }
    }
}
