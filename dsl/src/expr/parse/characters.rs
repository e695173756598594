//! Characters that come into an expression by copying it from a document: quotes of typography, and
//! spaces that are not shown. They would be parts of names.

use crate::Diagnostic;
use crate::expr::check::comment_length;
use crate::node::Text;

/// Quotes that word processors put in place of `'` and `"`.
const TYPOGRAPHIC: [char; 12] = ['‘', '’', '‚', '‛', '“', '”', '„', '‟', '«', '»', '‹', '›'];

/// Spaces that are not white space of SQL, with their names.
const SPACES: [(char, &str); 8] = [
    ('\u{a0}', "a no-break space (U+00A0)"),
    ('\u{202f}', "a narrow no-break space (U+202F)"),
    ('\u{2007}', "a figure space (U+2007)"),
    ('\u{3000}', "an ideographic space (U+3000)"),
    ('\u{200b}', "a zero-width space (U+200B)"),
    ('\u{200c}', "a zero-width non-joiner (U+200C)"),
    ('\u{200d}', "a zero-width joiner (U+200D)"),
    ('\u{feff}', "a byte order mark (U+FEFF)"),
];

/// Checks that a text has no such characters outside of quotes and comments.
///
/// # Errors
/// The first one.
pub(super) fn check(text: &Text) -> Result<(), Diagnostic> {
    let (mut quote, mut end_of_comment) = (None, 0);
    for (at, character) in text.value.char_indices() {
        if at < end_of_comment {
            continue;
        }
        match quote {
            Some(open) if open == character => quote = None,
            Some(_) => {}
            None if ['\'', '"', '`'].contains(&character) => quote = Some(character),
            None => match comment_length(&text.value[at..]) {
                Some(length) => end_of_comment = length.map_or(text.value.len(), |it| at + it),
                None => check_character(text, at, character)?,
            },
        }
    }
    Ok(())
}

/// Whether a character is an error outside of quotes.
pub(in crate::expr) fn is_refused(character: char) -> bool {
    TYPOGRAPHIC.contains(&character) || SPACES.iter().any(|(space, _)| *space == character)
}

fn check_character(text: &Text, at: usize, character: char) -> Result<(), Diagnostic> {
    let span = text.span_of(at, at + character.len_utf8());
    if TYPOGRAPHIC.contains(&character) {
        let message = format!("`{character}` is a quotation mark of typography");
        let error = Diagnostic::new(span, message, "expected a straight quote");
        return Err(error.with_help("write a string as 'text', and an unusual name as \"name\""));
    }
    match SPACES.iter().find(|(space, _)| *space == character) {
        Some((_, name)) => {
            let error =
                Diagnostic::new(span, format!("{name} in an expression"), "expected a space");
            Err(error.with_help("replace it with a space, or delete it"))
        }
        None => Ok(()),
    }
}
