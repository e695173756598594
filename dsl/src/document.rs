//! What the top-level map of a pipeline file means.
//!
//! Symbols define stages, keywords are settings, `pipeline` is the flow.

mod build;
mod flow;

use crate::node::Text;
use crate::{Diagnostic, Name, Node, Span, edn, toml};

/// Reads a pipeline file in EDN.
///
/// # Errors
/// All mistakes, in the order of the file.
pub fn from_edn(text: &str) -> Result<Document, Vec<Diagnostic>> {
    let (node, mut mistakes) = edn::recover(text);
    match node.map(build::document) {
        Some(Ok(document)) if mistakes.is_empty() => Ok(document),
        Some(Err(more)) => {
            // What could not be read may look wrong here too, but only for that reason.
            let overlaps = |one: Span, other: Span| one.start < other.end && other.start < one.end;
            let unread: Vec<Span> = mistakes.iter().map(|mistake| mistake.span).collect();
            mistakes.extend(
                more.into_iter()
                    .filter(|mistake| !unread.iter().any(|span| overlaps(*span, mistake.span))),
            );
            mistakes.sort_by_key(|mistake| mistake.span);
            Err(mistakes)
        }
        _ => Err(mistakes),
    }
}

/// Reads a pipeline file in TOML.
///
/// # Errors
/// All mistakes, in the order of the file.
pub fn from_toml(text: &str) -> Result<Document, Vec<Diagnostic>> {
    build::document(toml::read(text)?)
}

/// The document of a map that was read already.
///
/// # Errors
/// All mistakes, in the order of the file.
pub(crate) fn from_node(node: Node) -> Result<Document, Vec<Diagnostic>> {
    build::document(node)
}

/// Reads a flow that is the whole pipeline, as on a command line. Texts in it may stand in single
/// quotes.
///
/// # Errors
/// All mistakes, in the order of the text.
pub fn from_flow(text: &str) -> Result<Document, Vec<Diagnostic>> {
    let node = edn::read_quoted(&Text::plain(text, 0))?;
    let mut mistakes = Vec::new();
    match flow::flow(&node, &mut mistakes) {
        Some(pipeline) if mistakes.is_empty() => Ok(Document {
            name: None,
            settings: Vec::new(),
            stages: Vec::new(),
            pipeline,
            tests: Vec::new(),
        }),
        _ => Err(mistakes),
    }
}

/// A pipeline file, read but not yet checked against the plugins that exist.
#[derive(Clone, Debug)]
pub struct Document {
    /// `:name`. A file without one is named after itself by the caller.
    pub name: Option<(String, Span)>,
    /// The entries of `:settings`.
    pub settings: Vec<(Name, Span, Node)>,
    /// The named stages, in the order of the file.
    pub stages: Vec<Stage>,
    /// `pipeline`, or `(-> disk-writer)` where the file has none.
    pub pipeline: Flow,
    /// `:tests`
    pub tests: Vec<Test>,
}

/// A named stage: `clicks (kafka {…})`.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The symbol that names it.
    pub name: Name,
    /// Where the symbol stands.
    pub name_span: Span,
    /// What it is.
    pub call: Call,
}

/// The use of a plugin: `(kafka {…})`, `(where "…")`, or a bare symbol (no arguments).
#[derive(Clone, Debug)]
pub struct Call {
    /// The plugin's name; a legacy file has a class name here.
    pub plugin: Name,
    /// Where that name stands.
    pub plugin_span: Span,
    /// What follows it.
    pub args: Vec<Node>,
    /// The whole form.
    pub span: Span,
}

/// The flow: how stages are put together.
#[derive(Clone, Debug)]
pub enum Flow {
    /// The name of a stage, or of a plugin that needs no arguments.
    Named(Name, Span),
    /// A stage written in place.
    Inline(Call),
    /// `(-> a b c)`
    Thread(Vec<Flow>, Span),
    /// `(all a b)`
    All(Vec<Flow>, Span),
    /// `(match "t" a #r"re" b :else c)`
    Match {
        /// Patterns and what they lead to, tried in order.
        branches: Vec<Branch>,
        /// What `:else` leads to.
        otherwise: Option<Box<Flow>>,
        /// The whole form.
        span: Span,
    },
}

/// One branch of `match`.
#[derive(Clone, Debug)]
pub struct Branch {
    /// What the topic is compared with.
    pub pattern: Pattern,
    /// Where the pattern stands.
    pub span: Span,
    /// Where a record that fits goes.
    pub flow: Flow,
}

/// What `match` compares a record's topic with.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// Equal to this text.
    Text(String),
    /// The regular expression is found in it; checked to be one when the file is read.
    Regex(Text),
}

/// An entry of `:tests`.
#[derive(Clone, Debug)]
pub struct Test {
    /// `:name`
    pub name: String,
    /// `:at`: the stage whose output is looked at.
    pub at: (Name, Span),
    /// `:input`: records as maps (or texts, for formats that are not maps).
    pub input: Vec<Node>,
    /// `:output`: what is expected, in order.
    pub output: Vec<Node>,
    /// The whole entry.
    pub span: Span,
}

impl Document {
    /// All uses of plugins: the named stages, then those that stand inline, in the order of the
    /// file.
    pub fn calls(&self) -> Vec<&Call> {
        let mut calls: Vec<&Call> = self.stages.iter().map(|stage| &stage.call).collect();
        self.pipeline.inline_calls(&mut calls);
        calls
    }
}

impl Flow {
    fn inline_calls<'a>(&'a self, calls: &mut Vec<&'a Call>) {
        match self {
            Flow::Named(..) => {}
            Flow::Inline(call) => calls.push(call),
            Flow::Thread(flows, _) | Flow::All(flows, _) => {
                flows.iter().for_each(|flow| flow.inline_calls(calls))
            }
            Flow::Match {
                branches,
                otherwise,
                ..
            } => {
                branches
                    .iter()
                    .for_each(|branch| branch.flow.inline_calls(calls));
                otherwise.iter().for_each(|flow| flow.inline_calls(calls));
            }
        }
    }

    /// The form's place.
    pub fn span(&self) -> Span {
        match self {
            Flow::Named(_, span)
            | Flow::Thread(_, span)
            | Flow::All(_, span)
            | Flow::Match { span, .. } => *span,
            Flow::Inline(call) => call.span,
        }
    }
}
