//! The topics of a source: names, or a pattern.

use pseidon_plugin::options::{Argument, OptionValue, ParseResult};
use pseidon_plugin::spec::OptionKind;
use regex::Regex;

/// The prefix of the names of Kafka's internal topics.
const INTERNAL: &str = "__";
/// The same as a pattern for librdkafka, which excludes topics that match.
pub(crate) const INTERNAL_PATTERN: &str = "^__";

/// The value of `:topics`, as librdkafka subscribes to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topics {
    /// Names; one that starts with `^` is a regular expression.
    subscription: Vec<String>,
}

impl Topics {
    /// No topic, for a source whose topics are set later.
    pub(crate) fn none() -> Topics {
        Topics {
            subscription: Vec::new(),
        }
    }

    /// These names. A name that starts with `^` is a pattern, as in other Kafka clients.
    pub(crate) fn names(names: &[String]) -> Result<Topics, String> {
        if names.is_empty() {
            return Err("expected at least one topic".to_owned());
        }
        let subscribed = |name: &String| match name.starts_with('^') {
            true => posix_pattern(name),
            false => check_name(name).map(|()| name.clone()),
        };
        let subscription = names.iter().map(subscribed).collect::<Result<_, _>>()?;
        Ok(Topics { subscription })
    }

    /// Those of these names and patterns that are valid.
    pub(crate) fn valid(names: &[String]) -> Topics {
        let is_valid = |name: &&String| Topics::names(std::slice::from_ref(*name)).is_ok();
        Topics {
            subscription: names.iter().filter(is_valid).cloned().collect(),
        }
    }

    /// Those that a note of the state has. It may have a pattern that is refused now.
    pub(crate) fn noted(names: &[String]) -> Topics {
        let is_valid = |name: &&String| match name.starts_with('^') {
            true => Regex::new(name).is_ok(),
            false => check_name(name).is_ok(),
        };
        Topics {
            subscription: names.iter().filter(is_valid).cloned().collect(),
        }
    }

    /// All topics whose whole name matches the pattern.
    pub(crate) fn pattern(pattern: &str) -> Result<Topics, String> {
        let pattern = posix_pattern(pattern)?;
        let inner = pattern.strip_prefix('^').unwrap_or(&pattern);
        let inner = inner.strip_suffix('$').unwrap_or(inner);
        // What is cut off may be a part of what is beside it, as in `a\$`.
        let inner = if Regex::new(inner).is_ok() {
            inner
        } else {
            &pattern
        };
        Ok(Topics {
            subscription: vec![format!("^({inner})$")],
        })
    }

    /// The names and patterns for librdkafka's `subscribe`.
    pub(crate) fn subscription(&self) -> &[String] {
        &self.subscription
    }

    /// The topics that are given by name, not by a pattern.
    pub(crate) fn fixed_names(&self) -> impl Iterator<Item = &String> {
        self.subscription
            .iter()
            .filter(|name| !name.starts_with('^'))
    }

    /// Whether Kafka's internal topics (`__consumer_offsets` and the like) are included: only if a
    /// name or a pattern starts with their prefix.
    pub(crate) fn includes_internal(&self) -> bool {
        self.subscription
            .iter()
            .any(|name| name.trim_start_matches(['^', '(']).starts_with(INTERNAL))
    }

    /// Whether a topic that is created later may match.
    pub(crate) fn has_pattern(&self) -> bool {
        self.subscription.iter().any(|name| name.starts_with('^'))
    }

    /// Whether the topic is one of these.
    pub(crate) fn contains(&self, topic: &str) -> bool {
        if topic.starts_with(INTERNAL) && !self.includes_internal() {
            return false;
        }
        self.subscription.iter().any(|name| {
            if name.starts_with('^') {
                Regex::new(name).is_ok_and(|pattern| pattern.is_match(topic))
            } else {
                name == topic
            }
        })
    }
}

/// The valid name of a topic.
#[derive(Clone, Debug)]
pub(crate) struct TopicName(pub(crate) String);

