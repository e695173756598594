//! Conversion of pseidon-plugin pipelines: `{a some.Plugin pipeline (-> a disk-writer)}`.
//!
//! The map is either the value of `:plugins` (where a list or a symbol is the flow alone), or its
//! symbols are keys of pseidon.edn itself. The flow has no source, because records came from the
//! topics of the table. The conversion puts the source before it.

use pseidon_dsl::class::{class_error, names_class};
use pseidon_dsl::document::{self, Document, Flow};
use pseidon_dsl::{Diagnostic, Name, Node, NodeKind, Span};

use super::writer::{DISK_WRITER, Writers};
use crate::build::{keyword, list, symbol, text};
use crate::read::{Findings, Keys};
use crate::{Note, NoteKind};

const SOURCE: &str = "logs";
const PIPELINE: &str = "pipeline";

/// The stages and the flow of a file.
pub(super) struct Plugins<'a> {
    stages: Vec<(&'a Node, &'a Node)>,
    flow: Option<&'a Node>,
    /// The names of all stages that are defined or used.
    names: Vec<Name>,
    uses_disk_writer: bool,
}

/// Whether a map without keywords is a pseidon-plugin pipeline rather than a pipeline file: its
/// stages are names of classes, or it uses `disk-writer` without defining it.
pub(super) fn is_standalone(entries: &[(Node, Node)]) -> bool {
    let is_named = |key: &Node, wanted: &str| matches!(&key.kind, NodeKind::Symbol(name) if name.to_string() == wanted);
    let names_a_class = |value: &Node| match &value.kind {
        NodeKind::Symbol(name) => names_class(name),
        _ => false,
    };
    let flow = entries
        .iter()
        .find(|(key, _)| is_named(key, PIPELINE))
        .map(|(_, value)| value);
    let is_writer_defined = entries.iter().any(|(key, _)| is_named(key, DISK_WRITER));
    let mut stages = entries
        .iter()
        .filter(|(key, _)| !is_named(key, PIPELINE))
        .map(|(_, value)| value);
    // In a pipeline file, at least the source is written `(plugin …)`.
    stages
        .clone()
        .all(|stage| matches!(stage.kind, NodeKind::Symbol(_)))
        && (stages.any(names_a_class)
            || (!is_writer_defined && flow.is_some_and(|flow| mentions(flow, DISK_WRITER))))
}

/// Whether a flow uses a stage with this name.
fn mentions(flow: &Node, wanted: &str) -> bool {
    match &flow.kind {
        NodeKind::Symbol(name) => name.to_string() == wanted,
        NodeKind::List(items) => items.iter().any(|item| mentions(item, wanted)),
        _ => false,
    }
}

impl<'a> Plugins<'a> {
    /// Reads the pipeline from `symbols`, the entries of pseidon.edn whose keys are symbols, and
    /// from the keys `:plugins` and `:pipeline`.
    pub(super) fn read(
        findings: &mut Findings,
        symbols: &[&'a (Node, Node)],
        keys: &mut Keys<'a>,
    ) -> Plugins<'a> {
        let mut entries: Vec<(&Node, &Node)> =
            symbols.iter().map(|(key, value)| (key, value)).collect();
        let mut flows: Vec<(Span, &Node)> = Vec::new();
        for name in ["plugins", PIPELINE] {
            let Some(given) = keys.take(name) else {
                continue;
            };
            match &given.value.kind {
                NodeKind::Map(more) => entries.extend(more.iter().map(|(key, value)| (key, value))),
                NodeKind::List(_) | NodeKind::Symbol(_) => flows.push((given.key, given.value)),
                _ => findings.invalid(&given, "a map such as {pipeline (-> disk-writer)}"),
            }
        }
        // Sorted, so that a duplicate is reported at its second occurrence.
        entries.sort_by_key(|(key, _)| key.span);
        let mut stages: Vec<(&Node, &Node)> = Vec::new();
        for (key, value) in entries {
            match &key.kind {
                NodeKind::Symbol(name) if name.to_string() == PIPELINE => {
                    flows.push((key.span, value))
                }
                NodeKind::Symbol(name)
                    if stages.iter().any(|(other, _)| other.kind == key.kind) =>
                {
                    findings.errors.push(Diagnostic::new(
                        key.span,
                        format!("duplicate stage `{name}`"),
                        "second occurrence",
                    ));
                }
                NodeKind::Symbol(_) => stages.push((key, value)),
                _ => {
                    let label = "expected a symbol: a stage name or `pipeline`";
                    findings.errors.push(Diagnostic::new(
                        key.span,
                        format!("{} cannot be a key in a pipeline", key.describe()),
                        label,
                    ));
                }
            }
        }
        flows.sort_by_key(|(key, _)| *key);
        let more = flows
            .iter()
            .skip(1)
            .map(|(key, _)| Diagnostic::new(*key, "duplicate pipeline", "second occurrence"));
        findings.errors.extend(more);
        let flow = flows.first().map(|(_, flow)| *flow);
        let mut plugins = Plugins {
            stages,
            flow,
            names: Vec::new(),
            uses_disk_writer: true,
        };
        plugins.check(findings);
        plugins
    }

