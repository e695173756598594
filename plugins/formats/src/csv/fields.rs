//! Locates the fields of a record.

use std::ops::Range;

use pseidon_plugin::framing::{Escape, Quotes};

use super::layout::CsvLayout;

/// Why a record with an open quote is invalid.
const OPEN_QUOTE: &str =
    "a quote is not closed; if quotes have no meaning in these records, set quote=none";

/// Why a record with a field such as `"a"b` is invalid, as RFC 4180 says.
const AFTER_QUOTE: &str = "text follows the closing quote of a field; if quotes have no meaning in \
                           these records, set quote=none";

/// The fields of one record. The memory is reused for the next record.
#[derive(Default)]
pub(super) struct Fields {
    fields: Vec<Field>,
    /// The values that differ from their bytes in the record.
    unescaped: Vec<u8>,
}

/// Where the value of a field is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    /// NULL.
    Null,
    /// These bytes of the record.
    Bare(Range<usize>),
    /// These bytes of the record, which are in quotes.
    Quoted(Range<usize>),
    /// These bytes of `unescaped`.
    Unescaped(Range<usize>),
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Nothing between two separators, or a text that stands for NULL.
    Null,
    /// A string; empty if there is nothing between two quotes.
    Text(&'a [u8]),
}

impl Fields {
    /// Locates the fields of a record. A carriage return at its end belongs to the line end.
    ///
    /// # Errors
    /// A quote is not closed, or text follows one that is.
    pub(super) fn split(&mut self, record: &[u8], layout: &CsvLayout) -> Result<(), &'static str> {
        self.fields.clear();
        self.unescaped.clear();
        let record = record.strip_suffix(b"\r").unwrap_or(record);
        if let Some(quotes) = layout.quotes
            && memchr::memchr(quotes.quote, record).is_some()
        {
            return self.split_quoted(record, layout, quotes);
        }
        let mut start = 0;
        for end in memchr::memchr_iter(layout.separator, record) {
            self.push_bare(record, start..end, layout);
            start = end + 1;
        }
        self.push_bare(record, start..record.len(), layout);
        Ok(())
    }

    fn push_bare(&mut self, record: &[u8], value: Range<usize>, layout: &CsvLayout) {
        self.fields
            .push(match layout.is_null(&record[value.clone()]) {
                true => Field::Null,
                false => Field::Bare(value),
            });
    }

    fn split_quoted(
        &mut self,
        record: &[u8],
        layout: &CsvLayout,
        quotes: Quotes,
    ) -> Result<(), &'static str> {
        let end_of_field = |from: usize| {
            let found = memchr::memchr(layout.separator, &record[from..]);
            found.map_or(record.len(), |found| from + found)
        };
        let mut start = 0;
        loop {
            let end = if record.get(start) == Some(&quotes.quote) {
                let content = start + 1;
                let quote = quotes.closing(record, content).ok_or(OPEN_QUOTE)?;
                let end = end_of_field(quote + 1);
                if end != quote + 1 {
                    return Err(AFTER_QUOTE);
                }
                self.push_quoted(record, content..quote, quotes);
                end
            } else {
                let end = end_of_field(start);
                self.push_bare(record, start..end, layout);
                end
            };
            if end == record.len() {
                return Ok(());
            }
            start = end + 1;
        }
    }

    /// Adds a field in quotes.
    fn push_quoted(&mut self, record: &[u8], content: Range<usize>, quotes: Quotes) {
        let text = &record[content.clone()];
        let escape = match quotes.escape {
            Escape::Doubled => quotes.quote,
            Escape::Backslash => b'\\',
        };
        if memchr::memchr(escape, text).is_none() {
            self.fields.push(Field::Quoted(content));
            return;
        }
        let start = self.unescaped.len();
        let mut copied = 0;
        for at in memchr::memchr_iter(escape, text) {
            // The byte behind an escape is not an escape.
            if at < copied {
                continue;
            }
            let next = text.get(at + 1).copied();
            let is_escape = next == Some(quotes.quote) || next == Some(escape);
            let end = at + usize::from(!is_escape);
            self.unescaped.extend_from_slice(&text[copied..end]);
            self.unescaped.extend(next);
            copied = at + 2;
        }
        self.unescaped
            .extend_from_slice(text.get(copied..).unwrap_or_default());
        self.fields
            .push(Field::Unescaped(start..self.unescaped.len()));
    }

    /// The number of fields.
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    /// The value of a field of the record that was split last. A field that does not exist is NULL.
    pub(super) fn value<'a>(&'a self, record: &'a [u8], number: usize) -> Value<'a> {
        match self.fields.get(number) {
            None | Some(Field::Null) => Value::Null,
            Some(Field::Bare(range) | Field::Quoted(range)) => Value::Text(&record[range.clone()]),
            Some(Field::Unescaped(range)) => Value::Text(&self.unescaped[range.clone()]),
        }
    }

    /// The names in a header.
    ///
    /// # Errors
    /// It is not valid UTF-8, or its quotes are not those of CSV.
    pub(super) fn names(
        &mut self,
        header: &[u8],
        layout: &CsvLayout,
    ) -> Result<Vec<String>, String> {
        simdutf8::basic::from_utf8(header).map_err(|_| "the header is not valid UTF-8")?;
        let layout = CsvLayout {
            nulls: Vec::new(),
            ..layout.clone()
        };
        self.split(header, &layout)
            .map_err(|reason| format!("the header: {reason}"))?;
        let name = |number| match self.value(header, number) {
            Value::Null => String::new(),
            Value::Text(name) => String::from_utf8_lossy(name).into_owned(),
        };
        Ok((0..self.len()).map(name).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::layout::FieldNames;
    use super::*;

    const LAYOUT: CsvLayout = CsvLayout {
        separator: b',',
        names_separator: false,
        quotes: Some(Quotes::double(b',')),
        comment: None,
        nulls: Vec::new(),
        has_decimal_comma: false,
        names: FieldNames::InHeader,
    };

    fn values(record: &str, layout: &CsvLayout) -> Vec<Option<String>> {
        let mut fields = Fields::default();
        // Leftovers of the previous record must not matter.
        fields.split(b"\"a\"\"b\",c,d,e", layout).unwrap();
        fields.split(record.as_bytes(), layout).unwrap();
        let text = |number| match fields.value(record.as_bytes(), number) {
            Value::Null => None,
            Value::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
        };
        (0..fields.len()).map(text).collect()
    }

    #[test]
    fn an_empty_field_is_null_and_an_empty_one_in_quotes_is_empty() {
        let shown = |record, layout: &CsvLayout| {
            let text =
                |value: Option<String>| value.map_or("NULL".to_owned(), |text| format!("{text:?}"));
            let all: Vec<String> = values(record, layout).into_iter().map(text).collect();
            all.join(" ")
        };
        let no_quotes = CsvLayout {
            quotes: None,
            ..LAYOUT
        };
        for (record, layout, expected) in [
            ("", &LAYOUT, "NULL"),
            ("a,\r", &LAYOUT, r#""a" NULL"#),
            ("a,,", &LAYOUT, r#""a" NULL NULL"#),
            (
                r#""","a,b","c""d","""""#,
                &LAYOUT,
                r#""" "a,b" "c\"d" "\"""#,
            ),
            (r#"5" x,"a""b""#, &LAYOUT, r#""5\" x" "a\"b""#),
            ("\"a\nb\",", &LAYOUT, r#""a\nb" NULL"#),
            (r#""a,b"#, &no_quotes, r#""\"a" "b""#),
        ] {
            assert_eq!(shown(record, layout), expected, "{record}");
        }
    }

    #[test]
    fn a_quote_that_is_not_closed_is_an_error() {
        for record in ["\"", "a,\"b", "\"a\"\"", "\"a\"\",b"] {
            let split = Fields::default().split(record.as_bytes(), &LAYOUT);
            assert_eq!(split, Err(OPEN_QUOTE), "{record}");
        }
    }

    #[test]
    fn text_behind_a_closing_quote_is_an_error() {
        for record in [r#""a"b"#, r#"1,"a" ,2"#, r#""a""b"c,1"#] {
            let split = Fields::default().split(record.as_bytes(), &LAYOUT);
            assert_eq!(split, Err(AFTER_QUOTE), "{record}");
        }
    }

    /// The fields as csv-core reads them. It skips empty records and accepts open quotes.
    fn by_csv_core(record: &[u8]) -> Vec<String> {
        let mut reader = csv_core::ReaderBuilder::new()
            .terminator(csv_core::Terminator::Any(0))
            .build();
        let (mut text, mut ends) = (vec![0; record.len() + 1], vec![0; record.len() + 2]);
        let (mut at, mut written, mut count) = (0, 0, 0);
        loop {
            let (result, read, more, fields) =
                reader.read_record(&record[at..], &mut text[written..], &mut ends[count..]);
            (at, written, count) = (at + read, written + more, count + fields);
            if result == csv_core::ReadRecordResult::Record {
                break;
            }
        }
        let mut start = 0;
        let field = |end: &usize| {
            let field = String::from_utf8(text[start..*end].to_vec()).unwrap();
            start = *end;
            field
        };
        ends[..count].iter().map(field).collect()
    }

    proptest! {
        #[test]
        fn fields_are_those_of_csv_core(record in "[ab,\"\n]{1,20}") {
            let mut fields = Fields::default();
            prop_assume!(fields.split(record.as_bytes(), &LAYOUT).is_ok());
            let values = values(&record, &LAYOUT).into_iter();
            let texts: Vec<String> = values.map(Option::unwrap_or_default).collect();
            prop_assert_eq!(texts, by_csv_core(record.as_bytes()));
        }
    }
}
