//! What to write instead of a name that is not a plugin, or at the ends of a flow.

use pseidon_dsl::{Call, Diagnostic, class, nearest};

use super::{Resolver, discards};
use crate::transforms::Transform;

/// Names that other tools have for a transform here.
const TRANSFORM_SYNONYMS: [(&str, &str); 22] = [
    ("add", "set"),
    ("aggregate", "group"),
    ("count", "group"),
    ("del", "remove"),
    ("delete", "remove"),
    ("distinct", "dedupe"),
    ("filter", "where"),
    ("group_by", "group"),
    ("head", "limit"),
    ("map", "select"),
    ("mapping", "set"),
    ("move", "rename"),
    ("mutate", "set"),
    ("project", "select"),
    ("rate_limit", "throttle"),
    ("ratelimit", "throttle"),
    ("reduce", "group"),
    ("remap", "set"),
    ("sleep", "throttle"),
    ("take", "limit"),
    ("top", "limit"),
    ("unique", "dedupe"),
];

impl Resolver<'_> {
    pub(super) fn sources_help(&self) -> String {
        let sources = self.registry.sources.iter();
        let names: Vec<&str> = sources.map(|source| source.spec().name).collect();
        format!(
            "begin the flow with one of the sources {}",
            names.join(", ")
        )
    }

    pub(super) fn sinks_help(&self) -> String {
        let sinks = || self.registry.sinks.iter();
        let names: Vec<&str> = sinks().map(|sink| sink.spec().name).collect();
        let help = format!("end the flow with one of the sinks {}", names.join(", "));
        match sinks().find(|sink| discards(sink)) {
            Some(sink) => format!("{help}; to discard the records, use ({})", sink.spec().name),
            None => help,
        }
    }

    pub(super) fn unknown_plugin(&self, call: &Call) -> Diagnostic {
        if class::names_class(&call.plugin) {
            return class::class_error(&call.plugin, call.plugin_span, "not a plugin");
        }
        let name = call.plugin.to_string();
        let error = Diagnostic::new(
            call.plugin_span,
            format!("unknown plugin `{name}`"),
            "not a plugin",
        );
        self.with_nearest(error, &name)
    }

    pub(super) fn with_nearest(&self, error: Diagnostic, name: &str) -> Diagnostic {
        let stages = self.stages.keys().map(|stage| stage.to_string());
        let named: Vec<String> = stages.chain(self.flows.names()).collect();
        let plugins = self
            .registry
            .specs()
            .map(|spec| spec.name)
            .chain(Transform::ALL.map(|transform| transform.spec().name));
        let mut synonyms = TRANSFORM_SYNONYMS.iter().chain(self.registry.synonyms);
        let synonym = synonyms.find(|(other, _)| *other == name);
        let known = named.iter().map(String::as_str).chain(plugins);
        match synonym.map(|(_, ours)| *ours).or(nearest(name, known)) {
            Some(near) => error.with_help(format!("did you mean `{near}`?")),
            None => error.with_help(self.all_plugins()),
        }
    }

    pub(super) fn all_plugins(&self) -> String {
        let list = |names: Vec<&str>| names.join(", ");
        let sources = list(
            self.registry
                .sources
                .iter()
                .map(|one| one.spec().name)
                .collect(),
        );
        let sinks = list(
            self.registry
                .sinks
                .iter()
                .map(|one| one.spec().name)
                .collect(),
        );
        let transforms = list(Transform::ALL.map(|one| one.spec().name).to_vec());
        format!("sources: {sources}; transforms: {transforms}; sinks: {sinks}")
    }
}
