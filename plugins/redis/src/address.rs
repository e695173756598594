//! The URL of the state store: the address of Redis, and how many replicas confirm a step.

use std::num::NonZeroU32;

use pseidon_plugin::unchecked::{CERTIFICATE, warn_unchecked};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

/// The URL in `:state`, parsed.
#[derive(Debug)]
pub(crate) struct StoreUrl {
    pub(crate) address: ServerAddress,
    /// `?wait-replicas=N`: how many replicas must acknowledge a step before it counts as done.
    pub(crate) wait_replicas: Option<NonZeroU32>,
}

/// The servers of a URL.
#[derive(Debug)]
pub(crate) enum ServerAddress {
    /// `redis://` or `rediss://`: one server.
    Server(ConnectionInfo),
    /// `redis+sentinel://`: the current master as reported by the sentinels.
    Sentinel {
        /// The sentinels, which are queried in turn.
        sentinels: Vec<ConnectionInfo>,
        /// The name of the service that they watch.
        service: String,
        /// The settings of the master, whose address is filled in once it is known.
        master: ConnectionInfo,
    },
    /// `redis-cluster://`: any of the nodes.
    Cluster(Vec<ConnectionInfo>),
}

impl ServerAddress {
    /// Warns if the certificates of the servers are not checked.
    pub(crate) fn warn_of_unchecked(&self) {
        let infos = match self {
            ServerAddress::Server(server) => std::slice::from_ref(server),
            ServerAddress::Sentinel { sentinels, .. } => sentinels,
            ServerAddress::Cluster(nodes) => nodes,
        };
        let unchecked = infos.iter().filter_map(|info| match info.addr() {
            ConnectionAddr::TcpTls {
                host,
                port,
                insecure: true,
                ..
            } => Some(format!("{host}:{port}")),
            _ => None,
        });
        let unchecked: Vec<String> = unchecked.collect();
        if !unchecked.is_empty() {
            warn_unchecked(&unchecked.join(","), ":state …#insecure", CERTIFICATE);
        }
    }
}

const FORMS: &str = "expected redis://HOST:PORT/DB, \
                     redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB or \
                     redis-cluster://HOST:PORT,HOST:PORT, each also with rediss for TLS and \
                     USER:PASSWORD@ before the host";

/// Checks the URL of a state store without connecting.
///
/// # Errors
/// What is wrong with it; no part of it is repeated, since that may be a password.
pub fn check_url(url: &str) -> Result<(), String> {
    parse(url).map(|_| ())
}

/// Parses a URL. The error never repeats a part of it, since that may be a password.
pub(crate) fn parse(url: &str) -> Result<StoreUrl, String> {
    let (rest, fragment) = url.split_at(url.find('#').unwrap_or(url.len()));
    let Some((servers, query)) = rest.split_once('?') else {
        return Ok(StoreUrl {
            address: address(url)?,
            wait_replicas: None,
        });
    };
    let wait_replicas = query
        .strip_prefix("wait-replicas=")
        .and_then(|count| count.parse().ok());
    let unknown = "what follows `?` is invalid: expected `?wait-replicas=N`, where N is at least 1";
    let wait_replicas = Some(wait_replicas.ok_or(unknown)?);
    Ok(StoreUrl {
        address: address(&format!("{servers}{fragment}"))?,
        wait_replicas,
    })
}

fn address(url: &str) -> Result<ServerAddress, String> {
    let not_ours = || format!("invalid Redis URL: {FORMS}");
    let (scheme, rest) = url.split_once("://").ok_or_else(not_ours)?;
    match scheme {
        "redis" | "rediss" => url
            .into_connection_info()
            .map(ServerAddress::Server)
            .map_err(|error| format!("{}: {FORMS}", reason(&error))),
        "redis+sentinel" => sentinel("redis", rest),
        "rediss+sentinel" => sentinel("rediss", rest),
        "redis-cluster" => cluster("redis", rest),
        "rediss-cluster" => cluster("rediss", rest),
        _ => Err(not_ours()),
    }
}

fn sentinel(scheme: &str, rest: &str) -> Result<ServerAddress, String> {
    let parts = MultiHostUrl::of(rest);
    let mut path = parts.path.split('/');
    let service = path
        .next()
        .filter(|service| !service.is_empty())
        .ok_or_else(|| format!("the sentinels' service name is missing: {FORMS}"))?;
    let db = path
        .next()
        .unwrap_or("0")
        .parse::<i64>()
        .map_err(|_| format!("the database is not a number: {FORMS}"))?;
    if path.next().is_some() {
        return Err(format!("too many parts after the service name: {FORMS}"));
    }
    let nodes = parts.nodes(scheme, 26379)?;
    let Some(first) = nodes.first() else {
        return Err(format!("no host: {FORMS}"));
    };
    let master = first
        .clone()
        .set_redis_settings(first.redis_settings().clone().set_db(db));
    // The password is for the master: sentinels seldom have one, and a sentinel without a password
    // refuses a client that sends one.
    let sentinels = nodes
        .into_iter()
        .map(|node| node.set_redis_settings(RedisConnectionInfo::default()))
        .collect();
    Ok(ServerAddress::Sentinel {
        sentinels,
        service: service.to_owned(),
        master,
    })
}

