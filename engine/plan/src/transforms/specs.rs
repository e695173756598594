//! The names and documentation of the transforms.

use pseidon_plugin::options::Options;
use pseidon_plugin::spec::{PluginSpec, Role};

use super::options::{
    DedupeOptions, GroupOptions, LimitOptions, LookupOptions, ParseOptions, RemoveOptions,
    RenameOptions, SampleOptions, SelectOptions, SetOptions, ThrottleOptions, UnnestOptions,
    WhereOptions,
};

/// The transform `where`.
pub(super) static WHERE: PluginSpec = PluginSpec {
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
pub(super) static SELECT: PluginSpec = PluginSpec {
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
pub(super) static SET: PluginSpec = PluginSpec {
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
pub(super) static REMOVE: PluginSpec = PluginSpec {
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
pub(super) static RENAME: PluginSpec = PluginSpec {
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
pub(super) static PARSE: PluginSpec = PluginSpec {
    name: "parse",
    role: Role::Transform,
    summary: "Builds a new record from the parts of a string, such as a line of a log.",
    details: "The pattern is a regular expression, whose named groups become columns of strings, or \
        one of these formats:\n\n\
        - `:nginx` or `:apache`: the combined or common log format, with the columns \
        `client`, `user`, `time`, `method`, `path`, `protocol`, `request`, `status`, `size`, \
        `referer`, `agent`, `vhost` (Apache's `host:port` before the client) and `rest` (what \
        follows these);\n\
        - `:syslog`: RFC 5424, with the columns `facility`, `severity`, `time`, `host`, `app`, \
        `process`, `message_id`, `data` and `message`;\n\
        - `:syslog-bsd`: RFC 3164, with the columns `facility`, `severity`, `time` (a string, since \
        it may have no year; rsyslog's files have times of RFC 3339), `host`, `app`, `process` and `message`;\n\
        - `:logfmt`: pairs `key=value`, with the column `fields`, a JSON object that has all of them: \
        `(select \"fields.level, fields.status::int64 as status\")`.\n\n\
        A part that is missing (`-`) is NULL. A string that does not match makes its record \
        invalid.",
    positional: ParseOptions::POSITIONAL,
    options: ParseOptions::DECLARED,
    example: "(parse \"line\" #r\"(?<ip>\\S+) (?<path>\\S+)\")",
};

/// The transform `unnest`.
pub(super) static UNNEST: PluginSpec = PluginSpec {
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
pub(super) static LOOKUP: PluginSpec = PluginSpec {
    name: "lookup",
    role: Role::Transform,
    summary: "Adds fields from the row of a table that has a record's key.",
    details: "The table is a CSV, TSV, JSON, Parquet, Avro or Arrow file, by its name, with inferred types \
        and at most a million rows. It is read when the pipeline is started, and kept in memory beside `:memory`. \
        Keys are compared as strings, or by their value if the column has only numbers, and no two \
        rows may have the same. A record whose key is NULL \
        or not in the table gets NULLs. All other fields are left as they are.\n\n\
        The table is a part of the plan, like the pipeline file: after a crash, what was read with \
        the table of that time is finished with it before another one is used (docs/changing.md). \
        For this the state keeps the table, up to 16 MiB compressed (256 KiB in a template, for each log). A larger one has to be as it was.\n\n\
        With `:reload`, the file is looked at during the run. When its content has changed, the run \
        commits what it has read, and continues with the new table; a file that cannot be used is a \
        warning, and the run continues with the table that it has. Replace the file with a rename, \
        so that no half of it is read. With a Kafka group, its partitions are assigned again; \
        several instances may use different versions for a moment, and each record gets fields from \
        one of them. What counts for a run, such as `limit` and `:until :latest`, begins again. In a \
        template, all logs use the same tables; a path with `${log:…}` is read when its log starts.",
    positional: LookupOptions::POSITIONAL,
    options: LookupOptions::DECLARED,
    example: "(lookup \"countries.csv\" \"code = country\" \"name as country_name, region\")",
};

/// The transform `sample`.
pub(super) static SAMPLE: PluginSpec = PluginSpec {
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

/// The transform `limit`.
pub(super) static LIMIT: PluginSpec = PluginSpec {
    name: "limit",
    role: Role::Transform,
    summary: "Passes on the first records of a run, and ends its reading.",
    details: "When this number of records has passed, the sources in front are read no further, so \
        the run stops, also if it would otherwise go on. What follows the last of the records is not \
        lost: it counts as not read in every sink of the flow, and the next run begins there. So \
        delivery stays exactly once, and a run that continues after a crash or a failure passes on as \
        many records again. Of a source that cannot be read again, such as standard input, what was \
        read behind the last record is lost.\n\n\
        The records of one file or partition pass in order; those of several sources or files are \
        counted together, as they are read. The records that `unnest` makes of one record pass \
        together, which may be more than the limit. `limit` may be used once after a source, and not \
        in a branch of `all`, `match` or `route`.",
    positional: LimitOptions::POSITIONAL,
    options: LimitOptions::DECLARED,
    example: "(limit 10)",
};

/// The transform `throttle`.
pub(super) static THROTTLE: PluginSpec = PluginSpec {
    name: "throttle",
    role: Role::Transform,
    summary: "Passes on records no faster than a rate.",
    details: "No record is dropped: the pipeline is read more slowly, in each process that runs it. \
        Records pass in parts of at most a tenth of a second, one at a time if the rate is less than \
        10 per second. The whole pipeline waits, with all of its branches and sources; other pipelines \
        of the process do not.\n\n\
        What was read and waits at a stop is read again by the next run. Records of a source that \
        cannot be read again, such as standard input, pass without waiting then. When Kafka moves a \
        partition to another instance, those that were read of it pass first; if that takes longer \
        than 30 seconds, the run restarts.",
    positional: ThrottleOptions::POSITIONAL,
    options: ThrottleOptions::DECLARED,
    example: "(throttle \"1000/s\")",
};

/// The transform `group`.
pub(super) static GROUP: PluginSpec = PluginSpec {
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
pub(super) static DEDUPE: PluginSpec = PluginSpec {
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
