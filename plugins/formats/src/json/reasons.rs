//! The reasons of records that are not an object on one line, each with what makes it one.

/// The reason of a record that does not begin like an object.
pub(super) fn not_an_object(record: &str) -> String {
    if record.trim_ascii_start().starts_with('[') {
        return "the record is a JSON array; expected one object per line, as `jq -c '.[]'` writes \
                the elements of an array"
            .to_owned();
    }
    "the record is not a JSON object".to_owned()
}

/// The reason of a record that ends inside its object. A line with only a bracket is the beginning
/// of an object that is indented over several lines.
pub(super) fn unexpected_end(record: &str) -> String {
    if record.trim_ascii() == "{" {
        return "the object goes on in the next line; expected one object per line, as `jq -c .` \
                writes it"
            .to_owned();
    }
    "invalid JSON: unexpected end of the record".to_owned()
}
