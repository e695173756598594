//! Joined texts: a pipeline file, followed by the files that it includes.
//!
//! Each included file follows the ones before it, behind a line with its path that begins with a
//! [`MARK`], which no pipeline file can have. So a position in the joined text is a place in one of
//! the files, and a plan that is stored with its joined text can be made again when the files have
//! changed.

use std::path::Path;

use crate::document::{self, Fragment};
use crate::{Diagnostic, Document, Span, diagnostic};

/// Begins the line with the path of an included file: the control character "record separator".
pub const MARK: char = '\u{1e}';

/// A file in a joined text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<'t> {
    /// The path of an included file; `None` for the pipeline file.
    pub path: Option<&'t str>,
    /// Where its text begins in the joined text.
    pub start: usize,
    /// Its text.
    pub text: &'t str,
}

/// The files of a joined text: the pipeline file, then the included ones.
pub fn parts(joined: &str) -> Vec<Part<'_>> {
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

/// Appends an included file, and returns it. Neither its text nor its path has a [`MARK`], and the
/// path has no line end.
pub fn append<'t>(joined: &mut String, path: &'t str, text: &'t str) -> Part<'t> {
    joined.extend([MARK.encode_utf8(&mut [0; 4]), path, "\n"]);
    let start = joined.len();
    joined.push_str(text);
    Part {
        path: Some(path),
        start,
        text,
    }
}

/// Parses the pipeline file with `main`, and adds what it includes.
///
/// # Errors
/// All errors of the pipeline file; else all errors of the included files.
pub fn document(
    joined: &str,
    main: impl FnOnce(&str) -> Result<Document, Vec<Diagnostic>>,
) -> Result<Document, Vec<Diagnostic>> {
    let mut parts = parts(joined).into_iter();
    let mut document = main(parts.next().map_or("", |part| part.text))?;
    let mut errors = Vec::new();
    for part in parts {
        let fragment = fragment(&part);
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

/// Parses an included file. Its positions are those in the joined text.
///
/// # Errors
/// All errors, in source order.
pub fn fragment(part: &Part<'_>) -> Result<Fragment, Vec<Diagnostic>> {
    // White space of the same length stands for what is before the file.
    let text = format!("{}{}", " ".repeat(part.start), part.text);
    let fragment = match part.path.is_some_and(is_toml) {
        true => document::fragment_from_toml(&text),
        false => document::fragment_from_edn(&text),
    };
    // An error about the whole text, such as that it is empty, covers that white space too.
    let start = u32::try_from(part.start).unwrap_or(u32::MAX);
    fragment.map_err(|mut errors| {
        for error in &mut errors {
            error.span.start = error.span.start.max(start);
            error.span.end = error.span.end.max(start);
        }
        errors
    })
}

fn is_toml(path: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|extension| extension == "toml")
}

/// Where a position of a joined text is in its file: `common.edn:3:20`. `main` is the name of the
/// pipeline file.
pub fn place(main: &str, joined: &str, span: Span) -> String {
    let parts = parts(joined);
    let starts: Vec<usize> = parts.iter().map(|part| part.start).collect();
    let part = &parts[part_at(&starts, span)];
    let start = (span.start as usize).saturating_sub(part.start);
    let name = part.path.unwrap_or(main);
    diagnostic::place(name, part.text, Span::new(start, start))
}

/// The part in which a position is.
fn part_at(starts: &[usize], span: Span) -> usize {
    let after = starts.partition_point(|start| *start <= span.start as usize);
    after.saturating_sub(1)
}

/// The errors of each file of a joined text that has some, with their positions in that file.
///
/// The uses of a named expression may be in other files; they become lines of the help. `main` is
/// the name of the pipeline file.
pub fn by_file<'t>(
    main: &str,
    joined: &'t str,
    errors: &[Diagnostic],
) -> Vec<(Part<'t>, Vec<Diagnostic>)> {
    let parts = parts(joined);
    let starts: Vec<usize> = parts.iter().map(|part| part.start).collect();
    let part_at = |span: Span| part_at(&starts, span);
    let place_of = |span: Span| place(main, joined, span);
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
