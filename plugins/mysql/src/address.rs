//! The address of a server: `mysql://` URLs, and the JDBC forms of them in older settings.

use mysql_async::{Opts, OptsBuilder};
use url::Url;

use crate::ssl_mode::{Encryption, SslParameters};

const FORMS: &str = "expected mysql://HOST:PORT/DATABASE, which may have USER:PASSWORD@ before the \
                     host; JDBC's forms //HOST:PORT/DATABASE and jdbc:mysql://HOST:PORT/DATABASE \
                     are accepted too";

/// A URL in one of the [`FORMS`], parsed.
pub(crate) struct DatabaseAddress {
    /// The options for the client library.
    pub(crate) opts: Opts,
    /// Host, port and database for messages, without a password.
    pub(crate) place: String,
    /// How connections are encrypted, which `opts` say too.
    pub(crate) encryption: Encryption,
}

/// Parses a URL; `user` and `password` override those in it. The error never repeats the URL, since
/// it may contain a password.
pub(crate) fn parse(
    text: &str,
    user: Option<&str>,
    password: Option<&str>,
) -> Result<DatabaseAddress, String> {
    let wrong = |reason: &str| format!("invalid mysql URL ({reason}): {FORMS}");
    let text = text.trim();
    let text = text.strip_prefix("jdbc:").unwrap_or(text);
    let rest = text
        .strip_prefix("mysql:")
        .or_else(|| text.strip_prefix("mariadb:"))
        .unwrap_or(text);
    if !rest.starts_with("//") {
        return Err(wrong("it does not start with mysql://"));
    }
    let mut url =
        Url::parse(&format!("mysql:{rest}")).map_err(|error| wrong(&error.to_string()))?;
    let mut jdbc_user = None;
    let mut jdbc_password = None;
    let mut ssl = SslParameters::default();
    for (name, value) in url.query_pairs() {
        match name.to_lowercase().as_str() {
            "user" => jdbc_user = Some(value.into_owned()),
            "password" => jdbc_password = Some(value.into_owned()),
            _ => ssl.set(&name, &value).map_err(|reason| wrong(&reason))?,
        }
    }
    let encryption = ssl.encryption().map_err(|reason| wrong(&reason))?;
    url.set_query(None);
    let base = Opts::from_url(url.as_str()).map_err(|error| wrong(&error.to_string()))?;
    let database = base.db_name().unwrap_or_default();
    let place = format!("{}:{}/{database}", base.ip_or_hostname(), base.tcp_port());
    let user = user
        .map(str::to_owned)
        .or_else(|| base.user().map(str::to_owned))
        .or(jdbc_user);
    let password = password
        .map(str::to_owned)
        .or_else(|| base.pass().map(str::to_owned))
        .or(jdbc_password);
    // The library would prefer a socket if it finds one, which may belong to another server if a
    // proxy or a container is in between.
    let opts = OptsBuilder::from_opts(base)
        .user(user)
        .pass(password)
        .ssl_opts(encryption.options())
        .prefer_socket(false);
    Ok(DatabaseAddress {
        opts: opts.into(),
        place,
        encryption,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ssl_mode::SslMode;

    proptest! {
        #[test]
        fn any_url_is_parsed_or_refused_without_its_password(
            scheme in prop::sample::select(vec!["mysql:", "jdbc:mysql:", "mariadb:", "", "http:"]),
            user in prop::sample::select(vec!["", "u:hunter2@", ":hunter2@", "%ff:hunter2%ff@"]),
            host in r"[a-z.]{0,4}(:[0-9]{0,6})?|\[::1\](:1)?|[%@:é,]{0,3}",
            path in "(/[a-z0-9%]{0,3}){0,3}",
            query in "(\\?((user|useSSL|sslMode|sslCa|password|x)=(true|hunter2|/hunter2|VERIFY_CA|%|[a-z]{0,3})&?){0,3})?",
        ) {
            let url = format!("{scheme}//{user}{host}{path}{query}");
            match parse(&url, None, None) {
                Ok(address) => {
                    prop_assert!(!address.place.contains("hunter2"), "{}", address.place);
                    prop_assert!(!address.opts.prefer_socket());
                }
                Err(reason) => prop_assert!(!reason.contains("hunter2"), "{url}: {reason}"),
            }
        }

        #[test]
        fn any_string_is_parsed_or_refused(url in "(mysql:)?//[a@:/?#%=&,\\[\\]0-9é]{0,16}|\\PC{0,12}") {
            let _ = parse(&url, None, None);
        }
    }

    fn show(url: &str, user: Option<&str>, password: Option<&str>) -> String {
        match parse(url, user, password) {
            Ok(DatabaseAddress {
                opts,
                place,
                encryption,
            }) => {
                let mode = match encryption.mode {
                    SslMode::Disabled => String::new(),
                    mode => format!("{mode:?}"),
                };
                format!(
                    "{}:{}@{place} {mode}",
                    opts.user().unwrap_or(""),
                    opts.pass().unwrap_or(""),
                )
            }
            Err(reason) => reason,
        }
    }

    #[test]
    fn urls_name_the_server() {
        for (url, expected) in [
            ("mysql://host:3307/db", ":@host:3307/db "),
            ("mysql://host/db", ":@host:3306/db "),
            ("mysql://host", ":@host:3306/ "),
            ("mysql://u:p%40ss@host/db", "u:p@ss@host:3306/db "),
            (
                "//localhost:3306/mydb?autoReconnect=true",
                ":@localhost:3306/mydb ",
            ),
            (
                "jdbc:mysql://h/db?user=a%20b&password=c&useUnicode=true",
                "a b:c@h:3306/db ",
            ),
            (
                "jdbc:mariadb://h/db?useSSL=false&sslMode=DISABLED",
                ":@h:3306/db ",
            ),
            (
                "mysql://h/db?useSSL=true&requireSSL=true",
                ":@h:3306/db Required",
            ),
            ("mysql://u@[::1]:1/db", "u:@[::1]:1/db "),
        ] {
            assert_eq!(show(url, None, None), expected, "{url}");
        }
        assert_eq!(
            show(
                "mysql://u:p@h/db?user=x&password=y",
                Some("other"),
                Some("word")
            ),
            "other:word@h:3306/db "
        );
        assert_eq!(
            show("mysql://u:p@h/db?user=x&password=y", None, None),
            "u:p@h:3306/db "
        );
    }

    #[test]
    fn errors_name_the_cause_and_no_password() {
        for (url, expected) in [
            ("", "does not start"),
            ("host:3306/secret", "does not start"),
            ("postgres://u:secret@host/db", "does not start"),
            ("mysql:/host/secret", "does not start"),
            ("mysql://u:secret@host:port/db", "invalid port"),
            ("//u:secret@h1:3306,h2:3306/db", "invalid port"),
            ("mysql:///secret", "nvalid"),
            ("mysql://h/db?sslMode=secret", "`sslMode` has to be one of"),
        ] {
            let shown = show(url, None, None);
            assert!(
                shown.contains(expected) && shown.contains(FORMS) && !shown.contains("secret"),
                "{url}: {shown}"
            );
        }
    }
}
