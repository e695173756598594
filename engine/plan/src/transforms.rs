//! The built-in transforms `where` and `select`.

use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec, Role};

const ON_ERROR: OptionSpec = OptionSpec {
    name: "on-error",
    kind: OptionKind::OnError,
    default: OptionDefault::Value("quarantine"),
    doc: "The handling of a record for which an expression fails: `:throw` fails the run, `:noop` \
        drops the record, `{:quarantine …}` writes it to the quarantine. (`{:retry …}` applies \
        its `:then` immediately, because a failed expression would fail again.)",
};

/// The transform `where`.
static WHERE: PluginSpec = PluginSpec {
    name: "where",
    role: Role::Transform,
    summary: "Passes on the records for which a condition is true.",
    details: "The condition is an SQL expression. As in SQL, a condition that is NULL, for \
        example because a field is missing, is not true.",
    positional: Some("condition"),
    options: &[
        OptionSpec {
            name: "condition",
            kind: OptionKind::Expr,
            default: OptionDefault::Required,
            doc: "The condition, an SQL expression.",
        },
        ON_ERROR,
    ],
    free_options: &[],
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
        earlier `select`.",
    positional: Some("columns"),
    options: &[
        OptionSpec {
            name: "columns",
            kind: OptionKind::Select,
            default: OptionDefault::Required,
            doc: "The columns, separated by commas.",
        },
        ON_ERROR,
    ],
    free_options: &[],
    example: "(select \"user.id as user, url, status\")",
};

/// The built-in transforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// Filters records.
    Where,
    /// Builds new records.
    Select,
}

impl Transform {
    /// All of them, in the order of the reference pages.
    pub const ALL: [Transform; 2] = [Transform::Where, Transform::Select];

    /// The declaration.
    pub fn spec(self) -> &'static PluginSpec {
        match self {
            Transform::Where => &WHERE,
            Transform::Select => &SELECT,
        }
    }

    /// The transform with this name in a pipeline file.
    pub fn named(name: &str) -> Option<Transform> {
        Transform::ALL
            .into_iter()
            .find(|transform| transform.spec().name == name)
    }
}