    /// Reads stages and flow as a pipeline file, so that errors are reported at their positions,
    /// and checks for class names.
    fn check(&mut self, findings: &mut Findings) {
        let pipeline = Node {
            kind: NodeKind::Symbol(Name::plain(PIPELINE)),
            span: Span::default(),
        };
        let flow = self.flow.cloned().unwrap_or_else(default_flow);
        let entries = self
            .stages
            .iter()
            .map(|(key, value)| ((*key).clone(), (*value).clone()))
            .chain([(pipeline, flow)])
            .collect();
        match document::from_node(Node {
            kind: NodeKind::Map(entries),
            span: Span::default(),
        }) {
            Ok(document) => self.check_document(findings, &document),
            Err(errors) => findings.errors.extend(errors),
        }
    }

    fn check_document(&mut self, findings: &mut Findings, document: &Document) {
        let mut used: Vec<(&Name, Span)> = Vec::new();
        let named = document.flows.iter().map(|named| &named.flow);
        named
            .chain([&document.pipeline])
            .for_each(|flow| names_in(flow, &mut used));
        for stage in document
            .stages
            .iter()
            .filter(|stage| names_class(&stage.call.plugin))
        {
            let call = &stage.call;
            if used.iter().any(|(name, _)| **name == stage.name) {
                let label = format!("used in the pipeline as `{}`", stage.name);
                findings
                    .errors
                    .push(class_error(&call.plugin, call.plugin_span, &label));
                continue;
            }
            self.stages.retain(|(key, _)| key.span != stage.name_span);
            let note = Note {
                key: stage.name.to_string(),
                span: stage.name_span,
                kind: NoteKind::NoEffect,
                sentence: format!(
                    "it is not used, and the class `{}` is not supported",
                    call.plugin
                ),
            };
            findings.notes.push(note);
        }
        let is_defined = |name: &Name| {
            document.stages.iter().any(|stage| stage.name == *name)
                || document.flows.iter().any(|named| named.name == *name)
        };
        for (name, span) in used
            .iter()
            .filter(|(name, _)| names_class(name) && !is_defined(name))
        {
            findings
                .errors
                .push(class_error(name, *span, "used in the pipeline"));
        }
        let writer = Name::plain(DISK_WRITER);
        self.uses_disk_writer =
            used.iter().any(|(name, _)| **name == writer) && !is_defined(&writer);
        self.names = document
            .stages
            .iter()
            .map(|stage| stage.name.clone())
            .chain(used.iter().map(|(name, _)| (*name).clone()))
            .collect();
    }

    /// Whether the flow uses `disk-writer` and the file does not define it.
    pub(super) fn uses_disk_writer(&self) -> bool {
        self.uses_disk_writer
    }

