//! The compiler: from a syntax tree to an expression that can be evaluated over Arrow columns.

mod compiled;
mod kinds;
mod unsigned;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use datafusion_common::ScalarValue;
use datafusion_physical_expr::expressions::Column as ColumnExpr;
use pseidon_dsl::expr::{Expr, ExprKind, Literal, Meta, Path, PathStep};
use pseidon_dsl::{Diagnostic, Span};

pub use self::compiled::CompiledExpr;
use crate::json::JsonGet;
use crate::nested::{NestedPart, part_of};
use crate::operand::{Operand, field_of};
use crate::operator::LikeOptions;
use crate::scalar::unary_call;
use crate::types::{field_type_name, is_json, is_text, json_field, parse_field, timestamp};
use crate::{aggregate, decimal, growth, operator};

/// The columns that an expression can use at one point of a flow.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The columns, in the order of a batch.
    pub columns: Vec<Column>,
}

/// A column that an expression can use.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// The path that names it in expressions.
    pub path: Path,
    /// Its name and type in the batch.
    pub field: FieldRef,
}

/// An input of a compiled expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The column with this index in [`Scope::columns`].
    Column(usize),
    /// A metadata column.
    Meta(Meta),
}

/// Checks that a call needs only the record that it is evaluated for.
fn check_not_aggregate(name: &str, span: Span, distinct: bool) -> Result<(), Diagnostic> {
    if aggregate::is_aggregate(name) {
        let message = format!("`{name}` is computed over many records");
        let error = Diagnostic::new(span, message, "not a function of one record");
        return Err(error.with_help("use it in a `group`"));
    }
    if distinct {
        let message = format!("`{name}` is not an aggregate function");
        return Err(Diagnostic::new(span, message, "it cannot have `distinct`"));
    }
    Ok(())
}

/// Compiles an expression.
///
/// # Errors
/// All errors, at their positions in the file.
pub fn compile(expr: &Expr, scope: &Scope) -> Result<CompiledExpr, Vec<Diagnostic>> {
    let mut compiler = Compiler {
        scope,
        inputs: Vec::new(),
        fields: Vec::new(),
        errors: Vec::new(),
    };
    let Some(operand) = compiler.operand(expr) else {
        return Err(compiler.errors);
    };
    if !compiler.errors.is_empty() {
        return Err(compiler.errors);
    }
    let deterministic = operator::is_deterministic(&operand.physical);
    let field = Arc::new(field_of(&expr.to_string(), &operand));
    let schema = compiler.schema();
    let constant_bytes = growth::constant_bytes(&operand.physical, &schema);
    let (inputs, physical) = (compiler.inputs, operand.physical);
    Ok(CompiledExpr {
        inputs,
        schema: Arc::new(schema),
        physical,
        field,
        deterministic,
        constant_bytes,
    })
}

/// The name and type of a metadata column.
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

/// Compiles a syntax tree and collects the inputs that it uses.
struct Compiler<'s> {
    scope: &'s Scope,
    inputs: Vec<Input>,
    /// The columns of the inputs, in the same order.
    fields: Vec<Field>,
    errors: Vec<Diagnostic>,
}

