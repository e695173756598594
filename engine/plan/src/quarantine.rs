//! The quarantine of invalid records: JSON objects in files next to the output.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use pseidon_dsl::node::Text;
use pseidon_dsl::{Diagnostic, Name, Node, NodeKind, Span};
use pseidon_plugin::options::Options;
use pseidon_plugin::sink::SinkPlugin;

use crate::resolve::{ResolvedStep, ResolvedStepKind};

/// The columns of a quarantined record. `record` is its text, or null if it is not UTF-8; then
/// `record_base64` has its bytes.
pub fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        text("stage"),
        text("reason"),
        text("split"),
        text("topic"),
        Field::new("partition", DataType::Int32, true),
        Field::new("position", DataType::UInt64, true),
        text("record"),
        text("record_base64"),
    ]))
}

/// The default folder for invalid records: `quarantine`, next to the folder of the first sink that
/// has one.
pub(crate) fn folder(chain: &[ResolvedStep]) -> String {
    match first_folder(chain) {
        Some(folder) => match folder.trim_end_matches('/').rsplit_once('/') {
            Some((parent, _)) => format!("{parent}/quarantine"),
            None => "quarantine".to_owned(),
        },
        None => "quarantine".to_owned(),
    }
}

/// The folder of the first sink in the chain that has one.
fn first_folder(chain: &[ResolvedStep]) -> Option<String> {
    chain.iter().find_map(|step| match &step.kind {
        ResolvedStepKind::Sink(plugin, options) => plugin.facts(options).folder,
        ResolvedStepKind::All(branches) => branches.iter().find_map(|branch| first_folder(branch)),
        ResolvedStepKind::Match {
            branches,
            otherwise,
        } => branches
            .iter()
            .map(|(_, chain)| chain)
            .chain(otherwise)
            .find_map(|chain| first_folder(chain)),
        ResolvedStepKind::Where(_) | ResolvedStepKind::Select(_) => None,
    })
}

/// The options of the sink that writes the invalid records of this pipeline to `folder`.
pub(crate) fn options(
    plugin: &dyn SinkPlugin,
    folder: &str,
    pipeline: &str,
) -> Result<Options, Vec<Diagnostic>> {
    let keyword = |name: &str| Node {
        kind: NodeKind::Keyword(Name::plain(name)),
        span: Span::default(),
    };
    let text = |value: String| Node {
        kind: NodeKind::Str(Text::plain(value, 0)),
        span: Span::default(),
    };
    let literal = |text: &str| text.replace('{', "{{").replace('}', "}}");
    let path = format!("{}/{}/{{stage}}", literal(folder), literal(pipeline));
    let entries = vec![
        (keyword("path"), text(path)),
        (keyword("codec"), keyword("json")),
        (keyword("on-error"), keyword("throw")),
    ];
    let map = Node {
        kind: NodeKind::Map(entries),
        span: Span::default(),
    };
    Options::parse(plugin.spec(), &[map], Span::default())
}
