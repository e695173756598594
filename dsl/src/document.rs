//! The structure of a pipeline file: what its top-level map means.
//!
//! A symbol defines a stage, a keyword (`:name`, `:settings`, `:tests`) configures the pipeline,
//! and the symbol `pipeline` holds the flow.

mod build;
mod expressions;
mod flow;
mod other_language;

use std::fmt::Display;

use crate::filled_string::FilledString;
use crate::node::Text;
use crate::{Diagnostic, Name, Node, Span, edn, toml};

/// Reads a pipeline file in EDN.
///
/// # Errors
/// All errors, in source order.
pub fn from_edn(text: &str) -> Result<Document, Vec<Diagnostic>> {
    read_edn(text, build::document)
        .map_err(|errors| other_language::instead_of_edn(text).map_or(errors, |it| vec![it]))
}

/// What can be built of a pipeline file in EDN whose syntax is valid and whose keys are not: a
/// document of which all stages, flows and expressions are known, so that it can be checked further.
/// `None` if there is none.
pub fn partial_from_edn(text: &str) -> Option<Document> {
    build::partial(edn::read(text).ok()?).0
}

/// The same in TOML.
pub fn partial_from_toml(text: &str) -> Option<Document> {
    build::partial(toml::read(text).ok()?).0
}

fn read_edn<T>(
    text: &str,
    build: fn(Node) -> Result<T, Vec<Diagnostic>>,
) -> Result<T, Vec<Diagnostic>> {
    let (node, mut errors) = edn::recover(text);
    match node.map(build) {
        Some(Ok(built)) if errors.is_empty() => Ok(built),
        Some(Err(more)) => {
            // A form that could not be read is `nil` here. An error about that `nil` is a
            // consequence, not a second error.
            let overlaps = |one: Span, other: Span| one.start < other.end && other.start < one.end;
            let unread: Vec<Span> = errors.iter().map(|error| error.span).collect();
            errors.extend(
                more.into_iter()
                    .filter(|error| !unread.iter().any(|span| overlaps(*span, error.span))),
            );
            errors.sort_by_key(|error| error.span);
            Err(errors)
        }
        _ => Err(errors),
    }
}

/// Reads a pipeline file in TOML.
///
/// # Errors
/// All errors, in source order.
pub fn from_toml(text: &str) -> Result<Document, Vec<Diagnostic>> {
    let read = toml::read(text)
        .and_then(build::document)
        .map_err(|errors| errors.into_iter().map(toml::in_toml).collect());
    read.map_err(|errors| other_language::instead_of_toml(text).map_or(errors, |it| vec![it]))
}

/// Reads an included file in EDN.
///
/// # Errors
/// All errors, in source order.
pub fn fragment_from_edn(text: &str) -> Result<Fragment, Vec<Diagnostic>> {
    read_edn(text, build::fragment)
}

/// Reads an included file in TOML.
///
/// # Errors
/// All errors, in source order.
pub fn fragment_from_toml(text: &str) -> Result<Fragment, Vec<Diagnostic>> {
    toml::read(text).and_then(build::fragment)
}

/// Builds a document from a map that has already been read.
///
/// # Errors
/// All errors, in source order.
pub fn from_node(node: Node) -> Result<Document, Vec<Diagnostic>> {
    build::document(node)
}

/// Reads a flow that is the whole pipeline, as on a command line. Strings in it may be written in
/// single quotes.
///
/// # Errors
/// All errors, in source order.
pub fn from_flow(text: &str) -> Result<Document, Vec<Diagnostic>> {
    let node = edn::read_quoted(&Text::plain(text, 0))?;
    let mut errors = Vec::new();
    match flow::flow(&node, &mut errors) {
        Some(pipeline) if errors.is_empty() => Ok(Document {
            name: None,
            settings: Vec::new(),
            stages: Vec::new(),
            flows: Vec::new(),
            expressions: Vec::new(),
            includes: Vec::new(),
            pipeline,
            tests: Vec::new(),
            substituted: Vec::new(),
        }),
        _ => Err(errors),
    }
}

