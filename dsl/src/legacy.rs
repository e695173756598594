//! Files of the systems that came before, read as the pipeline files that they mean.
//!
//! A conversion takes the text of an old file and gives the text of a pipeline file, which is then
//! read as any other: what `pseidon import` prints is what `pseidon run` runs. Beside it come
//! [notes](Note): what an old key does no more, and keys that are not known. A value that is wrong
//! is a [`Diagnostic`] in the old file's own text.

mod build;
mod note;
pub mod pseidon_etl;
mod read;

pub use note::{Note, NoteKind};

use crate::{Diagnostic, Name};

/// What an old file became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// A pipeline file in EDN.
    pub text: String,
    /// What there is to say of the old file's keys, in its order.
    pub notes: Vec<Note>,
}

/// Whether a name can only be that of a Java or Clojure class or function: no plugin's name has a
/// dot or a slash in it.
pub fn names_class(name: &Name) -> bool {
    name.namespace.is_some() || name.name.contains('.')
}

/// The mistake of a stage that [names a class](names_class), `label` said of it, with the stages
/// that usually take its place.
pub fn class_mistake(name: &Name, span: crate::Span, label: &str) -> Diagnostic {
    let message = format!("`{name}` names a Java or Clojure class, and such cannot be loaded here");
    Diagnostic::new(span, message, label).with_help(
        "say what it does with a stage: (where \"status < 500\") lets records pass, (select \"user.id as user, url\") makes them anew, \
         (match \"topic\" …) tells topics apart, (files {…}) and (kafka {…}) write them; `pseidon plugins` lists them all",
    )
}
