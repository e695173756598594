//! Fields of structs and elements of lists.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, GenericListArray, OffsetSizeTrait, UInt64Array,
};
use arrow::compute::{nullif, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, exec_datafusion_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use pseidon_dsl::expr::Step;

/// What a step leads to; none where a value of this type has no such part.
pub(crate) fn part_of(data_type: &DataType, step: &Step) -> Option<FieldRef> {
    match (data_type, step) {
        (DataType::Struct(fields), Step::Field(name)) => {
            fields.iter().find(|field| field.name() == name).cloned()
        }
        (
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _),
            Step::Index(_),
        ) => Some(Arc::clone(item)),
        _ => None,
    }
}

/// One step into nested values. NULL where the outer value is NULL or the list is shorter.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Part {
    step: Step,
    field: FieldRef,
    signature: Signature,
}

impl Part {
    /// `field` is what [`part_of`] gave.
    pub(crate) fn new(step: &Step, field: &Field) -> Part {
        let field = Arc::new(field.clone().with_nullable(true));
        Part {
            step: step.clone(),
            field,
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Part {
    fn name(&self) -> &str {
        "part"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [outer] = arrays.as_slice() else {
            return Err(exec_datafusion_err!(
                "one nested value is needed, not {}",
                arrays.len()
            ));
        };
        let part = match &self.step {
            Step::Field(name) => field(outer, name)?,
            Step::Index(index) => element(outer, *index as usize)?,
        };
        Ok(ColumnarValue::Array(part))
    }
}

fn field(outer: &ArrayRef, name: &str) -> Result<ArrayRef> {
    let outer = outer
        .as_struct_opt()
        .ok_or_else(|| exec_datafusion_err!("{name} is looked for in what is no struct"))?;
    let inner = outer
        .column_by_name(name)
        .ok_or_else(|| exec_datafusion_err!("the struct has no field {name}"))?;
    match outer.nulls() {
        // Below a struct that is NULL there may be any value.
        Some(nulls) if nulls.null_count() > 0 => {
            Ok(nullif(inner, &BooleanArray::new(!nulls.inner(), None))?)
        }
        _ => Ok(Arc::clone(inner)),
    }
}

fn element(outer: &ArrayRef, index: usize) -> Result<ArrayRef> {
    if let Some(list) = outer.as_list_opt::<i32>() {
        return list_element(list, index);
    }
    if let Some(list) = outer.as_list_opt::<i64>() {
        return list_element(list, index);
    }
    let list = outer
        .as_fixed_size_list_opt()
        .ok_or_else(|| exec_datafusion_err!("[{index}] is looked for in what is no list"))?;
    let length = list.value_length() as usize;
    let places = (0..list.len())
        .map(|row| (list.is_valid(row) && index < length).then(|| (row * length + index) as u64));
    Ok(take(list.values(), &places.collect::<UInt64Array>(), None)?)
}

fn list_element<O: OffsetSizeTrait>(list: &GenericListArray<O>, index: usize) -> Result<ArrayRef> {
    let places = list.offsets().windows(2).enumerate().map(|(row, ends)| {
        let (start, end) = (ends[0].as_usize(), ends[1].as_usize());
        (list.is_valid(row) && index < end - start).then(|| (start + index) as u64)
    });
    Ok(take(list.values(), &places.collect::<UInt64Array>(), None)?)
}
