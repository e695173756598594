//! Names of Java and Clojure classes, which pipelines of older systems use as stages.

use crate::{Diagnostic, Name, Span};

/// Whether a name is that of a Java or Clojure class or function. The name of a plugin never
/// contains a dot or a slash.
pub fn names_class(name: &Name) -> bool {
    name.namespace.is_some() || name.name.contains('.')
}

/// The error for a stage that [names a class](names_class), with a help line that lists the stages
/// that usually replace one.
pub fn class_error(name: &Name, span: Span, label: &str) -> Diagnostic {
    let message = format!("`{name}` is a Java or Clojure class, which is not supported");
    Diagnostic::new(span, message, label).with_help(
        "replace it with a stage: (where \"status < 500\") filters records, \
         (select \"user.id as user, url\") computes columns, (match \"topic\" …) routes by topic, \
         (files {…}) and (kafka {…}) write records; `pseidon plugins` lists all stages",
    )
}
