//! The URLs from which Hive's columns can be requested.

use std::fmt;
use std::str::FromStr;

use pseidon_mysql::TableError;
use pseidon_mysql::database::Database;

use crate::server::Server;
use crate::{HiveError, metastore};

const FORMS: &str = "expected thrift://HOST:9083 (thrifts:// with TLS) for a metastore, \
    mysql://USER:PASSWORD@HOST:PORT/DATABASE for the database of a metastore, or \
    jdbc:hive2://HOST:10000/DATABASE for a HiveServer2";

/// The server that a table's columns are requested from.
#[derive(Clone, PartialEq, Eq)]
pub enum HiveEndpoint {
    /// The metastore's Thrift service: `thrift://HOST:PORT` or, with TLS, `thrifts://HOST:PORT`, or
    /// several of these separated by commas, which are tried in order.
    Metastore(String),
    /// The MySQL or MariaDB database of the metastore: `mysql://USER:PASSWORD@HOST:PORT/DATABASE`,
    /// or a JDBC form of it.
    Database(String),
    /// A HiveServer2: `jdbc:hive2://HOST:PORT/DATABASE`, which `;ssl=true` may follow.
    Server(Server),
}

impl HiveEndpoint {
    /// Sets the login of a HiveServer2 whose URL has none. Other servers are unchanged.
    pub fn with_login(self, user: Option<&str>, password: Option<&str>) -> HiveEndpoint {
        match self {
            HiveEndpoint::Server(server) => HiveEndpoint::Server(server.with_login(user, password)),
            other => other,
        }
    }
}

impl FromStr for HiveEndpoint {
    type Err = HiveError;

    /// Parses a URL. The error never repeats it, because it may contain a password.
    fn from_str(url: &str) -> Result<HiveEndpoint, HiveError> {
        let url = url.trim();
        if let Some(rest) = url.strip_prefix("jdbc:hive2:") {
            return match Server::read(rest) {
                Ok(server) => Ok(HiveEndpoint::Server(server)),
                Err(reason) => Err(HiveError::Refused(
                    format!("invalid HiveServer2 url: {reason}; {FORMS}").into(),
                )),
            };
        }
        if ["thrift:", "thrifts:"]
            .iter()
            .any(|start| url.starts_with(start))
        {
            return match metastore::metastores(url) {
                Some(_) => Ok(HiveEndpoint::Metastore(url.to_owned())),
                None => Err(HiveError::Refused(
                    format!("invalid metastore url; {FORMS}").into(),
                )),
            };
        }
        if ["mysql:", "mariadb:", "jdbc:", "//"]
            .iter()
            .any(|start| url.starts_with(start))
        {
            let database = Database::new(url, None, None).map_err(|error| {
                let (TableError::Refused(reason) | TableError::Unreachable(reason)) = error;
                HiveError::Refused(reason)
            })?;
            return match database.name() {
                Some(_) => Ok(HiveEndpoint::Database(url.to_owned())),
                None => Err(HiveError::Refused(
                    format!(
                        "missing database name in the url of the metastore's database; {FORMS}"
                    )
                    .into(),
                )),
            };
        }
        Err(HiveError::Refused(
            format!("invalid hive url; {FORMS}").into(),
        ))
    }
}

impl fmt::Debug for HiveEndpoint {
    /// Omits the URL, which may contain a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            HiveEndpoint::Metastore(_) => "Metastore(…)",
            HiveEndpoint::Database(_) => "Database(…)",
            HiveEndpoint::Server(_) => "Server(…)",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use pseidon_delivery::WithCauses;

    use super::*;

    proptest! {
        #[test]
        fn any_url_selects_a_server_or_is_refused_without_being_repeated(
            scheme in prop::sample::select(vec!["thrift:", "thrifts:", "jdbc:hive2:", "mysql:", "jdbc:mysql:", ""]),
            user in prop::sample::select(vec!["", "u:hunter2@"]),
            hosts in prop::collection::vec(r"[a-z.]{0,4}(:[0-9]{0,6})?|\[::1\](:1)?|[%@:é]{0,3}", 1..3),
            path in "(/[a-z0-9]{0,3}){0,2}",
            properties in "(;(user|password|auth|ssl)=(hunter2|noSasl|true|)){0,3}(\\?[a-z=]{0,3})?",
        ) {
            let url = format!("{scheme}//{user}{}{path}{properties}", hosts.join(","));
            let shown = match url.parse::<HiveEndpoint>() {
                Ok(endpoint) => format!("{:?}", endpoint.with_login(Some("u"), Some("hunter2"))),
                Err(error) => WithCauses(&error).to_string(),
            };
            prop_assert!(!shown.contains("hunter2"), "{url}: {shown}");
        }

        #[test]
        fn any_string_selects_a_server_or_is_refused(
            url in "(thrift|jdbc:hive2|mysql):(//)?[a@:/?#%=;,\\[\\]0-9é]{0,16}|\\PC{0,12}",
        ) {
            let _ = url.parse::<HiveEndpoint>();
        }
    }

    #[test]
    fn urls_select_the_server() {
        for url in [
            "thrift://host:9083",
            "thrift://a:9083,thrift://b:9083",
            "thrift://[::1]:9083",
        ] {
            assert_eq!(
                url.parse::<HiveEndpoint>().unwrap(),
                HiveEndpoint::Metastore(url.to_owned())
            );
        }
        for url in [
            "mysql://hive:secret@host:3306/metastore",
            "jdbc:mysql://host/metastore?createDatabaseIfNotExist=true",
            "//host/metastore",
        ] {
            assert_eq!(
                url.parse::<HiveEndpoint>().unwrap(),
                HiveEndpoint::Database(url.to_owned())
            );
        }
    }

    #[test]
    fn debug_output_hides_the_password() {
        for (url, expected) in [
            ("thrift://secret:9083", "Metastore(…)"),
            ("mysql://u:secret@host/db", "Database(…)"),
            ("jdbc:hive2://h/db;user=u;password=secret", "Server(…)"),
        ] {
            let endpoint: HiveEndpoint = url.parse().unwrap();
            assert_eq!(format!("{endpoint:?}"), expected);
        }
    }

    #[test]
    fn invalid_urls_are_rejected_without_being_repeated() {
        for (url, expected) in [
            (
                "jdbc:hive2://host/db;user=u;password=secret;ssl=true;sslTrustStore=/secret.jks",
                "a Java trust store cannot be read",
            ),
            ("jdbc:hive2://host:secret/db", "invalid port"),
            ("thrift://secret", "invalid metastore url"),
            ("thrift://host:secret", "invalid metastore url"),
            ("thrift://host:9083/secret", "invalid metastore url"),
            ("thrift://host:9083,secret:1", "invalid metastore url"),
            ("mysql://u:secret@host", "missing database name"),
            ("mysql://u:secret@host:port/db", "invalid port"),
            ("jdbc:postgresql://secret", "does not start with mysql"),
            ("secret", "invalid hive url"),
            ("", "invalid hive url"),
        ] {
            let refusal = match url.parse::<HiveEndpoint>() {
                Err(HiveError::Refused(reason)) => WithCauses(&reason).to_string(),
                other => panic!("{url}: {other:?}"),
            };
            assert!(
                refusal.contains(expected)
                    && refusal.contains("mysql://")
                    && !refusal.contains("secret"),
                "{url}: {refusal}"
            );
        }
    }
}
