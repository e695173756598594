//! Recognizes pipeline files in another language, for which the errors of a parser do not help.
//!
//! Only the beginning of a file is looked at, and only if the file is invalid.

use crate::{Diagnostic, Span};

/// A language that people write configurations in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Edn,
    Jq,
    Json,
    Sql,
    Toml,
    /// The configuration of Vector, in TOML.
    Vector,
    Yaml,
}

impl Language {
    fn name(self) -> &'static str {
        match self {
            Language::Edn => "EDN",
            Language::Jq => "the language of jq",
            Language::Json => "JSON",
            Language::Sql => "SQL",
            Language::Toml => "TOML",
            Language::Vector => "the language of Vector",
            Language::Yaml => "YAML",
        }
    }
}

/// The error for a file that was read as EDN and is not written in it.
pub(super) fn instead_of_edn(text: &str) -> Option<Diagnostic> {
    if let Some(span) = slashes(text) {
        let error = Diagnostic::new(span, "`//` does not begin a comment", "expected `;`");
        return Some(error.with_help("write `; …`"));
    }
    let (language, span) = recognize(text)?;
    let help = match language {
        Language::Edn => return None,
        Language::Toml => "give the file a name that ends with `.toml`",
        Language::Sql | Language::Jq => {
            "a pipeline with a condition: {pipeline (-> (files \"a.ndjson\") (where \"n > 1\") \
             (stdout))}"
        }
        Language::Json | Language::Yaml | Language::Vector => {
            "in EDN it begins like this: {in (files \"in/*.json\") pipeline (-> in (stdout))}"
        }
    };
    let label = "a pipeline file is written in EDN, or in TOML if its name ends with `.toml`";
    Some(error(language, span, label).with_help(help))
}

/// The error for a file that was read as TOML, because of its name, and is not written in it.
pub(super) fn instead_of_toml(text: &str) -> Option<Diagnostic> {
    if let Some(span) = slashes(text) {
        let error = Diagnostic::new(span, "`//` does not begin a comment", "expected `#`");
        return Some(error.with_help("write `# …`"));
    }
    let (language, span) = recognize(text)?;
    let help = match language {
        Language::Toml => return None,
        Language::Edn => "give the file a name that ends with `.edn`",
        Language::Vector => {
            "begin with `pipeline = \"(-> in out)\"`, and write `[stages.in.files]` for a source \
             of files"
        }
        Language::Jq | Language::Json | Language::Sql | Language::Yaml => {
            "begin with `pipeline = \"(-> in out)\"`"
        }
    };
    let label = match language {
        Language::Vector => "expected `pipeline`, [stages] and the other keys of a pipeline file",
        _ => "a file whose name ends with `.toml` must be written in TOML",
    };
    Some(error(language, span, label).with_help(help))
}

fn error(language: Language, span: Span, label: &str) -> Diagnostic {
    Diagnostic::new(
        span,
        format!("this file is written in {}", language.name()),
        label,
    )
}

/// The place of `//` before the first form of a file.
fn slashes(text: &str) -> Option<Span> {
    let start: usize = text
        .split_inclusive('\n')
        .take_while(|line| is_blank_or_comment(line))
        .map(str::len)
        .sum();
    let at = start + text[start..].len() - text[start..].trim_start().len();
    text[at..].starts_with("//").then(|| Span::new(at, at + 2))
}

/// The sections of a configuration of Vector.
const VECTOR: [&str; 3] = ["[sources.", "[transforms.", "[sinks."];

