//! EDN values.

use proptest::prelude::*;
use pseidon_dsl::node::Text;
use pseidon_dsl::{Name, Node, NodeKind, Span, print};

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

pub(super) fn any_node() -> impl Strategy<Value = Node> {
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
pub(super) fn without_positions(node: &Node) -> Node {
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
