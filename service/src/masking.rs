//! Masking of secrets in the configuration.
//!
//! The values of `${env:…}` and `${file:…}` are never part of a pipeline's text, but a literal
//! password is, and has to be masked. The text is parsed and printed again, because its comments
//! may contain anything. When in doubt, a value is masked: of a URL only its scheme and host are
//! shown, of a command only the program, of a client's properties only those that are known to be
//! no secret.

use std::borrow::Cow;
use std::iter::once;

use pseidon_dsl::node::Text;
use pseidon_dsl::{Name, Node, NodeKind, edn, toml};
use pseidon_plugin::secret::{MASK, hosts_of_urls, is_placeholder};

/// The words that mark a name as that of a secret.
const SECRET_WORDS: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "credential",
    "jaas",
    "apikey",
    "accesskey",
    "privatekey",
    "statekey",
    "authorization",
];

/// The words that mark a name as that of a secret if they are a part of it as a whole, such as
/// `pass` in `--db-pass` but not in `:bypass`.
const SECRET_PARTS: [&str; 9] = [
    "pass", "pw", "pin", "sig", "auth", "cookie", "bearer", "basic", "sas",
];

/// The properties of librdkafka whose strings are shown, besides numbers and booleans.
const SHOWN_PROPERTIES: [&str; 14] = [
    "acks",
    "auto.offset.reset",
    "broker.address.family",
    "client.id",
    "client.rack",
    "compression.codec",
    "compression.type",
    "debug",
    "isolation.level",
    "partition.assignment.strategy",
    "sasl.mechanism",
    "sasl.mechanisms",
    "security.protocol",
    "ssl.ca.location",
];

/// Parses the text of a pipeline and masks its secrets; `None` if it cannot be parsed.
pub(crate) fn pipeline(text: &str) -> Option<Node> {
    let read = edn::read(text)
        .or_else(|_| toml::read(text))
        .or_else(|_| edn::read_quoted(&Text::plain(text, 0)));
    let mut node = read.ok()?;
    mask_node(&mut node);
    Some(node)
}

/// Masks what looks like a secret in a string: all of a URL but its scheme and host, the value of
/// `password=…`, a private key.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    if text.contains("-----BEGIN") || is_authorization(text) {
        return MASK.into();
    }
    if let Some((name, _)) = text
        .split_once(':')
        .filter(|(name, rest)| is_secret(name) && !rest.starts_with("//"))
    {
        return format!("{name}: {MASK}").into();
    }
    let hosts = hosts_of_urls(text);
    match without_values(&hosts) {
        Some(masked) => masked.into(),
        None => hosts,
    }
}

/// Whether a string is the value of a header `Authorization`.
fn is_authorization(text: &str) -> bool {
    let scheme = text
        .trim_start()
        .split_once(' ')
        .map_or("", |(first, _)| first);
    ["basic", "bearer"].contains(&scheme.to_ascii_lowercase().as_str())
}

fn mask_node(node: &mut Node) {
    match &mut node.kind {
        NodeKind::Str(value) => mask_text(value),
        NodeKind::Regex(value) => mask_text(value),
        NodeKind::Map(entries) => entries
            .iter_mut()
            .for_each(|(key, value)| mask_pair(key, value)),
        NodeKind::List(items) | NodeKind::Vector(items) => {
            // In `"--password" "x"`, the secret follows its name.
            let names: Vec<bool> = once(false)
                .chain(
                    items
                        .iter()
                        .map(|item| name_of(item).is_some_and(is_secret_flag)),
                )
                .collect();
            for (item, follows_name) in items.iter_mut().zip(names) {
                if follows_name {
                    mask_all(item)
                } else {
                    mask_node(item)
                }
            }
        }
        NodeKind::Set(items) => items.iter_mut().for_each(mask_node),
        NodeKind::Tagged(_, value) => mask_node(value),
        _ => {}
    }
}

fn mask_pair(key: &Node, value: &mut Node) {
    // A symbol is the name of a stage.
    let name = name_of(key).filter(|_| !matches!(key.kind, NodeKind::Symbol(_)));
    match name {
        Some("token-for" | "token-file") => {}
        Some("env") => mask_all(value),
        Some("command") => mask_arguments(value),
        Some("properties") => mask_properties(value),
        Some(name) if is_secret(name) => mask_all(value),
        _ => mask_node(value),
    }
}

/// Masks the arguments of a program.
fn mask_arguments(command: &mut Node) {
    match &mut command.kind {
        NodeKind::Vector(items) | NodeKind::List(items) => {
            items.iter_mut().skip(1).for_each(mask_all)
        }
        _ => mask_node(command),
    }
}

/// Masks the strings of a client's properties, unless they are known to be no secret.
fn mask_properties(properties: &mut Node) {
    let NodeKind::Map(entries) = &mut properties.kind else {
        return mask_all(properties);
    };
    for (key, value) in entries {
        let is_number = match &value.kind {
            NodeKind::Str(text) => text.value.parse::<f64>().is_ok(),
            NodeKind::Int(_) | NodeKind::BigInt(_) => true,
            NodeKind::Float(_) | NodeKind::Decimal(_) => true,
            _ => false,
        };
        let is_shown = name_of(key).is_some_and(|name| SHOWN_PROPERTIES.contains(&name));
        if !is_shown && !is_number {
            mask_all(value);
        }
    }
}

