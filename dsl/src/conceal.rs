//! Concealing: what replaces the values of `${env:NAME}` and `${file:PATH}` in everything that is
//! printed.
//!
//! A value is [registered](register) when it is looked up, before anything can print it.
//! [`conceal`] then replaces it by its placeholder, so that a message shows the text of the file.
//! The functions of [`printable`](mod@crate::printable) call it, and all texts for people pass one
//! of them. Data does not: records, keys, and names of files that are written.
//!
//! A value of fewer than [`SHORTEST`] characters would be found in words that are no secret. In an
//! error of the pipeline file it is replaced all the same, by
//! [`Document::conceal`](crate::Document::conceal), which knows what was filled in at the place of
//! the error.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, MatchKind};
use percent_encoding::{
    AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode,
};

use crate::escape::{escape, is_printable};

/// The number of characters of the shortest value that is replaced anywhere.
pub const SHORTEST: usize = 6;

/// The longest placeholder that is shown, in characters.
const LONGEST_PLACEHOLDER: usize = 100;

/// A longer part of a value is searched for in pieces of this many bytes.
const PIECE: usize = 1000;
/// What follows in a value is not searched for: a larger file is a text, not a secret.
const LARGEST: usize = 64 << 10;

/// What a program encodes that is strict about URLs: all but letters, digits and `-_.~`.
const STRICT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
/// What must be encoded in the path of a URL.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// The values of this process. The [`Net`] is replaced as a whole, so that a panic while one is
/// built leaves the earlier one.
static VALUES: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
static NET: RwLock<Option<Arc<Net>>> = RwLock::new(None);

/// Registers the value of a placeholder such as `${env:NAME}`. From now on, [`conceal`] replaces it.
/// If several placeholders have this value, the first one is shown.
///
/// # Errors
/// Together with the earlier values, which remain concealed, it is too long: it must not be used.
pub fn register(placeholder: &str, value: &str) -> Result<(), String> {
    let placeholder = shown_placeholder(placeholder);
    let mut values = VALUES.lock().unwrap_or_else(PoisonError::into_inner);
    if values.contains_key(value) {
        return Ok(());
    }
    let mut all = values.clone();
    for form in forms(value) {
        all.entry(form).or_insert_with(|| placeholder.clone());
    }
    if all.len() == values.len() {
        return Ok(());
    }
    // A text that is concealed twice stays the same.
    all.entry(placeholder.clone())
        .or_insert_with(|| placeholder.clone());
    let net = Net::new(&all)
        .map_err(|error| format!("the value is too long to be concealed in messages: {error}"))?;
    *NET.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(net));
    *values = all;
    Ok(())
}

/// The text with all registered values replaced by their placeholders; of values that overlap, the
/// first and longest.
pub fn conceal(text: &str) -> Cow<'_, str> {
    let net = NET.read().unwrap_or_else(PoisonError::into_inner).clone();
    match net {
        Some(net) => net.conceal(text),
        None => text.into(),
    }
}

/// A search for values, each with its replacement.
struct Net {
    search: AhoCorasick,
    placeholders: Vec<String>,
}

impl Net {
    /// An error if there are more values than can be searched for, which are billions of bytes.
    fn new(values: &BTreeMap<String, String>) -> Result<Net, BuildError> {
        let search = AhoCorasick::builder()
            // A DFA, which is the default for few values, takes a hundred times the memory if they
            // are long.
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .match_kind(MatchKind::LeftmostLongest)
            // Libraries change the case of a host, and of the digits in `%3a`.
            .ascii_case_insensitive(true)
            .build(values.keys())?;
        Ok(Net {
            search,
            placeholders: values.values().cloned().collect(),
        })
    }

    fn conceal<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.search.is_match(text) {
            true => self.search.replace_all(text, &self.placeholders).into(),
            false => text.into(),
        }
    }
}

/// A placeholder as it is shown, also in JSON: a name can have any characters.
fn shown_placeholder(placeholder: &str) -> String {
    let safe = |c: char| match c {
        '"' | '\\' => '?',
        c if is_printable(c) => c,
        _ => '?',
    };
    let safe: String = placeholder.chars().map(safe).collect();
    match safe.char_indices().nth(LONGEST_PLACEHOLDER) {
        Some((end, _)) => format!("{}…}}", &safe[..end]),
        None => safe,
    }
}

/// The texts in which a value is found: the value, its secret parts, and what is printed of them if
/// they are escaped or encoded.
fn forms(value: &str) -> Vec<String> {
    let mut forms = Vec::new();
    for part in parts(value) {
        let debug = |text: &str| {
            let quoted = format!("{text:?}");
            quoted[1..quoted.len() - 1].to_owned()
        };
        let escaped = debug(&part);
        let strict = utf8_percent_encode(&part, STRICT).to_string();
        forms.extend([
            escape(&part).into_owned(),
            json_escaped(&part),
            // An error in an error.
            debug(&escaped),
            escaped,
            strict.replace("%20", "+"),
            strict,
            utf8_percent_encode(&part, PATH).to_string(),
            part,
        ]);
    }
    forms
}

