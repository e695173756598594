//! Our values as those of edn-rs.

use edn_rs::{Edn, List, Map, Set, Vector};
use pseidon_dsl::{Node, NodeKind};

/// The value of edn-rs for the same node.
pub(crate) fn converted(node: &Node) -> Edn {
    let all = |items: &[Node]| items.iter().map(converted).collect::<Vec<_>>();
    match &node.kind {
        NodeKind::Nil => Edn::Nil,
        NodeKind::Bool(value) => Edn::Bool(*value),
        NodeKind::Int(value) => u64::try_from(*value).map_or(Edn::Int(*value), Edn::UInt),
        NodeKind::BigInt(digits) => digits
            .parse()
            .map(Edn::UInt)
            .expect("the test inputs contain no larger numbers"),
        NodeKind::Float(value) => Edn::Double((*value).into()),
        NodeKind::Char(value) => Edn::Char(*value),
        NodeKind::Str(text) => Edn::Str(text.value.clone()),
        NodeKind::Symbol(name) => Edn::Symbol(name.to_string()),
        NodeKind::Keyword(name) => Edn::Key(format!(":{name}")),
        NodeKind::List(items) => Edn::List(List::new(all(items))),
        NodeKind::Vector(items) => Edn::Vector(Vector::new(all(items))),
        NodeKind::Set(items) => Edn::Set(Set::new(all(items).into_iter().collect())),
        NodeKind::Map(entries) => Edn::Map(Map::new(
            entries
                .iter()
                .map(|(key, value)| (converted(key).to_string(), converted(value)))
                .collect(),
        )),
        NodeKind::Tagged(tag, value) => Edn::Tagged(tag.to_string(), Box::new(converted(value))),
        NodeKind::Decimal(_) | NodeKind::Regex(_) => panic!("edn-rs has none"),
    }
}
