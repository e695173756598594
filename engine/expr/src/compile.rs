//! From an expression to something that can be evaluated.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column as ColumnExpr;
use pseidon_dsl::expr::{Expr, ExprKind, Literal, Meta, Path, Step, UnaryOp};
use pseidon_dsl::{Diagnostic, Span};

use crate::json::JsonGet;
use crate::nested::{Part, part_of};
use crate::operand::{Operand, field_of, reason};
use crate::operator::LikeOptions;
use crate::types::{field_type_name, is_json, json_field, parse_field, timestamp};
use crate::{function, growth, operator, panics};

/// What can be named at one point of a flow.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The columns there, in the order in which they are in a batch.
    pub columns: Vec<Column>,
}

/// A column that can be named.
#[derive(Clone, Debug)]
pub struct Column {
    /// How it is named.
    pub path: Path,
    /// Its name and type in the batch.
    pub field: FieldRef,
}

/// What an expression needs to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The column with this number in the scope.
    Column(usize),
    /// A metadata column.
    Meta(Meta),
}

/// An expression that can be evaluated.
#[derive(Clone, Debug)]
pub struct Compiled {
    inputs: Vec<Input>,
    schema: SchemaRef,
    physical: Arc<dyn PhysicalExpr>,
    field: FieldRef,
    deterministic: bool,
    /// What constants add to each row, in bytes; see [`growth::constant_bytes`].
    constant_bytes: usize,
}

impl Compiled {
    /// What [`Compiled::evaluate`] must be given, in order.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The type of its values (the name is the expression's text).
    pub fn field(&self) -> &FieldRef {
        &self.field
    }

    /// Whether it always gives the same for the same record. `now()` and `random()` do not.
    pub fn is_deterministic(&self) -> bool {
        self.deterministic
    }

    /// The value for each of `rows` rows. If there is an error, at least one of the rows is at
    /// fault (a division by zero, an overflow, a cast of what cannot be cast); the others can be
    /// evaluated without it. [`ArrowError::MemoryError`] means that there may be too many rows: the
    /// values would become too large together, or the evaluation panicked, as kernels do when a
    /// text column passes 2 GiB.
    pub fn evaluate(&self, inputs: Vec<ArrayRef>, rows: usize) -> Result<ArrayRef, ArrowError> {
        let constants = self.constant_bytes.saturating_mul(rows);
        if rows > 1 && constants > growth::LARGEST_RESULT {
            return Err(as_arrow(&growth::too_large("the expression", constants)));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), inputs, &options)?;
        let value = panics::caught(|| {
            self.physical
                .evaluate(&batch)
                .and_then(|value| value.into_array(rows))
        });
        match value {
            Ok(value) => value.map_err(|error| as_arrow(&error)),
            Err(panic) => Err(ArrowError::MemoryError(format!(
                "the expression cannot be evaluated: {panic}"
            ))),
        }
    }
}

/// The same error without DataFusion's layers.
fn as_arrow(error: &DataFusionError) -> ArrowError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(what) => ArrowError::MemoryError(what.clone()),
        _ => ArrowError::ComputeError(reason(error)),
    }
}

/// Compiles an expression; mistakes are shown at their places.
pub fn compile(expr: &Expr, scope: &Scope) -> Result<Compiled, Vec<Diagnostic>> {
    let mut compiler = Compiler {
        scope,
        inputs: Vec::new(),
        fields: Vec::new(),
        mistakes: Vec::new(),
    };
    let Some(operand) = compiler.operand(expr) else {
        return Err(compiler.mistakes);
    };
    if !compiler.mistakes.is_empty() {
        return Err(compiler.mistakes);
    }
    let deterministic = operator::is_deterministic(&operand.physical);
    let field = Arc::new(field_of(&expr.to_string(), &operand));
    let schema = compiler.schema();
    let constant_bytes = growth::constant_bytes(&operand.physical, &schema);
    let (inputs, physical) = (compiler.inputs, operand.physical);
    Ok(Compiled {
        inputs,
        schema: Arc::new(schema),
        physical,
        field,
        deterministic,
        constant_bytes,
    })
}

/// The type of a metadata column.
pub(crate) fn meta_field(meta: &Meta) -> Field {
    let plain = |name: &str, data_type| Field::new(name, data_type, true);
    match meta {
        Meta::Topic => plain("@topic", DataType::Utf8),
        Meta::Partition => plain("@partition", DataType::Int32),
        Meta::Offset => plain("@offset", DataType::Int64),
        Meta::Timestamp => plain("@timestamp", timestamp(TimeUnit::Millisecond)),
        Meta::Key => plain("@key", DataType::Utf8),
        Meta::Headers(None) => json_field("@headers"),
        Meta::Headers(Some(name)) => plain(&format!("@headers.{name}"), DataType::Utf8),
    }
}

