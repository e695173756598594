//! Who may tell the process what to do.

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

/// The token that callers have to know.
pub(crate) struct Token(String);

impl Token {
    /// An error says why this cannot be one.
    pub(crate) fn new(token: &str) -> Result<Token, String> {
        if token.trim().is_empty() {
            return Err("the token is empty: everybody would know it".to_owned());
        }
        Ok(Token(token.to_owned()))
    }

    /// Whether this is the token. How long the answer takes says nothing of it but its length.
    pub(crate) fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It has no token, or a wrong one.
    Token,
    /// It comes from a page of another site.
    Origin,
}

/// Whether these are the headers of a request that may change something.
///
/// Browsers say of which page a request is (RFC 6454, section 7). Only a page of this very address
/// may act, and without a token only if that address is a number or `localhost`: any other name
/// could be one that somebody else makes point here.
pub(crate) fn check(headers: &HeaderMap, token: Option<&Token>) -> Result<(), Refusal> {
    if headers.contains_key(header::ORIGIN) && !is_own_origin(headers, token.is_some()) {
        return Err(Refusal::Origin);
    }
    let Some(token) = token else { return Ok(()) };
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(bearer);
    if given.is_some_and(|given| token.is(given)) {
        Ok(())
    } else {
        Err(Refusal::Token)
    }
}

/// The token of `Bearer TOKEN`; the scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn is_own_origin(headers: &HeaderMap, any_name: bool) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(origin), Some(host)) = (text(header::ORIGIN), text(header::HOST)) else {
        return false;
    };
    let page = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    page.is_some_and(|page| page.eq_ignore_ascii_case(host)) && (any_name || is_address(host))
}

/// Whether a `Host` is an address, or `localhost`.
fn is_address(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn outcome(token: Option<&str>, headers: &[(HeaderName, &str)]) -> Result<(), Refusal> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect();
        check(
            &headers,
            token.map(|token| Token::new(token).unwrap()).as_ref(),
        )
    }

    #[test]
    fn a_request_needs_the_token_where_one_is_set() {
        let with = |value: &str| outcome(Some("s3cret"), &[(header::AUTHORIZATION, value)]);
        assert_eq!(outcome(None, &[]), Ok(()));
        assert_eq!(outcome(Some("s3cret"), &[]), Err(Refusal::Token));
        for accepted in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret "] {
            assert_eq!(with(accepted), Ok(()), "{accepted}");
        }
        for refused in [
            "Bearer s3cre",
            "Bearer s3crets",
            "Bearer S3cret",
            "Bearer ",
            "Bearer",
            "s3cret",
            "Basic s3cret",
            "",
        ] {
            assert_eq!(with(refused), Err(Refusal::Token), "{refused}");
        }
        assert!(Token::new(" ").is_err());
    }

    #[test]
    fn a_page_of_another_site_is_refused() {
        let origin = |origin: &str, host: &str| {
            outcome(None, &[(header::ORIGIN, origin), (header::HOST, host)])
        };
        let own = [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://localhost:8080", "localhost:8080"),
            ("https://10.0.0.7", "10.0.0.7"),
            ("http://[::1]:8080", "[::1]:8080"),
        ];
        for (page, host) in own {
            assert_eq!(origin(page, host), Ok(()), "{page} {host}");
        }
        let other = [
            ("http://evil.example", "127.0.0.1:8080"),
            ("http://127.0.0.1:9090", "127.0.0.1:8080"),
            ("http://evil.example:8080", "evil.example:8080"),
            ("http://localhost.evil.example", "localhost.evil.example"),
            ("null", "127.0.0.1:8080"),
            ("", "127.0.0.1:8080"),
            ("http://", ""),
        ];
        for (page, host) in other {
            assert_eq!(origin(page, host), Err(Refusal::Origin), "{page} {host}");
        }
        assert_eq!(
            outcome(None, &[(header::ORIGIN, "http://127.0.0.1")]),
            Err(Refusal::Origin),
            "without a host"
        );
    }

    #[test]
    fn with_a_token_the_address_may_have_any_name() {
        let headers = |page| {
            [
                (header::ORIGIN, page),
                (header::HOST, "etl.example"),
                (header::AUTHORIZATION, "Bearer t"),
            ]
        };
        assert_eq!(outcome(Some("t"), &headers("https://etl.example")), Ok(()));
        assert_eq!(
            outcome(Some("t"), &headers("https://evil.example")),
            Err(Refusal::Origin)
        );
    }
}
