//! The payload paths that are used anywhere after a source, and their types.
//!
//! The type of a path is defined by the source's schema, or else by its use in expressions
//! (an argument of `upper`: a string), or else it is JSON, the value's source text. If a `select`
//! only renames a path, the [uses] of the new name count as uses of the path.

mod names;
mod uses;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use pseidon_dsl::expr::{Expr, ExprKind, Meta, Path, PathStep, SelectItem};
use pseidon_dsl::{Diagnostic, Span, nearest};
use pseidon_expr::demand::{Demand, collect};
use pseidon_expr::types::{json_field, type_name};
use pseidon_plugin::batch::WantedMetadata;
use pseidon_plugin::format::{Format, WantedColumn};
use pseidon_plugin::stage::SinkStage;

use self::names::{NamedColumn, Names, Origin};
use self::uses::{Branches, TypeConflict, TypedUse, decoded_type};
use crate::edits::{FieldEdit, field};
use crate::resolve::{ResolvedStep, ResolvedStepKind};
use crate::unnest::ELEMENT;

/// The parts of a source's records that must be decoded.
#[derive(Clone, Debug, Default)]
pub struct SourceColumns {
    /// The payload columns, ordered by path.
    pub wanted: Vec<WantedColumn>,
    /// The metadata whose extraction has a cost.
    pub meta: WantedMetadata,
    /// The schema, if all fields of the records are used.
    pub all_of: Option<SchemaRef>,
}

impl SourceColumns {
    /// The names of the fields that the payload columns are in, each once.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for column in &self.wanted {
            if let Some(PathStep::Field(name)) = column.path.0.first()
                && !names.contains(name)
            {
                names.push(name.clone());
            }
        }
        names
    }
}

/// Whether the format can change fields in place. Otherwise an edit requires all fields.
pub(crate) fn edits_bytes(format: &dyn Format) -> bool {
    format.editor(&[]).is_ok()
}

/// Whether each record is a line of text, as it is of files whose `:path` has no known ending.
fn has_lines(format: &dyn Format, schema: &SchemaRef) -> bool {
    format.name() == "txt" && schema.fields().len() == 1
}

/// Collects the columns and metadata that must be decoded for a source's chain. If there are
/// errors, the columns are a best effort, so that planning can continue and find more errors.
pub fn columns_of(
    chain: &[ResolvedStep],
    format: &dyn Format,
    schema: Option<&SchemaRef>,
) -> (SourceColumns, Vec<Diagnostic>) {
    let mut walk = Walk {
        format,
        schema,
        edits_bytes: edits_bytes(format),
        uses: BTreeMap::new(),
        branches: Branches::default(),
        meta: WantedMetadata::default(),
        uses_all: false,
        errors: Vec::new(),
    };
    walk.chain(chain, Names::of_source());
    let wanted = walk.wanted();
    (
        SourceColumns {
            wanted,
            meta: walk.meta,
            all_of: schema.filter(|_| walk.uses_all).cloned(),
        },
        walk.errors,
    )
}

/// The fields of a schema except the fields in `except`, in the order of the schema.
pub(crate) fn fields_except(schema: &SchemaRef, except: &[(Path, Span)]) -> Vec<FieldRef> {
    let left_out = |field: &&FieldRef| except.iter().any(|(path, _)| is_field(path, field.name()));
    schema
        .fields()
        .iter()
        .filter(|field| !left_out(field))
        .cloned()
        .collect()
}

/// Whether the path consists of just this field.
pub(crate) fn is_field(path: &Path, name: &str) -> bool {
    matches!(path.0.as_slice(), [PathStep::Field(field)] if field == name)
}

/// The error for a `*`, or a sink that writes columns, if the fields are unknown.
pub(crate) fn unknown_fields(span: Span) -> Diagnostic {
    let message = "the fields of these records are not known";
    Diagnostic::new(span, message, "all fields are needed here").with_help(
        "set the :schema of the source: `:infer` reads the first records, a map such as {:id \
         :int64 :name :utf8} lists the fields; or list the columns in a `select`",
    )
}

