//! The commands of `pseidon`, one in each file.

pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod consume;
pub(crate) mod functions;
pub(crate) mod import;
pub(crate) mod infer;
pub(crate) mod man;
pub(crate) mod offsets;
pub(crate) mod plugins;
pub(crate) mod produce;
pub(crate) mod replay;
pub(crate) mod reset;
pub(crate) mod run;
pub(crate) mod staged;
pub(crate) mod status;
pub(crate) mod test;
