//! Which separator a header has, if it is not the one that is set.

use super::layout::{CsvLayout, FieldNames};

/// The separators that are looked for, with their names in `sep=`.
const SEPARATORS: [(u8, &str); 4] = [
    (b',', "comma"),
    (b';', "semicolon"),
    (b'\t', "tab"),
    (b'|', "pipe"),
];

/// The name of the separator of a header that is a single field with the separator that is set.
/// `None` if it has several fields, or no other separator outside of quotes.
pub(super) fn other_separator(header: &[u8], layout: &CsvLayout) -> Option<&'static str> {
    let found = separators(header, layout);
    let is_single = !found.contains(&layout.separator);
    most_frequent(&found, layout).filter(|_| is_single)
}

/// The name of a separator that a header has more often than the one that is set.
pub(super) fn likelier_separator(header: &[u8], layout: &CsvLayout) -> Option<&'static str> {
    most_frequent(&separators(header, layout), layout)
}

fn most_frequent(found: &[u8], layout: &CsvLayout) -> Option<&'static str> {
    if layout.names != FieldNames::InHeader {
        return None;
    }
    let count = |separator: u8| found.iter().filter(|byte| **byte == separator).count();
    let most = SEPARATORS
        .iter()
        .max_by_key(|(separator, _)| count(*separator));
    let (separator, name) = most?;
    (count(*separator) > count(layout.separator)).then_some(*name)
}

/// What may separate the fields of a header, outside of quotes. A quote begins behind a separator,
/// whichever it is; one that is not closed has no meaning.
fn separators(header: &[u8], layout: &CsvLayout) -> Vec<u8> {
    let is_separator = |byte: u8| {
        byte == layout.separator || SEPARATORS.iter().any(|(separator, _)| *separator == byte)
    };
    let (mut found, mut at, mut begins_field) = (Vec::new(), 0, true);
    while let Some(&byte) = header.get(at) {
        if let Some(quotes) = layout.quotes
            && begins_field
            && byte == quotes.quote
            && let Some(quote) = quotes.closing(header, at + 1)
        {
            at = quote;
        }
        begins_field = is_separator(byte);
        if begins_field {
            found.push(byte);
        }
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(settings: &str) -> CsvLayout {
        CsvLayout::parse("csv", b',', settings).unwrap()
    }

    #[test]
    fn separators_in_quotes_do_not_count() {
        let semicolon = Some("semicolon");
        for (header, settings, expected) in [
            (r#""amount (EUR; net)""#, "", None),
            (r#""a ""b; c""; d""#, "", None),
            (r#""a;b""#, "quote=none", semicolon),
            ("amount", "", None),
            ("id;name", "", semicolon),
            ("id;name", "fields=a,b", None),
            (r#"id;"name, first";price"#, "", semicolon),
            (r#""id";"a|b|c""#, "", semicolon),
            // Quotes inside of fields, and those that are not closed.
            (r#"size 5";price"#, "", semicolon),
            (r#""id;name"#, "", semicolon),
            ("a;b;c,d", "", None),
        ] {
            let found = other_separator(header.as_bytes(), &layout(settings));
            assert_eq!(found, expected, "{header}");
        }
        assert_eq!(likelier_separator(b"a;b;c,d", &layout("")), semicolon);
        assert_eq!(likelier_separator(b"a;b,c", &layout("")), None);
        assert_eq!(
            likelier_separator(b"a,b;c", &layout("sep=space")),
            semicolon
        );
    }
}
