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
        for name in names {
            match name.strip_prefix('^') {
                Some(_) => check_pattern(name)?,
                None => check_name(name)?,
            }
        }
        Ok(Topics {
            subscription: names.to_vec(),
        })
    }

    /// Those of these names and patterns that are valid.
    pub(crate) fn valid(names: &[String]) -> Topics {
        let is_valid = |name: &&String| Topics::names(std::slice::from_ref(*name)).is_ok();
        Topics {
            subscription: names.iter().filter(is_valid).cloned().collect(),
        }
    }

    /// All topics whose whole name matches the pattern.
    pub(crate) fn pattern(pattern: &str) -> Result<Topics, String> {
        check_pattern(pattern)?;
        let inner = pattern.strip_prefix('^').unwrap_or(pattern);
        let inner = inner.strip_suffix('$').unwrap_or(inner);
        Ok(Topics {
            subscription: vec![format!("^({inner})$").replace("\\d", "[0-9]")],
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

/// Checks that a pattern means the same to the regex crate and to librdkafka, which uses POSIX
/// extended regular expressions.
fn check_pattern(pattern: &str) -> Result<(), String> {
    Regex::new(pattern).map_err(|error| {
        let reason = error.to_string();
        reason
            .lines()
            .last()
            .unwrap_or("expected a regular expression")
            .trim_start_matches("error: ")
            .to_owned()
    })?;
    for part in ["(?", "*?", "+?", "??", "}?"] {
        if pattern.contains(part) {
            return Err(format!(
                "`{part}` is not supported: topic patterns are POSIX extended regular expressions"
            ));
        }
    }
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c == '\\'
            && let Some(escaped) = chars.next()
            && escaped.is_ascii_alphanumeric()
            && escaped != 'd'
        {
            return Err(format!(
                "`\\{escaped}` is not supported: topic patterns are POSIX extended regular \
                 expressions"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names() {
        for (pattern, subscription) in [
            ("clicks-.*", "^(clicks-.*)$"),
            ("^clicks-.*$", "^(clicks-.*)$"),
            ("a|b", "^(a|b)$"),
            (r"c\d+", "^(c[0-9]+)$"),
            (r"c\.d", r"^(c\.d)$"),
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
        for pattern in ["(?:a)", "a*?", r"\p{L}", r"\w+", "(", "a{2,1}"] {
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
        for wrong in [&["a b"][..], &[""], &[".."], &["ä"], &[], &["^("]] {
            assert!(names(wrong).is_err(), "{wrong:?}");
        }
        assert!(check_name(&"x".repeat(250)).is_err());
    }
}