    /// The entries of the pipeline file: the stages and the flow.
    pub(super) fn pipeline(self, source: Node, writers: Option<Writers>) -> Vec<(Node, Node)> {
        let mut names = self.names;
        let mut name_of = |wanted: &str| {
            let name = unique_name(wanted, &names);
            names.push(Name::plain(&name));
            name
        };
        let source_name = name_of(SOURCE);
        let mut entries = vec![(symbol(&source_name), source)];
        entries.extend(
            self.stages
                .into_iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        let mut flow = self.flow.cloned().unwrap_or_else(default_flow);
        if let Some(writers) = writers {
            let mut topics = Vec::new();
            for (topic, writer) in writers.of_topics {
                let name = name_of(&format!("{DISK_WRITER}-{topic}"));
                entries.push((symbol(&name), writer));
                topics.push((topic, name));
            }
            entries.push((symbol(DISK_WRITER), writers.of_all));
            if !topics.is_empty() {
                let is_last = is_only_writer(&flow);
                replace_writer(&mut flow, &by_topic(topics, is_last));
            }
        }
        entries.push((symbol(PIPELINE), with_source(&source_name, flow)));
        entries
    }
}

/// `wanted`, or else `wanted` with the lowest number that makes it different from all names in
/// `taken`.
fn unique_name(wanted: &str, taken: &[Name]) -> String {
    let is_taken = |name: &str| taken.iter().any(|other| other.to_string() == name);
    let numbered = (2..).map(|number| format!("{wanted}-{number}"));
    std::iter::once(wanted.to_owned())
        .chain(numbered)
        .find(|name| !is_taken(name))
        .unwrap_or_else(|| wanted.to_owned())
}

/// The flow of a file that does not define one, as in pseidon-etl.
fn default_flow() -> Node {
    list(vec![symbol("->"), symbol(DISK_WRITER)])
}

/// Collects the names in a flow: of stages, and of the plugins of inline stages.
fn names_in<'d>(flow: &'d Flow, names: &mut Vec<(&'d Name, Span)>) {
    match flow {
        Flow::Named(name, span) => names.push((name, *span)),
        Flow::Inline(call) => names.push((&call.plugin, call.plugin_span)),
        other => {
            let parts = other.parts().into_iter();
            parts.for_each(|part| names_in(part, names));
        }
    }
}

/// The flow with the source before it: `(-> source …)`.
fn with_source(source: &str, flow: Node) -> Node {
    match flow.kind {
        NodeKind::List(mut items) if is_form(&items, "->") => {
            items.insert(1, symbol(source));
            list(items)
        }
        kind => list(vec![
            symbol("->"),
            symbol(source),
            Node {
                kind,
                span: flow.span,
            },
        ]),
    }
}

/// The flow that replaces `disk-writer` if some topics have their own rules. A `match` branch that
/// ends in a sink passes no records on. So unless the flow ends here, `all` passes the records on,
/// as `disk-writer` does.
fn by_topic(topics: Vec<(String, String)>, is_last: bool) -> Node {
    let mut items = vec![symbol("match")];
    for (topic, writer) in topics {
        items.extend([text(topic), symbol(&writer)]);
    }
    items.extend([keyword("else"), symbol(DISK_WRITER)]);
    let by_topic = list(items);
    if is_last {
        by_topic
    } else {
        list(vec![symbol("all"), by_topic])
    }
}

/// Whether the flow is `disk-writer` or `(-> disk-writer)`.
fn is_only_writer(flow: &Node) -> bool {
    match &flow.kind {
        NodeKind::Symbol(name) => *name == Name::plain(DISK_WRITER),
        NodeKind::List(items) => {
            is_form(items, "->") && matches!(items.as_slice(), [_, only] if is_only_writer(only))
        }
        _ => false,
    }
}

/// Replaces each `disk-writer` in the flow by `with`.
fn replace_writer(flow: &mut Node, with: &Node) {
    match &mut flow.kind {
        NodeKind::Symbol(name) if *name == Name::plain(DISK_WRITER) => *flow = with.clone(),
        NodeKind::List(items) => {
            let (first, step) = if is_form(items, "match") {
                (2, 2)
            } else {
                (1, 1)
            };
            // A list with any other head is an inline stage. Its arguments are not a flow.
            if step == 2 || is_form(items, "->") || is_form(items, "all") {
                items
                    .iter_mut()
                    .skip(first)
                    .step_by(step)
                    .for_each(|item| replace_writer(item, with));
            }
        }
        _ => {}
    }
}

fn is_form(items: &[Node], form: &str) -> bool {
    items.first().is_some_and(
        |head| matches!(&head.kind, NodeKind::Symbol(name) if *name == Name::plain(form)),
    )
}
