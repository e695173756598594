//! `pseidon offsets`: how far a pipeline has read its sources, and moving its positions.
//!
//! [`table`] prints what [`crate::splits`] has read. [`moving`] decides where splits are moved to,
//! and prints or does it.

mod moving;
mod table;

use std::fmt::Display;

use pseidon_delivery::{StoreError, WithCauses};
use pseidon_dsl::printable::printable_lines;
use pseidon_plan::Plan;

pub(crate) use self::moving::with_help;
use crate::cli::{Exit, OffsetsArgs};
use crate::load::{self, PipelineText};
use crate::splits::PipelineState;
use crate::state;
use crate::{output, stderr_line};

/// Shows the positions, or moves them.
pub(crate) fn offsets(args: &OffsetsArgs) -> Exit {
    match try_offsets(args) {
        Ok(text) => print(&text),
        Err(exit) => exit,
    }
}

fn try_offsets(args: &OffsetsArgs) -> Result<String, Exit> {
    let (text, document, plan) = load::planned(&args.file, &args.parameters)?;
    let is_template = load::is_template(&document);
    if let Some(to) = args.to {
        if is_template {
            return Err(failed(&"the positions of a template cannot be moved"));
        }
        return moving::move_splits(args, to, &text, &plan);
    }
    let state = read(&text, &plan, is_template).map_err(|error| failed(&WithCauses(&error)))?;
    let file = args.file.display().to_string();
    Ok(match args.json {
        true => table::json(&plan.name, state.as_ref()),
        false => printable_lines(&table::text(&file, state.as_ref())).into_owned(),
    })
}

/// The state with what the sources have now; `None` if the pipeline has no state.
fn read(
    text: &PipelineText,
    plan: &Plan,
    is_template: bool,
) -> Result<Option<PipelineState>, StoreError> {
    let Some(view) = state::view(plan, &state::folder(&text.base))? else {
        return Ok(None);
    };
    PipelineState::read(plan, view, is_template).map(Some)
}

/// Prints what was found or done. If it cannot be printed, that is no reason to do it again.
pub(super) fn print(text: &str) -> Exit {
    match output::try_print(text) {
        Ok(()) => Exit::Done,
        Err(error) => failed(&format!("done, but the outcome cannot be printed: {error}")),
    }
}

/// Prints an error, and returns the exit code for it.
pub(super) fn failed(error: &dyn Display) -> Exit {
    stderr_line!("error: {error}");
    Exit::Failed
}