impl Compiler<'_> {
    fn schema(&self) -> Schema {
        Schema::new(self.fields.clone())
    }

    /// Compiles a node. `None` if an error was added. The recursion is bounded, because the parser
    /// limits the depth of expressions.
    fn operand(&mut self, expr: &Expr) -> Option<Operand> {
        let result = self.node(expr)?;
        self.value(result).map(|operand| Operand {
            span: expr.span,
            ..operand
        })
    }

    /// The value of a result. An error is added.
    fn value<T>(&mut self, result: Result<T, Diagnostic>) -> Option<T> {
        result.map_err(|error| self.errors.push(error)).ok()
    }

    /// Compiles nodes. All of them are compiled before an error returns, so that the errors in each
    /// are reported.
    fn operands(&mut self, exprs: &[Expr]) -> Option<Vec<Operand>> {
        let operands: Vec<_> = exprs.iter().map(|expr| self.operand(expr)).collect();
        operands.into_iter().collect()
    }

    /// The result of a node whose parts are valid. `None` if an error in a part was added.
    ///
    /// Each kind has a function of its own, so that the frame that every level of a deep expression
    /// needs stays small.
    fn node(&mut self, expr: &Expr) -> Option<Result<Operand, Diagnostic>> {
        let span = expr.span;
        match &expr.kind {
            ExprKind::Literal(literal) => Some(Ok(constant(literal, span))),
            ExprKind::Path(path) => Some(self.path(path, span)),
            ExprKind::Meta(meta) => Some(Ok(self.meta(meta, span))),
            ExprKind::Unary(op, operand) => self.unary(*op, operand, span),
            ExprKind::Binary(left, op, right) => self.binary(left, *op, right, span),
            ExprKind::Between {
                expr,
                low,
                high,
                negated,
            } => self.between([expr, low, high], *negated, span),
            ExprKind::In {
                expr,
                list,
                negated,
            } => self.is_in(expr, list, *negated, span),
            ExprKind::Like {
                expr,
                pattern,
                escape,
                case_insensitive,
                negated,
            } => {
                let options = LikeOptions {
                    escape: *escape,
                    case_insensitive: *case_insensitive,
                    negated: *negated,
                };
                self.like(expr, pattern, options, span)
            }
            ExprKind::Is {
                expr,
                predicate,
                negated,
            } => self.is(expr, *predicate, *negated, span),
            ExprKind::Case {
                operand,
                whens,
                otherwise,
            } => self.case(operand.as_deref(), whens, otherwise.as_deref(), span),
            ExprKind::Cast {
                expr,
                to,
                to_span,
                try_cast,
            } => self.cast(expr, (to, *to_span), *try_cast, span),
            ExprKind::Call {
                name,
                name_span,
                distinct,
                args,
            } => self.call((name, *name_span), *distinct, args, span),
        }
    }

    fn cast_type(&mut self, name: &str, span: Span) -> Option<Field> {
        let field = parse_field("", name);
        self.value(field.map_err(|why| Diagnostic::new(span, why, "not a type")))
    }

    /// The column for an input. Equal inputs share one column.
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
            exact: None,
            span,
        }
    }

    fn meta(&mut self, meta: &Meta, span: Span) -> Operand {
        self.input(Input::Meta(meta.clone()), meta_field(meta), span)
    }

    /// Compiles a path: the column with the longest path that is a prefix of it, and access to the
    /// nested part that the rest of the path names.
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
                let value = unary_call(JsonGet(rest.to_vec()), operand.physical);
                return Ok(Operand {
                    physical: value,
                    ..operand
                });
            }
            let outer = Path(path.0.get(..done).unwrap_or_default().to_vec());
            let part = part_of(&operand.data_type, step)
                .ok_or_else(|| no_part(&outer, &field, step, span))?;
            let data_type = part.data_type().clone();
            let value = unary_call(NestedPart::new(step, data_type.clone()), operand.physical);
            operand = Operand {
                physical: value,
                data_type,
                json: is_json(&part),
                exact: None,
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
        let unknown = Diagnostic::new(
            span,
            format!("unknown column `{text}`"),
            "not a column here",
        );
        match pseidon_dsl::nearest(&text, names.iter().map(String::as_str)) {
            Some(nearest) => unknown.with_help(format!("did you mean `{nearest}`?")),
            None if names.is_empty() => unknown.with_help("no columns are available here"),
            None => unknown.with_help(format!("available columns: {}", names.join(", "))),
        }
    }
}

fn no_part(outer: &Path, field: &Field, step: &PathStep, span: Span) -> Diagnostic {
    let step_text = match step {
        PathStep::Field(name) => format!("field `{name}`"),
        PathStep::Index(index) => format!("element [{index}]"),
    };
    let error = Diagnostic::new(
        span,
        format!("`{outer}` has no {step_text}"),
        format!("`{outer}` is {}", field_type_name(field)),
    );
    let DataType::Struct(fields) = field.data_type() else {
        return error;
    };
    let PathStep::Field(name) = step else {
        return error;
    };
    match pseidon_dsl::nearest(name, fields.iter().map(|field| field.name().as_str())) {
        Some(nearest) => error.with_help(format!("did you mean `{nearest}`?")),
        None => error,
    }
}

fn cast(operand: Operand, to: &Field, try_cast: bool, span: Span) -> Result<Operand, Diagnostic> {
    if is_json(to) {
        if operand.json {
            return Ok(operand);
        }
        if is_text(&operand.data_type) || operand.is_null() {
            return operand.parse_json(try_cast);
        }
        let message = format!("cannot cast {} to json", operand.type_name());
        let error = Diagnostic::new(span, message, "expected a string with JSON");
        return Err(error.with_help("write to_json(x)"));
    }
    if try_cast {
        operand.try_cast(to.data_type())
    } else {
        operand.cast(to.data_type())
    }
}

/// Compiles a constant.
fn constant(literal: &Literal, span: Span) -> Operand {
    Operand {
        exact: decimal::exactly(literal).map(Box::new),
        ..Operand::literal(scalar(literal), span)
    }
}

/// The value of a constant.
pub(crate) fn scalar(literal: &Literal) -> ScalarValue {
    match literal {
        Literal::Null => ScalarValue::Null,
        Literal::Bool(value) => ScalarValue::from(*value),
        Literal::Int(value) => ScalarValue::from(*value),
        Literal::UInt(value) => ScalarValue::from(*value),
        Literal::Float(value) => ScalarValue::from(*value),
        Literal::Decimal(digits) => ScalarValue::Float64(digits.parse().ok()),
        Literal::Str(value) => ScalarValue::from(value.as_str()),
    }
}
