//! Expressions of every form.

use proptest::prelude::*;
use pseidon_dsl::Span;
use pseidon_dsl::expr::{
    BinaryOp, Expr, ExprKind, IsPredicate, Literal, Meta, Path, PathStep, UnaryOp,
};

const BINARY_OPS: [BinaryOp; 25] = [
    BinaryOp::Or,
    BinaryOp::And,
    BinaryOp::Eq,
    BinaryOp::NotEq,
    BinaryOp::Lt,
    BinaryOp::LtEq,
    BinaryOp::Gt,
    BinaryOp::GtEq,
    BinaryOp::RegexMatch,
    BinaryOp::RegexNotMatch,
    BinaryOp::RegexIMatch,
    BinaryOp::RegexNotIMatch,
    BinaryOp::Distinct,
    BinaryOp::NotDistinct,
    BinaryOp::Concat,
    BinaryOp::BitAnd,
    BinaryOp::BitOr,
    BinaryOp::BitXor,
    BinaryOp::ShiftLeft,
    BinaryOp::ShiftRight,
    BinaryOp::Add,
    BinaryOp::Sub,
    BinaryOp::Mul,
    BinaryOp::Div,
    BinaryOp::Mod,
];

const TYPES: [&str; 5] = [
    "int",
    "decimal(10,2)",
    "double precision",
    "timestamp(3) with time zone",
    "timestamp",
];

const FUNCTIONS: [&str; 6] = [
    "lower",
    "now",
    "count",
    "date",
    "left",
    "to_timestamp_millis",
];

pub(super) fn any_expr() -> impl Strategy<Value = Expr> {
    any_leaf()
        .prop_map(without_position)
        .prop_recursive(5, 40, 4, |inner| {
            let inner = inner.boxed();
            prop_oneof![
                unary(&inner),
                binary(&inner),
                between(&inner),
                within(&inner),
                like(&inner),
                is(&inner),
                case(&inner),
                cast(&inner),
                call(&inner)
            ]
            .prop_map(without_position)
        })
}

fn without_position(kind: ExprKind) -> Expr {
    Expr {
        kind,
        span: Span::default(),
    }
}

fn any_leaf() -> impl Strategy<Value = ExprKind> {
    prop_oneof![
        Just(ExprKind::Literal(Literal::Null)),
        any::<bool>().prop_map(|value| ExprKind::Literal(Literal::Bool(value))),
        any::<i64>().prop_map(|value| ExprKind::Literal(Literal::Int(value))),
        (1_u64 << 63..).prop_map(|value| ExprKind::Literal(Literal::UInt(value))),
        any::<f64>()
            .prop_filter("a number", |value| value.is_finite())
            .prop_map(|value| ExprKind::Literal(Literal::Float(value))),
        any::<String>().prop_map(|value| ExprKind::Literal(Literal::Str(value))),
        any_path().prop_map(ExprKind::Path),
        any_meta().prop_map(ExprKind::Meta),
    ]
}

fn any_path() -> impl Strategy<Value = Path> {
    let first = any_step().prop_filter("a path starts with a field", |step| {
        matches!(step, PathStep::Field(_))
    });
    (first, prop::collection::vec(any_step(), 0..3))
        .prop_map(|(first, rest)| Path(std::iter::once(first).chain(rest).collect()))
}

fn any_step() -> impl Strategy<Value = PathStep> {
    let field = prop_oneof![
        "[a-zé_][a-z0-9é_$]{0,5}",
        "[^\u{0}]{1,4}",
        Just("case".to_owned()),
        Just("NULL".to_owned())
    ];
    prop_oneof![3 => field.prop_map(PathStep::Field), 1 => any::<u32>().prop_map(PathStep::Index)]
}

fn any_meta() -> impl Strategy<Value = Meta> {
    prop_oneof![
        prop::sample::select(vec![
            Meta::Topic,
            Meta::Partition,
            Meta::Offset,
            Meta::Timestamp,
            Meta::Key,
            Meta::Headers(None)
        ]),
        "[^\u{0}]{1,5}".prop_map(|name| Meta::Headers(Some(name))),
    ]
}

/// Any expression as an operand.
fn operand(inner: &BoxedStrategy<Expr>) -> BoxedStrategy<Box<Expr>> {
    inner.clone().prop_map(Box::new).boxed()
}

fn unary(inner: &BoxedStrategy<Expr>) -> impl Strategy<Value = ExprKind> + use<> {
    let ops = prop::sample::select(vec![UnaryOp::Neg, UnaryOp::BitNot, UnaryOp::Not]);
    (ops, operand(inner)).prop_map(|(op, expr)| ExprKind::Unary(op, expr))
}

