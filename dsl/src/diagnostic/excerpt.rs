//! The part of a source that an error shows: the lines around its label.
//!
//! Lines that are too long for a terminal are cut around the label, since miette cannot draw a
//! label behind some ten thousand characters. Characters that would change the terminal are
//! escaped. The place in the header stays that of the source.

use std::ops::Range;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

use crate::escape::push_printable;
use crate::printable::printable;

/// The maximum number of bytes that are shown of a line.
const LONGEST_LINE: usize = 200;
/// How many bytes of a longer line are shown before the label.
const BEFORE_LABEL: usize = 80;
/// Replaces what was cut.
const CUT: &str = "…";

/// The lines around a label.
#[derive(Debug)]
pub(super) struct Excerpt {
    /// The name that is shown before the line and the column, such as the path of the file.
    name: String,
    text: String,
    /// The number of the first line of `text` in the source, from 0.
    line: usize,
    /// The byte in its line at which the label begins in the source, from 0.
    column: usize,
    /// The label in `text`.
    label: Range<usize>,
}

impl Excerpt {
    /// The excerpt for a label of `source`: its lines, one before it and one after it.
    pub(super) fn new(name: &str, source: &str, label: Range<usize>) -> Excerpt {
        let starts = line_starts(source);
        let line_of = |at: usize| starts.partition_point(|start| *start <= at) - 1;
        let last = line_of(label.end.saturating_sub(1).max(label.start));
        let first = line_of(label.start).saturating_sub(1);
        let mut excerpt = Excerpt {
            name: printable(name).into_owned(),
            text: String::new(),
            line: first,
            column: label.start - starts[line_of(label.start)],
            label: 0..0,
        };
        for number in first..(last + 2).min(starts.len()) {
            let end = starts.get(number + 1).copied().unwrap_or(source.len());
            excerpt.push_line(source, starts[number]..end, &label);
        }
        excerpt
    }

    /// The label in the excerpt.
    pub(super) fn label(&self) -> Range<usize> {
        self.label.clone()
    }

    /// Appends a line of the source, which is cut if it is too long.
    fn push_line(&mut self, source: &str, line: Range<usize>, label: &Range<usize>) {
        let content = source[line.clone()].trim_end_matches(['\n', '\r']);
        let end = line.start + content.len();
        let shown = shown_part(source, line.start..end, label);
        if shown.start > line.start {
            self.text.push_str(CUT);
        }
        let at = self.text.len();
        push_shown(&mut self.text, &source[shown.clone()]);
        if shown.end < end {
            self.text.push_str(CUT);
        }
        self.text.push_str(&source[end..line.end]);
        // A position in the line ending, or behind the end of the source, is not cut.
        let place = |position: usize| {
            if position >= end {
                self.text.len() - (line.end - position)
            } else {
                let before = &source[shown.start..position.clamp(shown.start, shown.end)];
                let mut escaped = String::new();
                push_shown(&mut escaped, before);
                at + escaped.len()
            }
        };
        if line.contains(&label.start) || (label.start == line.end && line.end == source.len()) {
            self.label = place(label.start)..place(label.start);
        }
        if label.start < line.end && label.end > line.start {
            self.label.end = place(label.end.min(line.end));
        }
    }
}

/// Appends a part of a line. miette draws a tab as spaces.
fn push_shown(out: &mut String, part: &str) {
    for c in part.chars() {
        match c {
            '\t' => out.push(c),
            _ => push_printable(out, c),
        }
    }
}

/// The part of a line that is shown.
fn shown_part(source: &str, line: Range<usize>, label: &Range<usize>) -> Range<usize> {
    if line.len() <= LONGEST_LINE {
        return line;
    }
    let from = if line.contains(&label.start) {
        label.start.saturating_sub(BEFORE_LABEL).max(line.start)
    } else {
        line.start
    };
    let from = source.floor_char_boundary(from);
    from..source.floor_char_boundary((from + LONGEST_LINE).min(line.end))
}

/// The byte at which each line begins. As in miette, `\n`, `\r\n` and `\r` end a line.
fn line_starts(source: &str) -> Vec<usize> {
    let bytes = source.as_bytes();
    let ends_line = |at: &usize| {
        bytes[*at] == b'\n' || (bytes[*at] == b'\r' && bytes.get(at + 1) != Some(&b'\n'))
    };
    let ends = (0..bytes.len()).filter(ends_line);
    std::iter::once(0).chain(ends.map(|end| end + 1)).collect()
}

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let found = self.text.read_span(span, lines_before, lines_after)?;
        // Without lines around it, the span is read for its place in the header.
        let column = if lines_before == 0 && lines_after == 0 {
            self.column
        } else {
            found.column()
        };
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            found.data(),
            *found.span(),
            self.line + found.line(),
            column,
            found.line_count(),
        )))
    }
}
