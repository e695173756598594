//! The check of `:state`: the planner does not know the state stores.

use pseidon_dsl::{Diagnostic, Document, Node, NodeKind};
use pseidon_redis::check_url;

/// The error for a `:state` that is not the URL of a state store.
pub(super) fn error(document: &Document) -> Option<Diagnostic> {
    let is_state = |name: &str| name == "state";
    let mut settings = document.settings.iter();
    let (_, _, value) = settings.find(|(name, ..)| is_state(&name.to_string()))?;
    let Node {
        kind: NodeKind::Str(url),
        span,
    } = value
    else {
        return None;
    };
    let reason = check_url(&url.value).err()?;
    let error = Diagnostic::new(*span, "invalid value for `:state`", reason);
    Some(match url.value.contains("://") {
        true => error,
        false => error.with_help(
            "for state in a file, leave out `:state`: it is in `.pseidon/` beside the pipeline file",
        ),
    })
}