fn binary(inner: &BoxedStrategy<Expr>) -> impl Strategy<Value = ExprKind> + use<> {
    let ops = prop::sample::select(BINARY_OPS.to_vec());
    (operand(inner), ops, operand(inner))
        .prop_map(|(left, op, right)| ExprKind::Binary(left, op, right))
}

fn between(inner: &BoxedStrategy<Expr>) -> impl Strategy<Value = ExprKind> + use<> {
    let parts = (
        operand(inner),
        operand(inner),
        operand(inner),
        any::<bool>(),
    );
    parts.prop_map(|(expr, low, high, negated)| ExprKind::Between {
        expr,
        low,
        high,
        negated,
    })
}

fn within(inner: &BoxedStrategy<Expr>) -> impl Strategy<Value = ExprKind> + use<> {
    let list = prop::collection::vec(inner.clone(), 1..4);
    (operand(inner), list, any::<bool>()).prop_map(|(expr, list, negated)| ExprKind::In {
        expr,
        list,
        negated,
    })
}

fn like(inner: &BoxedStrategy<Expr>) -> impl Strategy<Value = ExprKind> + use<> {
    let parts = (
        operand(inner),
        operand(inner),
        any::<Option<char>>(),
        any::<bool>(),
        any::<bool>(),
    );
    parts.prop_map(
        |(expr, pattern, escape, case_insensitive, negated)| ExprKind::Like {
            expr,
            pattern,
            escape,
            case_insensitive,
            negated,
        },
    )
}

fn is(inner: &BoxedStrategy<Expr>) -> impl Strategy<Value = ExprKind> + use<> {
    let predicates = prop::sample::select(vec![
        IsPredicate::Null,
        IsPredicate::True,
        IsPredicate::False,
    ]);
    (operand(inner), predicates, any::<bool>()).prop_map(|(expr, predicate, negated)| {
        ExprKind::Is {
            expr,
            predicate,
            negated,
        }
    })
}

fn case(inner: &BoxedStrategy<Expr>) -> impl Strategy<Value = ExprKind> + use<> {
    let whens = prop::collection::vec((inner.clone(), inner.clone()), 1..3);
    let parts = (
        prop::option::of(operand(inner)),
        whens,
        prop::option::of(operand(inner)),
    );
    parts.prop_map(|(operand, whens, otherwise)| ExprKind::Case {
        operand,
        whens,
        otherwise,
    })
}

fn cast(inner: &BoxedStrategy<Expr>) -> impl Strategy<Value = ExprKind> + use<> {
    let types = prop::sample::select(TYPES.to_vec());
    (operand(inner), types, any::<bool>()).prop_map(|(expr, to, try_cast)| ExprKind::Cast {
        expr,
        to: to.to_owned(),
        to_span: Span::default(),
        try_cast,
    })
}

fn call(inner: &BoxedStrategy<Expr>) -> impl Strategy<Value = ExprKind> + use<> {
    let names = prop::sample::select(FUNCTIONS.to_vec());
    let args = prop::collection::vec(inner.clone(), 0..3);
    (names, any::<bool>(), args).prop_map(|(name, distinct, args)| ExprKind::Call {
        name: name.to_owned(),
        name_span: Span::default(),
        distinct: distinct && !args.is_empty(),
        args,
    })
}

/// Removes source positions, so that only values are compared.
pub(super) fn remove_positions(expr: &mut Expr) {
    expr.span = Span::default();
    match &mut expr.kind {
        ExprKind::Literal(_) | ExprKind::Path(_) | ExprKind::Meta(_) => {}
        ExprKind::Unary(_, expr) | ExprKind::Is { expr, .. } => remove_positions(expr),
        ExprKind::Binary(left, _, right) => {
            remove_positions(left);
            remove_positions(right);
        }
        ExprKind::Between {
            expr, low, high, ..
        } => {
            remove_positions(expr);
            remove_positions(low);
            remove_positions(high);
        }
        ExprKind::In { expr, list, .. } => {
            remove_positions(expr);
            list.iter_mut().for_each(remove_positions);
        }
        ExprKind::Like { expr, pattern, .. } => {
            remove_positions(expr);
            remove_positions(pattern);
        }
        ExprKind::Case {
            operand,
            whens,
            otherwise,
        } => {
            for expr in [operand, otherwise].into_iter().flatten() {
                remove_positions(expr);
            }
            for (when, then) in whens {
                remove_positions(when);
                remove_positions(then);
            }
        }
        ExprKind::Cast { expr, to_span, .. } => {
            remove_positions(expr);
            *to_span = Span::default();
        }
        ExprKind::Call {
            name_span, args, ..
        } => {
            *name_span = Span::default();
            args.iter_mut().for_each(remove_positions);
        }
    }
}
