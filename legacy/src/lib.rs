//! Conversion of the configuration files of older systems to pipeline files.
//!
//! A conversion takes the text of a legacy file and returns the text of a pipeline file, which is
//! then read like any other: what `pseidon import` prints is what `pseidon run` runs. It also
//! returns [notes](Note) about legacy keys that no longer have an effect and about unknown keys. An
//! invalid value is a [`Diagnostic`](pseidon_dsl::Diagnostic) in the legacy file's own text.
//!
//! Each older system is a module: [`pseidon_etl`].

#![forbid(unsafe_code)]

mod build;
mod note;
pub mod pseidon_etl;
mod read;

pub use note::{Note, NoteKind};

/// The result of converting a legacy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertedFile {
    /// The pipeline file, in EDN.
    pub text: String,
    /// Notes about keys of the legacy file, in source order.
    pub notes: Vec<Note>,
}