/// A parsed pipeline file, not yet checked against the available plugins.
#[derive(Clone, Debug)]
pub struct Document {
    /// `:name`. Without it, the caller names the pipeline after the file.
    pub name: Option<(String, Span)>,
    /// The entries of `:settings`: key, position of the key, value.
    pub settings: Vec<(Name, Span, Node)>,
    /// The named stages, in source order; those of included files follow.
    pub stages: Vec<Stage>,
    /// The named flows, in source order; those of included files follow.
    pub flows: Vec<NamedFlow>,
    /// The entries of `:expressions`, in source order; those of included files follow.
    pub expressions: Vec<NamedExpression>,
    /// The entries of `:include`.
    pub includes: Vec<Include>,
    /// `pipeline`.
    pub pipeline: Flow,
    /// The entries of `:tests`.
    pub tests: Vec<Test>,
    /// The strings with substituted values; [`crate::interpolate`] adds them.
    pub substituted: Vec<FilledString>,
}

/// A file that is included.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// The named stages, in source order.
    pub stages: Vec<Stage>,
    /// The named flows, in source order.
    pub flows: Vec<NamedFlow>,
    /// The entries of `:expressions`, in source order.
    pub expressions: Vec<NamedExpression>,
    /// The entries of `:include`.
    pub includes: Vec<Include>,
}

/// An entry of `:include`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Include {
    /// The path, as written.
    pub path: String,
    /// The position of the string.
    pub span: Span,
}

/// A named flow: `cleaned (-> parsed reduced)`. Where the name is used, it stands for the flow.
#[derive(Clone, Debug)]
pub struct NamedFlow {
    /// The symbol that names the flow.
    pub name: Name,
    /// The position of that symbol.
    pub name_span: Span,
    /// The flow.
    pub flow: Flow,
    /// Whether it was included, so that it may be unused.
    pub included: bool,
}

/// A named expression: `"share(part, whole)" "part / whole"`. A call of the name stands for the
/// expression.
#[derive(Clone, Debug)]
pub struct NamedExpression {
    /// The name, as written.
    pub name: String,
    /// The position of the key.
    pub name_span: Span,
    /// The names that stand for the arguments of a call, with their positions.
    pub parameters: Vec<(String, Span)>,
    /// The expression: a string.
    pub body: Node,
    /// Whether it was included, so that it may be unused.
    pub included: bool,
}

/// A named stage: `clicks (kafka {…})`.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The symbol that names the stage.
    pub name: Name,
    /// The position of that symbol.
    pub name_span: Span,
    /// The plugin and its arguments.
    pub call: Call,
    /// Whether it was included, so that it may be unused.
    pub included: bool,
}

/// A use of a plugin: `(kafka {…})`, `(where "…")`, or a bare symbol for no arguments.
#[derive(Clone, Debug)]
pub struct Call {
    /// The plugin's name. In an older pipeline it may be a [class name](crate::class).
    pub plugin: Name,
    /// The position of that name.
    pub plugin_span: Span,
    /// The arguments: the forms after the name.
    pub args: Vec<Node>,
    /// The position of the whole form.
    pub span: Span,
}

/// A flow: a combination of stages.
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
        /// The branches, tried in order.
        branches: Vec<Branch>,
        /// The flow after `:else`.
        otherwise: Option<Box<Flow>>,
        /// The position of the whole form.
        span: Span,
    },
    /// `(route "status >= 500" a "status >= 400" b :else c)`
    Route {
        /// The branches, tried in order.
        branches: Vec<RouteBranch>,
        /// The flow after `:else`.
        otherwise: Option<Box<Flow>>,
        /// The position of the whole form.
        span: Span,
    },
}

/// One branch of `route`.
#[derive(Clone, Debug)]
pub struct RouteBranch {
    /// The condition, a string with an SQL expression.
    pub condition: Node,
    /// The flow for the records for which it is true.
    pub flow: Flow,
}

/// One branch of `match`.
#[derive(Clone, Debug)]
pub struct Branch {
    /// The pattern that a record's topic is matched against.
    pub pattern: Pattern,
    /// The position of the pattern.
    pub span: Span,
    /// The flow for matching records.
    pub flow: Flow,
}

