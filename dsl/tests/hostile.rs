//! Property tests: no input panics, errors can be rendered, and printed values parse to the same
//! value.

use proptest::prelude::*;
use pseidon_dsl::diagnostic::render;
use pseidon_dsl::document::{from_edn, from_flow, from_toml};
use pseidon_dsl::expr::{
    BinaryOp, Expr, ExprKind, IsPredicate, Literal, Meta, Path, PathStep, UnaryOp,
};
use pseidon_dsl::node::Text;
use pseidon_dsl::{
    Diagnostic, Name, Node, NodeKind, Span, edn, expr, interpolate, print, template, units,
};

const VALID: [&str; 12] = [
    r#"{:name "n" :settings {:memory "1GB"} a (kafka {:topics ["x" "y"] :start :earliest}) pipeline (-> a (match "t" b #r"x\d" (where "a > 1") :else c)) :tests [{:name "t" :at a :input [{:x 1}] :output []}]}"#,
    "{some.Plugin a/b pipeline (-> disk-writer)} ; comment",
    "[1 -2N 3.5 4.0M \\a \\newline \\u0041 \"\\t\\u00e9\\uD83D\\uDE00\" #{1 2} #inst \
        \"2024-01-31T12:30:00Z\" #_ #_ x y :k/w #uuid \"f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"]",
    "name = \"n\"\npipeline = \"(-> a (where 'x \\\\ \\u0041') b)\"\n[stages.a]\nkafka = { topics \
        = ['x'], n = 1.5, at = 2024-01-31T12:30:00Z }\n[[tests]]\nname = 't'\nat = 'a'\ninput = \
        [{ x = 1 }]\noutput = []\n",
    "pipeline = \"\"\"\n(-> a \\\n   (where '''x'''))\"\"\"\r\n[stages]\nb = \"drop\"\n",
    "(-> (files {:path 'in/*'}) (where 'a = ''x''') (stdout))",
    "case x when 1 then 'a''b' else -c::decimal(10,2) end || lower(@headers.\"a-b\") not like \
        '%x' escape '!'",
    "not a.b[0].\"c d\" between 1 and 2e5 or cast(x as timestamp(3) with time zone) is not null \
        and y not in (1, date '2024-01-01')",
    "* except (a, b.c), user.id as \"user name\", @topic as t",
    "out/{@topic}/{{x}}/date={at::date:%Y-%m-%d}/{coalesce(a, ':}')}",
    "a/{x || '${env:X}'} $${{env:Y}} ${{file:/run/z}} ${{",
    "1h30m",
];

fn lookup(kind: &str, arg: &str) -> Result<String, String> {
    if arg.len().is_multiple_of(2) {
        Ok(format!("{kind}\"é😀{arg}"))
    } else {
        Err("no".to_owned())
    }
}

/// Checks that all errors can be rendered and lie within the text.
fn check_errors<T>(text: &str, result: Result<T, Vec<Diagnostic>>) {
    let Err(errors) = result else { return };
    assert!(
        !errors.is_empty(),
        "a failure without a diagnostic: {text:?}"
    );
    for error in &errors {
        let (start, end) = (error.span.start as usize, error.span.end as usize);
        assert!(start <= end && end <= text.len(), "{error:?} in {text:?}");
    }
    render("file", text, errors.get(..20).unwrap_or(&errors), false);
}

fn read_everything(text: &str) {
    let plain = Text::plain(text, 0);
    check_errors(text, edn::read_all(text));
    check_errors(text, edn::read_quoted(&plain));
    check_errors(text, from_edn(text));
    check_errors(text, from_toml(text));
    if let Ok(mut document) = from_flow(text) {
        check_errors(text, interpolate::document(&mut document, &mut lookup));
    }
    check_errors(text, expr::parse(&plain));
    check_errors(text, expr::parse_select(&plain));
    check_errors(text, template::parse(&plain));
    let _ = (units::size(text), units::duration(text));
    if let Ok(node) = edn::read(text) {
        assert!(edn::read(&print::print(&node)).is_ok(), "{text:?}");
    }
    let mut node = Node {
        kind: NodeKind::Str(plain),
        span: Span::new(0, text.len()),
    };
    check_errors(text, interpolate::node(&mut node, &mut lookup));
    if let NodeKind::Str(filled) = &node.kind {
        check_errors(text, expr::parse(filled));
        check_errors(text, template::parse(filled));
    }
}

