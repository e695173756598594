//! The built-in transforms.

use pseidon_dsl::expr::{Assignment, Expr, PlacedPath, Renaming, SelectItem};
use pseidon_dsl::{Call, Span};
use pseidon_plugin::options::{Choice, OnError, Options, ParseResult, SpannedValue};
use pseidon_plugin::spec::{PluginSpec, Role};

use crate::edits::FieldEdit;
use crate::parse::ParsePattern;
use crate::percent::Percent;

/// The transform `where`.
static WHERE: PluginSpec = PluginSpec {
    name: "where",
    role: Role::Transform,
    summary: "Passes on the records for which a condition is true.",
    details: "The condition is an SQL expression. As in SQL, a condition that is NULL, for \
        example because a field is missing, is not true.",
    positional: WhereOptions::POSITIONAL,
    options: WhereOptions::DECLARED,
    example: "(where \"status < 500 and agent not like '%bot%'\")",
};

/// The transform `select`.
static SELECT: PluginSpec = PluginSpec {
    name: "select",
    role: Role::Transform,
    summary: "Builds a new record from columns.",
    details: "Columns are SQL expressions separated by commas, each with `as name`; a path \
        without it is named by its last field. `*` selects all fields of the record, and `* \
        except (a, b)` selects all but some. Both require known fields, from `:schema` or from an \
        earlier `select`, unless the records are JSON: then all fields but those that are named pass \
        on as they came, byte for byte.",
    positional: SelectOptions::POSITIONAL,
    options: SelectOptions::DECLARED,
    example: "(select \"user.id as user, url, status\")",
};

/// The transform `set`.
static SET: PluginSpec = PluginSpec {
    name: "set",
    role: Role::Transform,
    summary: "Sets fields of a record, and leaves all others as they are.",
    details: "Assignments are separated by commas. A field is a name, or a path such as \
        `user.email` whose objects are created if they are missing; a value is an SQL expression \
        over the record as it was before the stage. A missing field is added at the end. The other \
        fields of a JSON record pass on byte for byte, and need not be known.",
    positional: SetOptions::POSITIONAL,
    options: SetOptions::DECLARED,
    example: "(set \"kind = upper(type), user.email = null\")",
};

/// The transform `remove`.
static REMOVE: PluginSpec = PluginSpec {
    name: "remove",
    role: Role::Transform,
    summary: "Removes fields of a record, and leaves all others as they are.",
    details: "Fields are names or paths, separated by commas. A record without a field is not \
        changed. If a key is repeated in a JSON record, all of its values are removed.",
    positional: RemoveOptions::POSITIONAL,
    options: RemoveOptions::DECLARED,
    example: "(remove \"password, user.email\")",
};

/// The transform `rename`.
static RENAME: PluginSpec = PluginSpec {
    name: "rename",
    role: Role::Transform,
    summary: "Renames or moves fields of a record, and leaves all others as they are.",
    details: "`usr as user` renames a field where it is, and `mail as contact.mail` moves \
        it into another object. A field that has the new name is replaced. A record without either \
        field is not changed; one that has only the new name is invalid, since it is not known \
        which field is meant.",
    positional: RenameOptions::POSITIONAL,
    options: RenameOptions::DECLARED,
    example: "(rename \"usr as user, mail as contact.mail\")",
};

/// The transform `parse`.
static PARSE: PluginSpec = PluginSpec {
    name: "parse",
    role: Role::Transform,
    summary: "Builds a new record from the parts of a string, such as a line of a log.",
    details: "The pattern is a regular expression, whose named groups become columns of strings, or \
        one of these formats:\n\n\
        - `:nginx` or `:apache`: the combined or common log format, with the columns \
        `client`, `user`, `time`, `method`, `path`, `protocol`, `request`, `status`, `size`, \
        `referer` and `agent`;\n\
        - `:syslog`: RFC 5424, with the columns `facility`, `severity`, `time`, `host`, `app`, \
        `process`, `message_id`, `data` and `message`;\n\
        - `:syslog-bsd`: RFC 3164, with the columns `facility`, `severity`, `time` (a string, since \
        it has no year), `host`, `app`, `process` and `message`.\n\n\
        A part that is missing (`-`) is NULL. A string that does not match makes its record \
        invalid.",
    positional: ParseOptions::POSITIONAL,
    options: ParseOptions::DECLARED,
    example: "(parse \"line\" #r\"(?<ip>\\S+) (?<path>\\S+)\")",
};

