//! Which requests are served: the site that a request comes from, and the token.
//!
//! 1. [`Access::check_site`]: a web page must not reach the service through the browser of a person
//!    who can. The host that a request names has to be an IP address, `localhost` or a name of
//!    `:monitor-names`: an attacker could make any other name resolve to this address (DNS
//!    rebinding). A request that a page of another site makes is refused.
//! 2. [`Access::caller`]: which token a request has, and what it allows. [`Access::is_open`] says
//!    which requests do not need one, and [`role_of`] which role the others need.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Uri, Version, header};
use parking_lot::RwLock;
use pseidon_plan::settings::TokenFor;

use crate::peer::Peer;
use crate::tokens::{Grant, Role, Tokens};

/// The pages that never need the token: they say only whether the process is well.
const PROBES: [&str; 3] = ["/live", "/ready", "/health"];
/// The pages that need the token only with `:token-for :all`.
const COUNTS: [&str; 3] = ["/", "/metrics", "/metrics/prometheus"];

/// Who may use the service.
pub(crate) struct Access {
    /// `None` if every client may do everything.
    tokens: Option<RwLock<Tokens>>,
    everything: Arc<Grant>,
    token_for: TokenFor,
    names: Vec<String>,
}

/// Why a request is refused, whatever it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SiteError {
    /// The service has no such name.
    Host,
    /// A page of another site makes the request.
    Page,
}

/// Who sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The request has a token, or none is set.
    Known(Arc<Grant>),
    /// The request has no token.
    Anonymous,
    /// The request has a wrong token.
    Impostor,
}

impl Caller {
    /// Whether the caller has a role.
    pub(crate) fn has(&self, role: Role) -> bool {
        matches!(self, Caller::Known(grant) if grant.allows(role))
    }

    /// The name of the caller's token, if it is from a file of tokens.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Caller::Known(grant) => grant.name.as_deref(),
            Caller::Anonymous | Caller::Impostor => None,
        }
    }
}

impl Access {
    /// Without tokens every client may do everything. `names` are the valid hosts beside addresses.
    pub(crate) fn new(tokens: Option<Tokens>, token_for: TokenFor, names: &[String]) -> Access {
        Access {
            tokens: tokens.map(RwLock::new),
            everything: Arc::new(Grant::all()),
            token_for,
            names: names.to_vec(),
        }
    }

    /// Replaces the tokens. If there were none, none are needed.
    pub(crate) fn replace_tokens(&self, tokens: Tokens) {
        if let Some(current) = &self.tokens {
            *current.write() = tokens;
        }
    }

    /// What a client without a token may do; `None` if it has to have one. A client of a Unix socket
    /// has none: it is the user of the process or root, who can read the tokens anyway.
    pub(crate) fn without_token(&self, peer: &Peer) -> Option<Arc<Grant>> {
        let needs_none = self.tokens.is_none() || peer.is_local();
        needs_none.then(|| self.everything.clone())
    }

    /// What a client with this token may do; `None` if the token is wrong.
    pub(crate) fn with_token(&self, token: &str) -> Option<Arc<Grant>> {
        match &self.tokens {
            Some(tokens) => tokens.read().find(token),
            None => Some(self.everything.clone()),
        }
    }

    /// Who sends a request with these headers. What is not a bearer token is for others, such as a
    /// proxy.
    pub(crate) fn caller(&self, peer: &Peer, headers: &HeaderMap) -> Caller {
        match bearer_of(headers) {
            Some(token) => self
                .with_token(token)
                .map_or(Caller::Impostor, Caller::Known),
            None => self
                .without_token(peer)
                .map_or(Caller::Anonymous, Caller::Known),
        }
    }

    /// Whether a request needs no token. Paths that do not exist need it.
    pub(crate) fn is_open(&self, method: &Method, path: &str) -> bool {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let counts_are_open = self.token_for == TokenFor::Pages;
        reads && (PROBES.contains(&path) || counts_are_open && COUNTS.contains(&path))
    }