/// Tokens of one of the languages.
fn piece() -> impl Strategy<Value = String> {
    let pieces = [
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "#{",
        "#_",
        "#r\"",
        "#inst ",
        "\"",
        "'",
        "`",
        "\\",
        "\\u",
        ":",
        "::",
        ";",
        ",",
        " ",
        "\n",
        "\r\n",
        "->",
        "all",
        "match",
        "pipeline",
        ":else",
        "case ",
        "when ",
        "then ",
        "else ",
        "end ",
        "not ",
        "and ",
        "or ",
        "in ",
        "is ",
        "like ",
        "between ",
        "cast(",
        " as ",
        "@topic",
        "@",
        "%",
        "%Y",
        "${",
        "${env:X}",
        "$${",
        "{{",
        "}}",
        "= ",
        "[stages.a]\n",
        "\"\"\"",
        "'''",
        "1",
        "-",
        "1.5",
        "é",
        "😀",
        "a",
        "\u{0}",
        "\t",
        "/",
        ".",
        "||",
        "9999999999999999999",
    ];
    prop_oneof![8 => prop::sample::select(pieces.to_vec()).prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)]
}

fn mutated() -> impl Strategy<Value = String> {
    let change = (
        any::<prop::sample::Index>(),
        0..12_usize,
        prop::collection::vec(piece(), 0..3),
    );
    (
        prop::sample::select(VALID.to_vec()),
        prop::collection::vec(change, 1..5),
    )
        .prop_map(|(valid, changes)| {
            let mut characters: Vec<char> = valid.chars().collect();
            for (place, removed, added) in changes {
                let from = place.index(characters.len() + 1);
                let to = (from + removed).min(characters.len());
                characters.splice(from..to, added.concat().chars());
            }
            characters.into_iter().collect()
        })
}

fn plain_name() -> impl Strategy<Value = String> {
    "[a-zé_*][a-z0-9é_+.?-]{0,6}"
}

fn any_name() -> impl Strategy<Value = Name> {
    // These three words are not symbols.
    let name = plain_name().prop_filter("a symbol", |name| {
        !["nil", "true", "false"].contains(&name.as_str())
    });
    (prop::option::of(plain_name()), name).prop_map(|(namespace, name)| Name { namespace, name })
}

fn node_without_position(kind: NodeKind) -> Node {
    Node {
        kind,
        span: Span::default(),
    }
}

fn any_node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        Just(NodeKind::Nil),
        any::<bool>().prop_map(NodeKind::Bool),
        any::<i64>().prop_map(NodeKind::Int),
        "-?[1-9][0-9]{0,30}".prop_map(NodeKind::BigInt),
        any::<f64>()
            .prop_filter("a number", |value| value.is_finite())
            .prop_map(NodeKind::Float),
        "-?[1-9][0-9]{0,20}(\\.[0-9]{1,5})?(e-?[0-9]{1,3})?".prop_map(NodeKind::Decimal),
        any::<char>().prop_map(NodeKind::Char),
        any::<String>().prop_map(|text| NodeKind::Str(Text::plain(text, 0))),
        any_name().prop_map(NodeKind::Symbol),
        any_name().prop_map(NodeKind::Keyword),
    ];
    leaf.prop_map(node_without_position)
        .prop_recursive(4, 40, 6, |inner| {
            let items = prop::collection::vec(inner.clone(), 0..6);
            let map = prop::collection::vec((inner.clone(), inner.clone()), 0..4).prop_map(
                |mut entries| {
                    entries.sort_by_key(|(key, _)| print::print(key));
                    entries.dedup_by_key(|(key, _)| print::print(key));
                    NodeKind::Map(entries)
                },
            );
            let set = items.clone().prop_map(|mut items| {
                items.sort_by_key(print::print);
                items.dedup_by_key(|item| print::print(item));
                NodeKind::Set(items)
            });
            let tagged = (any_name(), inner).prop_filter("starts with a letter", |(name, _)| {
                let first = name.namespace.as_ref().unwrap_or(&name.name).chars().next();
                first.is_some_and(char::is_alphabetic)
            });
            let tagged = tagged.prop_map(|(name, value)| NodeKind::Tagged(name, Box::new(value)));
            prop_oneof![
                items.clone().prop_map(NodeKind::List),
                items.prop_map(NodeKind::Vector),
                map,
                set,
                tagged
            ]
            .prop_map(node_without_position)
        })
}

