//! The options of a stage: a struct.
//!
//! A plugin declares its options as a struct that derives [`Options`]. A field is an option: its
//! name in kebab case, its doc comment and its type are the option's name, documentation and kind.
//! Parsing with positions, checks, defaults, `pseidon plugins`, `docs/plugins.md` and the JSON
//! Schema are all derived from the struct. The plugin reads fields, so an option that does not
//! exist or has another type does not compile.
//!
//! ```
//! use std::time::Duration;
//!
//! use pseidon_dsl::{Span, edn};
//! use pseidon_plugin::options::{Choice, OnError, Options, SpannedValue};
//! use pseidon_plugin::spec::{PluginSpec, Role};
//!
//! /// The options of a sink.
//! #[derive(Clone, Debug, Options)]
//! pub struct ExampleOptions {
//!     /// The address: `host:port`.
//!     #[option(positional, free)]
//!     address: SpannedValue<String>,
//!     /// How records are written.
//!     #[option(default = "json")]
//!     format: Format,
//!     /// The user's name. Default: no login.
//!     user: Option<String>,
//!     /// When to give up.
//!     #[option(default = "")]
//!     retry: RetryOptions,
//!     /// What happens to a record that cannot be written.
//!     on_error: Option<OnError>,
//! }
//!
//! #[derive(Clone, Copy, Debug, PartialEq, Choice)]
//! enum Format {
//!     Json,
//!     Txt,
//! }
//!
//! #[derive(Clone, Debug, Options)]
//! struct RetryOptions {
//!     /// The time limit of all attempts.
//!     #[option(default = "30s")]
//!     max_time: Duration,
//! }
//!
//! static SPEC: PluginSpec = PluginSpec {
//!     name: "example",
//!     role: Role::Sink,
//!     summary: "Writes records to a service.",
//!     details: "",
//!     positional: ExampleOptions::POSITIONAL,
//!     options: ExampleOptions::DECLARED,
//!     example: r#"(example "localhost:9000")"#,
//! };
//!
//! let parse = |text| ExampleOptions::parse_stage(&SPEC, &[edn::read(text).unwrap()], Span::default());
//! let options = parse(r#"{:address "localhost:9000" :format :txt}"#).unwrap();
//! assert_eq!(options.address.value, "localhost:9000");
//! assert_eq!(options.address.span, Span::new(10, 26));
//! assert_eq!(options.format, Format::Txt);
//! assert_eq!(options.user, None);
//! assert_eq!(options.retry.max_time, Duration::from_secs(30));
//!
//! let errors = parse("{:adress 1}").unwrap_err();
//! assert_eq!(errors[0].message, "`example` has no option `:adress`");
//! assert_eq!(errors[0].help.as_deref(), Some("did you mean `:address`?"));
//! assert_eq!(errors.len(), 1, "`:address` does not count as missing too");
//! let errors = parse("{}").unwrap_err();
//! assert_eq!(errors[0].message, "missing required option `:address` of `example`");
//! ```
//!
//! A field is required unless it has a default or its type is `Option`. [`SpannedValue`] keeps the
//! position of the value, for errors that only the plugin can find. A group that several stages
//! have is a struct that they `flatten`. All attributes are listed at the derive macro.
//!
//! A type of values implements [`OptionValue`] ([`kinds`] has those of the standard types), so a
//! restriction is a type too: a port is not any integer, and a password is a
//! [`Secret`](crate::Secret).

use pseidon_dsl::{Node, Span};

mod declarations;
mod edits;
pub mod kinds;
mod local_path;
mod on_error;
mod reader;
mod schema;
mod value;

use crate::spec::{OptionSpec, PluginSpec};

pub use declarations::{concat, default_of, total};
pub use local_path::check_local_path;
pub use on_error::OnError;
pub use pseidon_dsl::expr::Expr;
pub use pseidon_options_derive::{Choice, Options};
pub use reader::Reader;
pub use schema::{SchemaOption, print_schema, read_schema};
pub use value::{Argument, Choice, OptionValue, ParseResult, SpannedValue};

/// A group of options. Use the derive macro to implement it.
pub trait Options: Sized {
    /// The declarations of the options, in the order of the fields.
    const DECLARED: &'static [OptionSpec];

    /// The option that the first argument of a stage sets if it is not a map: `(where "a > 1")`.
    const POSITIONAL: &'static [&'static str] = &[];

    /// Reads the fields. Returns `None` if there are errors; the reader has them.
    fn read(reader: &mut Reader<'_>) -> Option<Self>;

    /// Appends the names and values of the options that decide which lanes a stage has and what it
    /// writes. They must not change after a crash.
    fn identity(&self, parts: &mut Vec<(&'static str, String)>);

    /// Appends every expression in the options.
    fn exprs<'a>(&'a self, found: &mut Vec<&'a Expr>);

    /// Parses the arguments of a stage that is at `span`.
    ///
    /// # Errors
    /// All errors in the arguments.
    fn parse_stage(spec: &PluginSpec, args: &[Node], span: Span) -> ParseResult<Self> {
        let mut reader = Reader::new(format!("`{}`", spec.name), Self::DECLARED, span);
        reader.add_arguments(args, Self::POSITIONAL, spec.example)?;
        reader.finish()
    }

    /// Parses the entries of a map that is at `span`, such as `:settings`. `name` is for messages.
    ///
    /// # Errors
    /// All errors in the entries.
    fn parse_map(name: &str, entries: &[(Node, Node)], span: Span) -> ParseResult<Self> {
        let mut reader = Reader::new(format!("`{name}`"), Self::DECLARED, span);
        reader.add_entries(entries);
        reader.finish()
    }
}

#[cfg(test)]
mod tests;