/// The parts of a value that are secrets of their own: the value, those of a URL, the lines of a file
/// such as a private key. Long ones are divided.
fn parts(value: &str) -> Vec<String> {
    let value = &value[..value.floor_char_boundary(LARGEST)];
    let mut parts = vec![value.to_owned()];
    let lines = value.lines().map(str::trim);
    // Every key begins with the same line.
    let own = lines.filter(|line| *line != value && !line.starts_with("-----"));
    parts.extend(own.map(str::to_owned));
    if let Some((scheme, rest)) = value.split_once("//") {
        for secret in parts_of_url(scheme, rest) {
            parts.push(percent_decode_str(secret).decode_utf8_lossy().into_owned());
            parts.push(secret.to_owned());
        }
    }
    let pieces = parts.iter().flat_map(|part| pieces(part));
    pieces
        .filter(|piece| piece.chars().nth(SHORTEST - 1).is_some())
        // A common name of users, databases and folders, which is in many messages.
        .filter(|piece| !piece.eq_ignore_ascii_case("pseidon"))
        .map(str::to_owned)
        .collect()
}

/// The parts of a URL that may be secrets, which is divided at its `//`: passwords, a login that is
/// a token, the query and the value of each parameter, and the path of a webhook. In a JDBC URL,
/// parameters follow a `;`.
fn parts_of_url<'v>(scheme: &str, rest: &'v str) -> impl Iterator<Item = &'v str> {
    let (servers, query) = rest.split_once('?').unwrap_or((rest, ""));
    let logins = servers.split(',').filter_map(|server| {
        let server = server.split_once("://").map_or(server, |(_, rest)| rest);
        // A password can have a `/` or an `@`.
        let (login, _) = server.rsplit_once('@')?;
        Some(
            login
                .split_once(':')
                .map_or(login, |(_, password)| password),
        )
    });
    let parameters = rest.split(['?', '&', ';']).skip(1);
    let values = parameters.filter_map(|parameter| Some(parameter.split_once('=')?.1));
    let is_web = ["http:", "https:"].contains(&scheme.to_ascii_lowercase().as_str());
    let host = servers.rfind('@').map_or(0, |at| at + 1);
    let path = servers[host..].find('/').map(|at| &servers[host + at..]);
    let path = path.filter(|_| is_web);
    logins.chain([query]).chain(values).chain(path)
}

/// The pieces of a text: the text, unless it is long.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > PIECE {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

