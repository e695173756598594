//! `:include`: the stages, flows and expressions of other files.
//!
//! The texts of all files are joined to one: each included file follows the ones before it, behind a
//! line with its path that begins with a [`MARK`], which no pipeline file can have. So a position in
//! the joined text names a place in one of the files, a plan is stored with all that it consists of,
//! and it can be planned again from the stored text when the files have changed.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use pseidon_dsl::document::{Fragment, Include};
use pseidon_dsl::{Diagnostic, Document, Span, diagnostic, document};

use super::{PipelineText, TextKind, encoding};
use crate::cli::Exit;

/// Begins the line with the path of an included file: the control character "record separator".
const MARK: char = '\u{1e}';

/// A file in a joined text.
#[derive(Clone)]
pub(super) struct Part<'t> {
    /// The path of an included file; `None` for the pipeline file.
    pub(super) path: Option<&'t str>,
    /// Where its text begins in the joined text.
    pub(super) start: usize,
    pub(super) text: &'t str,
}

/// The files of a joined text: the pipeline file, then the included ones.
pub(super) fn parts(joined: &str) -> Vec<Part<'_>> {
    let mut start = 0;
    let mut parts = Vec::new();
    for section in joined.split(MARK) {
        let part = match section.split_once('\n') {
            Some((path, text)) if !parts.is_empty() => Part {
                path: Some(path),
                start: start + path.len() + 1,
                text,
            },
            _ => Part {
                path: None,
                start,
                text: section,
            },
        };
        parts.push(part);
        start += section.len() + MARK.len_utf8();
    }
    parts
}

/// The errors of each file of a joined text that has some, with their positions in that file.
///
/// The uses of a named expression may be in other files; they become lines of the help. `main` is
/// the name of the pipeline file.
pub(super) fn by_file<'t>(
    main: &str,
    joined: &'t str,
    errors: &[Diagnostic],
) -> Vec<(Part<'t>, Vec<Diagnostic>)> {
    let parts = parts(joined);
    let files = parts.clone();
    let starts: Vec<usize> = parts.iter().map(|part| part.start).collect();
    let part_at = |span: Span| {
        let at = span.start as usize;
        starts
            .partition_point(|start| *start <= at)
            .saturating_sub(1)
    };
    let place_of = |span: Span| {
        let part = &files[part_at(span)];
        let start = (span.start as usize).saturating_sub(part.start);
        let name = part.path.unwrap_or(main);
        diagnostic::place(name, part.text, Span::new(start, start))
    };
    let with_errors = parts.into_iter().enumerate().map(|(number, part)| {
        let here = errors.iter().filter(|error| part_at(error.span) == number);
        let here = here.map(|error| {
            let place = |at: u32| (at as usize).saturating_sub(part.start);
            let (start, end) = (place(error.span.start), place(error.span.end));
            Diagnostic {
                span: Span::new(start, end.min(part.text.len()).max(start)),
                ..error.with_uses_as_help(place_of)
            }
        });
        let here = here.collect::<Vec<_>>();
        (part, here)
    });
    with_errors
        .filter(|(_, errors)| !errors.is_empty())
        .collect()
}

impl PipelineText {
    /// Parses the pipeline file and what it includes.
    ///
    /// # Errors
    /// All errors of the pipeline file; else all errors of the included files.
    pub(super) fn parse(&self) -> Result<Document, Vec<Diagnostic>> {
        let mut parts = parts(&self.text).into_iter();
        let main = parts.next().map_or("", |part| part.text);
        let mut document = self.parse_main(main)?;
        let mut errors = Vec::new();
        for part in parts {
            let fragment = parse_part(&part);
            match fragment.and_then(|fragment| document.include(fragment)) {
                Ok(()) => {}
                Err(more) => errors.extend(more),
            }
        }
        if errors.is_empty() {
            Ok(document)
        } else {
            Err(errors)
        }
    }

    fn parse_main(&self, text: &str) -> Result<Document, Vec<Diagnostic>> {
        match self.kind {
            TextKind::Edn => document::from_edn(text),
            TextKind::Toml => document::from_toml(text),
            TextKind::Flow => document::from_flow(text),
        }
    }

