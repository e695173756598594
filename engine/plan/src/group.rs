//! `group`: aggregate functions over groups of records; `dedupe`: one record of each group.
//!
//! A `group` is four steps. A `select` computes the keys and the arguments of the aggregate
//! functions; a sink collects the groups. A source reads their results, and another `select` puts
//! these into the columns that were written. So `round(avg(size), 1) as size` is the argument
//! `size`, the function `avg`, and `round` of its result. A `dedupe` is only the sink and the source.

use std::sync::Arc;

use pseidon_dsl::expr::{Expr, ExprKind, Literal, Path, PathStep, SelectItem};
use pseidon_dsl::{Diagnostic, Span};
use pseidon_expr::aggregate::{AggregateArg, AggregateCall, argument, is_aggregate};
use pseidon_plugin::group::{GroupContent, GroupStage};
use pseidon_plugin::options::ParseResult;

use crate::edits::field;

/// The steps of a `group` or a `dedupe`.
#[derive(Clone)]
pub(crate) struct GroupSteps {
    /// The columns of the sink's input: the keys, then the arguments of the functions. `None` if it
    /// is the records as they are.
    pub(crate) input: Option<Vec<SelectItem>>,
    /// The sink and the source.
    pub(crate) stage: Arc<GroupStage>,
    /// The columns of the results as they were written. `None` if they are the records.
    pub(crate) output: Option<Vec<SelectItem>>,
}

/// The steps of a `dedupe` by these keys, which passes on the first record of each group, or the
/// last. `span` is the position of the stage.
///
/// # Errors
/// `*` is a key.
pub(crate) fn dedupe(keys: &[SelectItem], last: bool, span: Span) -> ParseResult<GroupSteps> {
    let mut exprs = Vec::new();
    for key in keys {
        match key {
            SelectItem::Column { expr, .. } => exprs.push(expr.clone()),
            SelectItem::All { span, .. } => return Err(vec![not_a_key(*span)]),
        }
    }
    let written: Vec<String> = exprs.iter().map(Expr::to_string).collect();
    let written = format!(
        "{} by {}",
        if last { "last" } else { "first" },
        written.join(", ")
    );
    let content = GroupContent::Record { keys: exprs, last };
    Ok(GroupSteps {
        input: None,
        stage: Arc::new(GroupStage::new(span, content, written)),
        output: None,
    })
}

fn not_a_key(span: Span) -> Diagnostic {
    let error = Diagnostic::new(span, "`*` is not a key or a result", "expected a column");
    error.with_help("name the fields that are the key")
}

/// The steps of a `group` by these keys. Without `aggregates`, those of `keys` that have an aggregate
/// function are the results. `span` is the position of the stage.
///
/// # Errors
/// Keys and results without a name, keys with aggregate functions, and results without one.
pub(crate) fn steps(
    keys: &[SelectItem],
    aggregates: Option<&[SelectItem]>,
    span: Span,
) -> ParseResult<GroupSteps> {
    let mut errors = Vec::new();
    let mut named = |items: &[SelectItem]| -> Vec<NamedItem> {
        let named = items.iter().filter_map(|item| {
            let item = NamedItem::of(item);
            item.map_err(|error| errors.push(error)).ok()
        });
        named.collect()
    };
    let (keys, results) = match aggregates {
        Some(aggregates) => (named(keys), named(aggregates)),
        None => named(keys)
            .into_iter()
            .partition(|item| first_aggregate(&item.expr).is_none()),
    };
    errors.extend(keys.iter().filter_map(|key| {
        let call = first_aggregate(&key.expr)?;
        let error = Diagnostic::new(call.span, "a key has an aggregate function", "not a key");
        Some(error.with_help("write the functions in the second argument"))
    }));
    if results.is_empty() && errors.is_empty() {
        let error = Diagnostic::new(
            span,
            "`group` has no aggregate function",
            "nothing to compute",
        );
        errors.push(error.with_help("for example: (group \"status\" \"count(*) as n\")"));
    }
    let written: Vec<String> = keys.iter().chain(&results).map(describe).collect();
    let mut splitter = Splitter::new(&keys);
    let rewritten: Vec<SelectItem> = results
        .into_iter()
        .map(|item| splitter.result(item))
        .collect();
    errors.extend(splitter.errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let by_name = |key: &NamedItem| NamedItem {
        expr: path_expr(&key.name.0, key.expr.span),
        name: key.name.clone(),
    };
    let key_columns = keys.iter().map(|key| by_name(key).into());
    let output = key_columns.chain(rewritten).collect();
    let mut input = splitter.input;
    let calls = splitter.calls.into_iter();
    let content = GroupContent::Results {
        keys: keys.len(),
        calls: calls.map(|named| (named.column, named.call)).collect(),
    };
    input.splice(0..0, keys.into_iter().map(SelectItem::from));
    if input.is_empty() {
        // A record needs a column.
        let always = Expr {
            kind: ExprKind::Literal(Literal::Bool(true)),
            span,
        };
        input.push(column(always, "(record)", span));
    }
    Ok(GroupSteps {
        input: Some(input),
        stage: Arc::new(GroupStage::new(span, content, written.join(", "))),
        output: Some(output),
    })
}

fn describe(item: &NamedItem) -> String {
    format!("{} as {}", item.expr, item.name.0)
}

/// A column with its name and the position of the name.
struct NamedItem {
    expr: Expr,
    name: (String, Span),
}

impl NamedItem {
    fn of(item: &SelectItem) -> Result<NamedItem, Diagnostic> {
        let (expr, name) = match item {
            SelectItem::All { span, .. } => return Err(not_a_key(*span)),
            SelectItem::Column { expr, name } => (expr, name),
        };
        let default = match &expr.kind {
            ExprKind::Call { name, .. } if is_aggregate(name) => Some((name.clone(), expr.span)),
            ExprKind::Path(path) => match path.0.last() {
                Some(PathStep::Field(name)) => Some((name.clone(), expr.span)),
                _ => None,
            },
            _ => None,
        };
        let name = name.clone().or(default).ok_or_else(|| {
            Diagnostic::new(expr.span, "this column has no name", "expected `as name`")
        })?;
        Ok(NamedItem {
            expr: expr.clone(),
            name,
        })
    }
}

impl From<NamedItem> for SelectItem {
    fn from(item: NamedItem) -> SelectItem {
        SelectItem::Column {
            expr: item.expr,
            name: Some(item.name),
        }
    }
}

/// Takes the aggregate functions out of expressions.
struct Splitter<'k> {
    keys: &'k [NamedItem],
    /// The arguments of the functions, each with its name.
    input: Vec<SelectItem>,
    calls: Vec<NamedCall>,
    errors: Vec<Diagnostic>,
}

