//! `pseidon infer`: the fields of JSON or CSV files and their types, as EDN to paste after `:schema`.
//! If the files have another separator than their names say, a comment before it has the format.

use std::path::Path;

use pseidon_dsl::{Name, Node, NodeKind, Span, node::Text};
use pseidon_files::FilesSource;
use pseidon_files::source::FilesSourceOptions;
use pseidon_plugin::options::{Options, print_schema};
use pseidon_plugin::source::SourcePlugin;

use crate::cli::Exit;
use crate::load;
use crate::registry::registry;
use crate::{output, stderr_line};

/// Prints the fields of the first records in the files. `files` are paths or globs.
pub(crate) fn infer(files: &[String]) -> Exit {
    match schema_of(files) {
        Ok(schema) => output::print(&format!("{schema}\n")),
        Err(reason) => {
            stderr_line!("error: {reason}");
            Exit::Failed
        }
    }
}

fn schema_of(files: &[String]) -> Result<String, String> {
    let node = |kind| Node {
        kind,
        span: Span::default(),
    };
    let paths = files
        .iter()
        .map(|path| node(NodeKind::Str(Text::plain(path.as_str(), 0))))
        .collect();
    let path = node(NodeKind::Keyword(Name::plain("path")));
    let entries = vec![(path, node(NodeKind::Vector(paths)))];
    let errors = |errors: Vec<pseidon_dsl::Diagnostic>| {
        errors
            .into_iter()
            .map(|error| error.message)
            .collect::<Vec<_>>()
            .join("; ")
    };
    let options = FilesSourceOptions::parse_stage(
        FilesSource.spec(),
        &[node(NodeKind::Map(entries))],
        Span::default(),
    )
    .map_err(errors)?;
    let source = FilesSource.prepare(&options).map_err(errors)?;
    let registry = registry();
    // The format is that of the files' names. A file of another name may contain JSON.
    let name = match source.facts().format.name() {
        "txt" => "json".to_owned(),
        by_name => by_name.to_owned(),
    };
    let format = registry
        .format(&name)
        .ok_or_else(|| format!("this build does not have the format `{name}`"))?;
    let (source, format, base) = (source.as_ref(), format.as_ref(), Path::new("."));
    let Some(settings) = load::other_settings(source, format, base)? else {
        return load::infer(source, format, base).map(|schema| print_schema(&schema));
    };
    let schema = load::infer_with(source, format, &settings, base)?;
    // A comment of EDN, so that all of it can be pasted.
    let schema = print_schema(&schema);
    Ok(format!("; with :format \"{name}:{settings}\"\n{schema}"))
}
