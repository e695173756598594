//! The kinds of option values of the transforms that change some fields of a record.

use pseidon_dsl::expr::{
    Assignment, Expr, PlacedPath, Renaming, parse_assignments, parse_paths, parse_renamings,
};

use super::value::{Argument, OptionValue, ParseResult};
use crate::spec::OptionKind;

/// The assignments of `set`.
impl OptionValue for Vec<Assignment> {
    const KIND: OptionKind = OptionKind::Assignments;

    fn parse(argument: &Argument<'_>) -> ParseResult<Vec<Assignment>> {
        parse_assignments(argument.text()?)
    }

    fn identity(&self) -> Option<String> {
        let items = self.iter();
        Some(
            items
                .map(|item| format!("{}\u{1}{}\u{1}", item.to.path, item.value))
                .collect(),
        )
    }

    fn exprs<'a>(&'a self, found: &mut Vec<&'a Expr>) {
        found.extend(self.iter().map(|item| &item.value));
    }
}

/// The fields of `remove`.
impl OptionValue for Vec<PlacedPath> {
    const KIND: OptionKind = OptionKind::Paths;

    fn parse(argument: &Argument<'_>) -> ParseResult<Vec<PlacedPath>> {
        parse_paths(argument.text()?)
    }

    fn identity(&self) -> Option<String> {
        let paths = self.iter();
        Some(paths.map(|path| format!("{}\u{1}", path.path)).collect())
    }
}

/// The fields of `rename` with their new names.
impl OptionValue for Vec<Renaming> {
    const KIND: OptionKind = OptionKind::Renamings;

    fn parse(argument: &Argument<'_>) -> ParseResult<Vec<Renaming>> {
        parse_renamings(argument.text()?)
    }

    fn identity(&self) -> Option<String> {
        let items = self.iter();
        Some(
            items
                .map(|item| format!("{}\u{1}{}\u{1}", item.from.path, item.to.path))
                .collect(),
        )
    }
}
