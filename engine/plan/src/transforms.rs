//! The transforms that the language itself has.

use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec, Role};

const ON_ERROR: OptionSpec = OptionSpec {
    name: "on-error",
    kind: OptionKind::OnError,
    default: OptionDefault::Value("quarantine"),
    doc: "What happens to a record for which an expression fails: `:throw` ends the run, `:noop` drops the record, `{:quarantine …}` writes \
          it aside. (`{:retry …}` goes on to its `:then` at once: an expression that failed will fail again.)",
};

/// `where`
pub static WHERE: PluginSpec = PluginSpec {
    name: "where",
    role: Role::Transform,
    summary: "Lets the records pass for which a condition is true.",
    details: "The condition is an SQL expression. As in SQL a condition that is NULL, for example because a field is missing, is not true.",
    positional: Some("condition"),
    options: &[
        OptionSpec {
            name: "condition",
            kind: OptionKind::Expr,
            default: OptionDefault::Required,
            doc: "The condition.",
        },
        ON_ERROR,
    ],
    free_options: &[],
    example: "(where \"status < 500 and agent not like '%bot%'\")",
};

/// `select`
pub static SELECT: PluginSpec = PluginSpec {
    name: "select",
    role: Role::Transform,
    summary: "Makes each record anew from columns.",
    details: "Columns are SQL expressions separated by commas, each with `as name`; a path without it is named by its last field. `*` stands \
              for all fields of the record and `* except (a, b)` for all but some; for that the fields must be known, from `:schema` or from an \
              earlier `select`.",
    positional: Some("columns"),
    options: &[
        OptionSpec {
            name: "columns",
            kind: OptionKind::Select,
            default: OptionDefault::Required,
            doc: "The columns.",
        },
        ON_ERROR,
    ],
    free_options: &[],
    example: "(select \"user.id as user, url, status\")",
};

/// All of them.
pub static TRANSFORMS: [&PluginSpec; 2] = [&WHERE, &SELECT];
