//! Preparation of a source: its format, the fields of its records, and the columns to decode.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use pseidon_dsl::{Diagnostic, Span, nearest};
use pseidon_plugin::format::Format;
use pseidon_plugin::registry::PluginRegistry;
use pseidon_plugin::source::{Source, SourceFacts};

use crate::columns::{SourceColumns, columns_of, edits_bytes};
use crate::errors::Errors;
use crate::in_place::in_place;
use crate::resolve::{ResolvedSource, ResolvedStep};

/// A function that infers the fields of the records of a stage, given its name.
pub type SchemaInference<'a> =
    dyn Fn(&str, &dyn Source, &dyn Format) -> Result<SchemaRef, String> + 'a;

/// A source whose records are known.
pub(crate) struct PreparedSource<'r> {
    pub(crate) resolved: &'r ResolvedSource,
    /// The steps after it, in the form that fits its records.
    pub(crate) chain: Vec<ResolvedStep>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) facts: SourceFacts,
    pub(crate) format: Arc<dyn Format>,
    /// The settings of the format.
    pub(crate) format_settings: String,
    /// The fields of the records, if they are known.
    pub(crate) schema: Option<SchemaRef>,
    /// The columns to decode and the metadata to read.
    pub(crate) columns: SourceColumns,
}

/// Prepares a source. `None` if an error was added after which its records are not known. If the
/// flow uses columns that do not exist, errors are added and the other columns are returned.
pub(crate) fn prepare<'r>(
    resolved: &'r ResolvedSource,
    registry: &PluginRegistry,
    infer: &SchemaInference<'_>,
    errors: &mut Errors,
) -> Option<PreparedSource<'r>> {
    let source = errors.value(resolved.source.prepare())?;
    let facts = source.facts();
    if !facts.finite {
        let endless = resolved.groups.iter();
        errors.extend(endless.map(|group| group_without_end(*group, &resolved.stage)));
    }
    let (format_name, format_settings) = (facts.format.name(), facts.format.settings());
    let format_span = facts.format_span.unwrap_or(resolved.source.options.span);
    let format = errors.value(find_format(format_name, registry, format_span))?;
    let inferred = errors.value(infer_schema(
        resolved,
        &*source,
        facts.infer,
        &*format,
        infer,
    ))?;
    let by_format = errors.value(schema_of_format(format_span, &*format, format_settings))?;
    if !facts.splits_bytes && format.framing(format_settings).has_header {
        errors.add(match &resolved.group {
            None => messages_without_header(format_span, format_name),
            Some(_) => whole_records_without_header(resolved.span, format_name),
        });
    }
    let schema = inferred.or(facts.schema.clone()).or(by_format);
    let format_settings = errors.value(named_fields(
        format_span,
        &*format,
        format_settings,
        schema.as_ref(),
    ))?;
    let format_settings = format_settings.as_str();
    if !format.has_bytes() && !facts.reads_columns {
        errors.add(columns_without_files(format_span, format_name));
    }
    let chain = if edits_bytes(&*format) && schema.is_none() {
        in_place(&resolved.chain)
    } else {
        resolved.chain.clone()
    };
    let (columns, unknown_columns) = columns_of(&chain, &*format, schema.as_ref());
    match format.decoder(format_settings, &columns.wanted) {
        Err(reason) if unknown_columns.is_empty() => errors.add(Diagnostic::new(
            resolved.span,
            "these records do not have the columns that the flow uses",
            reason,
        )),
        _ => errors.extend(unknown_columns),
    }
    let format_settings = format_settings.to_owned();
    Some(PreparedSource {
        resolved,
        chain,
        source,
        facts,
        format,
        format_settings,
        schema,
        columns,
    })
}