struct Walk<'a> {
    /// The records' format.
    format: &'a dyn Format,
    schema: Option<&'a SchemaRef>,
    edits_bytes: bool,
    /// The used paths of the record, each with its uses that require a type.
    uses: BTreeMap<Path, Vec<TypedUse>>,
    branches: Branches,
    meta: WantedMetadata,
    /// Whether all fields of the record are used.
    uses_all: bool,
    errors: Vec<Diagnostic>,
}

impl Walk<'_> {
    fn chain(&mut self, steps: &[ResolvedStep], mut names: Names) -> Names {
        let depth = self.branches.depth();
        for step in steps {
            names = self.step(step, names);
            if matches!(step.kind, ResolvedStepKind::Sink(_)) || !step.kind.chains().is_empty() {
                // What follows is another branch.
                self.branches.enter();
            }
        }
        self.branches.leave_to(depth);
        names
    }

    fn step(&mut self, step: &ResolvedStep, names: Names) -> Names {
        match &step.kind {
            ResolvedStepKind::Where(condition) => {
                self.expr(condition, Some(&DataType::Boolean), &names);
                names
            }
            ResolvedStepKind::Select(items) => Names::Columns(
                items
                    .iter()
                    .flat_map(|item| self.select_item(item, &names))
                    .collect(),
            ),
            ResolvedStepKind::Edit(edits) => {
                for edit in edits {
                    if let FieldEdit::Set(assignment) = edit {
                        self.expr(&assignment.value, None, &names);
                    }
                }
                if self.edits_bytes || self.schema.is_none() || !names.are_of_record() {
                    return names.after(edits);
                }
                Names::Columns(self.all_fields(&[], step.span, &names)).after(edits)
            }
            ResolvedStepKind::Unnest(list) => {
                self.expr(list, None, &names);
                names.with_computed(&[ELEMENT])
            }
            ResolvedStepKind::Lookup(key, table) => {
                self.expr(key, None, &names);
                let schema = table.schema();
                let columns = schema.fields().iter().map(|column| column.name().as_str());
                names.with_computed(&columns.collect::<Vec<_>>())
            }
            ResolvedStepKind::Sample(_, by) => {
                if let Some(by) = by {
                    self.expr(by, None, &names);
                }
                names
            }
            ResolvedStepKind::Limit(_) | ResolvedStepKind::Throttle(_) => names,
            ResolvedStepKind::All(branches) => {
                self.branches(branches.iter(), &names);
                names
            }
            ResolvedStepKind::Match {
                branches,
                otherwise,
            } => {
                let chains = branches.iter().map(|(_, chain)| chain).chain(otherwise);
                let ends = self.branches(chains, &names);
                ends.into_iter().find(Names::are_changed).unwrap_or(names)
            }
            ResolvedStepKind::Route {
                branches,
                otherwise,
            } => {
                for (condition, _) in branches {
                    self.expr(condition, Some(&DataType::Boolean), &names);
                }
                let chains = branches.iter().map(|(_, chain)| chain).chain(otherwise);
                self.branches(chains, &names);
                names
            }
            ResolvedStepKind::Sink(sink) => {
                self.sink(step, sink, &names);
                names
            }
        }
    }

    /// The names at the end of each of these chains.
    fn branches<'s>(
        &mut self,
        chains: impl Iterator<Item = &'s Vec<ResolvedStep>>,
        names: &Names,
    ) -> Vec<Names> {
        let depth = self.branches.depth();
        let mut branch = |chain: &'s Vec<ResolvedStep>| {
            self.branches.enter();
            let names = self.chain(chain, names.clone());
            self.branches.leave_to(depth);
            names
        };
        chains.map(&mut branch).collect()
    }

    fn sink(&mut self, step: &ResolvedStep, sink: &SinkStage, names: &Names) {
        self.branches.add_sink();
        for expr in &sink.options.exprs {
            self.expr(expr, None, names);
        }
        let facts = &sink.facts;
        if facts
            .needs_columns
            .of(self.format.name(), self.format.has_bytes(), self.schema)
            && names.are_of_record()
        {
            self.all_fields(&[], step.span, names);
        }
        if facts.copies_meta && names.are_of_record() {
            self.meta.timestamp = true;
            self.meta.raw = true;
        }
    }

    fn select_item(&mut self, item: &SelectItem, names: &Names) -> Vec<NamedColumn> {
        match item {
            SelectItem::All { except, span } => self.all_fields(except, *span, names),
            SelectItem::Column { expr, name } => {
                self.expr(expr, None, names);
                let origin = match &expr.kind {
                    ExprKind::Path(path) => names.origin(path).into_path(),
                    _ => None,
                };
                vec![(expr.column_name(name.as_ref()), origin)]
            }
        }
    }

    /// The columns that `*` stands for, without the excluded ones.
    fn all_fields(
        &mut self,
        except: &[(Path, Span)],
        span: Span,
        names: &Names,
    ) -> Vec<NamedColumn> {
        let Some(columns) = names.columns(self.schema) else {
            let error = unknown_fields(span);
            if !self.errors.contains(&error) {
                self.errors.push(error);
            }
            return Vec::new();
        };
        let mut all = columns;
        all.retain(|(name, _)| !except.iter().any(|(path, _)| is_field(path, name)));
        for (name, _) in &all {
            let whole = field(name);
            if let Origin::Partial(changed) = names.origin(&whole) {
                self.errors.push(partly_changed(&whole, &changed, span));
            }
        }
        if names.are_of_record() {
            self.uses_all = true;
            for path in all.iter().filter_map(|(_, origin)| origin.as_ref()) {
                self.uses.entry(path.clone()).or_default();
            }
        }
        all
    }

    fn expr(&mut self, expr: &Expr, wanted: Option<&DataType>, names: &Names) {
        self.note_meta(expr);
        let known = |path: &Path| {
            let origin = names.origin(path).into_path()?;
            Some(self.typed(&origin)?.data_type().clone())
        };
        let mut demands = Vec::new();
        collect(expr, wanted, &known, &mut demands);
        for Demand { path, span, wanted } in demands {
            let written = path.to_string().len();
            let is_quoted = (span.end.saturating_sub(span.start)) as usize > written;
            let path = match names.origin(&path) {
                Origin::Path(path) => path,
                Origin::Computed => continue,
                Origin::Partial(changed) => {
                    self.errors.push(partly_changed(&path, &changed, span));
                    continue;
                }
            };
            if self.schema.is_some() && self.typed(&path).is_none() {
                self.unknown_path(&path, span, is_quoted);
                continue;
            }
            let uses = self.uses.entry(path).or_default();
            let branch = self.branches.current();
            uses.extend(wanted.map(|wanted| TypedUse::new(wanted, span, branch)));
        }
    }

    /// The error for a field that the schema does not have. `is_quoted` is whether its name is
    /// written in quotes, as strings are in other languages.
    fn unknown_path(&mut self, path: &Path, span: Span, is_quoted: bool) {
        let Some(schema) = self.schema else { return };
        let error = Diagnostic::new(
            span,
            format!("the record has no field `{path}`"),
            "not in the schema",
        );
        let text = path.to_string();
        let fields = || schema.fields().iter().map(|field| field.name().as_str());
        let help = match nearest(&text, fields()) {
            _ if is_quoted && path.0.len() == 1 => {
                let text = text.trim_matches('"');
                format!("double quotes are for names of fields; a string is written '{text}'")
            }
            Some(near) => format!("did you mean `{near}`?"),
            None if has_lines(self.format, schema) => format!(
                "the format is {}, in which a record is a `line`; if the records are JSON or CSV, \
                 add :format \"json\" or \"csv\", or end :path with .ndjson or .csv",
                self.format.name()
            ),
            None if self.format.has_bytes() && path.0.len() == 1 => format!(
                "the schema has {}; if the records have `{text}` too, add it to :schema with its \
                 type, such as `:{text} :float64`",
                listed(fields())
            ),
            None => format!("the schema has {}", listed(fields())),
        };
        let error = error.with_help(help);
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// The field of the schema at this path.
    fn typed(&self, path: &Path) -> Option<FieldRef> {
        field_at(self.schema?, path)
    }

    fn note_meta(&mut self, expr: &Expr) {
        walk(expr, &mut |part| {
            if let ExprKind::Meta(meta) = &part.kind {
                match meta {
                    Meta::Timestamp => self.meta.timestamp = true,
                    Meta::Key => self.meta.key = true,
                    Meta::Headers(_) => self.meta.headers = true,
                    Meta::Topic | Meta::Partition | Meta::Offset => {}
                }
            }
        });
    }

    fn wanted(&mut self) -> Vec<WantedColumn> {
        let uses = std::mem::take(&mut self.uses);
        uses.into_iter()
            .map(|(path, wants)| WantedColumn {
                field: self.field_of(&path, &wants),
                path,
            })
            .collect()
    }

    fn field_of(&mut self, path: &Path, uses: &[TypedUse]) -> FieldRef {
        let name = path.to_string();
        if let Some(field) = self.typed(path) {
            return Arc::new(field.as_ref().clone().with_name(name).with_nullable(true));
        }
        let data_type = decoded_type(uses, &self.branches).unwrap_or_else(|conflict| {
            self.errors.push(conflicting_uses(path, &conflict));
            Some(conflict.first)
        });
        Arc::new(match data_type {
            Some(data_type) => Field::new(name, data_type, true),
            None => json_field(&name),
        })
    }
}

