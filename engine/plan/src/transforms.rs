//! The built-in transforms.

mod options;
mod specs;

use pseidon_dsl::Call;
use pseidon_plugin::options::{Options, ParseResult};
use pseidon_plugin::spec::PluginSpec;

pub use self::options::{
    DedupeOptions, GroupOptions, InvalidRecords, Keep, LimitOptions, LookupOptions, ParseOptions,
    RemoveOptions, RenameOptions, SampleOptions, SelectOptions, SetOptions, ThrottleOptions,
    UnnestOptions, WhereOptions,
};
use self::specs::{
    DEDUPE, GROUP, LIMIT, LOOKUP, PARSE, REMOVE, RENAME, SAMPLE, SELECT, SET, THROTTLE, UNNEST,
    WHERE,
};
use crate::edits::FieldEdit;

/// The options of a transform.
pub enum TransformOptions {
    /// Those of `where`.
    Where(WhereOptions),
    /// Those of `select`.
    Select(SelectOptions),
    /// Those of `parse`.
    Parse(ParseOptions),
    /// Those of `unnest`.
    Unnest(UnnestOptions),
    /// Those of `lookup`.
    Lookup(LookupOptions),
    /// Those of `sample`.
    Sample(SampleOptions),
    /// Those of `limit`.
    Limit(LimitOptions),
    /// Those of `throttle`.
    Throttle(ThrottleOptions),
    /// Those of `group`.
    Group(Box<GroupOptions>),
    /// Those of `dedupe`.
    Dedupe(DedupeOptions),
    /// The edits of `set`, `remove` or `rename`.
    Edit(Vec<FieldEdit>, InvalidRecords),
}

/// The transforms. All of them are built in: plugins are sources and sinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// Passes on the records for which a condition is true.
    Where,
    /// Builds a new record from columns.
    Select,
    /// Sets fields, and leaves all others as they are.
    Set,
    /// Removes fields, and leaves all others as they are.
    Remove,
    /// Renames or moves fields, and leaves all others as they are.
    Rename,
    /// Builds a new record from the parts of a string.
    Parse,
    /// Makes one record of each element of a list.
    Unnest,
    /// Adds fields from a row of a table.
    Lookup,
    /// Passes on a share of the records.
    Sample,
    /// Passes on the first records of a run.
    Limit,
    /// Passes on records no faster than a rate.
    Throttle,
    /// Computes aggregate functions.
    Group,
    /// Passes on one record for each key.
    Dedupe,
}

impl Transform {
    /// All of them, in the order of the reference pages.
    pub const ALL: [Transform; 13] = [
        Transform::Where,
        Transform::Select,
        Transform::Set,
        Transform::Remove,
        Transform::Rename,
        Transform::Parse,
        Transform::Unnest,
        Transform::Lookup,
        Transform::Sample,
        Transform::Limit,
        Transform::Throttle,
        Transform::Group,
        Transform::Dedupe,
    ];

    /// Its name, documentation and options, declared as those of a plugin.
    pub fn spec(self) -> &'static PluginSpec {
        match self {
            Transform::Where => &WHERE,
            Transform::Select => &SELECT,
            Transform::Set => &SET,
            Transform::Remove => &REMOVE,
            Transform::Rename => &RENAME,
            Transform::Parse => &PARSE,
            Transform::Unnest => &UNNEST,
            Transform::Lookup => &LOOKUP,
            Transform::Sample => &SAMPLE,
            Transform::Limit => &LIMIT,
            Transform::Throttle => &THROTTLE,
            Transform::Group => &GROUP,
            Transform::Dedupe => &DEDUPE,
        }
    }

    /// Parses the options of the transform.
    ///
    /// # Errors
    /// All errors in the arguments.
    pub fn parse(self, call: &Call) -> ParseResult<TransformOptions> {
        let (spec, args, span) = (self.spec(), &call.args, call.span);
        match self {
            Transform::Where => {
                WhereOptions::parse_stage(spec, args, span).map(TransformOptions::Where)
            }
            Transform::Select => {
                SelectOptions::parse_stage(spec, args, span).map(TransformOptions::Select)
            }
            Transform::Set => SetOptions::parse_stage(spec, args, span)
                .map(|options| edits(options.fields, FieldEdit::Set, options.invalid)),
            Transform::Remove => RemoveOptions::parse_stage(spec, args, span)
                .map(|options| edits(options.fields, FieldEdit::Remove, options.invalid)),
            Transform::Rename => RenameOptions::parse_stage(spec, args, span)
                .map(|options| edits(options.fields, FieldEdit::Rename, options.invalid)),
            Transform::Parse => {
                ParseOptions::parse_stage(spec, args, span).map(TransformOptions::Parse)
            }
            Transform::Unnest => {
                UnnestOptions::parse_stage(spec, args, span).map(TransformOptions::Unnest)
            }
            Transform::Lookup => {
                LookupOptions::parse_stage(spec, args, span).map(TransformOptions::Lookup)
            }
            Transform::Sample => {
                SampleOptions::parse_stage(spec, args, span).map(TransformOptions::Sample)
            }
            Transform::Limit => {
                LimitOptions::parse_stage(spec, args, span).map(TransformOptions::Limit)
            }
            Transform::Throttle => {
                ThrottleOptions::parse_stage(spec, args, span).map(TransformOptions::Throttle)
            }
            Transform::Group => {
                let options = GroupOptions::parse_stage(spec, args, span);
                options.map(|options| TransformOptions::Group(Box::new(options)))
            }
            Transform::Dedupe => {
                DedupeOptions::parse_stage(spec, args, span).map(TransformOptions::Dedupe)
            }
        }
    }

    /// The transform with this name in a pipeline file.
    pub fn named(name: &str) -> Option<Transform> {
        Transform::ALL
            .into_iter()
            .find(|transform| transform.spec().name == name)
    }
}

fn edits<T>(items: Vec<T>, edit: fn(T) -> FieldEdit, invalid: InvalidRecords) -> TransformOptions {
    TransformOptions::Edit(items.into_iter().map(edit).collect(), invalid)
}
