//! One aggregate function with the types of its arguments.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options, nullif};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, FieldRef, Schema,
    SchemaRef,
};
use arrow::error::ArrowError;
use datafusion_common::ScalarValue;
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::{AggregateUDF, GroupsAccumulator};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::GroupsAccumulatorAdapter;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion_physical_expr::expressions::{Column, Literal as LiteralExpr};
use pseidon_dsl::expr::Literal;
use pseidon_dsl::{Diagnostic, nearest};

use super::json::{Fold, JsonFolds};
use super::{AggregateArg, AggregateCall, FUNCTIONS};
use crate::compile::scalar;
use crate::equality::with_equal_bits;
use crate::types::{field_type_name, is_json, json_field};

/// The type in which integers are added, so that no sum of them overflows.
const WIDE_INTEGER: DataType = DataType::Decimal128(20, 0);

/// How many digits more than its values a sum of decimals has at least, as in DataFusion.
const MORE_DIGITS: u8 = 10;

/// The functions whose result is one of the values, which stays what it is.
const KEEP_JSON: [&str; 3] = ["first_value", "last_value", "any_value"];

/// An aggregate function on columns of known types.
#[derive(Debug)]
pub(super) struct Function {
    args: Vec<Argument>,
    kind: Kind,
    /// Whether it finds equal values by their bits.
    is_distinct: bool,
    /// The type of its results.
    pub(super) field: FieldRef,
    /// The columns of a group's state.
    pub(super) state: Vec<FieldRef>,
}

#[derive(Debug)]
enum Kind {
    DataFusion(Box<AggregateFunctionExpr>),
    Json(Fold),
}

#[derive(Debug)]
enum Argument {
    /// A column, which is cast to a type that the function accepts.
    Column {
        number: usize,
        to: DataType,
        is_json: bool,
    },
    Constant(ScalarValue),
}

impl Function {
    /// The function of a call on columns of this schema. `name` is the name of its results.
    pub(super) fn new(
        call: &AggregateCall,
        name: &str,
        schema: &SchemaRef,
    ) -> Result<Function, Diagnostic> {
        let udf = find(call)?;
        let mut call = call.clone();
        if call.args.is_empty() && udf.name() == "count" {
            call.args.push(AggregateArg::Literal(Literal::Int(1)));
        }
        let has_json = call.args.iter().any(|arg| match arg {
            AggregateArg::Column(number) => is_json(schema.field(*number)),
            AggregateArg::Literal(_) => false,
        });
        if has_json && let Some(of_json) = Function::of_json(&call, udf, name, schema)? {
            return Ok(of_json);
        }
        let built = build(&call, udf, name, schema).ok_or_else(|| misuse(&call, udf, schema))?;
        let (args, function) = built;
        let keeps_json = has_json && KEEP_JSON.contains(&udf.name());
        let of_sum = match udf.name() {
            "sum" => only_argument(&call, schema).and_then(type_of_sum),
            _ => None,
        };
        let field = match (keeps_json, of_sum) {
            (true, _) => json_field(name),
            (_, Some(data_type)) => Field::new(name, data_type, true),
            _ => Field::new(name, function.field().data_type().clone(), true),
        };
        let state = function.state_fields();
        Ok(Function {
            is_distinct: call.distinct,
            args,
            field: Arc::new(field),
            state: state.map_err(|_| misuse(&call, udf, schema))?,
            kind: Kind::DataFusion(Box::new(function)),
        })
    }

    /// The function of a call with a JSON value; `None` if DataFusion's can be computed of the
    /// text.
    fn of_json(
        call: &AggregateCall,
        udf: &AggregateUDF,
        name: &str,
        schema: &SchemaRef,
    ) -> Result<Option<Function>, Diagnostic> {
        let fold = match udf.name() {
            "sum" if !call.distinct => Fold::Sum,
            "min" => Fold::Min,
            "max" => Fold::Max,
            "sum" | "array_agg" => {
                let help = format!("cast the argument, for example: {}(x::bigint)", call.name);
                return Err(misuse(call, udf, schema).with_help(help));
            }
            _ => return Ok(None),
        };
        let [AggregateArg::Column(number)] = call.args.as_slice() else {
            return Err(misuse(call, udf, schema));
        };
        Ok(Some(Function {
            is_distinct: false,
            args: vec![Argument::Column {
                number: *number,
                to: DataType::Utf8,
                is_json: true,
            }],
            kind: Kind::Json(fold),
            field: Arc::new(json_field(name)),
            state: vec![Arc::new(json_field("state"))],
        }))
    }

    /// Whether it adds decimals in a wider type than theirs, which its state has too.
    pub(super) fn widens_decimals(&self) -> bool {
        let is_wide = |arg: &Argument| match arg {
            Argument::Column { to, .. } => matches!(to, DataType::Decimal256(..)),
            Argument::Constant(_) => false,
        };
        let of_sum = match &self.kind {
            Kind::DataFusion(function) => function.fun().name() == "sum",
            Kind::Json(_) => false,
        };
        of_sum
            && matches!(self.field.data_type(), DataType::Decimal128(..))
            && self.args.iter().any(is_wide)
    }

    /// Accumulators for any number of groups.
    pub(super) fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>, ArrowError> {
        match &self.kind {
            Kind::Json(fold) => Ok(Box::new(JsonFolds::new(*fold))),
            Kind::DataFusion(function) if self.has_groups(function) => {
                Ok(function.create_groups_accumulator()?)
            }
            Kind::DataFusion(function) => {
                let function = function.clone();
                Ok(Box::new(GroupsAccumulatorAdapter::new(move || {
                    function.create_accumulator()
                })))
            }
        }
    }