/// The errors of a source that do not depend on the flow after it.
pub(crate) fn source_errors(
    resolved: &ResolvedSource,
    registry: &PluginRegistry,
) -> Vec<Diagnostic> {
    let mut errors = Errors::default();
    if let Some(source) = errors.value(resolved.source.prepare()) {
        let facts = source.facts();
        let span = facts.format_span.unwrap_or(resolved.source.options.span);
        let format = errors.value(find_format(facts.format.name(), registry, span));
        if let Some(format) = format {
            errors.value(schema_of_format(span, &*format, facts.format.settings()));
        }
    }
    errors.into_unique()
}

fn find_format(
    name: &str,
    registry: &PluginRegistry,
    span: Span,
) -> Result<Arc<dyn Format>, Diagnostic> {
    if let Some(format) = registry.format(name) {
        return Ok(format.clone());
    }
    let names: Vec<_> = registry
        .formats
        .iter()
        .map(|format| format.name())
        .collect();
    let error = Diagnostic::new(
        span,
        format!("unknown format `{name}`"),
        format!("expected one of {}", names.join(", ")),
    );
    Err(match nearest(name, names) {
        Some(near) => error.with_help(format!("did you mean `:{near}`?")),
        None => error,
    })
}

/// The fields of the records if the source has `:schema :infer`.
fn infer_schema(
    resolved: &ResolvedSource,
    source: &dyn Source,
    span: Option<Span>,
    format: &dyn Format,
    infer: &SchemaInference<'_>,
) -> Result<Option<SchemaRef>, Diagnostic> {
    let Some(span) = span else {
        return Ok(None);
    };
    infer(&resolved.stage, source, format)
        .map(Some)
        .map_err(|reason| {
            Diagnostic::new(span, "cannot infer the fields of these records", reason).with_help(
                "set :schema explicitly, for example to the output of `pseidon infer FILE`",
            )
        })
}

/// The settings of the format, with the names of the fields if only the schema of the source has
/// them.
fn named_fields(
    span: Span,
    format: &dyn Format,
    settings: &str,
    schema: Option<&SchemaRef>,
) -> Result<String, Diagnostic> {
    let named = match schema {
        Some(schema) => format.named(settings, schema),
        None => Ok(None),
    };
    let named = named.map_err(|reason| {
        Diagnostic::new(span, "the fields of these records have no names", reason)
    })?;
    Ok(named.unwrap_or_else(|| settings.to_owned()))
}

/// The error for a group of records that do not end.
fn group_without_end(span: Span, source: &str) -> Diagnostic {
    let message = format!("`{source}` never ends, so its groups are never complete");
    let error = Diagnostic::new(span, message, "waits for the end of the records");
    error.with_help("read files without `:follow`, or topics with `:until`")
}

/// The error for a format whose first record is a header, at a source of messages.
fn messages_without_header(span: Span, format: &str) -> Diagnostic {
    let message = format!("the fields of these {format} records have no names");
    Diagnostic::new(span, message, "messages have no header").with_help(format!(
        "name the fields in their order: :format \"{format}:fields=a,b,c\""
    ))
}

/// The error for a stage that keeps whole records of a format whose first record is a header.
fn whole_records_without_header(span: Span, format: &str) -> Diagnostic {
    let message = format!("the fields of these {format} records are not known");
    Diagnostic::new(
        span,
        message,
        "whole records are kept here, without their header",
    )
    .with_help("set :schema :infer at the source")
}

/// The error for a format of columns at a source of messages or lines.
fn columns_without_files(span: Span, format: &str) -> Diagnostic {
    let message = format!("this source has no {format} records");
    Diagnostic::new(span, message, format!("{format} is a format of files"))
        .with_help("read the files with the source `files`")
}

/// The fields of the records if the format with these settings determines them.
fn schema_of_format(
    span: Span,
    format: &dyn Format,
    settings: &str,
) -> Result<Option<SchemaRef>, Diagnostic> {
    format
        .schema(settings)
        .map_err(|reason| Diagnostic::new(span, "invalid settings of the format", reason))
}
