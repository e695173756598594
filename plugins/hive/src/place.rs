//! Where Hive's columns are asked for.

use std::fmt;
use std::str::FromStr;

use pseidon_mysql::database::Database;

use crate::server::Server;
use crate::{HiveError, metastore};

const FORMS: &str = "expected thrift://HOST:9083 for the metastore's service, mysql://USER:PASSWORD@HOST:PORT/DATABASE for the database \
                     that the metastore keeps its tables in, or jdbc:hive2://HOST:10000/DATABASE for a HiveServer2";

/// Who is asked for a table's columns.
#[derive(Clone, PartialEq, Eq)]
pub enum Place {
    /// The metastore's Thrift service: `thrift://HOST:PORT`, or several of these with commas
    /// between them, which are tried in turn.
    Metastore(String),
    /// The MySQL or MariaDB database that the metastore itself uses:
    /// `mysql://USER:PASSWORD@HOST:PORT/DATABASE`, or a JDBC form of it.
    Database(String),
    /// A HiveServer2: `jdbc:hive2://HOST:PORT/DATABASE`.
    Server(Server),
}

impl Place {
    /// Who logs in to a HiveServer2, where its URL does not say it. The other places have no such
    /// login.
    pub fn with_login(self, user: Option<&str>, password: Option<&str>) -> Place {
        match self {
            Place::Server(server) => Place::Server(server.with_login(user, password)),
            other => other,
        }
    }
}

impl FromStr for Place {
    type Err = HiveError;

    /// Reads a URL. The message never repeats it, since it may hold a password.
    fn from_str(url: &str) -> Result<Place, HiveError> {
        let url = url.trim();
        if let Some(rest) = url.strip_prefix("jdbc:hive2:") {
            return match Server::read(rest) {
                Ok(server) => Ok(Place::Server(server)),
                Err(reason) => Err(HiveError::Refused(format!(
                    "this url of a HiveServer2 cannot be used: {reason}; {FORMS}"
                ))),
            };
        }
        if url.starts_with("thrift:") {
            return match metastore::addresses(url) {
                Some(_) => Ok(Place::Metastore(url.to_owned())),
                None => Err(HiveError::Refused(format!(
                    "this is not the url of a metastore: {FORMS}"
                ))),
            };
        }
        if ["mysql:", "mariadb:", "jdbc:", "//"]
            .iter()
            .any(|start| url.starts_with(start))
        {
            let database = Database::new(url, None, None)
                .map_err(|error| HiveError::Refused(error.to_string()))?;
            return match database.name() {
                Some(_) => Ok(Place::Database(url.to_owned())),
                None => Err(HiveError::Refused(format!(
                    "the url of the metastore's database names no database: {FORMS}"
                ))),
            };
        }
        Err(HiveError::Refused(format!(
            "this is no place where hive's columns are: {FORMS}"
        )))
    }
}

impl fmt::Debug for Place {
    /// Without the URL, which may hold a password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Place::Metastore(_) => "Metastore(…)",
            Place::Database(_) => "Database(…)",
            Place::Server(_) => "Server(…)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_who_is_asked() {
        for url in [
            "thrift://host:9083",
            "thrift://a:9083,thrift://b:9083",
            "thrift://[::1]:9083",
        ] {
            assert_eq!(url.parse(), Ok(Place::Metastore(url.to_owned())));
        }
        for url in [
            "mysql://hive:secret@host:3306/metastore",
            "jdbc:mysql://host/metastore?createDatabaseIfNotExist=true",
            "//host/metastore",
        ] {
            assert_eq!(url.parse(), Ok(Place::Database(url.to_owned())));
        }
    }

    #[test]
    fn other_urls_are_refused_without_being_repeated() {
        for (url, expected) in [
            (
                "jdbc:hive2://host/db;user=u;password=secret;ssl=true",
                "it asks for tls",
            ),
            ("jdbc:hive2://host:secret/db", "the port is not a number"),
            ("thrift://secret", "not the url of a metastore"),
            ("thrift://host:secret", "not the url of a metastore"),
            ("thrift://host:9083/secret", "not the url of a metastore"),
            ("thrift://host:9083,secret:1", "not the url of a metastore"),
            ("mysql://u:secret@host", "names no database"),
            ("mysql://u:secret@host:port/db", "invalid port"),
            ("jdbc:postgresql://secret", "does not begin with mysql"),
            ("secret", "no place"),
            ("", "no place"),
        ] {
            let refusal = match url.parse::<Place>() {
                Err(HiveError::Refused(reason)) => reason,
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
