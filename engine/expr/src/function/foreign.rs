//! Functions of other systems that this language writes in another way.

/// Their names, in order, each with what does the same here.
const EXPRESSIONS: [(&str, &str); 36] = [
    ("base64", "encode(x, 'base64')"),
    ("byte_length", "octet_length(text)"),
    ("charindex", "strpos(text, part)"),
    (
        "date_diff",
        "date_part('epoch', later) - date_part('epoch', earlier)",
    ),
    ("date_format", "to_char(time, '%Y-%m-%d')"),
    (
        "datediff",
        "date_part('epoch', later) - date_part('epoch', earlier)",
    ),
    ("day", "date_part('day', time)"),
    ("dayofmonth", "date_part('day', time)"),
    ("dayofweek", "date_part('dow', time)"),
    ("dayofyear", "date_part('doy', time)"),
    ("epoch", "date_part('epoch', time)"),
    ("from_base64", "decode(text, 'base64')"),
    ("get_json_object", "field.inner[0]"),
    ("hour", "date_part('hour', time)"),
    ("json", "parse_json(text)"),
    ("json_extract", "field.inner[0]"),
    ("json_extract_string", "field.inner[0]"),
    ("json_parse", "parse_json(text)"),
    ("locate", "strpos(text, part)"),
    ("minute", "date_part('minute', time)"),
    ("mod", "x % y"),
    ("month", "date_part('month', time)"),
    ("quarter", "date_part('quarter', time)"),
    ("regexp_extract", "regexp_groups(text, '(?<part>…)')"),
    ("regexp_matches", "text ~ 'pattern'"),
    ("second", "date_part('second', time)"),
    ("sha1", "sha256(text)"),
    ("strftime", "to_char(time, '%Y-%m-%d')"),
    ("strptime", "to_timestamp(text, '%Y-%m-%d')"),
    ("to_base64", "encode(x, 'base64')"),
    ("try_strptime", "to_timestamp(text, '%Y-%m-%d')"),
    ("typeof", "arrow_typeof(x)"),
    ("unbase64", "decode(text, 'base64')"),
    ("week", "date_part('week', time)"),
    ("xor", "x # y"),
    ("year", "date_part('year', time)"),
];

/// What to write instead of a function.
pub(super) fn instead_of(name: &str) -> Option<&'static str> {
    let found = EXPRESSIONS.iter().find(|(known, _)| *known == name);
    found.map(|(_, same)| *same)
}