/// Walks an expression and notes what it needs.
struct Compiler<'s> {
    scope: &'s Scope,
    inputs: Vec<Input>,
    /// The columns of the inputs.
    fields: Vec<Field>,
    mistakes: Vec<Diagnostic>,
}

impl Compiler<'_> {
    fn schema(&self) -> Schema {
        Schema::new(self.fields.clone())
    }

    /// Nothing if there is a mistake, which is noted then. The parser sees to it that expressions
    /// are not deep.
    fn operand(&mut self, expr: &Expr) -> Option<Operand> {
        let span = expr.span;
        let result = match &expr.kind {
            ExprKind::Literal(literal) => Ok(Operand::literal(scalar(literal), span)),
            ExprKind::Path(path) => self.path(path, span),
            ExprKind::Meta(meta) => {
                Ok(self.input(Input::Meta(meta.clone()), meta_field(meta), span))
            }
            ExprKind::Unary(op, operand) => {
                let operand = self.operand(operand)?;
                match op {
                    UnaryOp::Neg => operator::negate(operand, span),
                    UnaryOp::Not => operator::not(operand, span),
                }
            }
            ExprKind::Binary(left, op, right) => {
                let (left, right) = (self.operand(left), self.operand(right));
                operator::binary(left?, *op, right?, span)
            }
            ExprKind::Between {
                expr,
                low,
                high,
                negated,
            } => {
                let (operand, low, high) =
                    (self.operand(expr), self.operand(low), self.operand(high));
                operator::between(operand?, low?, high?, *negated, span)
            }
            ExprKind::In {
                expr,
                list,
                negated,
            } => {
                let (operand, list) = (self.operand(expr), self.operands(list));
                operator::is_in(operand?, list?, *negated, &self.schema(), span)
            }
            ExprKind::Like {
                expr,
                pattern,
                escape,
                case_insensitive,
                negated,
            } => {
                let (operand, pattern) = (self.operand(expr), self.operand(pattern));
                let options = LikeOptions {
                    escape: *escape,
                    case_insensitive: *case_insensitive,
                    negated: *negated,
                };
                operator::like(operand?, pattern?, options, span)
            }
            ExprKind::Is {
                expr,
                what,
                negated,
            } => operator::is(self.operand(expr)?, *what, *negated, span),
            ExprKind::Case {
                operand,
                whens,
                otherwise,
            } => {
                let operand = operand.as_ref().map(|operand| self.operand(operand));
                let compiled: Vec<_> = whens
                    .iter()
                    .map(|(when, then)| (self.operand(when), self.operand(then)))
                    .collect();
                let otherwise = otherwise.as_ref().map(|otherwise| self.operand(otherwise));
                let whens = compiled
                    .into_iter()
                    .map(|(when, then)| when.zip(then))
                    .collect::<Option<Vec<_>>>()?;
                let operand = operand.map_or(Some(None), |operand| operand.map(Some))?;
                let otherwise = otherwise.map_or(Some(None), |otherwise| otherwise.map(Some))?;
                operator::case(operand, whens, otherwise, span)
            }
            ExprKind::Cast {
                expr,
                to,
                to_span,
                try_cast,
            } => {
                let operand = self.operand(expr);
                let to =
                    parse_field("", to).map_err(|why| Diagnostic::new(*to_span, why, "not a type"));
                match to {
                    Ok(to) => cast(operand?, &to, *try_cast, span),
                    Err(mistake) => Err(mistake),
                }
            }
            ExprKind::Call {
                name,
                name_span,
                args,
            } => {
                if function::CONDITIONAL.contains(&name.as_str()) {
                    operator::conditional(name, self.operands(args)?, span)
                } else {
                    let args = self.operands(args);
                    match function::find(name, *name_span) {
                        Ok(function) => function::call(name, function, args?, span),
                        Err(mistake) => Err(mistake),
                    }
                }
            }
        };
        match result {
            Ok(operand) => Some(Operand { span, ..operand }),
            Err(mistake) => {
                self.mistakes.push(mistake);
                None
            }
        }
    }

    fn operands(&mut self, exprs: &[Expr]) -> Option<Vec<Operand>> {
        // All of them first, so that the mistakes of all are found.
        let operands: Vec<Option<Operand>> = exprs.iter().map(|expr| self.operand(expr)).collect();
        operands.into_iter().collect()
    }

    /// The column for what an expression needs; the same one for the same need.
    fn input(&mut self, input: Input, field: Field, span: Span) -> Operand {
        let (data_type, json) = (field.data_type().clone(), is_json(&field));
        let name = field.name().clone();
        let at = self
            .inputs
            .iter()
            .position(|known| *known == input)
            .unwrap_or_else(|| {
                self.inputs.push(input);
                self.fields.push(field.with_nullable(true));
                self.inputs.len() - 1
            });
        Operand {
            physical: Arc::new(ColumnExpr::new(&name, at)),
            data_type,
            json,
            span,
        }
    }

    /// The column whose path begins this one, and the parts of its values that the rest of the path
    /// names.
    fn path(&mut self, path: &Path, span: Span) -> Result<Operand, Diagnostic> {
        let columns = self.scope.columns.iter().enumerate();
        let found = columns
            .filter(|(_, column)| path.0.starts_with(&column.path.0))
            .max_by_key(|(_, column)| column.path.0.len());
        let Some((at, column)) = found else {
            return Err(self.unknown(path, span));
        };
        let known = column.path.0.len();
        let mut operand = self.input(Input::Column(at), column.field.as_ref().clone(), span);
        let mut field = Arc::clone(&column.field);
        for (done, step) in path.0.iter().enumerate().skip(known) {
            if operand.json {
                let rest = path.0.get(done..).unwrap_or_default();
                let value = function::own(JsonGet::new(rest), operand.physical, DataType::Utf8);
                return Ok(Operand {
                    physical: value,
                    ..operand
                });
            }
            let outer = Path(path.0.get(..done).unwrap_or_default().to_vec());
            let part = part_of(&operand.data_type, step)
                .ok_or_else(|| no_part(&outer, &field, step, span))?;
            let data_type = part.data_type().clone();
            let value = function::own(Part::new(step, &part), operand.physical, data_type.clone());
            operand = Operand {
                physical: value,
                data_type,
                json: is_json(&part),
                span,
            };
            field = part;
        }
        Ok(operand)
    }

    fn unknown(&self, path: &Path, span: Span) -> Diagnostic {
        let names: Vec<String> = self
            .scope
            .columns
            .iter()
            .map(|column| column.path.to_string())
            .collect();
        let text = path.to_string();
        let unknown = Diagnostic::new(span, format!("there is no column {text}"), "not known here");
        match pseidon_dsl::nearest(&text, names.iter().map(String::as_str)) {
            Some(nearest) => unknown.with_help(format!("the nearest is {nearest}")),
            None if names.is_empty() => unknown.with_help("there are no columns here"),
            None => unknown.with_help(format!("there are {}", names.join(", "))),
        }
    }
}

