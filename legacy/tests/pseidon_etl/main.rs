//! Conversion of `pseidon.edn` to pipeline files and notes.
//!
//! [`samples`] converts the files in `conf/legacy`. [`keys`] and [`flows`] convert single keys and
//! the plugins, [`invalid`] has the errors, and [`recognition`] tells legacy files from others.

mod flows;
mod invalid;
mod keys;
mod recognition;
mod samples;

use pseidon_dsl::{Diagnostic, diagnostic};
use pseidon_legacy::ConvertedFile;
use pseidon_legacy::pseidon_etl::convert;

fn converted(text: &str) -> ConvertedFile {
    convert(text)
        .unwrap_or_else(|errors| panic!("{}", diagnostic::render("old.edn", text, &errors, false)))
}

fn errors(text: &str) -> Vec<Diagnostic> {
    match convert(text) {
        Ok(converted) => panic!("expected an error in\n{text}\n{}", converted.text),
        Err(errors) => errors,
    }
}

/// A complete file with `more` in it.
fn with(more: &str) -> String {
    format!("{{:etl-db-host \"//h/d\" :kafka-brokers [{{:host \"b\"}}] :data-dir \"/d\" {more}}}")
}
