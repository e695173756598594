//! A HiveServer2: its URL as `jdbc:hive2` writes it, and the login. The [`session`] runs `describe`,
//! after a login with SASL's PLAIN mechanism ([`sasl`]), or without one if the URL has
//! `auth=noSasl`.

mod sasl;
mod session;

use crate::connection::Encryption;
use crate::table::DEFAULT_DATABASE;

pub(crate) use self::session::columns;

const DEFAULT_PORT: u16 = 10_000;

const UNSUPPORTED: &str = "if hive.server2.authentication is NOSASL, add ;auth=noSasl to the url; \
    if hive.server2.use.SSL is true, add ;ssl=true; servers that require kerberos are not supported";

/// The address of a HiveServer2, and the login.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    address: String,
    pub(crate) database: String,
    user: Option<String>,
    password: Option<String>,
    login: bool,
    encryption: Encryption,
}

impl Server {
    /// Parses the rest of a URL after `jdbc:hive2:` as Hive's own driver does:
    /// `//HOST:PORT/DATABASE;NAME=VALUE;…`. The error says what is invalid or not supported.
    pub(crate) fn read(url: &str) -> Result<Server, String> {
        let rest = url.strip_prefix("//").ok_or("missing //HOST:PORT")?;
        // Hive's settings and variables follow `?` and `#`; none of them is needed here.
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let mut parts = rest.split(';');
        let (host, database) = match parts.next().unwrap_or_default().split_once('/') {
            Some((host, database)) if !database.is_empty() => (host, database),
            Some((host, _)) => (host, DEFAULT_DATABASE),
            None => (rest.split(';').next().unwrap_or_default(), DEFAULT_DATABASE),
        };
        let mut server = Server {
            address: address(host)?,
            database: database.to_lowercase(),
            user: None,
            password: None,
            login: true,
            encryption: Encryption::None,
        };
        let mut ca = None;
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name.trim() {
                name if name.eq_ignore_ascii_case("sslCa") => ca = Some(value.trim()),
                name => server.set(name, value.trim())?,
            }
        }
        if server.encryption != Encryption::None {
            server.encryption = Encryption::tls(ca)?;
        } else if ca.is_some() {
            return Err("`sslCa` requires `ssl=true`".to_owned());
        }
        Ok(server)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match (name.to_lowercase().as_str(), value.to_lowercase().as_str()) {
            ("user", _) => self.user = Some(value.to_owned()),
            ("password", _) => self.password = Some(value.to_owned()),
            ("auth", "nosasl") => self.login = false,
            ("auth", _) => {
                return Err(
                    "unsupported `auth`; expected noSasl, or a user and password".to_owned(),
                );
            }
            ("principal", _) => return Err("kerberos is not supported".to_owned()),
            ("ssl", "true") => self.encryption = Encryption::tls(None)?,
            ("ssl", "false" | "") => {}
            ("ssl", _) => return Err("`ssl` has to be true or false".to_owned()),
            ("ssltruststore", _) => {
                return Err(
                    "a Java trust store cannot be read; export the certificate with `keytool \
                     -exportcert -rfc`, and replace `sslTrustStore` by sslCa=/PATH/ca.pem"
                        .to_owned(),
                );
            }
            ("twoway", "true") => {
                return Err("client certificates are not supported".to_owned());
            }
            ("transportmode" | "hive.server2.transport.mode", "http") => {
                return Err("http transport is not supported".to_owned());
            }
            ("servicediscoverymode", _) => {
                return Err("zookeeper discovery is not supported; name one server".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    /// Sets the login if the URL has none.
    pub(crate) fn with_login(mut self, user: Option<&str>, password: Option<&str>) -> Server {
        if self.user.is_none() {
            self.user = user.map(str::to_owned);
            self.password = self.password.or(password.map(str::to_owned));
        }
        self
    }
}

fn address(host: &str) -> Result<String, String> {
    if host.contains(',') {
        return Err("several hosts are not supported; name one server".to_owned());
    }
    let name = host.rsplit_once(']').map_or(host, |(_, after)| after);
    match name.split_once(':') {
        Some((_, port)) if port.parse::<u16>().is_err() => Err("invalid port".to_owned()),
        _ if host.is_empty() || host.starts_with(':') => Err("missing host".to_owned()),
        Some(_) => Ok(host.to_owned()),
        None => Ok(format!("{host}:{DEFAULT_PORT}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        match Server::read(url) {
            Ok(Server {
                address,
                database,
                user,
                password,
                login,
                encryption,
            }) => {
                let encryption = match encryption {
                    Encryption::None => String::new(),
                    Encryption::Tls { ca: None } => " tls".to_owned(),
                    Encryption::Tls { ca: Some(ca) } => format!(" tls {}", ca.display()),
                };
                format!(
                    "{address}/{database} {}:{}{}{encryption}",
                    user.unwrap_or_default(),
                    password.unwrap_or_default(),
                    if login { "" } else { " raw" }
                )
            }
            Err(reason) => reason,
        }
    }

    #[test]
    fn urls_are_parsed_as_by_hives_driver() {
        for (url, expected) in [
            ("//host:10001/Web", "host:10001/web :"),
            ("//host", "host:10000/default :"),
            ("//host/", "host:10000/default :"),
            ("//[::1]/db", "[::1]:10000/db :"),
            ("//[::1]:1/db", "[::1]:1/db :"),
            ("//host;auth=noSasl", "host:10000/default : raw"),
            (
                "//host/db;user=u;password=p?hive.exec.parallel=true#a=b",
                "host:10000/db u:p",
            ),
            (
                "//host/db;ssl=false;transportMode=binary;x",
                "host:10000/db :",
            ),
            ("host", "missing //HOST:PORT"),
            ("//", "missing host"),
            ("//:1/db", "missing host"),
            ("//host:x/db", "invalid port"),
            (
                "//a:2181,b:2181/;serviceDiscoveryMode=zooKeeper",
                "several hosts are not supported; name one server",
            ),
            (
                "//host/db;principal=hive/_HOST@REALM",
                "kerberos is not supported",
            ),
            ("//host/db;ssl=TRUE", "host:10000/db : tls"),
            (
                "//host/db;SSLca=/etc/ca.pem;ssl=true;user=u",
                "host:10000/db u: tls /etc/ca.pem",
            ),
            (
                "//host/db;ssl=true;sslCa=ca.pem",
                "the path of `sslCa` has to begin with a slash",
            ),
            ("//host/db;sslCa=/ca.pem", "`sslCa` requires `ssl=true`"),
            ("//host/db;ssl=yes", "`ssl` has to be true or false"),
            (
                "//host/db;ssl=true;twoWay=true",
                "client certificates are not supported",
            ),
            (
                "//host/db;transportMode=http",
                "http transport is not supported",
            ),
            (
                "//host/db;serviceDiscoveryMode=zooKeeper",
                "zookeeper discovery is not supported; name one server",
            ),
            (
                "//host/db;auth=delegationToken",
                "unsupported `auth`; expected noSasl, or a user and password",
            ),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }

    #[test]
    fn the_login_of_the_url_takes_precedence() {
        let login = |url: &str| {
            let server = Server::read(url)
                .unwrap()
                .with_login(Some("row"), Some("word"));
            (
                server.user.unwrap_or_default(),
                server.password.unwrap_or_default(),
            )
        };
        assert_eq!(login("//host"), ("row".to_owned(), "word".to_owned()));
        assert_eq!(
            login("//host/db;user=u;password=p"),
            ("u".to_owned(), "p".to_owned())
        );
        assert_eq!(login("//host/db;user=u"), ("u".to_owned(), String::new()));
    }
}
