//! `regexp_groups`: the named groups of the first match of a regular expression, as a struct.
//!
//! A group that took no part in the match is NULL. A string without a match is an error of its
//! record.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion_common::{Result, ScalarValue, exec_datafusion_err, exec_err};
use datafusion_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature,
    Volatility,
};
use parking_lot::RwLock;
use pseidon_dsl::Diagnostic;
use regex::Regex;

use super::regexp_match::SECTION;
use crate::operand::Operand;

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "Returns the named groups of the first match as a struct. A string that does not match makes \
         its record invalid.",
        "regexp_groups(str, regexp)",
    )
    .with_sql_example(EXAMPLE)
    .build()
});

const EXAMPLE: &str = "\
> select regexp_groups('a=1', '(?<key>[a-z]+)=(?<value>[0-9]+)');
+--------------------+
| value              |
+--------------------+
| {key: a, value: 1} |
+--------------------+
";

/// `regexp_groups(string, pattern)`
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct RegexpGroups {
    signature: Signature,
}

impl RegexpGroups {
    pub(super) const NAME: &str = "regexp_groups";

    pub(super) fn new() -> RegexpGroups {
        let strings = vec![DataType::Utf8, DataType::Utf8];
        RegexpGroups {
            signature: Signature::exact(strings, Volatility::Immutable),
        }
    }
}

/// The names of the groups of a pattern.
fn names(regex: &Regex) -> impl Iterator<Item = &str> {
    regex.capture_names().flatten()
}

fn fields(regex: &Regex) -> Fields {
    names(regex)
        .map(|name| Field::new(name, DataType::Utf8, true))
        .collect()
}

/// Checks that the pattern of a call has a named group.
pub(super) fn check_groups(args: &[Operand]) -> Result<(), Diagnostic> {
    let Some(pattern) = args.get(1) else {
        return Ok(());
    };
    let Some(ScalarValue::Utf8(Some(text))) = pattern.as_literal() else {
        return Ok(());
    };
    match compiled(text) {
        Ok(regex) if names(&regex).next().is_none() => {
            let message = "the pattern of `regexp_groups` has no named group";
            Err(Diagnostic::new(
                pattern.span,
                message,
                "expected (?<name>…)",
            ))
        }
        _ => Ok(()),
    }
}

impl ScalarUDFImpl for RegexpGroups {
    fn name(&self) -> &str {
        RegexpGroups::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        exec_err!("the type depends on the pattern")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let pattern = match args.scalar_arguments.get(1).copied().flatten() {
            Some(ScalarValue::Utf8(Some(pattern))) => pattern,
            _ => return exec_err!("the pattern must be a constant"),
        };
        let regex = compiled(pattern)?;
        let data_type = DataType::Struct(fields(&regex));
        Ok(Arc::new(Field::new(self.name(), data_type, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [
            texts,
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(pattern))),
        ] = args.args.as_slice()
        else {
            return exec_err!("expected a string and a constant pattern");
        };
        let texts = texts.to_array(args.number_rows)?;
        let texts = texts.as_string::<i32>();
        let regex = compiled(pattern)?;
        let names: Vec<&str> = names(&regex).collect();
        let mut groups: Vec<StringBuilder> = names.iter().map(|_| StringBuilder::new()).collect();
        for text in texts {
            let found = text.map(|text| regex.captures(text).ok_or_else(no_match));
            let found = found.transpose()?;
            for (name, values) in names.iter().zip(&mut groups) {
                let group = found.as_ref().and_then(|found| found.name(name));
                values.append_option(group.map(|group| group.as_str()));
            }
        }
        let columns = groups.iter_mut().map(|values| {
            let column: ArrayRef = Arc::new(values.finish());
            column
        });
        let nulls = texts.nulls().cloned();
        let groups = StructArray::try_new(fields(&regex), columns.collect(), nulls)?;
        Ok(ColumnarValue::Array(Arc::new(groups)))
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&DOCUMENTATION)
    }
}

/// How many compiled patterns are kept: those of the pipelines of the process, which are constants.
const MAX_COMPILED: usize = 1000;

/// The patterns that were compiled, since a batch with invalid rows is evaluated in many parts. They
/// are shared: a clone of a [`Regex`] has no memory to search in, and allocates it again.
static COMPILED: LazyLock<RwLock<HashMap<String, Arc<Regex>>>> = LazyLock::new(RwLock::default);

fn compiled(pattern: &str) -> Result<Arc<Regex>> {
    if let Some(known) = COMPILED.read().get(pattern) {
        return Ok(known.clone());
    }
    let invalid = |_| exec_datafusion_err!("invalid regular expression '{pattern}'");
    let regex = Arc::new(Regex::new(pattern).map_err(invalid)?);
    let mut compiled = COMPILED.write();
    if compiled.len() >= MAX_COMPILED {
        compiled.clear();
    }
    compiled.insert(pattern.to_owned(), regex.clone());
    Ok(regex)
}

fn no_match() -> datafusion_common::DataFusionError {
    exec_datafusion_err!("the string does not match the pattern")
}
