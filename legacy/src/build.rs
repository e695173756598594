//! Constructors for the nodes of a converted pipeline file. The nodes have no source positions:
//! they get them when the printed text is read.

use std::time::Duration;

use pseidon_dsl::node::Text;
use pseidon_dsl::{Name, Node, NodeKind, Span};

/// The longest duration in a converted file. Legacy files use longer values for "never", which can
/// exceed the range of timestamps.
const LONGEST: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

fn node(kind: NodeKind) -> Node {
    Node {
        kind,
        span: Span::default(),
    }
}

pub(crate) fn text(value: impl Into<String>) -> Node {
    node(NodeKind::Str(Text::plain(value, 0)))
}

pub(crate) fn int(value: i64) -> Node {
    node(NodeKind::Int(value))
}

pub(crate) fn keyword(name: &str) -> Node {
    node(NodeKind::Keyword(Name::plain(name)))
}

pub(crate) fn symbol(name: &str) -> Node {
    node(NodeKind::Symbol(Name::plain(name)))
}

pub(crate) fn list(items: Vec<Node>) -> Node {
    node(NodeKind::List(items))
}

pub(crate) fn texts(values: &[String]) -> Node {
    node(NodeKind::Vector(values.iter().map(text).collect()))
}

/// A duration in milliseconds as a string with a unit: `60s`, `1500ms`.
pub(crate) fn millis(value: u64) -> Node {
    let time = Duration::from_millis(value).min(LONGEST);
    let (seconds, rest) = (time.as_secs(), time.subsec_millis());
    text(if rest == 0 {
        format!("{seconds}s")
    } else {
        format!("{}ms", time.as_millis())
    })
}

/// A map entry with a keyword as key. `None` if there is no value.
pub(crate) fn entry(key: &str, value: impl Into<Option<Node>>) -> Option<(Node, Node)> {
    value.into().map(|value| (keyword(key), value))
}

pub(crate) fn map(entries: impl IntoIterator<Item = Option<(Node, Node)>>) -> Node {
    node(NodeKind::Map(entries.into_iter().flatten().collect()))
}
