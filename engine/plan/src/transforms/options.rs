//! The options of the transforms.

use std::time::Duration;

use pseidon_dsl::Span;
use pseidon_dsl::expr::{Assignment, Expr, PlacedPath, Renaming, SelectItem};
use pseidon_plugin::options::kinds::PositiveInteger;
use pseidon_plugin::options::{Choice, OnError, Options, SpannedValue};

use crate::parse::ParsePattern;
use crate::percent::Percent;
use crate::rate::Rate;

/// The options of `where`.
#[derive(Clone, Debug, Options)]
pub struct WhereOptions {
    /// The condition, an SQL expression.
    #[option(positional)]
    pub condition: Expr,
    /// What happens to invalid records.
    #[option(flatten)]
    pub invalid: InvalidRecords,
}

/// The options of `select`.
#[derive(Clone, Debug, Options)]
pub struct SelectOptions {
    /// The columns, separated by commas.
    #[option(positional)]
    pub columns: Vec<SelectItem>,
    /// What happens to invalid records.
    #[option(flatten)]
    pub invalid: InvalidRecords,
}

/// The options of `set`.
#[derive(Clone, Debug, Options)]
pub struct SetOptions {
    /// The assignments, separated by commas.
    #[option(positional)]
    pub fields: Vec<Assignment>,
    /// What happens to invalid records.
    #[option(flatten)]
    pub invalid: InvalidRecords,
}

/// The options of `remove`.
#[derive(Clone, Debug, Options)]
pub struct RemoveOptions {
    /// The fields, separated by commas.
    #[option(positional)]
    pub fields: Vec<PlacedPath>,
    /// What happens to invalid records.
    #[option(flatten)]
    pub invalid: InvalidRecords,
}

/// The options of `rename`.
#[derive(Clone, Debug, Options)]
pub struct RenameOptions {
    /// The fields with their new names, separated by commas.
    #[option(positional)]
    pub fields: Vec<Renaming>,
    /// What happens to invalid records.
    #[option(flatten)]
    pub invalid: InvalidRecords,
}

/// The options of `parse`.
#[derive(Clone, Debug, Options)]
pub struct ParseOptions {
    /// The string, an SQL expression such as the name of a field.
    #[option(positional)]
    pub text: Expr,
    /// A regular expression with named groups, or the name of a format.
    #[option(positional)]
    pub pattern: SpannedValue<ParsePattern>,
    /// Further columns of the new record, as in `select`.
    pub keep: Option<Vec<SelectItem>>,
    /// What happens to invalid records.
    #[option(flatten)]
    pub invalid: InvalidRecords,
}

/// The options of `unnest`.
#[derive(Clone, Debug, Options)]
pub struct UnnestOptions {
    #[option(span)]
    pub(crate) span: Span,
    /// The list, a field or an SQL expression, and the name of the element, such as `"items as
    /// item"`.
    #[option(positional)]
    pub list: Vec<SelectItem>,
    /// What happens to invalid records.
    #[option(flatten)]
    pub invalid: InvalidRecords,
}

/// The options of `lookup`.
#[derive(Clone, Debug, Options)]
pub struct LookupOptions {
    #[option(span)]
    pub(crate) span: Span,
    /// The path of the table. Relative paths start at the pipeline file's folder.
    #[option(positional)]
    pub table: SpannedValue<String>,
    /// The column of the table, and the record's key, an SQL expression: `"code = country"`. One
    /// name, such as `"id"`, is that of both.
    #[option(positional)]
    pub on: Expr,
    /// The columns that become fields, such as `"name as country_name, region"`; `"*"` is all
    /// except the key.
    #[option(positional)]
    pub fields: Vec<SelectItem>,
    /// How often the file is looked at, such as `"10s"`. When its content has changed, the run
    /// continues with the new table.
    pub reload: Option<Duration>,
    /// What happens to invalid records.
    #[option(flatten)]
    pub invalid: InvalidRecords,
}

/// The options of `sample`.
#[derive(Clone, Debug, Options)]
pub struct SampleOptions {
    /// How many of the records pass, such as `"1%"` or `"0.1%"`.
    #[option(positional)]
    pub share: Percent,
    /// The value that decides, an SQL expression such as the name of a field.
    pub by: Option<Expr>,
    /// What happens to invalid records.
    #[option(flatten)]
    pub invalid: InvalidRecords,
}

/// The options of `limit`.
#[derive(Clone, Debug, Options)]
pub struct LimitOptions {
    /// How many records pass.
    #[option(positional)]
    pub records: PositiveInteger,
}

/// The options of `throttle`.
#[derive(Clone, Debug, Options)]
pub struct ThrottleOptions {
    /// How many records pass per second, minute, hour or day: `"1000/s"`, `"60/m"`, `"100/h"`,
    /// `"1/d"`.
    #[option(positional)]
    pub rate: Rate,
}

/// The options of `group`.
#[derive(Clone, Debug, Options)]
pub struct GroupOptions {
    #[option(span)]
    pub(crate) span: Span,
    /// The keys, such as `"status, date_trunc('hour', time) as hour"`.
    #[option(positional)]
    pub keys: Vec<SelectItem>,
    /// The results, such as `"count(*) as n"`.
    #[option(positional)]
    pub aggregates: Option<Vec<SelectItem>>,
    /// What happens to invalid records.
    #[option(flatten)]
    pub invalid: InvalidRecords,
}

/// The options of `dedupe`.
#[derive(Clone, Debug, Options)]
pub struct DedupeOptions {
    #[option(span)]
    pub(crate) span: Span,
    /// The keys.
    #[option(positional)]
    pub keys: Vec<SelectItem>,
    /// Which record is passed on: the `:first` that was read, or the `:last`. Records of one file or
    /// partition are read in order.
    #[option(default = "first")]
    pub keep: Keep,
    /// What happens to invalid records.
    #[option(flatten)]
    pub invalid: InvalidRecords,
}

/// Which of several records is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub enum Keep {
    /// The first that was read.
    First,
    /// The last that was read.
    Last,
}

/// The options for invalid records.
#[derive(Clone, Debug, Options)]
pub struct InvalidRecords {
    /// The handling of a record for which an expression fails: `:throw` fails the run, `:noop`
    /// drops the record, `{:quarantine …}` writes it to the quarantine. (`{:retry …}` applies its
    /// `:then` immediately, because a failed expression would fail again.)
    #[option(default = "quarantine")]
    pub on_error: OnError,
}