/// Masks all values under the name of a secret. Keys, booleans and `${…}` are kept, since they are
/// not secrets.
fn mask_all(node: &mut Node) {
    match &mut node.kind {
        NodeKind::Map(entries) => entries.iter_mut().for_each(|(_, value)| mask_all(value)),
        NodeKind::List(items) | NodeKind::Vector(items) | NodeKind::Set(items) => {
            items.iter_mut().for_each(mask_all)
        }
        NodeKind::Str(value) if is_placeholder(&value.value) => {}
        NodeKind::Nil | NodeKind::Bool(_) => {}
        kind => *kind = NodeKind::Str(Text::plain(MASK, 0)),
    }
}

fn mask_text(value: &mut Text) {
    let masked = text(&value.value);
    if masked != value.value {
        *value = Text::plain(masked, 0);
    }
}

/// Whether a string is the name of a secret on a command line, such as `--password`.
fn is_secret_flag(name: &str) -> bool {
    name.starts_with('-') && is_secret(name)
}

fn name_of(node: &Node) -> Option<&str> {
    match &node.kind {
        NodeKind::Keyword(Name { name, .. }) | NodeKind::Symbol(Name { name, .. }) => Some(name),
        NodeKind::Str(text) => Some(&text.value),
        _ => None,
    }
}

/// Whether the value with this name is a secret. A name is at most 80 characters of letters, digits
/// and `-_.`.
fn is_secret(name: &str) -> bool {
    let is_name = name.len() <= 80
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let plain: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let has_part = || {
        name.split(['-', '_', '.'])
            .any(|part| SECRET_PARTS.contains(&part.to_ascii_lowercase().as_str()))
    };
    is_name && (SECRET_WORDS.iter().any(|word| plain.contains(word)) || has_part())
}

/// Masks the values of `password=…` in a string; `None` if there are none.
fn without_values(text: &str) -> Option<String> {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('=') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        shown.push_str(before);
        shown.push('=');
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let name = before.trim_end().rsplit(|c| !is_of_name(c)).next();
        let name = name.unwrap_or_default();
        let spaces = after.len() - after.trim_start().len();
        let value = value_of(&after[spaces..]);
        if (is_secret(name) || name.eq_ignore_ascii_case("key"))
            && !value.is_empty()
            && !is_placeholder(value)
        {
            shown.push_str(&after[..spaces]);
            shown.push_str(MASK);
            rest = &after[spaces + value.len()..];
        } else {
            rest = after;
        }
    }
    shown.push_str(rest);
    (shown != text).then_some(shown)
}

