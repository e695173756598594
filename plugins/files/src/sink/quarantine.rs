//! The quarantine: invalid records as JSON objects in files.

use pseidon_dsl::node::Text;
use pseidon_dsl::{Diagnostic, Name, Node, NodeKind, Span};
use pseidon_plugin::Options;
use pseidon_plugin::registry::QuarantinePlace;

use super::options::SPEC;

/// The options of a sink that writes invalid records to this place.
///
/// # Errors
/// None, as long as the options below are declared.
pub fn quarantine_options(place: &QuarantinePlace) -> Result<Options, Vec<Diagnostic>> {
    let folder = place.folder.replace('{', "{{").replace('}', "}}");
    let path = Text::plain(format!("{folder}/{{{}}}", place.subfolder), 0);
    let entries = [
        ("path", NodeKind::Str(path)),
        ("codec", keyword("json")),
        ("on-error", keyword("throw")),
    ];
    let entries = entries.map(|(name, value)| (node(keyword(name)), node(value)));
    let map = node(NodeKind::Map(entries.into()));
    Options::parse(&SPEC, &[map], Span::default())
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
