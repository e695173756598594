//! Operators of other languages, at which the parser stops.

use pest::error::InputLocation;

/// Symbols, each with what to write instead. The first that fits counts.
const SYMBOLS: [(&str, &str); 7] = [
    ("&&", "write `and`"),
    (
        "^",
        "write `power(x, y)`, or `x # y` for the exclusive or of bits",
    ),
    ("!", "write `not`"),
    ("?", "write `case when … then … else … end`"),
    ("$", "a field is written without `$`: `user.name`"),
    (
        ".",
        "a field is written without a dot at its beginning: `user.name`",
    ),
    ("[", "a list of values is in parentheses: `x in (1, 2)`"),
];

/// Words, each with what to write instead.
const WORDS: [(&str, &str); 15] = [
    (
        "contains",
        "write `strpos(x, 'part') > 0`, or `x like '%part%'`",
    ),
    ("eq", "write `=`"),
    (
        "glob",
        "write `like`, in which `%` is any string and `_` any character",
    ),
    ("gt", "write `>`"),
    ("gte", "write `>=`"),
    ("lt", "write `<`"),
    ("lte", "write `<=`"),
    ("matches", "write `~`"),
    ("mod", "write `%`"),
    ("ne", "write `<>`"),
    ("regexp", "write `~`"),
    ("rlike", "write `~`"),
    ("similar", "write `~`"),
    ("starts", "write `starts_with(x, 'beginning')`"),
    (
        "xor",
        "write `<>` between conditions, or `#` between integers",
    ),
];

/// What to write instead of the operator of another language at which the parser stopped.
pub(super) fn help(text: &str, location: InputLocation) -> Option<&'static str> {
    let (InputLocation::Pos(at) | InputLocation::Span((at, _))) = location;
    let (before, rest) = (text.get(..at)?, text.get(at..)?);
    if rest.starts_with('=') && before.ends_with("==") {
        return Some("write `=`");
    }
    if rest.starts_with('>') && before.ends_with('-') {
        return Some("a field in a field is written with a dot: `a.b`");
    }
    let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    let word = rest[..length.unwrap_or(rest.len())].to_lowercase();
    let by_word = WORDS.iter().find(|(known, _)| *known == word);
    let by_symbol = || SYMBOLS.iter().find(|(symbol, _)| rest.starts_with(symbol));
    by_word.or_else(by_symbol).map(|(_, help)| *help)
}
