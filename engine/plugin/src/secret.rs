//! Secrets: values that are never printed, and the part of a URL that is masked.

use std::borrow::Cow;
use std::fmt;

use zeroize::Zeroizing;

use crate::options::{Argument, OptionValue, ParseResult};
use crate::spec::OptionKind;

/// What is printed instead of a secret.
pub const MASK: &str = "…";

/// A string that is a secret or may contain one: a password, a private key, a token, the URL of a
/// server with a login. `{:?}` prints [`MASK`], and there is no `Display`.
///
/// It is erased from memory when it is dropped, so that it is in no memory that is used again. The
/// text that it was read from may still be there.
///
/// As an option, it is any string. It does not identify a stage: after a crash, a run may be
/// finished with another password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps the string secret.
    pub fn new(secret: impl Into<String>) -> Secret {
        Secret(Zeroizing::new(secret.into()))
    }

    /// The string, to use it, not to print it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl OptionValue for Secret {
    const KIND: OptionKind = OptionKind::String;

    fn parse(argument: &Argument<'_>) -> ParseResult<Secret> {
        argument.scalar().map(|text: String| Secret::new(text))
    }
}

/// Masks the part before the `@` of each `scheme://user:password@host` in a string, unless it is
/// exactly one `${…}`.
pub fn without_users(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("://").map(|at| at + 3) {
        let (before, after) = rest.split_at(start);
        shown.push_str(before);
        let end = after
            .find(|c: char| {
                c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '<' | '>')
            })
            .unwrap_or(after.len());
        // In a list such as `thrift://a,thrift://b`, the next scheme is not part of this authority.
        let is_scheme = after[..end].ends_with(':') && after[end..].starts_with("//");
        let (authority, after) = after.split_at(if is_scheme { end - 1 } else { end });
        match authority.rsplit_once('@') {
            Some((user, host)) if !is_placeholder(user) => shown.extend([MASK, "@", host]),
            _ => shown.push_str(authority),
        }
        rest = after;
    }
    if shown.is_empty() {
        text.into()
    } else {
        (shown + rest).into()
    }
}

/// Masks all of each URL in a string but its scheme, host and port: every message about a URL shows
/// it like this. The path and the query of `http://` and `https://` can be a secret as a whole, as
/// those of a webhook; other URLs have a number or a database as their path.
pub fn hosts_of_urls(text: &str) -> Cow<'_, str> {
    without_paths(without_users(text))
}

/// Masks the path and the query of each `http://` or `https://` URL, which may be a secret as a
/// whole, and the query of other URLs.
fn without_paths(text: Cow<'_, str>) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = &*text;
    while let Some(start) = rest.find("://").map(|at| at + 3) {
        let (before, after) = rest.split_at(start);
        shown.push_str(before);
        let is_web = before.ends_with("http://") || before.ends_with("https://");
        let end = after.find(is_end_of_url).unwrap_or(after.len());
        let (url, after) = after.split_at(end);
        let is_secret_from = |c: char| {
            if is_web {
                matches!(c, '/' | '?' | '#')
            } else {
                c == '?'
            }
        };
        match url.find(is_secret_from) {
            Some(at) if at + 1 < url.len() => {
                shown.push_str(&url[..=at]);
                shown.push_str(MASK);
            }
            _ => shown.push_str(url),
        }
        rest = after;
    }
    match shown.is_empty() {
        true => text,
        false => (shown + rest).into(),
    }
}

fn is_end_of_url(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | ',')
}

/// Whether a string is exactly one `${…}` without a default, which may be a secret.
pub fn is_placeholder(text: &str) -> bool {
    text.strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|inner| !inner.contains(['{', '}']) && !inner.contains(":-"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_user_of_a_url_is_shown(
            urls in prop::collection::vec(
                ("[a-z ]{0,4}", "[a-z+]{1,5}", "[a-zé]{0,3}:[@:a-z]{0,2}hunter2[@a-z]{0,2}", "[a-z:0-9]{0,5}", "([/?#][a-z=]{0,4})?"),
                0..4,
            ),
            separator in prop::sample::select(vec![", ", "\" ", "\n"]),
        ) {
            let urls = urls.iter().map(|(before, scheme, user, host, after)| {
                format!("{before} {scheme}://{user}@{host}{after}")
            });
            let text = urls.collect::<Vec<_>>().join(separator);
            let shown = without_users(&text);
            prop_assert!(!shown.contains("hunter2"), "{text}: {shown}");
            prop_assert_eq!(shown.matches("://").count(), text.matches("://").count());
            prop_assert_eq!(without_users(&shown), shown.clone());
        }

        #[test]
        fn a_string_without_users_stays(text in "([a-z:/ ?#\"]|://|\\PC){0,12}") {
            let text = text.replace('@', "");
            prop_assert_eq!(without_users(&text), text.as_str());
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret::new("hidden");
        assert_eq!(secret.expose(), "hidden");
        assert_eq!(format!("{:?}", Some(&secret)), "Some(…)");
        assert!(!format!("{secret:#?}").contains("hidden"));
    }

    #[test]
    fn the_user_of_a_url_is_masked() {
        for (url, expected) in [
            ("http://host:8081", "http://host:8081"),
            ("http://u:hidden@host/x", "http://…@host/x"),
            ("http://:hid@den@host", "http://…@host"),
            ("http://${env:USER}@host", "http://${env:USER}@host"),
            ("http://${env:USER:-u:hidden}@host", "http://…@host"),
            (
                "thrift://u:hidden@a:1,thrift://u:hidden@b:2",
                "thrift://…@a:1,thrift://…@b:2",
            ),
            ("json", "json"),
        ] {
            assert_eq!(without_users(url), expected);
        }
    }

    #[test]
    fn only_the_host_of_a_url_is_shown() {
        for (url, shown) in [
            ("https://h", "https://h"),
            (
                "https://h:8443/services/hidden?x=hidden",
                "https://h:8443/…",
            ),
            ("http://u:hidden@h/x", "http://…@h/…"),
            ("http://u:hid@den@h:1?a@b", "http://…@h:1?…"),
            ("http://h?token=hidden", "http://h?…"),
            ("redis://u:hidden@h:1/0?x=hidden", "redis://…@h:1/0?…"),
        ] {
            assert_eq!(hosts_of_urls(url), shown, "{url}");
        }
    }
}