/// The transform `unnest`.
static UNNEST: PluginSpec = PluginSpec {
    name: "unnest",
    role: Role::Transform,
    summary: "Makes one record of each element of a list.",
    details: "The element takes the place of the list, under the name after `as` if there is one; \
        all other fields are in each of the records. A record whose list is empty, NULL or missing \
        has no elements and is not passed on. A value that is not a list makes its record invalid. \
        All records that are made of one record are delivered together, exactly once.",
    positional: UnnestOptions::POSITIONAL,
    options: UnnestOptions::DECLARED,
    example: "(unnest \"items as item\")",
};

/// The transform `lookup`.
static LOOKUP: PluginSpec = PluginSpec {
    name: "lookup",
    role: Role::Transform,
    summary: "Adds fields from the row of a table that has a record's key.",
    details: "The table is a CSV, TSV, JSON, Parquet, Avro or Arrow file, by its name, with inferred types \
        and at most a million rows. It is read when the pipeline is started, and kept in memory beside `:memory`. \
        Keys are compared as strings, and no two rows may have the same. A record whose key is NULL \
        or not in the table gets NULLs. All other fields are left as they are.\n\n\
        The table is a part of the plan. Another one is read at the next start, and after a graceful \
        stop any may be. After a crash the run that continues requires the table that the crashed \
        one had, like any other part of the pipeline file (docs/changing.md).",
    positional: LookupOptions::POSITIONAL,
    options: LookupOptions::DECLARED,
    example: "(lookup \"countries.csv\" \"code = country\" \"name as country_name, region\")",
};

/// The transform `sample`.
static SAMPLE: PluginSpec = PluginSpec {
    name: "sample",
    role: Role::Transform,
    summary: "Passes on a share of the records.",
    details: "A hash of a record's position decides, so that the same records pass if they are read \
        again after a crash. With `:by`, a hash of this value decides: all records of a user pass, or \
        none, in every pipeline. Records whose value is NULL are chosen by their position.",
    positional: SampleOptions::POSITIONAL,
    options: SampleOptions::DECLARED,
    example: "(sample \"1%\" {:by \"user_id\"})",
};

/// The transform `group`.
static GROUP: PluginSpec = PluginSpec {
    name: "group",
    role: Role::Transform,
    summary: "Computes aggregate functions over the records that have equal keys.",
    details: "The keys and the results are SQL expressions separated by commas, each with `as name`; a \
        result uses aggregate functions such as `count(*)`, `count(distinct user)`, `sum`, `avg`, \
        `min`, `max`, `first`, `median`, `array_agg` or `bool_and` (`pseidon functions` lists them). \
        There is one new record for each group, ordered by the keys. A single argument has both: its \
        columns without an aggregate function are the keys, and without keys, all records are one \
        group.\n\n\
        The records must end: `group` works on files that are not followed, on standard input, and on \
        topics with `:until`. Its results are those of the records that the run reads, after \
        everything has been read: a later run groups what was added since. If a run is stopped or \
        crashes, the next one continues, and no record is counted twice. The groups are kept in \
        `.pseidon` beside the pipeline file, so there may be more than fit into memory.",
    positional: GroupOptions::POSITIONAL,
    options: GroupOptions::DECLARED,
    example: "(group \"status\" \"count(*) as n, avg(size) as size\")",
};

/// The transform `dedupe`.
static DEDUPE: PluginSpec = PluginSpec {
    name: "dedupe",
    role: Role::Transform,
    summary: "Passes on one of the records that have equal keys, as it is.",
    details: "The keys are SQL expressions separated by commas, such as the name of a field. NULL is \
        a key like any other. JSON records pass on byte for byte, others with their columns; they are \
        ordered by the keys.\n\n\
        Like for `group`, the records must end, the results are passed on when everything has been \
        read, and no record is lost or doubled by a crash. A later run does not know the keys of \
        earlier ones.",
    positional: DedupeOptions::POSITIONAL,
    options: DedupeOptions::DECLARED,
    example: "(dedupe \"id\")",
};

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
    /// Computes aggregate functions.
    Group,
    /// Passes on one record for each key.
    Dedupe,
}

impl Transform {
    /// All of them, in the order of the reference pages.
    pub const ALL: [Transform; 11] = [
        Transform::Where,
        Transform::Select,
        Transform::Set,
        Transform::Remove,
        Transform::Rename,
        Transform::Parse,
        Transform::Unnest,
        Transform::Lookup,
        Transform::Sample,
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
