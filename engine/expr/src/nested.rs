//! Access to fields of structs and elements of lists.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, GenericListArray, OffsetSizeTrait, UInt64Array,
};
use arrow::compute::{nullif, take};
use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result, exec_datafusion_err};
use pseidon_dsl::expr::PathStep;

use crate::scalar::ColumnFunction;

/// The field that a path step leads to. `None` if the type does not have this field or element.
pub(crate) fn part_of(data_type: &DataType, step: &PathStep) -> Option<FieldRef> {
    match (data_type, step) {
        (DataType::Struct(fields), PathStep::Field(name)) => {
            fields.iter().find(|field| field.name() == name).cloned()
        }
        (
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _),
            PathStep::Index(_),
        ) => Some(Arc::clone(item)),
        _ => None,
    }
}

/// A function that takes one path step into nested values. The result is NULL where the outer value
/// is NULL or the list is too short.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct NestedPart {
    step: PathStep,
    result: DataType,
}

impl NestedPart {
    /// `result` is the type of the result of [`part_of`] for `step`.
    pub(crate) fn new(step: &PathStep, result: DataType) -> NestedPart {
        NestedPart {
            step: step.clone(),
            result,
        }
    }
}

impl ColumnFunction for NestedPart {
    const NAME: &'static str = "part";

    fn result(&self) -> DataType {
        self.result.clone()
    }

    fn call(&self, outer: &ArrayRef) -> Result<ArrayRef> {
        match &self.step {
            PathStep::Field(name) => field(outer, name),
            PathStep::Index(index) => element(outer, *index as usize),
        }
    }
}

fn field(outer: &ArrayRef, name: &str) -> Result<ArrayRef> {
    let outer = outer.as_struct_opt().ok_or_else(|| {
        exec_datafusion_err!("cannot get field {name}: the value is not a struct")
    })?;
    let inner = outer
        .column_by_name(name)
        .ok_or_else(|| exec_datafusion_err!("the struct has no field {name}"))?;
    match outer.nulls() {
        // The fields of a NULL struct can have any value.
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
    let list = outer.as_fixed_size_list_opt().ok_or_else(|| {
        exec_datafusion_err!("cannot get element [{index}]: the value is not a list")
    })?;
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
