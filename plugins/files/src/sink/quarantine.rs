//! The quarantine: invalid records as JSON objects in files.

use std::sync::Arc;

use pseidon_dsl::node::Text;
use pseidon_dsl::{Name, Node, NodeKind, Span};
use pseidon_plugin::options::ParseResult;
use pseidon_plugin::registry::QuarantinePlace;
use pseidon_plugin::stage::{SinkFactory, SinkStage};

use super::FilesSink;

/// The sink that writes invalid records to this place.
///
/// # Errors
/// None, as long as the options below are declared.
pub fn quarantine(place: &QuarantinePlace) -> ParseResult<SinkStage> {
    let folder = place.folder.replace('{', "{{").replace('}', "}}");
    let path = Text::plain(format!("{folder}/{{{}}}", place.subfolder), 0);
    let entries = [
        ("path", NodeKind::Str(path)),
        // It holds whole records.
        ("mode", NodeKind::Str(Text::plain("0600".to_owned(), 0))),
        ("codec", keyword("json")),
        ("on-error", keyword("throw")),
    ];
    let entries = entries.map(|(name, value)| (node(keyword(name)), node(value)));
    let map = node(NodeKind::Map(entries.into()));
    Arc::new(FilesSink).configure(&[map], Span::default())
}

fn keyword(name: &str) -> NodeKind {
    NodeKind::Keyword(Name::plain(name))
}

/// A node that is in no file.
fn node(kind: NodeKind) -> Node {
    Node {
        kind,
        span: Span::default(),
    }
}