    /// Whether DataFusion computes the function for all groups at once. It says so of the different
    /// values of `bit_xor` too, but computes it of all values then.
    fn has_groups(&self, function: &AggregateFunctionExpr) -> bool {
        let is_wrong = function.is_distinct() && function.fun().name() == "bit_xor";
        function.groups_accumulator_supported() && !is_wrong
    }

    /// The values of the arguments for these rows.
    pub(super) fn arguments(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>, ArrowError> {
        let values = |arg: &Argument| match arg {
            Argument::Constant(value) => Ok(value.to_array_of_size(rows.num_rows())?),
            Argument::Column {
                number,
                to,
                is_json,
            } => {
                let column = rows.column(*number);
                if *is_json {
                    return without_json_null(column);
                }
                let column = cast(column, to)?;
                Ok(match self.is_distinct {
                    true => with_equal_bits(&column),
                    false => column,
                })
            }
        };
        self.args.iter().map(values).collect()
    }

    /// Results in the type of [`Function::field`]. If a sum does not fit into it, all are returned
    /// in the type in which they were added, and the record of that group is invalid.
    pub(super) fn results(&self, values: &ArrayRef) -> ArrayRef {
        cast(values, self.field.data_type()).unwrap_or_else(|_| values.clone())
    }
}

fn cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(column, to, &options)
}

/// JSON values, with NULL for `null`.
fn without_json_null(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let texts = column.as_string::<i32>();
    let is_null: BooleanArray = texts
        .iter()
        .map(|text| text.map(|text| text.trim() == "null"))
        .collect();
    if is_null.true_count() == 0 {
        return Ok(column.clone());
    }
    nullif(column, &is_null)
}

fn find(call: &AggregateCall) -> Result<&'static Arc<AggregateUDF>, Diagnostic> {
    FUNCTIONS.get(&call.name).ok_or_else(|| {
        let message = format!("unknown aggregate function `{}`", call.name);
        let error = Diagnostic::new(call.span, message, "not an aggregate function");
        match nearest(&call.name, FUNCTIONS.keys().map(String::as_str)) {
            Some(near) => error.with_help(format!("did you mean `{near}`?")),
            None => error,
        }
    })
}

/// The type of the only argument.
fn only_argument<'s>(call: &AggregateCall, schema: &'s Schema) -> Option<&'s DataType> {
    match call.args.as_slice() {
        [AggregateArg::Column(number)] => Some(schema.field(*number).data_type()),
        _ => None,
    }
}

/// The type of a sum of values of this type, if they are added in a wider one.
fn type_of_sum(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::UInt64 => Some(DataType::UInt64),
        integer if integer.is_integer() => Some(DataType::Int64),
        DataType::Decimal128(precision, scale) => {
            let precision = (precision + MORE_DIGITS).min(DECIMAL128_MAX_PRECISION);
            Some(DataType::Decimal128(precision, *scale))
        }
        _ => None,
    }
}

/// The type in which values of this type are added. DataFusion's sum of decimals wraps around.
fn added_as(data_type: DataType) -> DataType {
    match data_type {
        integer if integer.is_integer() => WIDE_INTEGER,
        DataType::Decimal128(_, scale) => DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale),
        _ => data_type,
    }
}

/// The function with its arguments in types that it accepts. `None` if it accepts none like them.
fn build(
    call: &AggregateCall,
    udf: &Arc<AggregateUDF>,
    name: &str,
    schema: &SchemaRef,
) -> Option<(Vec<Argument>, AggregateFunctionExpr)> {
    let given: Vec<FieldRef> = call
        .args
        .iter()
        .map(|arg| match arg {
            AggregateArg::Column(number) => schema.field(*number).data_type().clone(),
            AggregateArg::Literal(literal) => scalar(literal).data_type(),
        })
        .map(|data_type| match udf.name() {
            "sum" => added_as(data_type),
            _ => data_type,
        })
        .map(|data_type| Arc::new(Field::new("argument", data_type, true)) as FieldRef)
        .collect();
    let wanted = fields_with_udf(&given, udf.as_ref()).ok()?;
    let mut args = Vec::new();
    let mut physical: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
    for (at, (arg, field)) in call.args.iter().zip(&wanted).enumerate() {
        let to = field.data_type().clone();
        match arg {
            AggregateArg::Column(number) => {
                args.push(Argument::Column {
                    number: *number,
                    to,
                    is_json: is_json(schema.field(*number)),
                });
                physical.push(Arc::new(Column::new("argument", at)));
            }
            AggregateArg::Literal(literal) => {
                let value = scalar(literal).cast_to(&to).ok()?;
                args.push(Argument::Constant(value.clone()));
                physical.push(Arc::new(LiteralExpr::new(value)));
            }
        }
    }
    let columns: Vec<FieldRef> = wanted
        .iter()
        .map(|field| Arc::new(Field::new("argument", field.data_type().clone(), true)) as FieldRef)
        .collect();
    let function = AggregateExprBuilder::new(udf.clone(), physical)
        .schema(Arc::new(Schema::new(columns)))
        .alias(name)
        .with_distinct(call.distinct)
        .build()
        .ok()?;
    function.create_accumulator().ok()?;
    Some((args, function))
}

fn misuse(call: &AggregateCall, udf: &AggregateUDF, schema: &Schema) -> Diagnostic {
    let types: Vec<String> = call
        .args
        .iter()
        .map(|arg| match arg {
            AggregateArg::Column(number) => field_type_name(schema.field(*number)),
            AggregateArg::Literal(literal) => scalar(literal).to_string(),
        })
        .collect();
    let message = format!("`{}` does not accept ({})", call.name, types.join(", "));
    let error = Diagnostic::new(call.span, message, "invalid argument types");
    match udf.documentation() {
        Some(docs) => error.with_help(format!("usage: {}", docs.syntax_example)),
        None => error,
    }
}
