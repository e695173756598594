//! Arguments that must be constants.
//!
//! DataFusion accepts any expression for them when a call is planned, and fails when it is
//! evaluated.

use pseidon_dsl::Diagnostic;

use crate::operand::Operand;

/// Functions with an argument that must be a constant, and its index.
const CONSTANT: [(&str, usize); 10] = [
    ("date_bin", 0),
    ("date_part", 0),
    ("date_trunc", 0),
    ("decode", 1),
    ("digest", 1),
    ("encode", 1),
    ("from_unixtime", 1),
    ("redact", 1),
    ("redact", 2),
    ("regexp_groups", 1),
];

/// Functions that parse a string with the formats in the other arguments. If the string is a
/// constant, the formats must be constants too.
const PARSERS: [&str; 8] = [
    "to_date",
    "to_time",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
];

/// Checks the arguments of a call. `name` is the function's own name, not an alias.
pub(crate) fn check(name: &str, args: &[Operand]) -> Result<(), Diagnostic> {
    let is_constant = |arg: &Operand| arg.as_literal().is_some();
    let wrong = if PARSERS.contains(&name) && args.first().is_some_and(is_constant) {
        args.iter().find(|arg| !is_constant(arg))
    } else {
        CONSTANT
            .iter()
            .filter(|(function, _)| *function == name)
            .filter_map(|(_, at)| args.get(*at))
            .find(|arg| !is_constant(arg))
    };
    let Some(wrong) = wrong else { return Ok(()) };
    Err(Diagnostic::new(
        wrong.span,
        format!("this argument of `{name}` must be a constant"),
        "not a constant",
    ))
}

/// Whether a function fails for strings that do not match its other arguments.
pub(crate) fn fails_for_other_strings(name: &str, arguments: usize) -> bool {
    arguments > 1 && (PARSERS.contains(&name) || name == "regexp_groups")
}