/// The value at the start of a string, up to its closing quote or a separator.
fn value_of(text: &str) -> &str {
    let quote = text
        .chars()
        .next()
        .filter(|first| matches!(first, '"' | '\''));
    let end = match quote {
        Some(quote) => text[1..].find(quote).map(|at| at + 2),
        None => text.find(|c: char| c.is_whitespace() || matches!(c, '&' | ';' | '"' | '\'')),
    };
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use pseidon_dsl::print;

    use super::*;

    #[test]
    fn secrets_in_strings_are_masked() {
        let cases = [
            ("redis://host:6379/2", "redis://host:6379/2"),
            ("redis://user:hidden@host:6379", "redis://…@host:6379"),
            ("redis://:hidden@host", "redis://…@host"),
            ("redis://:hid@den@host", "redis://…@host"),
            (
                "redis-cluster://u:hidden@a:1,u:hidden@b:2",
                "redis-cluster://…@b:2",
            ),
            ("redis://${env:USER}@host", "redis://${env:USER}@host"),
            ("redis://u:${env:PWD}@host", "redis://…@host"),
            (
                "see http://u:hidden@a/x and http://b/y@z",
                "see http://…@a/… and http://b/…",
            ),
            (
                "mysql://h/db?user=me&password=hidden&ssl=on",
                "mysql://h/db?…",
            ),
            (
                "jdbc:mysql://u:hidden@h/db?PASSWORD=hidden",
                "jdbc:mysql://…@h/db?…",
            ),
            (
                "x required username=\"u\" password=\"hid den\";",
                "x required username=\"u\" password=…;",
            ),
            ("--api-key=hidden", "--api-key=…"),
            ("password=${env:PWD}", "password=${env:PWD}"),
            ("Authorization: Bearer hidden", "Authorization: …"),
            ("X-Auth-Token:hidden", "X-Auth-Token: …"),
            ("-----BEGIN PRIVATE KEY-----\nhidden", "…"),
            (
                "status < 500 and agent like '%=bot%'",
                "status < 500 and agent like '%=bot%'",
            ),
            (
                "out/{@topic}/date={at:%Y-%m-%d}",
                "out/{@topic}/date={at:%Y-%m-%d}",
            ),
            ("txt:sep=pipe;ts=0;msg=1:", "txt:sep=pipe;ts=0;msg=1:"),
            ("", ""),
            ("password=", "password="),
            ("password=hid,hidden", "password=…"),
            ("password = \"hidden\" x", "password = … x"),
            (
                "https://hooks.slack.com/services/T0/hidden",
                "https://hooks.slack.com/…",
            ),
            ("http://h:8081?key=hidden", "http://h:8081?…"),
            ("http://h:8081/", "http://h:8081/"),
            ("Basic hidden", "…"),
            ("bearer hidden", "…"),
            ("key=hidden sig=hidden", "key=… sig=…"),
            ("basic words of two", "…"),
            ("://@", "://…@"),
        ];
        for (given, expected) in cases {
            assert_eq!(text(given), expected, "{given}");
            assert!(!text(given).contains("hidden"), "{given}");
        }
    }

    /// Texts of pipelines, and what is shown of them.
    const PIPELINES: &[(&str, &str)] = &[
        ("{:a 1 ; hidden\n :b \"x\"}", "{:a 1, :b \"x\"}"),
        ("{:a #_\"hidden\" 1}", "{:a 1}"),
        ("{:password \"hidden\"}", "{:password \"…\"}"),
        (
            "{:etl-db-pwd \"hidden\" :etl-db-user \"me\"}",
            "{:etl-db-pwd \"…\", :etl-db-user \"me\"}",
        ),
        ("{:token 12345}", "{:token \"…\"}"),
        (
            "{:state-key [\"hidden\" \"hidden\"]}",
            "{:state-key [\"…\" \"…\"]}",
        ),
        (
            "{:key-password \"${env:PWD}\"}",
            "{:key-password \"${env:PWD}\"}",
        ),
        (
            "{:key-password \"${env:PWD:-hidden}\"}",
            "{:key-password \"…\"}",
        ),
        (
            "{:sasl {:mechanism :PLAIN :username \"u\" :password \"hidden\"}}",
            "{:sasl {:mechanism :PLAIN, :username \"u\", :password \"…\"}}",
        ),
        (
            "{:properties {\"ssl.key.password\" \"hidden\" \"session.timeout.ms\" \"6000\"}}",
            "{:properties {\"ssl.key.password\" \"…\", \"session.timeout.ms\" \"6000\"}}",
        ),
        (
            "{:secrets {:a \"hidden\" :b [\"hidden\" true]}}",
            "{:secrets {:a \"…\", :b [\"…\" true]}}",
        ),
        ("{:key \"-----BEGIN KEY-----hidden\"}", "{:key \"…\"}"),
        (
            "{:state \"redis://u:hidden@h\"}",
            "{:state \"redis://…@h\"}",
        ),
        (
            "{:command [\"put\" \"--password\" \"hidden\" \"x\"]}",
            "{:command [\"put\" \"…\" \"…\" \"…\"]}",
        ),
        (
            "{:command [\"curl\" \"-u\" \"u:hidden\" \"${env:X}\"] :env {\"A\" \"hidden\"}}",
            "{:command [\"curl\" \"…\" \"…\" \"${env:X}\"], :env {\"A\" \"…\"}}",
        ),
        (
            "{auth-log (where \"a\") pipeline (-> auth-log (select \"token\" \"user\")) :token-for :all :token-file \"tokens\"}",
            "{auth-log (where \"a\"), pipeline (-> auth-log (select \"token\" \"user\")), :token-for :all, :token-file \"tokens\"}",
        ),
        (
            "{:post \"https://h/hidden?x=hidden\" :db-pass \"hidden\" :bypass \"no\"}",
            "{:post \"https://h/…\", :db-pass \"…\", :bypass \"no\"}",
        ),
        (
            "{:properties {\"sasl.username\" \"hidden\" \"acks\" \"all\" \"linger.ms\" 5}}",
            "{:properties {\"sasl.username\" \"…\", \"acks\" \"all\", \"linger.ms\" 5}}",
        ),
        (
            "{a (p {:password \"hidden\"}) pipeline (-> a)}",
            "{a (p {:password \"…\"}), pipeline (-> a)}",
        ),
        (
            "(-> (files 'a') (kafka {:topic 'b' :sasl {:password 'hidden'}}))",
            "(-> (files \"a\") (kafka {:topic \"b\", :sasl {:password \"…\"}}))",
        ),
        (
            "name = 'x' # hidden\npipeline = \"(-> a)\"\n[stages.a]\nkafka = { url = 'http://u:hidden@h', password = 'hidden' }\n",
            "{:name \"x\", pipeline (-> a), a (kafka {:url \"http://…@h\", :password \"…\"})}",
        ),
    ];

    #[test]
    fn secrets_in_pipelines_are_masked_and_comments_removed() {
        for (given, expected) in PIPELINES {
            let shown = pipeline(given).unwrap_or_else(|| panic!("{given} cannot be parsed"));
            assert_eq!(print::print(&shown), *expected, "{given}");
        }
        assert_eq!(
            pipeline("{:password \"hidden\""),
            None,
            "an invalid text is not shown"
        );
    }
}
