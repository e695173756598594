//! `struct` and `named_struct` of values without a known type, which stay JSON inside of the struct.
//!
//! DataFusion's functions would be called with their text, so that a number became a string.

use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::{DataType, Fields};
use datafusion_common::{Result, ScalarValue, exec_datafusion_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use pseidon_dsl::{Diagnostic, Span};

use crate::operand::{Operand, field_of};
use crate::scalar::own_call;

/// The call of `struct` or `named_struct` if it has a JSON value. `None` for any other call.
pub(super) fn json_struct(
    function: &str,
    args: &[Operand],
    span: Span,
) -> Option<Result<Operand, Diagnostic>> {
    let named: Vec<(String, &Operand)> = match function {
        "struct" => args
            .iter()
            .enumerate()
            .map(|(at, arg)| (format!("c{at}"), arg))
            .collect(),
        "named_struct" => args.chunks(2).map(named_value).collect::<Option<_>>()?,
        _ => return None,
    };
    if !named.iter().any(|(_, value)| value.json) {
        return None;
    }
    let fields: Fields = named
        .iter()
        .map(|(name, value)| field_of(name, value))
        .collect();
    let values = named.iter().map(|(_, value)| value.physical.clone());
    let data_type = DataType::Struct(fields.clone());
    let call = own_call(JsonStruct::new(fields), values.collect(), data_type.clone());
    Some(Operand::computed(call, data_type, span))
}

/// The name and the value of a field. `None` if there is no value or the name is not a constant.
fn named_value(pair: &[Operand]) -> Option<(String, &Operand)> {
    let [name, value] = pair else { return None };
    match name.as_literal()? {
        ScalarValue::Utf8(Some(name)) => Some((name.clone(), value)),
        _ => None,
    }
}

/// A function that returns its arguments as a struct.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonStruct {
    fields: Fields,
    signature: Signature,
}

impl JsonStruct {
    fn new(fields: Fields) -> JsonStruct {
        JsonStruct {
            signature: Signature::any(fields.len(), Volatility::Immutable),
            fields,
        }
    }
}

impl ScalarUDFImpl for JsonStruct {
    fn name(&self) -> &str {
        "json_struct"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(self.fields.clone()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = args.args.iter().map(|arg| arg.to_array(args.number_rows));
        let values: Vec<ArrayRef> = values.collect::<Result<_>>()?;
        if values.len() != self.fields.len() {
            return Err(exec_datafusion_err!("expected a value for each field"));
        }
        let structs = StructArray::try_new(self.fields.clone(), values, None)?;
        let structs: ArrayRef = Arc::new(structs);
        Ok(ColumnarValue::Array(structs))
    }
}
