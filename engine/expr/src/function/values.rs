//! Functions of lists and of JSON, which accept values of any type, and of none.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field};
use datafusion_common::{Result, exec_datafusion_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use pseidon_dsl::{Diagnostic, Span};

use super::lists::{ListFunction, of_list};
use crate::operand::Operand;
use crate::scalar::own_call;

/// A function, as users read about it.
pub(super) struct ValueFunction {
    pub(super) name: &'static str,
    pub(super) other_names: &'static [&'static str],
    pub(super) syntax: &'static str,
    pub(super) description: &'static str,
    /// A call and its value.
    pub(super) example: (&'static str, &'static str),
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    OfList(ListFunction),
    Split,
    ParseJson,
    ToJson,
}

/// All of them.
pub(super) const FUNCTIONS: [ValueFunction; 7] = [
    ValueFunction {
        name: "array_length",
        other_names: &["cardinality", "json_array_length", "list_length"],
        syntax: "array_length(list)",
        description: "Returns the number of elements of a list.",
        example: ("array_length(parse_json('[1, null, 2]'))", "3"),
        kind: Kind::OfList(ListFunction::Length),
    },
    ValueFunction {
        name: "list_contains",
        other_names: &["array_contains", "array_has", "list_has"],
        syntax: "list_contains(list, value)",
        description: "Returns whether a list has an element that equals the value.",
        example: ("list_contains(parse_json('[1, 2]'), 2)", "true"),
        kind: Kind::OfList(ListFunction::Contains),
    },
    ValueFunction {
        name: "array_position",
        other_names: &["list_position"],
        syntax: "array_position(list, value)",
        description: "Returns the position of the first element that equals the value, from 1, or \
                      NULL.",
        example: ("array_position(parse_json('[\"a\", \"b\"]'), 'b')", "2"),
        kind: Kind::OfList(ListFunction::Position),
    },
    ValueFunction {
        name: "array_to_string",
        other_names: &["array_join", "list_to_string"],
        syntax: "array_to_string(list, separator[, null_text])",
        description: "Returns the elements of a list as a string, with the separator between them. \
                      Elements that are NULL are left out, or replaced by the last argument.",
        example: ("array_to_string(parse_json('[1, \"b\"]'), '-')", "1-b"),
        kind: Kind::OfList(ListFunction::Join),
    },
    ValueFunction {
        name: "string_to_array",
        other_names: &["split", "string_split", "string_to_list"],
        syntax: "string_to_array(string, separator)",
        description: "Returns the parts of a string as a list.",
        example: ("string_to_array('a,b', ',')", "[a, b]"),
        kind: Kind::Split,
    },
    ValueFunction {
        name: "parse_json",
        other_names: &[],
        syntax: "parse_json(string)",
        description: "Returns the JSON value in a string, which the next stage can name fields of. \
                      A string that is not JSON makes its record invalid. A cast of a `utf8` to \
                      `json` is the same.",
        example: ("parse_json('{\"a\": 1}')", "{\"a\": 1}"),
        kind: Kind::ParseJson,
    },
    ValueFunction {
        name: "to_json",
        other_names: &[],
        syntax: "to_json(value)",
        description: "Returns a value as JSON.",
        example: ("to_json('a')", "\"a\""),
        kind: Kind::ToJson,
    },
];

/// The names of all of them.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let others = FUNCTIONS.iter().flat_map(|function| function.other_names);
    let names = FUNCTIONS.iter().map(|function| function.name);
    names.chain(others.copied())
}

/// Whether there is one with this name.
pub(crate) fn is_of_values(name: &str) -> bool {
    names().any(|known| known == name)
}

/// Compiles a call of one of them.
pub(crate) fn call_of_values(
    name: &str,
    args: Vec<Operand>,
    span: Span,
) -> Result<Operand, Diagnostic> {
    let is_named = |known: &&ValueFunction| known.name == name || known.other_names.contains(&name);
    let function = FUNCTIONS.iter().find(is_named);
    let compiled = match (function.map(|function| function.kind), args.as_slice()) {
        (Some(Kind::OfList(function)), args) => of_list(function, args, span)?,
        (Some(Kind::Split), [text, by]) => Some(split(text, by, span)?),
        (Some(Kind::ParseJson), [text]) => Some(text.clone().parse_json(false)?),
        (Some(Kind::ToJson), [value]) => Some(value.clone().into_json()?),
        _ => None,
    };
    compiled.ok_or_else(|| {
        let types: Vec<String> = args.iter().map(Operand::type_name).collect();
        let message = format!("`{name}` does not accept ({})", types.join(", "));
        let error = Diagnostic::new(span, message, "invalid argument types");
        match function {
            Some(function) => error.with_help(format!("usage: {}", function.syntax)),
            None => error,
        }
    })
}

fn split(text: &Operand, by: &Operand, span: Span) -> Result<Operand, Diagnostic> {
    let (text, by) = (text.clone(), by.clone());
    let (text, by) = (text.text("string_to_array")?, by.text("string_to_array")?);
    let function = Split::new();
    let result = function.list.clone();
    let call = own_call(function, vec![text.physical, by.physical], result.clone());
    Operand::computed(call, result, span)
}

/// A function that returns the parts of a string between separators.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Split {
    list: DataType,
    signature: Signature,
}

impl Split {
    fn new() -> Split {
        Split {
            list: DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
            signature: Signature::any(2, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Split {
    fn name(&self) -> &str {
        "string_to_array"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.list.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [texts, separators] = args.args.as_slice() else {
            return Err(exec_datafusion_err!("expected a string and a separator"));
        };
        let texts = texts.to_array(args.number_rows)?;
        let separators = separators.to_array(args.number_rows)?;
        let pairs = texts.as_string::<i32>().iter();
        let mut lists = ListBuilder::new(StringBuilder::new());
        for (text, by) in pairs.zip(separators.as_string::<i32>()) {
            let Some((text, by)) = text.zip(by) else {
                lists.append_null();
                continue;
            };
            match by {
                "" => lists.values().append_value(text),
                by => text
                    .split(by)
                    .for_each(|part| lists.values().append_value(part)),
            }
            lists.append(true);
        }
        let lists: ArrayRef = Arc::new(lists.finish());
        Ok(ColumnarValue::Array(lists))
    }
}