    /// Checks the host that a request names, and the site of the page that makes it. No name leads
    /// a browser to a Unix socket, so there a request may name any host.
    ///
    /// Browsers send the origin of the page (RFC 6454, section 7) with every request that changes
    /// something, and whether it is a page of another site (Fetch Metadata) with every request.
    pub(crate) fn check_site(
        &self,
        peer: &Peer,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), SiteError> {
        let host = match host(version, headers) {
            Err(_) if peer.is_local() => None,
            host => host?,
        };
        // If the address of a request has a host, it takes precedence (RFC 9112, section 3.2.2).
        let in_address = uri.authority().map(Authority::as_str);
        let mut named = [host, in_address].into_iter().flatten();
        if !peer.is_local() && !named.all(|host| self.is_own_host(host)) {
            return Err(SiteError::Host);
        }
        let is_cross_site = headers
            .get_all("sec-fetch-site")
            .iter()
            .any(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site"));
        let origins = headers.get_all(header::ORIGIN);
        let is_own = |origin: &header::HeaderValue| {
            let page = origin.to_str().ok().and_then(page_host);
            page.is_some_and(|page| host.is_some_and(|host| page.eq_ignore_ascii_case(host)))
        };
        if is_cross_site || !origins.iter().all(is_own) {
            return Err(SiteError::Page);
        }
        Ok(())
    }

    /// Whether a host is an IP address, `localhost` or one of the names, with or without a port.
    fn is_own_host(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else {
            return false;
        };
        let name = authority.host();
        let address = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(name);
        !host.contains('@')
            && (address.parse::<IpAddr>().is_ok()
                || name.eq_ignore_ascii_case("localhost")
                || self.names.iter().any(|own| own.eq_ignore_ascii_case(name)))
    }
}

/// The role that a request needs which is not open.
pub(crate) fn role_of(method: &Method) -> Role {
    match *method {
        Method::GET | Method::HEAD => Role::Read,
        _ => Role::Operate,
    }
}

/// The host that a request names. Only HTTP/1.0, which no browser uses, allows requests without.
fn host(version: Version, headers: &HeaderMap) -> Result<Option<&str>, SiteError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_10 => Ok(None),
        (Some(host), None) => host.to_str().map(Some).map_err(|_| SiteError::Host),
        _ => Err(SiteError::Host),
    }
}

/// The host of a page, from its origin.
fn page_host(origin: &str) -> Option<&str> {
    origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
}

/// The first bearer token of a request.
fn bearer_of(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::AUTHORIZATION);
    values
        .iter()
        .find_map(|value| value.to_str().ok().and_then(bearer))
}