    /// Reads the files that the pipeline file includes, and appends them to its text. Errors are
    /// printed.
    pub(crate) fn with_includes(mut self) -> Result<PipelineText, Exit> {
        if let Some(at) = self.text.find(MARK) {
            let span = Span::new(at, at + MARK.len_utf8());
            let message = "a pipeline file cannot have the control character U+001E";
            let error = Diagnostic::new(span, message, "remove it");
            // Behind the mark the text would look like an included file.
            self.text.truncate(at + MARK.len_utf8());
            return Err(self.show(&[error]));
        }
        // The errors of a text that cannot be parsed are printed when it is planned.
        let Ok(document) = self.parse_main(&self.text) else {
            return Ok(self);
        };
        if document.includes.is_empty() {
            return Ok(self);
        }
        let mut reader = Reader::new(&self);
        let folder = self.base.clone();
        match reader.read_all(&document.includes, &folder) {
            Ok(()) => {
                self.text = reader.joined;
                Ok(self)
            }
            Err(error) => {
                self.text = reader.joined;
                Err(self.show(&[error]))
            }
        }
    }
}

/// Parses an included file. Its positions are those in the joined text.
fn parse_part(part: &Part<'_>) -> Result<Fragment, Vec<Diagnostic>> {
    // White space of the same length stands for what is before the file.
    let text = format!("{}{}", " ".repeat(part.start), part.text);
    match part.path.is_some_and(is_toml) {
        true => document::fragment_from_toml(&text),
        false => document::fragment_from_edn(&text),
    }
}

fn is_toml(path: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "toml")
}

/// Reads included files, each once, and what they include.
struct Reader {
    joined: String,
    /// No file outside of this folder may be included; `None` if it cannot be determined.
    root: Option<PathBuf>,
    /// The canonical paths of what was read.
    read: BTreeSet<PathBuf>,
    /// The canonical paths of the files from the pipeline file to the one that is read.
    within: Vec<PathBuf>,
}

impl Reader {
    fn new(main: &PipelineText) -> Reader {
        let root = std::fs::canonicalize(&main.base).ok().map(|base| {
            let repository = base.ancestors().find(|folder| folder.join(".git").exists());
            repository.unwrap_or(&base).to_owned()
        });
        let within = std::fs::canonicalize(&main.name).ok();
        Reader {
            joined: main.text.clone(),
            root,
            read: BTreeSet::new(),
            within: within.into_iter().collect(),
        }
    }

    fn read_all(&mut self, includes: &[Include], folder: &Path) -> Result<(), Diagnostic> {
        includes
            .iter()
            .try_for_each(|include| self.read(include, folder))
    }

    /// Reads a file, whose path begins at the folder of the file that includes it.
    fn read(&mut self, include: &Include, folder: &Path) -> Result<(), Diagnostic> {
        let path = without_dots(&folder.join(&include.path));
        let shown = path.display().to_string();
        let wrong = |label: String| {
            let message = format!("cannot include {}", include.path);
            Diagnostic::new(include.span, message, label)
        };
        let canonical = std::fs::canonicalize(&path)
            .map_err(|error| wrong(format!("cannot read {shown}: {error}")))?;
        if self.within.contains(&canonical) {
            return Err(wrong(
                "it includes itself, directly or through others".into(),
            ));
        }
        if let Some(root) = self
            .root
            .as_ref()
            .filter(|root| !canonical.starts_with(root))
        {
            let label = format!("it is outside of {}", root.display());
            return Err(wrong(label).with_help(
                "included files are in the repository of the pipeline file, or, without a \
                 repository, in its folder or below",
            ));
        }
        if !self.read.insert(canonical.clone()) {
            return Ok(());
        }
        let bytes = std::fs::read(&canonical).map_err(|error| error.to_string());
        let text = bytes
            .and_then(encoding::decode)
            .map_err(|reason| wrong(format!("cannot read {shown}: {reason}")))?;
        if text.contains(MARK) || shown.contains([MARK, '\n']) {
            let label = "its text has the control character U+001E, or its path that or a line end";
            return Err(wrong(label.into()));
        }
        self.joined.push_str(&format!("{MARK}{shown}\n"));
        let start = self.joined.len();
        self.joined.push_str(&text);
        let part = Part {
            path: Some(&shown),
            start,
            text: &text,
        };
        // Its errors are printed together with others when the pipeline is planned.
        let Ok(fragment) = parse_part(&part) else {
            return Ok(());
        };
        self.within.push(canonical);
        let folder = path.parent().unwrap_or(Path::new("."));
        let outcome = self.read_all(&fragment.includes, folder);
        self.within.pop();
        outcome
    }
}

/// A path as it is shown: `stages/../common.edn` is `common.edn`.
fn without_dots(path: &Path) -> PathBuf {
    let mut shown = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if shown.file_name().is_some() => _ = shown.pop(),
            other => shown.push(other),
        }
    }
    shown
}