/// A pattern of `match`, compared with a record's topic.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// Matches a topic that is equal to this string.
    Text(String),
    /// Matches a topic that contains a match of this regular expression. It was validated when the
    /// file was read.
    Regex(Text),
}

/// An entry of `:tests`.
#[derive(Clone, Debug)]
pub struct Test {
    /// `:name`
    pub name: String,
    /// `:at`: the stage whose output is compared with [`output`](Self::output).
    pub at: (Name, Span),
    /// `:input`: the input records, as maps, or as strings for formats without fields.
    pub input: Vec<Node>,
    /// `:output`: the expected records, in order.
    pub output: Vec<Node>,
    /// The position of the whole entry.
    pub span: Span,
}

impl Document {
    /// All uses of plugins: the named stages, then the inline stages, each in source order.
    pub fn calls(&self) -> Vec<&Call> {
        let mut calls: Vec<&Call> = self.stages.iter().map(|stage| &stage.call).collect();
        let named = self.flows.iter().map(|named| &named.flow);
        [&self.pipeline]
            .into_iter()
            .chain(named)
            .for_each(|flow| flow.inline_calls(&mut calls));
        calls
    }

    /// Adds the stages, flows and expressions of an included file.
    ///
    /// # Errors
    /// Those whose names are defined already, at their positions in the included file.
    pub fn include(&mut self, fragment: Fragment) -> Result<(), Vec<Diagnostic>> {
        let mut errors = Vec::new();
        for stage in fragment.stages {
            errors.extend(self.defined_twice(&stage.name, stage.name_span));
            let included = true;
            self.stages.push(Stage { included, ..stage });
        }
        for named in fragment.flows {
            errors.extend(self.defined_twice(&named.name, named.name_span));
            let included = true;
            self.flows.push(NamedFlow { included, ..named });
        }
        for named in fragment.expressions {
            let is_defined = self
                .expressions
                .iter()
                .any(|known| known.has_name(&named.name));
            errors.extend(is_defined.then(|| in_two_files(&named.name, named.name_span)));
            let included = true;
            self.expressions.push(NamedExpression { included, ..named });
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    /// The error for a name that a stage or a flow has already.
    fn defined_twice(&self, name: &Name, span: Span) -> Option<Diagnostic> {
        let is_defined = self.stages.iter().any(|stage| stage.name == *name)
            || self.flows.iter().any(|named| named.name == *name);
        is_defined.then(|| in_two_files(name, span))
    }
}

fn in_two_files(name: impl Display, span: Span) -> Diagnostic {
    let message = format!("`{name}` is defined in two files");
    let label = "the file that includes this one, or one before it, has this name too";
    Diagnostic::new(span, message, label).with_help("rename one of the two")
}

impl Flow {
    fn inline_calls<'a>(&'a self, calls: &mut Vec<&'a Call>) {
        if let Flow::Inline(call) = self {
            calls.push(call);
        }
        let parts = self.parts().into_iter();
        parts.for_each(|part| part.inline_calls(calls));
    }

    /// The flows that this one consists of, in source order. A stage has none.
    pub fn parts(&self) -> Vec<&Flow> {
        match self {
            Flow::Named(..) | Flow::Inline(_) => Vec::new(),
            Flow::Thread(flows, _) | Flow::All(flows, _) => flows.iter().collect(),
            Flow::Match {
                branches,
                otherwise,
                ..
            } => {
                let parts = branches.iter().map(|branch| &branch.flow);
                parts.chain(otherwise.as_deref()).collect()
            }
            Flow::Route {
                branches,
                otherwise,
                ..
            } => {
                let parts = branches.iter().map(|branch| &branch.flow);
                parts.chain(otherwise.as_deref()).collect()
            }
        }
    }

    /// The position of the form.
    pub fn span(&self) -> Span {
        match self {
            Flow::Named(_, span)
            | Flow::Thread(_, span)
            | Flow::All(_, span)
            | Flow::Match { span, .. }
            | Flow::Route { span, .. } => *span,
            Flow::Inline(call) => call.span,
        }
    }
}
