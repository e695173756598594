//! The built-in transforms `where` and `select`.

use pseidon_dsl::Call;
use pseidon_dsl::expr::{Expr, SelectItem};
use pseidon_plugin::options::{OnError, Options, ParseResult};
use pseidon_plugin::spec::{PluginSpec, Role};

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
        earlier `select`.",
    positional: SelectOptions::POSITIONAL,
    options: SelectOptions::DECLARED,
    example: "(select \"user.id as user, url, status\")",
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
}

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
        }
    }

    /// The transform with this name in a pipeline file.
    pub fn named(name: &str) -> Option<Transform> {
        Transform::ALL
            .into_iter()
            .find(|transform| transform.spec().name == name)
    }
}
