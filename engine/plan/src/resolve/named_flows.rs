//! Named flows: where its name is used in a flow, the named flow takes its place.
//!
//! None may contain itself, and what they expand to is limited: a few lines in which each flow uses
//! the next one twice would otherwise be a plan of any size.

use std::collections::{HashMap, HashSet};

use pseidon_dsl::document::NamedFlow;
use pseidon_dsl::{Diagnostic, Document, Flow, Name, Span};

/// How many uses of named flows a pipeline may expand to.
const MAX_USES: usize = 10_000;
/// How deep named flows may nest.
const MAX_DEPTH: usize = 64;

/// The named flows of a document.
pub(super) struct NamedFlows<'a> {
    flows: HashMap<&'a Name, &'a NamedFlow>,
    used: HashSet<&'a Name>,
}

impl<'a> NamedFlows<'a> {
    /// The named flows of a document.
    ///
    /// # Errors
    /// Flows that contain themselves, nest too deep, or expand to too many uses.
    pub(super) fn of(document: &'a Document) -> Result<NamedFlows<'a>, Vec<Diagnostic>> {
        let flows: HashMap<_, _> = document
            .flows
            .iter()
            .map(|named| (&named.name, named))
            .collect();
        let mut search = Search {
            flows: &flows,
            path: Vec::new(),
            uses: HashMap::new(),
            errors: Vec::new(),
        };
        let named = document
            .flows
            .iter()
            .map(|named| (&named.flow, named.name_span));
        let mut all = named.chain([(&document.pipeline, document.pipeline.span())]);
        let too_large =
            all.find_map(|(flow, span)| (search.visit(flow) > MAX_USES).then_some(span));
        let mut errors = search.errors;
        if let (Some(span), true) = (too_large, errors.is_empty()) {
            let message = format!("this flow uses named flows more than {MAX_USES} times");
            let label = "flows that it uses have further ones in them, several times";
            errors.push(Diagnostic::new(span, message, label));
        }
        if errors.is_empty() {
            Ok(NamedFlows {
                flows,
                used: HashSet::new(),
            })
        } else {
            Err(errors)
        }
    }

    /// The flow that takes the place of `flow`, if that is the name of one.
    pub(super) fn get(&self, flow: &Flow) -> Option<&'a NamedFlow> {
        let Flow::Named(name, _) = flow else {
            return None;
        };
        self.flows.get(name).copied()
    }

    /// The same, for a flow that is used here.
    pub(super) fn expand(&mut self, flow: &Flow) -> Option<&'a Flow> {
        let named = self.get(flow)?;
        self.used.insert(&named.name);
        Some(&named.flow)
    }

    /// The names of the flows.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.flows.keys().map(|name| name.to_string())
    }

    /// The flows of the pipeline file itself that it does not use.
    pub(super) fn unused(&self, document: &'a Document) -> Vec<&'a NamedFlow> {
        let is_unused = |named: &&NamedFlow| !named.included && !self.used.contains(&named.name);
        document.flows.iter().filter(is_unused).collect()
    }
}

/// The search for flows that contain themselves, and for what the others expand to.
struct Search<'s, 'a> {
    flows: &'s HashMap<&'a Name, &'a NamedFlow>,
    /// The named flows from the outermost one to the one that is visited.
    path: Vec<&'a Name>,
    /// To how many uses the flows that were visited expand.
    uses: HashMap<&'a Name, usize>,
    errors: Vec<Diagnostic>,
}

impl<'a> Search<'_, 'a> {
    /// To how many uses of named flows a flow expands.
    fn visit(&mut self, flow: &'a Flow) -> usize {
        let mut names = Vec::new();
        names_in(flow, &mut names);
        let uses = names
            .into_iter()
            .map(|(name, span)| self.visit_name(name, span));
        uses.fold(0, usize::saturating_add)
    }

    fn visit_name(&mut self, name: &'a Name, span: Span) -> usize {
        let Some(named) = self.flows.get(name) else {
            return 0;
        };
        if let Some(at) = self.path.iter().position(|outer| *outer == name) {
            self.report(at, name, span);
            return 0;
        }
        if let Some(known) = self.uses.get(name) {
            return *known;
        }
        if self.path.len() == MAX_DEPTH {
            let message = format!("named flows nest up to {MAX_DEPTH} levels");
            let label = "this one is a level deeper";
            self.errors.push(Diagnostic::new(span, message, label));
            return 0;
        }
        self.path.push(name);
        let uses = self.visit(&named.flow).saturating_add(1);
        self.path.pop();
        self.uses.insert(name, uses);
        uses
    }

    fn report(&mut self, at: usize, name: &Name, span: Span) {
        let between: Vec<String> = self.path[at + 1..]
            .iter()
            .map(|inner| format!("`{inner}`"))
            .collect();
        let label = if between.is_empty() {
            "it is used inside its own definition".to_owned()
        } else {
            format!(
                "it uses {}, which uses it here",
                between.join(", which uses ")
            )
        };
        let message = format!("the flow `{name}` contains itself");
        if self.errors.iter().all(|error| error.message != message) {
            self.errors.push(Diagnostic::new(span, message, label));
        }
    }
}

/// The names in a flow, with their positions.
fn names_in<'a>(flow: &'a Flow, names: &mut Vec<(&'a Name, Span)>) {
    if let Flow::Named(name, span) = flow {
        names.push((name, *span));
    }
    for part in flow.parts() {
        names_in(part, names);
    }
}
