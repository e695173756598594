//! Conversion of the configuration files of older systems to pipeline files.
//!
//! A conversion takes the text of a legacy file and returns the text of a pipeline file, which is
//! then read like any other: what `pseidon import` prints is what `pseidon run` runs. It also
//! returns [notes](Note) about legacy keys that no longer have an effect and about unknown keys. An
//! invalid value is a [`Diagnostic`] in the legacy file's own text.

mod build;
mod note;
pub mod pseidon_etl;
mod read;

pub use note::{Note, NoteKind};

use crate::{Diagnostic, Name};

/// The result of converting a legacy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertedFile {
    /// The pipeline file, in EDN.
    pub text: String,
    /// Notes about keys of the legacy file, in source order.
    pub notes: Vec<Note>,
}

/// Whether a name is that of a Java or Clojure class or function. The name of a plugin never
/// contains a dot or a slash.
pub fn names_class(name: &Name) -> bool {
    name.namespace.is_some() || name.name.contains('.')
}

/// The error for a stage that [names a class](names_class), with a help line that lists the stages
/// that usually replace one.
pub fn class_error(name: &Name, span: crate::Span, label: &str) -> Diagnostic {
    let message = format!("`{name}` is a Java or Clojure class, which is not supported");
    Diagnostic::new(span, message, label).with_help(
        "replace it with a stage: (where \"status < 500\") filters records, \
         (select \"user.id as user, url\") computes columns, (match \"topic\" …) routes by topic, \
         (files {…}) and (kafka {…}) write records; `pseidon plugins` lists all stages",
    )
}
