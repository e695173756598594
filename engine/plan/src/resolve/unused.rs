//! Stages, named flows and named expressions that the pipeline does not use: most likely an
//! oversight.

use pseidon_dsl::{Call, Diagnostic, Document, Node, NodeKind, Stage};
use pseidon_plugin::spec::PluginSpec;

use super::Resolver;
use crate::transforms::Transform;

impl<'a> Resolver<'a> {
    /// Reports a stage, a flow or a named expression that the pipeline does not use. Errors in the
    /// options of unused stages are reported first.
    pub(super) fn check_unused(&mut self, document: &'a Document) {
        let unused: Vec<&Stage> = document
            .stages
            .iter()
            .filter(|stage| !self.used.contains(&stage.name))
            .collect();
        for stage in &unused {
            let call = self.with_names(&stage.call);
            self.check_alone(&call);
        }
        // What is in an included file is there for other pipelines too.
        let stages = unused
            .iter()
            .filter(|stage| !stage.included)
            .map(|stage| ("stage", stage.name.to_string(), stage.name_span));
        let flows = self.flows.unused(document).into_iter();
        let flows = flows.map(|named| ("flow", named.name.to_string(), named.name_span));
        let expression = self.names.and_then(|names| names.unused());
        let expression = expression.map(|(name, span)| ("expression", name.to_owned(), span));
        if !self.errors.is_empty() {
            return;
        }
        // One at a time: a stage may only be used by a flow that is unused.
        if let Some((what, name, span)) = flows.chain(stages).chain(expression).next() {
            let message = format!("unused {what} `{name}`");
            let error = Diagnostic::new(span, message, "not part of the pipeline");
            self.errors.push(error.with_help(
                "use it in `pipeline`, or remove it (#_ #_ before the name \
                    comments out the name and its value)",
            ));
        }
    }

    /// Checks the options of an unused stage. The plugin can be a source or a sink with the same
    /// name: the one with fewer unknown options is assumed.
    fn check_alone(&mut self, call: &Call) {
        let name = call.plugin.to_string();
        let source = self.registry.source(&name).map(|plugin| {
            let source = plugin.clone().configure(&call.args, call.span);
            (plugin.spec(), source.map(drop))
        });
        let sink = self.registry.sink(&name).map(|plugin| {
            let sink = plugin.clone().configure(&call.args, call.span);
            (plugin.spec(), sink.map(drop))
        });
        let transform = Transform::named(&name)
            .map(|transform| (transform.spec(), transform.parse(call).map(drop)));
        let candidates = [source, sink, transform].into_iter().flatten();
        match candidates.min_by_key(|(spec, _)| unknown_options(spec, call)) {
            Some((_, parsed)) => drop(self.checked(parsed)),
            None => self.errors.push(self.unknown_plugin(call)),
        }
    }
}

/// The number of options in a call that the plugin does not have.
fn unknown_options(spec: &PluginSpec, call: &Call) -> usize {
    let keys = call.args.iter().flat_map(|arg| match &arg.kind {
        NodeKind::Map(entries) => entries.as_slice(),
        _ => &[],
    });
    let is_unknown = |key: &Node| match &key.kind {
        NodeKind::Keyword(name) => !spec.options.iter().any(|option| option.name == name.name),
        _ => true,
    };
    keys.filter(|(key, _)| is_unknown(key)).count()
}