/// The node without source positions, so that only values are compared.
fn without_positions(node: &Node) -> Node {
    let all = |items: &[Node]| items.iter().map(without_positions).collect();
    node_without_position(match &node.kind {
        NodeKind::Str(text) => NodeKind::Str(Text::plain(text.value.as_str(), 0)),
        NodeKind::List(items) => NodeKind::List(all(items)),
        NodeKind::Vector(items) => NodeKind::Vector(all(items)),
        NodeKind::Set(items) => NodeKind::Set(all(items)),
        NodeKind::Map(entries) => NodeKind::Map(
            entries
                .iter()
                .map(|(key, value)| (without_positions(key), without_positions(value)))
                .collect(),
        ),
        NodeKind::Tagged(tag, value) => {
            NodeKind::Tagged(tag.clone(), Box::new(without_positions(value)))
        }
        other => other.clone(),
    })
}

fn without_position(kind: ExprKind) -> Expr {
    Expr {
        kind,
        span: Span::default(),
    }
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

fn any_path() -> impl Strategy<Value = Path> {
    let first = any_step().prop_filter("a path starts with a field", |step| {
        matches!(step, PathStep::Field(_))
    });
    (first, prop::collection::vec(any_step(), 0..3))
        .prop_map(|(first, rest)| Path(std::iter::once(first).chain(rest).collect()))
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

fn any_expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        Just(ExprKind::Literal(Literal::Null)),
        any::<bool>().prop_map(|value| ExprKind::Literal(Literal::Bool(value))),
        any::<i64>().prop_map(|value| ExprKind::Literal(Literal::Int(value))),
        any::<f64>()
            .prop_filter("a number", |value| value.is_finite())
            .prop_map(|value| ExprKind::Literal(Literal::Float(value))),
        any::<String>().prop_map(|value| ExprKind::Literal(Literal::Str(value))),
        any_path().prop_map(ExprKind::Path),
        any_meta().prop_map(ExprKind::Meta),
    ];
    leaf.prop_map(without_position)
        .prop_recursive(5, 40, 4, |inner| {
            let boxed = inner.clone().prop_map(Box::new).boxed();
            let list = prop::collection::vec(inner.clone(), 1..4);
            let binary_ops = vec![
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
                BinaryOp::Concat,
                BinaryOp::Add,
                BinaryOp::Sub,
                BinaryOp::Mul,
                BinaryOp::Div,
                BinaryOp::Mod,
            ];
            let unary = (
                prop::sample::select(vec![UnaryOp::Neg, UnaryOp::Not]),
                boxed.clone(),
            )
                .prop_map(|(op, expr)| ExprKind::Unary(op, expr));
            let binary = (
                boxed.clone(),
                prop::sample::select(binary_ops),
                boxed.clone(),
            )
                .prop_map(|(left, op, right)| ExprKind::Binary(left, op, right));
            let between = (boxed.clone(), boxed.clone(), boxed.clone(), any::<bool>()).prop_map(
                |(expr, low, high, negated)| ExprKind::Between {
                    expr,
                    low,
                    high,
                    negated,
                },
            );
            let within = (boxed.clone(), list, any::<bool>()).prop_map(|(expr, list, negated)| {
                ExprKind::In {
                    expr,
                    list,
                    negated,
                }
            });
            let like = (
                boxed.clone(),
                boxed.clone(),
                any::<Option<char>>(),
                any::<bool>(),
                any::<bool>(),
            )
                .prop_map(
                    |(expr, pattern, escape, case_insensitive, negated)| ExprKind::Like {
                        expr,
                        pattern,
                        escape,
                        case_insensitive,
                        negated,
                    },
                );
            let is = (
                boxed.clone(),
                prop::sample::select(vec![
                    IsPredicate::Null,
                    IsPredicate::True,
                    IsPredicate::False,
                ]),
                any::<bool>(),
            )
                .prop_map(|(expr, predicate, negated)| ExprKind::Is {
                    expr,
                    predicate,
                    negated,
                });
            let whens = prop::collection::vec((inner.clone(), inner.clone()), 1..3);
            let case = (
                prop::option::of(boxed.clone()),
                whens,
                prop::option::of(boxed.clone()),
            )
                .prop_map(|(operand, whens, otherwise)| ExprKind::Case {
                    operand,
                    whens,
                    otherwise,
                });
            let types = prop::sample::select(vec![
                "int",
                "decimal(10,2)",
                "double precision",
                "timestamp(3) with time zone",
                "timestamp",
            ]);
            let cast =
                (boxed, types, any::<bool>()).prop_map(|(expr, to, try_cast)| ExprKind::Cast {
                    expr,
                    to: to.to_owned(),
                    to_span: Span::default(),
                    try_cast,
                });
            let names =
                prop::sample::select(vec!["lower", "now", "date", "left", "to_timestamp_millis"]);
            let call = (names, prop::collection::vec(inner, 0..3)).prop_map(|(name, args)| {
                ExprKind::Call {
                    name: name.to_owned(),
                    name_span: Span::default(),
                    args,
                }
            });
            prop_oneof![unary, binary, between, within, like, is, case, cast, call]
                .prop_map(without_position)
        })
}

