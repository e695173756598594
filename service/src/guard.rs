//! Authorization of control requests: the token, and the origin of browser requests.

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

/// The token that control requests must have.
pub(crate) struct Token(String);

impl Token {
    /// Checks that the token is not blank.
    pub(crate) fn new(token: &str) -> Result<Token, String> {
        if token.trim().is_empty() {
            return Err("the token is empty".to_owned());
        }
        Ok(Token(token.to_owned()))
    }

    /// Compares in constant time: the duration reveals nothing about the token but its length.
    pub(crate) fn matches(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

/// Why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// The token is missing or wrong.
    Token,
    /// The request comes from a web page of another site.
    Origin,
}

/// Checks whether a request with these headers may change something.
///
/// Browsers send the origin of the page that makes a request (RFC 6454, section 7). Only a page of
/// this address is accepted, and without a token only if the address is an IP address or
/// `localhost`: an attacker could make any other name resolve to this host (DNS rebinding).
pub(crate) fn check(headers: &HeaderMap, token: Option<&Token>) -> Result<(), Rejection> {
    if headers.contains_key(header::ORIGIN) && !is_own_origin(headers, token.is_some()) {
        return Err(Rejection::Origin);
    }
    let Some(token) = token else { return Ok(()) };
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(bearer);
    if given.is_some_and(|given| token.matches(given)) {
        Ok(())
    } else {
        Err(Rejection::Token)
    }
}

/// The token in `Bearer TOKEN`; the scheme is case-insensitive (RFC 9110, section 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether the origin of a request is this host. Without `any_name`, the host must be an address.
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

/// Whether a `Host` header is an IP address or `localhost`, with or without a port.
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

    fn outcome(token: Option<&str>, headers: &[(HeaderName, &str)]) -> Result<(), Rejection> {
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
    fn a_request_needs_the_token_if_one_is_set() {
        let with = |value: &str| outcome(Some("s3cret"), &[(header::AUTHORIZATION, value)]);
        assert_eq!(outcome(None, &[]), Ok(()));
        assert_eq!(outcome(Some("s3cret"), &[]), Err(Rejection::Token));
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
            assert_eq!(with(refused), Err(Rejection::Token), "{refused}");
        }
        assert!(Token::new(" ").is_err());
    }

    #[test]
    fn a_page_of_another_site_is_rejected() {
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
            assert_eq!(origin(page, host), Err(Rejection::Origin), "{page} {host}");
        }
        assert_eq!(
            outcome(None, &[(header::ORIGIN, "http://127.0.0.1")]),
            Err(Rejection::Origin),
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
            Err(Rejection::Origin)
        );
    }
}