/// The language that the beginning of a file is written in, and where it shows; `None` if several
/// are possible.
fn recognize(text: &str) -> Option<(Language, Span)> {
    let start = text
        .split_inclusive('\n')
        .take_while(|line| is_blank_or_comment(line))
        .map(str::len)
        .sum();
    let line = text[start..].lines().next()?;
    let at = |language, length| Some((language, Span::new(start, start + length)));
    let first = line.trim_end();
    if first == "---" || first.starts_with("- ") {
        return at(Language::Yaml, first.len());
    }
    if VECTOR.iter().any(|section| first.starts_with(section)) {
        return at(Language::Vector, first.len());
    }
    if first.starts_with('.') {
        return at(Language::Jq, first.len());
    }
    let word = first.split_whitespace().next().unwrap_or_default();
    let is_sql = ["select", "with", "insert", "create"].contains(&word.to_lowercase().as_str());
    if is_sql && first.contains(char::is_whitespace) {
        return at(Language::Sql, first.len());
    }
    if first.starts_with('{') || first.starts_with('[') {
        return braces(text, start);
    }
    let name = first.find(|c: char| !is_name(c)).unwrap_or(first.len());
    let after = &first[name..];
    match name {
        0 => None,
        _ if after == ":" || after.starts_with(": ") => at(Language::Yaml, name + 1),
        _ if after.trim_start().starts_with('=') => at(
            Language::Toml,
            first.find('=').map_or(name, |equals| equals + 1),
        ),
        _ => None,
    }
}

/// The language of a file that begins with a bracket at `start`: JSON has a string and a colon
/// inside, TOML a name and the closing bracket, EDN a keyword or a symbol.
fn braces(text: &str, start: usize) -> Option<(Language, Span)> {
    let inner = text[start..].trim_start_matches(|c: char| "[{".contains(c) || c.is_whitespace());
    let begin = text.len() - inner.len();
    if let Some(string) = inner.strip_prefix('"') {
        let end = string.find(['"', '\\', '\n'])?;
        let colon = string[end..].strip_prefix('"')?.trim_start();
        let length = text.len() - colon.len() + 1 - begin;
        return colon
            .starts_with(':')
            .then(|| (Language::Json, Span::new(begin, begin + length)));
    }
    if inner.starts_with([':', ';']) || text[start..].starts_with('{') {
        return Some((Language::Edn, Span::new(start, start + 1)));
    }
    let line = text[start..].lines().next()?.trim_end();
    let is_table = line.ends_with(']')
        && line
            .trim_matches(['[', ']'])
            .chars()
            .all(|c| is_name(c) || c == '.');
    is_table.then(|| (Language::Toml, Span::new(start, start + line.len())))
}

/// Comments begin with `;` in EDN, and with `#` in TOML and YAML.
fn is_blank_or_comment(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with(';') || (line.starts_with('#') && !line.starts_with("#{"))
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_file_shows_its_language() {
        let cases = [
            (
                "{\"pipeline\": \"x\"}",
                Some((Language::Json, "\"pipeline\":")),
            ),
            ("\n[ {\"a\" : 1}]", Some((Language::Json, "\"a\" :"))),
            ("{\"a\" 1}", None),
            ("{\"a", None),
            ("# x\nsources:\n  in:\n", Some((Language::Yaml, "sources:"))),
            ("name: x", Some((Language::Yaml, "name:"))),
            ("---\nname: x", Some((Language::Yaml, "---"))),
            ("- files", Some((Language::Yaml, "- files"))),
            ("name = \"x\"\n", Some((Language::Toml, "name ="))),
            ("[stages]\n", Some((Language::Toml, "[stages]"))),
            ("[[tests]]\n", Some((Language::Toml, "[[tests]]"))),
            (
                "[sources.in]\ntype = \"file\"",
                Some((Language::Vector, "[sources.in]")),
            ),
            ("SELECT * from a", Some((Language::Sql, "SELECT * from a"))),
            (".[] | .a", Some((Language::Jq, ".[] | .a"))),
            ("select", None),
            ("; x\n{:name \"x\"}", Some((Language::Edn, "{"))),
            ("{in (files \"x\")}", Some((Language::Edn, "{"))),
            ("[:a]", Some((Language::Edn, "["))),
            ("", None),
            ("#{1}", None),
            ("(-> a b)", None),
            ("name", None),
            (":name", None),
        ];
        for (text, expected) in cases {
            let found = recognize(text)
                .map(|(language, span)| (language, &text[span.start as usize..span.end as usize]));
            assert_eq!(found, expected, "{text}");
        }
    }
}
