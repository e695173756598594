//! `pseidon import`: conversion of a legacy configuration to a pipeline file.
//!
//! Every other command converts such a file by itself ([`crate::load::legacy`]); this one prints
//! the result.

use std::path::Path;

use pseidon_legacy::pseidon_etl;

use crate::cli::Exit;
use crate::load::{self, Parameters};
use crate::{output, stderr_line};

/// Prints the pipeline file that `file` is converted to, and the notes on its keys on standard
/// error.
pub(crate) fn import(file: &Path) -> Exit {
    match try_import(file) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn try_import(file: &Path) -> Result<Exit, Exit> {
    let legacy = load::read(file, Parameters::default())?;
    if !load::legacy::is_legacy(&legacy) {
        stderr_line!(
            "error: {} is not a supported legacy file: \
             expected pseidon.edn, the configuration of pseidon-etl",
            legacy.name
        );
        return Ok(Exit::WrongFile);
    }
    let converted = pseidon_etl::convert(&legacy.text).map_err(|errors| legacy.show(&errors))?;
    let exit = output::print(&converted.text);
    for note in &converted.notes {
        stderr_line!("{}:{}: {note}", legacy.name, note.line_in(&legacy.text));
    }
    Ok(exit)
}