fn expr_without_positions(expr: &Expr) -> Expr {
    let boxed = |expr: &Expr| Box::new(expr_without_positions(expr));
    let all = |exprs: &[Expr]| exprs.iter().map(expr_without_positions).collect();
    without_position(match &expr.kind {
        ExprKind::Unary(op, operand) => ExprKind::Unary(*op, boxed(operand)),
        ExprKind::Binary(left, op, right) => ExprKind::Binary(boxed(left), *op, boxed(right)),
        ExprKind::Between {
            expr,
            low,
            high,
            negated,
        } => ExprKind::Between {
            expr: boxed(expr),
            low: boxed(low),
            high: boxed(high),
            negated: *negated,
        },
        ExprKind::In {
            expr,
            list,
            negated,
        } => ExprKind::In {
            expr: boxed(expr),
            list: all(list),
            negated: *negated,
        },
        ExprKind::Like {
            expr,
            pattern,
            escape,
            case_insensitive,
            negated,
        } => {
            let (expr, pattern) = (boxed(expr), boxed(pattern));
            ExprKind::Like {
                expr,
                pattern,
                escape: *escape,
                case_insensitive: *case_insensitive,
                negated: *negated,
            }
        }
        ExprKind::Is {
            expr,
            predicate,
            negated,
        } => ExprKind::Is {
            expr: boxed(expr),
            predicate: *predicate,
            negated: *negated,
        },
        ExprKind::Case {
            operand,
            whens,
            otherwise,
        } => ExprKind::Case {
            operand: operand.as_deref().map(boxed),
            whens: whens
                .iter()
                .map(|(when, then)| (expr_without_positions(when), expr_without_positions(then)))
                .collect(),
            otherwise: otherwise.as_deref().map(boxed),
        },
        ExprKind::Cast {
            expr, to, try_cast, ..
        } => ExprKind::Cast {
            expr: boxed(expr),
            to: to.clone(),
            to_span: Span::default(),
            try_cast: *try_cast,
        },
        ExprKind::Call { name, args, .. } => ExprKind::Call {
            name: name.clone(),
            name_span: Span::default(),
            args: all(args),
        },
        leaf => leaf.clone(),
    })
}

#[test]
fn the_inputs_to_mutate_are_valid() {
    for text in VALID {
        let plain = Text::plain(text, 0);
        let is_document =
            from_edn(text).is_ok() || from_toml(text).is_ok() || from_flow(text).is_ok();
        let is_part = edn::read(text).is_ok()
            || expr::parse(&plain).is_ok()
            || expr::parse_select(&plain).is_ok();
        assert!(
            is_document
                || is_part
                || template::parse(&plain).is_ok()
                || units::duration(text).is_ok(),
            "{text}"
        );
        read_everything(text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in any::<String>()) {
        read_everything(&text);
    }

    #[test]
    fn any_pieces(pieces in prop::collection::vec(piece(), 0..40)) {
        read_everything(&pieces.concat());
    }

    #[test]
    fn mutated_texts(text in mutated()) {
        read_everything(&text);
    }

    #[test]
    fn printed_edn_parses_to_the_same_value(node in any_node()) {
        let printed = print::print(&node);
        let read = edn::read(&printed)
            .map_err(|errors| TestCaseError::fail(format!("{printed}: {errors:?}")))?;
        prop_assert_eq!(without_positions(&read), without_positions(&node));
        let laid_out = print::pretty(&node);
        let read = edn::read(&laid_out)
            .map_err(|errors| TestCaseError::fail(format!("{laid_out}: {errors:?}")))?;
        prop_assert_eq!(without_positions(&read), without_positions(&node));
    }

    #[test]
    fn printed_expressions_parse_to_the_same_value(expr in any_expr()) {
        let printed = expr.to_string();
        let read = expr::parse(&Text::plain(printed.as_str(), 0))
            .map_err(|errors| TestCaseError::fail(format!("{printed}: {errors:?}")))?;
        prop_assert_eq!(expr_without_positions(&read), expr, "{}", printed);
    }
}