fn no_part(outer: &Path, field: &Field, step: &Step, span: Span) -> Diagnostic {
    let step_text = match step {
        Step::Field(name) => format!("field {name}"),
        Step::Index(index) => format!("element [{index}]"),
    };
    let message = format!(
        "{outer} is {}, it has no {step_text}",
        field_type_name(field)
    );
    let mistake = Diagnostic::new(span, message, "not there");
    let DataType::Struct(fields) = field.data_type() else {
        return mistake;
    };
    let Step::Field(name) = step else {
        return mistake;
    };
    match pseidon_dsl::nearest(name, fields.iter().map(|field| field.name().as_str())) {
        Some(nearest) => mistake.with_help(format!("the nearest is {nearest}")),
        None => mistake,
    }
}

fn cast(operand: Operand, to: &Field, try_cast: bool, span: Span) -> Result<Operand, Diagnostic> {
    if is_json(to) {
        if operand.json {
            return Ok(operand);
        }
        return Err(Diagnostic::new(
            span,
            format!("{} cannot be made json", operand.type_name()),
            "is no json",
        ));
    }
    if try_cast {
        operand.try_cast(to.data_type())
    } else {
        operand.cast(to.data_type())
    }
}

fn scalar(literal: &Literal) -> ScalarValue {
    match literal {
        Literal::Null => ScalarValue::Null,
        Literal::Bool(value) => ScalarValue::from(*value),
        Literal::Int(value) => ScalarValue::from(*value),
        Literal::Float(value) => ScalarValue::from(*value),
        Literal::Str(value) => ScalarValue::from(value.as_str()),
    }
}