/// The token in `Bearer TOKEN`; the scheme is case-insensitive (RFC 9110, section 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;
    use pseidon_plugin::Secret;

    use super::*;
    use crate::tests::network_peer;

    fn access(token: Option<&str>, token_for: TokenFor) -> Access {
        let tokens = token.map(|token| Tokens::one(&Secret::new(token)).unwrap());
        Access::new(tokens, token_for, &["etl.example".to_owned()])
    }

    fn headers(headers: &[(&str, &str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, value.parse().unwrap())
            })
            .collect()
    }

    /// The outcome for a request with these headers.
    fn site(version: Version, address: &str, given: &[(&str, &str)]) -> Result<(), SiteError> {
        let access = access(None, TokenFor::Pages);
        let peer = network_peer();
        access.check_site(&peer, version, &address.parse().unwrap(), &headers(given))
    }

    #[test]
    fn a_request_has_the_token_or_not() {
        let caller = |given: &[(&str, &str)]| {
            access(Some("s3cret"), TokenFor::Pages).caller(&network_peer(), &headers(given))
        };
        let known = || Caller::Known(Arc::new(Grant::all()));
        assert_eq!(caller(&[]), Caller::Anonymous);
        let cases = [
            ("Bearer s3cret", known()),
            ("bearer s3cret", known()),
            ("BEARER  s3cret ", known()),
            ("Bearer s3cre", Caller::Impostor),
            ("Bearer s3crets", Caller::Impostor),
            ("Bearer S3cret", Caller::Impostor),
            ("Bearer ", Caller::Impostor),
            ("Bearer", Caller::Anonymous),
            ("s3cret", Caller::Anonymous),
            ("Basic s3cret", Caller::Anonymous),
            ("", Caller::Anonymous),
        ];
        for (value, expected) in cases {
            assert_eq!(caller(&[("authorization", value)]), expected, "{value}");
        }
        let beside = [
            ("authorization", "Basic cHJveHk6eA=="),
            ("authorization", "Bearer s3cret"),
        ];
        assert_eq!(caller(&beside), known(), "a proxy has added a header");
        let without = access(None, TokenFor::All);
        let wrong = headers(&[("authorization", "Bearer x")]);
        assert_eq!(without.caller(&network_peer(), &wrong), known());
    }

    #[test]
    fn what_is_not_listed_as_open_needs_the_token() {
        let cases = [
            ("/live", true, true),
            ("/ready", true, true),
            ("/health", true, true),
            ("/", true, false),
            ("/metrics", true, false),
            ("/metrics/prometheus", true, false),
            ("/config", false, false),
            ("/logs", false, false),
            ("/logs/live", false, false),
            ("/stats", false, false),
            ("/nowhere", false, false),
            ("//live", false, false),
            ("/live/", false, false),
        ];
        for (path, with_pages, with_all) in cases {
            for (token_for, expected) in [(TokenFor::Pages, with_pages), (TokenFor::All, with_all)]
            {
                let access = access(Some("t"), token_for);
                assert_eq!(access.is_open(&Method::GET, path), expected, "{path}");
                assert!(!access.is_open(&Method::POST, path), "{path}");
            }
        }
    }

    #[test]
    fn a_host_is_an_address_or_a_known_name() {
        let get = |host: &str| site(Version::HTTP_11, "/live", &[("host", host)]);
        for own in [
            "127.0.0.1:8080",
            "10.0.0.7",
            "[::1]:8080",
            "[::1]",
            "localhost",
            "LocalHost:8080",
            "etl.example",
            "ETL.example:443",
        ] {
            assert_eq!(get(own), Ok(()), "{own}");
        }
        for other in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "x.etl.example",
            "etl.example.evil",
            "127.0.0.1@evil.example",
            "evil@127.0.0.1",
            "127.0.0.1/evil",
            "",
        ] {
            assert_eq!(get(other), Err(SiteError::Host), "{other}");
        }
        let twice = [("host", "127.0.0.1"), ("host", "evil.example")];
        assert_eq!(site(Version::HTTP_11, "/", &twice), Err(SiteError::Host));
        assert_eq!(site(Version::HTTP_11, "/", &[]), Err(SiteError::Host));
        assert_eq!(site(Version::HTTP_10, "/", &[]), Ok(()));
        let evil = [("host", "evil.example")];
        assert_eq!(site(Version::HTTP_10, "/", &evil), Err(SiteError::Host));
        let own = [("host", "127.0.0.1")];
        let address = "http://evil.example/live";
        assert_eq!(site(Version::HTTP_11, address, &own), Err(SiteError::Host));
        let address = "http://127.0.0.1/live";
        assert_eq!(site(Version::HTTP_11, address, &own), Ok(()));
    }

    #[test]
    fn a_page_of_another_site_is_refused() {
        let page = |origin: &str, host: &str| {
            let given = [("origin", origin), ("host", host)];
            site(Version::HTTP_11, "/pause", &given)
        };
        let own = [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://localhost:8080", "localhost:8080"),
            ("https://10.0.0.7", "10.0.0.7"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("https://etl.example", "etl.example"),
        ];
        for (origin, host) in own {
            assert_eq!(page(origin, host), Ok(()), "{origin} {host}");
        }
        let other = [
            ("http://evil.example", "127.0.0.1:8080"),
            ("http://127.0.0.1:9090", "127.0.0.1:8080"),
            ("http://localhost.evil.example", "localhost"),
            ("https://evil.example", "etl.example"),
            ("null", "127.0.0.1:8080"),
            ("", "127.0.0.1:8080"),
        ];
        for (origin, host) in other {
            assert_eq!(page(origin, host), Err(SiteError::Page), "{origin} {host}");
        }
        let without_host = [("origin", "http://127.0.0.1")];
        let outcome = site(Version::HTTP_10, "/pause", &without_host);
        assert_eq!(outcome, Err(SiteError::Page), "without a host");
        for (fetched, expected) in [
            ("cross-site", Err(SiteError::Page)),
            ("Cross-Site", Err(SiteError::Page)),
            ("same-origin", Ok(())),
            ("none", Ok(())),
        ] {
            let given = [("host", "127.0.0.1"), ("sec-fetch-site", fetched)];
            assert_eq!(site(Version::HTTP_11, "/", &given), expected, "{fetched}");
        }
    }
}