/// The error for uses of a field with types that conflict.
fn conflicting_uses(path: &Path, conflict: &TypeConflict) -> Diagnostic {
    let (first, other) = (type_name(&conflict.first), type_name(&conflict.other));
    Diagnostic::new(
        conflict.span,
        format!("`{path}` is used as {first} and as {other}"),
        format!("used as {other} here"),
    )
    .with_help(format!(
        "declare its type in the :schema of the source, or cast it here: try_cast({path} as {other})"
    ))
}

/// The error for a use of a value of which an earlier stage has changed a part.
fn partly_changed(path: &Path, changed: &Path, span: Span) -> Diagnostic {
    Diagnostic::new(
        span,
        format!("`{path}` is used as a whole after `{changed}` was changed"),
        "a part of it was changed before",
    )
    .with_help("use it before that stage, or change a copy")
}

/// The field at a path of a schema, through structs and lists. A path into a JSON field is JSON.
fn field_at(schema: &SchemaRef, path: &Path) -> Option<FieldRef> {
    let (PathStep::Field(first), rest) = path.0.split_first()? else {
        return None;
    };
    let mut field = schema
        .fields()
        .iter()
        .find(|field| field.name() == first)?
        .clone();
    for step in rest {
        field = match (step, field.data_type()) {
            (PathStep::Field(name), DataType::Struct(fields)) => {
                fields.iter().find(|field| field.name() == name)?.clone()
            }
            (PathStep::Index(_), DataType::List(item)) => item.clone(),
            _ if pseidon_expr::types::is_json(&field) => {
                return Some(Arc::new(json_field(&path.to_string())));
            }
            _ => return None,
        };
    }
    Some(field)
}

/// Whether the expression uses the record's topic.
pub(crate) fn uses_topic(expr: &Expr) -> bool {
    let mut found = false;
    walk(expr, &mut |part| {
        found |= matches!(part.kind, ExprKind::Meta(Meta::Topic))
    });
    found
}

/// Visits an expression and all of its parts.
fn walk(expr: &Expr, visit: &mut dyn FnMut(&Expr)) {
    visit(expr);
    expr.parts().into_iter().for_each(|part| walk(part, visit));
}

/// The names of fields for a message, the first of them if there are many.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 8;
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    match names.len().checked_sub(MOST) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more fields", names[..MOST].join(", ")),
    }
}