impl<'k> Splitter<'k> {
    fn new(keys: &'k [NamedItem]) -> Splitter<'k> {
        Splitter {
            keys,
            input: Vec::new(),
            calls: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// A column of the results, with the results of the functions in the place of their calls.
    fn result(&mut self, item: NamedItem) -> SelectItem {
        let mut expr = item.expr;
        if first_aggregate(&expr).is_none() {
            let error = Diagnostic::new(
                expr.span,
                "a result has no aggregate function",
                "it may have many values in a group",
            );
            let help = "make it a key, or use a function such as `first` or `max`";
            self.errors.push(error.with_help(help));
        }
        self.rewrite(&mut expr, Some(&item.name.0));
        NamedItem { expr, ..item }.into()
    }

    /// Replaces the calls in an expression. `name` is that of the column, if the expression is all of
    /// it.
    fn rewrite(&mut self, expr: &mut Expr, name: Option<&str>) {
        match &expr.kind {
            ExprKind::Call { name: function, .. } if is_aggregate(function) => {
                let column = self.results_of(expr, name);
                *expr = path_expr(&column, expr.span);
            }
            ExprKind::Path(path) => {
                if !self.keys.iter().any(|key| field(&key.name.0) == *path) {
                    let message = format!("`{path}` is neither a key nor in an aggregate function");
                    let label = "it may have many values in a group";
                    self.errors.push(Diagnostic::new(expr.span, message, label));
                }
            }
            ExprKind::Meta(meta) => {
                let message = format!("`@{}` is not in an aggregate function", meta.name());
                let label = "it may have many values in a group";
                self.errors.push(Diagnostic::new(expr.span, message, label));
            }
            _ => expr
                .parts_mut()
                .into_iter()
                .for_each(|part| self.rewrite(part, None)),
        }
    }

    /// The column with the results of a call.
    fn results_of(&mut self, call: &Expr, name: Option<&str>) -> String {
        let text = call.to_string();
        if let Some(known) = self.calls.iter().find(|known| known.text == text) {
            return known.column.clone();
        }
        let ExprKind::Call {
            name: function,
            distinct,
            args,
            ..
        } = &call.kind
        else {
            return text;
        };
        let several = args.len() > 1;
        let mut numbered = Vec::new();
        for (at, arg) in args.iter().enumerate() {
            if let Some(inner) = first_aggregate(arg) {
                let message = "an aggregate function is inside of another";
                let error = Diagnostic::new(inner.span, message, "computed over many records");
                self.errors.push(error.with_help("use a second `group`"));
            }
            numbered.push(match &arg.kind {
                ExprKind::Literal(literal) => AggregateArg::Literal(literal.clone()),
                _ => {
                    let part = if several {
                        format!(" {}", at + 1)
                    } else {
                        String::new()
                    };
                    let arg = argument(function, arg.clone());
                    self.input
                        .push(column(arg, &format!("{text}{part}"), call.span));
                    AggregateArg::Column(self.keys.len() + self.input.len() - 1)
                }
            });
        }
        let column = name.unwrap_or(&text).to_owned();
        self.calls.push(NamedCall {
            column: column.clone(),
            text,
            call: AggregateCall {
                name: function.clone(),
                span: call.span,
                distinct: *distinct,
                args: numbered,
            },
        });
        column
    }
}

/// A call of an aggregate function.
struct NamedCall {
    /// The column with its results.
    column: String,
    /// The call as written, by which another one like it is found.
    text: String,
    call: AggregateCall,
}

fn column(expr: Expr, name: &str, span: Span) -> SelectItem {
    SelectItem::Column {
        expr,
        name: Some((name.to_owned(), span)),
    }
}

fn path_expr(name: &str, span: Span) -> Expr {
    let path: Path = field(name);
    Expr {
        kind: ExprKind::Path(path),
        span,
    }
}

/// The first call of an aggregate function in an expression.
fn first_aggregate(expr: &Expr) -> Option<&Expr> {
    match &expr.kind {
        ExprKind::Call { name, .. } if is_aggregate(name) => Some(expr),
        _ => expr.parts().into_iter().find_map(first_aggregate),
    }
}
