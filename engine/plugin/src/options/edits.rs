//! The kinds of option values of the transforms that change some fields of a record.

use pseidon_dsl::expr::{
    Assignment, PlacedPath, Renaming, parse_assignments, parse_paths, parse_renamings,
};

use super::value::{Argument, OptionValue, ParseResult};
use crate::spec::OptionKind;

/// The assignments of `set`.
impl OptionValue for Vec<Assignment> {
    const KIND: OptionKind = OptionKind::Assignments;

    fn parse(argument: &Argument<'_>) -> ParseResult<Vec<Assignment>> {
        parse_assignments(argument.text()?)
    }
}

/// The fields of `remove`.
impl OptionValue for Vec<PlacedPath> {
    const KIND: OptionKind = OptionKind::Paths;

    fn parse(argument: &Argument<'_>) -> ParseResult<Vec<PlacedPath>> {
        parse_paths(argument.text()?)
    }
}

/// The fields of `rename` with their new names.
impl OptionValue for Vec<Renaming> {
    const KIND: OptionKind = OptionKind::Renamings;

    fn parse(argument: &Argument<'_>) -> ParseResult<Vec<Renaming>> {
        parse_renamings(argument.text()?)
    }
}