impl OptionValue for TopicName {
    const KIND: OptionKind = OptionKind::String;

    fn parse(argument: &Argument<'_>) -> ParseResult<TopicName> {
        argument.checked(|name| check_name(name).map(|()| TopicName(name.to_owned())))
    }

    fn identity(&self) -> Option<String> {
        self.0.identity()
    }
}

/// Checks that Kafka allows the name.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty()
        || name.len() > 249
        || name == "."
        || name == ".."
        || !name.chars().all(legal)
    {
        return Err(format!(
            "invalid topic name `{name}`: expected up to 249 letters, digits, `.`, `_` and `-`"
        ));
    }
    Ok(())
}

/// A pattern as a POSIX extended regular expression, which librdkafka uses. An error if it would
/// mean something else there than to the regex crate.
fn posix_pattern(pattern: &str) -> Result<String, String> {
    Regex::new(pattern).map_err(|error| {
        let reason = error.to_string();
        reason
            .lines()
            .last()
            .unwrap_or("expected a regular expression")
            .trim_start_matches("error: ")
            .to_owned()
    })?;
    let unsupported = |part: &str| {
        format!("`{part}` is not supported: topic patterns are POSIX extended regular expressions")
    };
    for part in ["(?", "*?", "+?", "??", "}?"] {
        if pattern.contains(part) {
            return Err(unsupported(part));
        }
    }
    let (mut posix, mut chars) = (String::with_capacity(pattern.len()), pattern.chars());
    // Whether the last character is within brackets, and whether they have an escaped `-`, which
    // POSIX has at their end.
    let (mut in_brackets, mut has_dash) = (false, false);
    while let Some(c) = chars.next() {
        match (c, in_brackets) {
            ('\\', _) => {
                let escaped = chars.next().unwrap_or_default();
                match (escaped, in_brackets) {
                    ('d', false) => posix.push_str("[0-9]"),
                    ('d', true) => posix.push_str("0-9"),
                    // No name of a topic has any other character that needs a backslash.
                    ('.' | '_', true) => posix.push(escaped),
                    ('-', true) if !posix.ends_with('-') && !chars.as_str().starts_with('-') => {
                        has_dash = true;
                    }
                    (other, true) => return Err(unsupported(&format!("\\{other}"))),
                    (other, false) if other.is_ascii_alphanumeric() => {
                        return Err(unsupported(&format!("\\{other}")));
                    }
                    (other, false) => posix.extend(['\\', other]),
                }
                continue;
            }
            ('[', true) => {
                // A class such as `[:digit:]`.
                let rest = chars.as_str();
                let end = rest.strip_prefix(':').and_then(|name| name.find(":]"));
                let end = end.ok_or_else(|| unsupported("[ within ["))? + ":".len() + ":]".len();
                posix.push('[');
                posix.push_str(&rest[..end]);
                chars = rest[end..].chars();
                continue;
            }
            ('&' | '-' | '~', true) if posix.ends_with(c) => {
                return Err(unsupported(&format!("{c}{c}")));
            }
            ('[', false) => in_brackets = true,
            (']', true) if has_dash => {
                posix.push('-');
                (in_brackets, has_dash) = (false, false);
            }
            (']', true) => in_brackets = posix.ends_with('[') || posix.ends_with("[^"),
            _ => {}
        }
        posix.push(c);
    }
    Ok(posix)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A pattern, or nearly one.
    fn pattern() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            4 => "[ab.-]",
            1 => "[*+?|(){}^$0-9,]",
            1 => prop::sample::select(vec![
                "\\d", "\\.", "\\$", "\\w", "[ab]", "[^a]", "[\\d.]", "[a\\-]", "[\\-b]", "[\\-]", "[]a]", "[a", "[[:digit:]]",
                "[a-b]", "(a|b)", ".*",
            ])
            .prop_map(str::to_owned),
        ];
        prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn a_pattern_is_refused_or_means_the_same_as_a_posix_one(
            pattern in prop_oneof![pattern(), "\\PC{0,6}"],
            name in "[ab01.-]{0,4}",
        ) {
            if let Ok(topics) = Topics::pattern(&pattern) {
                let whole = Regex::new(&format!("^(?:{pattern})$")).unwrap();
                prop_assert_eq!(topics.contains(&name), whole.is_match(&name));
                prop_assert_eq!(Topics::valid(topics.subscription()), topics);
            }
            let beginning = format!("^{pattern}");
            if let Ok(topics) = Topics::names(std::slice::from_ref(&beginning)) {
                let expected = Regex::new(&beginning).unwrap().is_match(&name);
                prop_assert_eq!(topics.contains(&name), expected);
                prop_assert!(!topics.subscription()[0].contains("\\d"));
            }
        }
    }

    #[test]
    fn a_pattern_matches_whole_names() {
        for (pattern, subscription) in [
            ("clicks-.*", "^(clicks-.*)$"),
            ("^clicks-.*$", "^(clicks-.*)$"),
            ("a|b", "^(a|b)$"),
            (r"c\d+", "^(c[0-9]+)$"),
            (r"c\.d", r"^(c\.d)$"),
            (r"c[\d.]", "^(c[0-9.])$"),
            (r"[]\d]", "^([]0-9])$"),
            (r"^app[a-z\.\-]+$", "^(app[a-z.-]+)$"),
            (r"[a\-z]", "^([az-])$"),
            (r"[\-]", "^([-])$"),
            (r"[^\-]", "^([^-])$"),
            (r"c\$", r"^(c\$)$"),
        ] {
            assert_eq!(
                Topics::pattern(pattern).unwrap().subscription(),
                [subscription],
                "{pattern}"
            );
        }
        let topics = Topics::pattern("a|b.").unwrap();
        assert!(topics.has_pattern() && topics.contains("a") && topics.contains("bc"));
        assert!(!topics.contains("ab") && !topics.contains("xbc"));
    }

    #[test]
    fn internal_topics_must_be_named() {
        for pattern in [".*", "_.*", "a|__b", ".+s"] {
            let topics = Topics::pattern(pattern).unwrap();
            assert!(
                !topics.includes_internal() && !topics.contains("__consumer_offsets"),
                "{pattern}"
            );
        }
        for pattern in ["__consumer_offsets", "__.*", "^__.*", "(__a|b)"] {
            assert!(
                Topics::pattern(pattern).unwrap().includes_internal(),
                "{pattern}"
            );
        }
        let named = Topics::names(&["__consumer_offsets".to_owned(), "^.*".to_owned()]).unwrap();
        assert!(named.includes_internal() && named.contains("__consumer_offsets"));
    }

    #[test]
    fn syntax_that_posix_lacks_is_refused() {
        for pattern in [
            "(?:a)", "a*?", r"\p{L}", r"\w+", "(", "a{2,1}", "[a[b]]", "[a--b]", r"[\w]",
            r"[a-\-]", r"[\--a]",
        ] {
            assert!(Topics::pattern(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn names_are_checked() {
        let names = |names: &[&str]| {
            Topics::names(
                &names
                    .iter()
                    .map(|name| (*name).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        let topics = names(&["a", "b.c_d-9"]).unwrap();
        assert!(topics.contains("a") && !topics.contains("c") && !topics.has_pattern());
        assert!(names(&["^a.*"]).unwrap().has_pattern());
        assert!(names(&["^a--b[[:digit:]]$"]).unwrap().contains("a--b1"));
        let digits = names(&[r"^c\d+$"]).unwrap();
        assert_eq!(digits.subscription(), ["^c[0-9]+$"]);
        for wrong in [&["a b"][..], &[""], &[".."], &["ä"], &[], &["^("]] {
            assert!(names(wrong).is_err(), "{wrong:?}");
        }
        assert!(check_name(&"x".repeat(250)).is_err());
    }
}
