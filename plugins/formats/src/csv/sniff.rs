//! Which separator a header has, if it is not the one that is set.

use super::layout::CsvLayout;

/// The separators that are looked for, with their names in `sep=`.
const SEPARATORS: [(u8, &str); 4] = [
    (b',', "comma"),
    (b';', "semicolon"),
    (b'\t', "tab"),
    (b'|', "pipe"),
];

/// The name of the separator of a header that is a single field with the separator that is set.
/// `None` if it has several fields, or no other separator.
pub(super) fn other_separator(header: &[u8], layout: &CsvLayout) -> Option<&'static str> {
    let count = |separator: u8| memchr::memchr_iter(separator, header).count();
    if layout.fields.is_some() || count(layout.separator) > 0 {
        return None;
    }
    let found = SEPARATORS
        .iter()
        .max_by_key(|(separator, _)| count(*separator));
    let (separator, name) = found?;
    (count(*separator) > 0).then_some(*name)
}
