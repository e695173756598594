//! Which topics: names, or a pattern.

use regex::Regex;

/// How the names of Kafka's own topics begin.
const INTERNAL: &str = "__";
/// The same for librdkafka, which leaves out topics that match.
pub(crate) const INTERNAL_PATTERN: &str = "^__";

/// What `:topics` says, as librdkafka subscribes to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topics {
    /// Names; one that starts with `^` is a regular expression.
    subscription: Vec<String>,
}

impl Topics {
    /// None at all: what is read is said later.
    pub(crate) fn none() -> Topics {
        Topics {
            subscription: Vec::new(),
        }
    }

    /// These names. One that starts with `^` is a pattern, as in Kafka's other clients.
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

    /// All topics whose whole name matches.
    pub(crate) fn pattern(pattern: &str) -> Result<Topics, String> {
        check_pattern(pattern)?;
        let inner = pattern.strip_prefix('^').unwrap_or(pattern);
        let inner = inner.strip_suffix('$').unwrap_or(inner);
        Ok(Topics {
            subscription: vec![format!("^({inner})$").replace("\\d", "[0-9]")],
        })
    }

    /// For librdkafka's `subscribe`.
    pub(crate) fn subscription(&self) -> &[String] {
        &self.subscription
    }

    /// The topics that are named, not matched.
    pub(crate) fn fixed_names(&self) -> impl Iterator<Item = &String> {
        self.subscription
            .iter()
            .filter(|name| !name.starts_with('^'))
    }

    /// Whether Kafka's internal topics (`__consumer_offsets` and the like) belong to it: only where
    /// a name or a pattern begins as they do.
    pub(crate) fn name_internal(&self) -> bool {
        self.subscription
            .iter()
            .any(|name| name.trim_start_matches(['^', '(']).starts_with(INTERNAL))
    }

    /// Whether new topics may come to it.
    pub(crate) fn has_pattern(&self) -> bool {
        self.subscription.iter().any(|name| name.starts_with('^'))
    }

    /// Whether the topic belongs to it.
    pub(crate) fn contain(&self, topic: &str) -> bool {
        if topic.starts_with(INTERNAL) && !self.name_internal() {
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

/// A name that Kafka allows.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty()
        || name.len() > 249
        || name == "."
        || name == ".."
        || !name.chars().all(legal)
    {
        return Err(format!(
            "`{name}` cannot be a topic: expected up to 249 letters, digits, `.`, `_` and `-`"
        ));
    }
    Ok(())
}

/// The pattern has to mean the same to us and to librdkafka, which uses POSIX extended regular
/// expressions.
fn check_pattern(pattern: &str) -> Result<(), String> {
    Regex::new(pattern).map_err(|error| {
        let told = error.to_string();
        told.lines()
            .last()
            .unwrap_or("expected a regular expression")
            .trim_start_matches("error: ")
            .to_owned()
    })?;
    for part in ["(?", "*?", "+?", "??", "}?"] {
        if pattern.contains(part) {
            return Err(format!(
                "`{part}` is not part of POSIX extended regular expressions, which patterns of topics are"
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
                "`\\{escaped}` is not part of POSIX extended regular expressions, which patterns of topics are"
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
        assert!(topics.has_pattern() && topics.contain("a") && topics.contain("bc"));
        assert!(!topics.contain("ab") && !topics.contain("xbc"));
    }

    #[test]
    fn internal_topics_have_to_be_named() {
        for pattern in [".*", "_.*", "a|__b", ".+s"] {
            let topics = Topics::pattern(pattern).unwrap();
            assert!(
                !topics.name_internal() && !topics.contain("__consumer_offsets"),
                "{pattern}"
            );
        }
        for pattern in ["__consumer_offsets", "__.*", "^__.*", "(__a|b)"] {
            assert!(
                Topics::pattern(pattern).unwrap().name_internal(),
                "{pattern}"
            );
        }
        let named = Topics::names(&["__consumer_offsets".to_owned(), "^.*".to_owned()]).unwrap();
        assert!(named.name_internal() && named.contain("__consumer_offsets"));
    }

    #[test]
    fn what_posix_does_not_know_is_refused() {
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
        assert!(topics.contain("a") && !topics.contain("c") && !topics.has_pattern());
        assert!(names(&["^a.*"]).unwrap().has_pattern());
        for wrong in [&["a b"][..], &[""], &[".."], &["ä"], &[], &["^("]] {
            assert!(names(wrong).is_err(), "{wrong:?}");
        }
        assert!(check_name(&"x".repeat(250)).is_err());
    }
}