fn cluster(scheme: &str, rest: &str) -> Result<ServerAddress, String> {
    let parts = MultiHostUrl::of(rest);
    if !parts.path.is_empty() {
        return Err(format!(
            "a cluster has one database only, so nothing may follow the hosts: {FORMS}"
        ));
    }
    parts.nodes(scheme, 6379).map(ServerAddress::Cluster)
}

/// The parts of a URL with several hosts, after `://`.
struct MultiHostUrl<'a> {
    user: &'a str,
    hosts: &'a str,
    path: &'a str,
    fragment: &'a str,
}

impl<'a> MultiHostUrl<'a> {
    fn of(rest: &'a str) -> MultiHostUrl<'a> {
        let (rest, fragment) = rest.split_at(rest.find('#').unwrap_or(rest.len()));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        MultiHostUrl {
            user,
            hosts,
            path,
            fragment,
        }
    }

    /// Each host as the URL of a single server, parsed by the client library.
    fn nodes(&self, scheme: &str, default_port: u16) -> Result<Vec<ConnectionInfo>, String> {
        let at = if self.user.is_empty() { "" } else { "@" };
        let node = |host: &str| {
            if host.is_empty() {
                return Err(format!("a host is missing: {FORMS}"));
            }
            let port = if has_port(host) {
                String::new()
            } else {
                format!(":{default_port}")
            };
            let url = format!("{scheme}://{}{at}{host}{port}/{}", self.user, self.fragment);
            url.into_connection_info()
                .map_err(|error| format!("{}: {FORMS}", reason(&error)))
        };
        self.hosts.split(',').map(node).collect()
    }
}

/// Whether a host has a port, also after an IPv6 address in brackets.
fn has_port(host: &str) -> bool {
    host.rsplit_once(']')
        .map_or(host, |(_, after)| after)
        .contains(':')
}

/// The library's reason, without the part of the URL that it may quote.
fn reason(error: &redis::RedisError) -> String {
    error.category().to_owned()
}

/// The same settings with another address, with TLS if they use it.
pub(crate) fn at(info: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match info.addr() {
        ConnectionAddr::TcpTls { insecure, .. } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: None,
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "hunter2";

    /// A URL with a password, which is nearly valid.
    fn url() -> impl Strategy<Value = String> {
        let scheme = prop::sample::select(vec![
            "redis",
            "rediss",
            "redis+sentinel",
            "redis-cluster",
            "rediss-cluster",
            "http",
        ]);
        let user = prop::sample::select(vec!["", ":hunter2@", "u:hunter2@", "u%2f:hunter2%20@"]);
        let host = r"[a-z.]{0,4}(:[0-9]{0,6})?|\[::1\](:1)?|[%@:é,]{0,3}";
        let path = "(/[a-z0-9]{0,3}){0,3}";
        let query = prop::option::of("wait-replicas=[0-9]{0,11}|[a-z=&]{0,6}");
        let fragment = prop::sample::select(vec!["", "#insecure", "#", "#?"]);
        (
            scheme,
            user,
            prop::collection::vec(host, 1..4),
            path,
            query,
            fragment,
        )
            .prop_map(|(scheme, user, hosts, path, query, fragment)| {
                let query = query.map_or_else(String::new, |query| format!("?{query}"));
                format!(
                    "{scheme}://{user}{}{path}{query}{fragment}",
                    hosts.join(",")
                )
            })
    }

    proptest! {
        #[test]
        fn any_url_is_parsed_or_refused_without_its_password(url in url()) {
            let shown = format!("{:?}", parse(&url));
            prop_assert!(!shown.contains(SECRET), "{}: {}", url, shown);
            prop_assert_eq!(check_url(&url).is_ok(), parse(&url).is_ok());
            if let Ok(parsed) = parse(&url) {
                let count = url.split_once("?wait-replicas=");
                prop_assert_eq!(parsed.wait_replicas.is_some(), count.is_some(), "{}", url);
            }
        }

        #[test]
        fn any_string_is_parsed_or_refused(
            url in "(rediss?(\\+sentinel|-cluster)?://)?[a@:/?#%=,\\[\\]0-9é]{0,16}|\\PC{0,12}",
        ) {
            let _ = parse(&url);
        }
    }

    fn node(info: &ConnectionInfo) -> String {
        let redis = info.redis_settings();
        let tls = match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => " tls-insecure",
            ConnectionAddr::TcpTls { .. } => " tls",
            _ => "",
        };
        format!(
            "{}:{}@{}/{}{tls}",
            redis.username().unwrap_or(""),
            redis.password().unwrap_or(""),
            info.addr(),
            redis.db()
        )
    }

    fn show(url: &str) -> String {
        let list = |nodes: &[ConnectionInfo]| nodes.iter().map(node).collect::<Vec<_>>().join(" ");
        match parse(url).map(|url| url.address) {
            Ok(ServerAddress::Server(info)) => format!("server {}", node(&info)),
            Ok(ServerAddress::Cluster(nodes)) => format!("cluster {}", list(&nodes)),
            Ok(ServerAddress::Sentinel {
                sentinels,
                service,
                master,
            }) => {
                let db = master.redis_settings().db();
                let password = master.redis_settings().password().unwrap_or("");
                format!("sentinel {service}/{db} {password} {}", list(&sentinels))
            }
            Err(reason) => reason,
        }
    }

    #[test]
    fn urls_name_the_servers() {
        for (url, expected) in [
            ("redis://host:7000", "server :@host:7000/0"),
            ("redis://host", "server :@host:6379/0"),
            ("redis://:se%40cret@host:1/3", "server :se@cret@host:1/3"),
            (
                "rediss://user:pass@host",
                "server user:pass@host:6379/0 tls",
            ),
            (
                "rediss://host#insecure",
                "server :@host:6379/0 tls-insecure",
            ),
            (
                "redis+sentinel://a,b:2/main",
                "sentinel main/0  :@a:26379/0 :@b:2/0",
            ),
            (
                "redis+sentinel://u:p@a/main/4",
                "sentinel main/4 p :@a:26379/0",
            ),
            (
                "rediss+sentinel://a/main#insecure",
                "sentinel main/0  :@a:26379/0 tls-insecure",
            ),
            ("redis-cluster://a:1,b", "cluster :@a:1/0 :@b:6379/0"),
            (
                "redis-cluster://[::1],[::1]:2",
                "cluster :@::1:6379/0 :@::1:2/0",
            ),
            ("rediss-cluster://:p@a", "cluster :p@a:6379/0 tls"),
        ] {
            assert_eq!(show(url), expected, "{url}");
        }
    }

    #[test]
    fn the_number_of_replicas_to_wait_for_follows_the_servers() {
        for (url, server, count) in [
            ("redis://host", "server :@host:6379/0", None),
            (
                "redis://host?wait-replicas=1",
                "server :@host:6379/0",
                Some(1),
            ),
            (
                "redis://u:p@host:1/3?wait-replicas=2",
                "server u:p@host:1/3",
                Some(2),
            ),
            (
                "rediss://host/3?wait-replicas=1#insecure",
                "server :@host:6379/3 tls-insecure",
                Some(1),
            ),
            (
                "redis+sentinel://a,b:2/main?wait-replicas=1",
                "sentinel main/0  :@a:26379/0 :@b:2/0",
                Some(1),
            ),
            (
                "redis+sentinel://a/main/4?wait-replicas=1",
                "sentinel main/4  :@a:26379/0",
                Some(1),
            ),
            (
                "redis-cluster://a:1,b?wait-replicas=1",
                "cluster :@a:1/0 :@b:6379/0",
                Some(1),
            ),
        ] {
            assert_eq!(show(url), server, "{url}");
            assert_eq!(
                parse(url).unwrap().wait_replicas.map(NonZeroU32::get),
                count,
                "{url}"
            );
        }
        // An unknown parameter is refused, since ignoring it would break a promise silently.
        for query in [
            "",
            "wait-replicas",
            "wait-replicas=",
            "wait-replicas=0",
            "wait-replicas=-1",
            "wait_replicas=1",
            "wait-replicas=1&x=2",
        ] {
            let shown = show(&format!("redis://:secret@host?{query}"));
            assert!(
                shown.contains("expected `?wait-replicas=N`"),
                "{query}: {shown}"
            );
        }
    }

    #[test]
    fn debug_output_hides_the_password() {
        for url in [
            "redis://u:secret@host",
            "redis+sentinel://u:secret@a,b/main/2",
            "redis-cluster://u:secret@a:1,b:2",
        ] {
            let shown = format!("{:?}", parse(url).unwrap());
            assert!(!shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn errors_name_the_cause_and_no_password() {
        for (url, expected) in [
            ("localhost:6379", "invalid Redis URL"),
            ("http://:secret@host", "invalid Redis URL"),
            ("redis://:secret@host:port", "expected redis://HOST"),
            ("redis://:secret@host/x", "expected redis://HOST"),
            ("redis+sentinel://:secret@a,b", "service name is missing"),
            ("redis+sentinel://:secret@a/main/x", "not a number"),
            ("redis+sentinel://:secret@a/main/1/2", "too many parts"),
            ("redis+sentinel://:secret@a,,b/main", "a host is missing"),
            ("redis-cluster://:secret@a/3", "one database"),
            ("redis-cluster://:secret@", "a host is missing"),
            ("redis-cluster://:secret@a:b:c", "expected redis://HOST"),
            ("redis://:is?secret@a", "expected `?wait-replicas=N`"),
        ] {
            let shown = show(url);
            assert!(
                shown.contains(expected) && !shown.contains("secret"),
                "{url}: {shown}"
            );
        }
    }
}
