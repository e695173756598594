//! Calls of the functions of lists: their arguments as JSON.

use arrow::datatypes::DataType;
use pseidon_dsl::{Diagnostic, Span};

use super::{ListFunction, OfList};
use crate::operand::Operand;
use crate::scalar::own_call;
use crate::types::is_text;

/// The call of a function of lists. `None` if it does not accept the arguments.
pub(in crate::function) fn of_list(
    function: ListFunction,
    args: &[Operand],
    span: Span,
) -> Result<Option<Operand>, Diagnostic> {
    let Some(args) = arguments(function, args)? else {
        return Ok(None);
    };
    let physical = args.into_iter().map(|arg| arg.physical).collect();
    let call = own_call(OfList::new(function), physical, function.result());
    Operand::computed(call, function.result(), span).map(Some)
}

/// The arguments as JSON; strings where they are not compared. `None` if they are not valid.
fn arguments(known: ListFunction, args: &[Operand]) -> Result<Option<Vec<Operand>>, Diagnostic> {
    let Some((list, others)) = args.split_first() else {
        return Ok(None);
    };
    let item = item_type(&list.data_type);
    let is_valid = match known {
        ListFunction::Length => others.is_empty(),
        ListFunction::Contains | ListFunction::Position => others.len() == 1,
        ListFunction::Join => matches!(others.len(), 1 | 2) && others.iter().all(is_string),
    };
    if !is_valid || !(list.json || item.is_some() || list.is_null()) {
        return Ok(None);
    }
    let mut values = vec![list.clone().into_json()?];
    for other in others {
        let other = other.clone();
        values.push(match (known, item) {
            (ListFunction::Join, _) => other.cast(&DataType::Utf8)?,
            // A string that is compared with times is one.
            (_, Some(item)) if item.is_temporal() && is_text(&other.data_type) => {
                other.cast(item)?.into_json()?
            }
            _ => other.into_json()?,
        });
    }
    Ok(Some(values))
}

fn is_string(arg: &Operand) -> bool {
    arg.json || arg.is_null() || is_text(&arg.data_type)
}

/// The type of the elements of lists of this type.
pub(in crate::function) fn item_type(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            Some(item.data_type())
        }
        _ => None,
    }
}