/// A text as it is in a JSON string.
fn json_escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A net of these placeholders and values, which other tests do not see.
    fn net(values: &[(&str, &str)]) -> Net {
        let forms = values.iter().flat_map(|(placeholder, value)| {
            let placeholder = shown_placeholder(placeholder);
            forms(value)
                .into_iter()
                .map(move |form| (form, placeholder.clone()))
        });
        Net::new(&forms.collect()).expect("a net")
    }

    #[test]
    fn a_value_is_replaced_in_each_of_its_forms() {
        let value = "Pa ss\"wo\\rd\n'é";
        let net = net(&[("${env:PW}", value)]);
        for form in [
            value.to_owned(),
            format!("{value:?}"),
            format!("{:?}", format!("{value:?}")),
            serde_json::Value::from(value).to_string(),
            "Pa%20ss%22wo%5Crd%0A%27%C3%A9".to_owned(),
            "Pa%20ss%22wo%5crd%0a%27%c3%a9".to_owned(),
            "Pa+ss%22wo%5Crd%0A%27%C3%A9".to_owned(),
            "Pa%20ss%22wo\\rd%0A'%C3%A9".to_owned(),
            escape(value).into_owned(),
        ] {
            let shown = net.conceal(&form).into_owned();
            let shown = shown.trim_matches(['"', '\\']);
            assert_eq!(shown, "${env:PW}", "{form}");
        }
    }

    #[test]
    fn secret_parts_of_a_value_are_replaced() {
        let key = "-----BEGIN KEY-----\nMIIEvgIBADA\n  NBgkqhkiG9w\nend=\n-----END KEY-----\n";
        for (value, text, shown) in [
            (key, "-----BEGIN KEY-----", "-----BEGIN KEY-----"),
            (key, "line MIIEvgIBADA.", "line ${env:X}."),
            (key, "NBgkqhkiG9w", "${env:X}"),
            (key, "end=", "end="),
            (key, key, "${env:X}"),
            ("redis://u:s3cr%40et/@h:1/0", "no s3cr%40et/", "no ${env:X}"),
            ("redis://u:s3cr%40et/@h:1/0", "no s3cr@et/", "no ${env:X}"),
            (
                "redis://u:s3cr%40et/@h:1/0",
                "cannot reach h:1",
                "cannot reach h:1",
            ),
            (
                "thrift://u:secret-1@a:1,thrift://u:secret-2@b:2",
                "secret-1 secret-2 a:1",
                "${env:X} ${env:X} a:1",
            ),
            (
                "http://h/x?token=abcdef",
                "GET /x?token=abcdef",
                "GET /x?${env:X}",
            ),
            (
                "jdbc:hive2://h:1/db;user=u;password=S3cret;x=y",
                "db user=u password S3cret is wrong",
                "db user=u password ${env:X} is wrong",
            ),
            (
                "redis://h/0?password=s3%3Dcr%26et&x=y",
                "no s3=cr&et, no s3%3Dcr%26et",
                "no ${env:X}, no ${env:X}",
            ),
            ("//h/db?password=s3cret", "no s3cret", "no ${env:X}"),
            (
                "https://t0ken-1@h/x",
                "no t0ken-1 of h/x",
                "no ${env:X} of h/x",
            ),
            (
                "https://u:s3cret@h/services/T1/B2",
                "POST /services/T1/B2 to h: s3cret",
                "POST ${env:X} to h: ${env:X}",
            ),
            ("redis://h/databases/0", "/databases/0", "/databases/0"),
            (
                "mysql://pseidon@h/pseidon",
                "pseidon.pseidon",
                "pseidon.pseidon",
            ),
            ("Pseidon", "pseidon", "pseidon"),
            ("abcde", "abcde", "abcde"),
            (
                "abcdef",
                "xabcdefx ABCDEF abcdeg",
                "x${env:X}x ${env:X} abcdeg",
            ),
        ] {
            assert_eq!(net(&[("${env:X}", value)]).conceal(text), shown, "{value}");
        }
    }

    #[test]
    fn a_net_of_long_values_is_small() {
        let value: String = (0..LARGEST / 6).map(|n| format!("{n:05};")).collect();
        let net = net(&[("${env:X}", &value)]);
        let bytes = net.search.memory_usage();
        assert!(bytes < 100 * LARGEST, "{bytes} bytes");
    }

    #[test]
    fn a_long_value_is_replaced_in_pieces() {
        let value: String = (0..600).map(|n| format!("é{n};")).collect();
        let shown = net(&[("${env:X}", &value)]).conceal(&value).into_owned();
        assert_eq!(shown, "${env:X}".repeat(value.len().div_ceil(PIECE)));
        let large = "0123456789abcdef".repeat(LARGEST);
        assert!(parts(&large).iter().map(String::len).sum::<usize>() <= LARGEST);
    }

    #[test]
    fn of_two_values_the_longest_is_replaced() {
        let net = net(&[("${env:A}", "secret"), ("${env:B}", "secret-2")]);
        assert_eq!(net.conceal("secret-2 secret-3"), "${env:B} ${env:A}-3");
    }

    #[test]
    fn a_placeholder_is_part_of_a_line_and_of_json() {
        assert_eq!(
            shown_placeholder("${file:a\"b\\c\u{1b}\n}"),
            "${file:a?b?c??}"
        );
        let long = format!("${{file:{}}}", "x".repeat(1000));
        let shown = shown_placeholder(&long);
        assert!(
            shown.chars().count() < 110 && shown.ends_with("x…}"),
            "{shown}"
        );
    }

    #[test]
    fn registered_values_are_replaced_and_placeholders_stay() {
        assert_eq!(conceal("of no-variable"), "of no-variable");
        register("${env:FIRST_OF_TEST}", "value-of-this-test").expect("it is short");
        register("${env:SECOND_OF_TEST}", "value-of-this-test").expect("it is short");
        register("${env:THIRD_OF_TEST}", "FIRST_OF_TEST").expect("it is short");
        let once = conceal("<value-of-this-test>").into_owned();
        assert_eq!(once, "<${env:FIRST_OF_TEST}>");
        assert_eq!(conceal(&once), once);
    }

    proptest! {
        #[test]
        fn a_value_is_replaced_wherever_it_is(
            value in "\\PC{6,20}",
            before in "\\PC{0,5}",
            after in "\\PC{0,5}",
        ) {
            let placeholder = "${env:X}";
            let shown = net(&[(placeholder, &value)])
                .conceal(&format!("{before}{value}{after}"))
                .into_owned();
            prop_assert!(shown.contains(placeholder), "{shown}");
            prop_assert!(shown.len() <= before.len() + placeholder.len() + after.len(), "{shown}");
        }
    }
}
