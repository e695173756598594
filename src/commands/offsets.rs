//! `pseidon offsets`: how far a pipeline has read its sources.
//!
//! [`splits`] reads the state and asks the sources what there is; [`table`] prints both.

mod splits;
mod table;

use std::path::Path;

use pseidon_delivery::{StoreError, WithCauses};
use pseidon_plan::Plan;

use self::splits::PipelineState;
use crate::cli::{Exit, FileArgs, OffsetsArgs};
use crate::load::{self, PipelineText};
use crate::state;

/// Shows the positions.
pub(crate) fn offsets(args: &OffsetsArgs) -> Exit {
    match try_offsets(args) {
        Ok(text) => {
            print!("{text}");
            Exit::Done
        }
        Err(exit) => exit,
    }
}

fn try_offsets(args: &OffsetsArgs) -> Result<String, Exit> {
    let text = load::text(&FileArgs {
        file: Some(args.file.clone()),
        expression: None,
        parameters: args.parameters.clone(),
    })?;
    let document = text.document()?;
    let plan = text.plan(&document)?;
    let is_template = load::is_template(&document);
    let state = read(&text, &plan, is_template).map_err(|error| failed(&error))?;
    let file = args.file.display().to_string();
    Ok(match args.json {
        true => table::json(&plan.name, state.as_ref()),
        false => table::text(&file, state.as_ref()),
    })
}

/// The state with what the sources have now; `None` if the pipeline has no state.
fn read(
    text: &PipelineText,
    plan: &Plan,
    is_template: bool,
) -> Result<Option<PipelineState>, StoreError> {
    let folder: &Path = &state::folder(&text.base);
    let Some(view) = state::view(plan, folder)? else {
        return Ok(None);
    };
    PipelineState::read(plan, view, is_template).map(Some)
}

fn failed(error: &StoreError) -> Exit {
    eprintln!("error: {}", WithCauses(error));
    Exit::Failed
}
