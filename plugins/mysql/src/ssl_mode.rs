//! The parameters of a URL that say how connections are encrypted: those of MySQL's and MariaDB's
//! drivers.
//!
//! `sslMode` is one of [`NAMES`]. `useSSL`, `requireSSL` and `verifyServerCertificate` are the older
//! form of it. `sslCa` names a PEM file.

use std::path::PathBuf;

use mysql_async::SslOpts;

/// How the connections to a server are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SslMode {
    /// They are not.
    Disabled,
    /// If the server has TLS. Its certificate is not checked.
    Preferred,
    /// Always. The server's certificate is not checked.
    Required,
    /// Always, with a certificate that an authority has signed, for whatever host.
    VerifyCa,
    /// Always, with a certificate for the host that an authority has signed.
    VerifyIdentity,
}

/// The values of `sslMode`, without regard to case, `-` and `_`: of MySQL, then of MariaDB.
const NAMES: [(&str, SslMode); 9] = [
    ("DISABLED", SslMode::Disabled),
    ("PREFERRED", SslMode::Preferred),
    ("REQUIRED", SslMode::Required),
    ("VERIFY_CA", SslMode::VerifyCa),
    ("VERIFY_IDENTITY", SslMode::VerifyIdentity),
    ("disable", SslMode::Disabled),
    ("trust", SslMode::Required),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyIdentity),
];

/// The parameters of one URL.
#[derive(Default)]
pub(crate) struct SslParameters {
    mode: Option<SslMode>,
    use_ssl: Option<bool>,
    require_ssl: bool,
    verify_certificate: bool,
    ca: Option<PathBuf>,
    has_trust_store: bool,
}

/// The encryption that a URL requests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Encryption {
    pub(crate) mode: SslMode,
    /// The authorities to trust. Default: those of the system.
    ca: Option<PathBuf>,
}

impl SslParameters {
    /// Takes note of a parameter, if it is one of these. The error says what is expected.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let flag = || match value.to_lowercase().as_str() {
            "true" | "1" | "yes" | "" => Ok(true),
            "false" | "0" | "no" => Ok(false),
            _ => Err(format!("`{name}` has to be true or false")),
        };
        match name.to_lowercase().replace(['-', '_'], "").as_str() {
            "sslmode" => self.mode = Some(mode(value)?),
            "usessl" => self.use_ssl = Some(flag()?),
            "requiressl" => self.require_ssl = flag()?,
            "verifyservercertificate" => self.verify_certificate = flag()?,
            "sslca" | "serversslcert" => {
                let path = PathBuf::from(value);
                if !path.is_absolute() {
                    return Err(format!("the path of `{name}` has to begin with a slash"));
                }
                self.ca = Some(path);
            }
            "trustcertificatekeystoreurl" | "truststore" => self.has_trust_store = true,
            _ => {}
        }
        Ok(())
    }

    /// What the parameters request together.
    pub(crate) fn encryption(self) -> Result<Encryption, String> {
        let mode = match self.mode {
            Some(mode) => mode,
            // As in the drivers, the others count only with TLS.
            None if self.use_ssl == Some(false) => SslMode::Disabled,
            None if self.use_ssl == Some(true) && self.verify_certificate => SslMode::VerifyCa,
            None if self.require_ssl => SslMode::Required,
            None if self.use_ssl == Some(true) => SslMode::Preferred,
            None => SslMode::Disabled,
        };
        let checks = matches!(mode, SslMode::VerifyCa | SslMode::VerifyIdentity);
        if checks && self.has_trust_store {
            return Err(
                "a Java key store cannot be read; export the certificate with `keytool \
                        -exportcert -rfc`, and replace the key store by sslCa=/PATH/ca.pem"
                    .to_owned(),
            );
        }
        if self.ca.is_some() && !checks {
            return Err("`sslCa` requires sslMode=VERIFY_CA or sslMode=VERIFY_IDENTITY".to_owned());
        }
        Ok(Encryption { mode, ca: self.ca })
    }
}

impl Encryption {
    /// The options for the client library.
    pub(crate) fn options(&self) -> Option<SslOpts> {
        if self.mode == SslMode::Disabled {
            return None;
        }
        let is_unchecked = !self.checks_certificate();
        let ca = self.ca.iter().cloned().map(Into::into).collect();
        let options = SslOpts::default()
            .with_danger_accept_invalid_certs(is_unchecked)
            .with_danger_skip_domain_validation(self.mode != SslMode::VerifyIdentity)
            .with_disable_built_in_roots(self.ca.is_some())
            .with_root_certs(ca);
        Some(options)
    }

    /// Whether the server has to show a certificate of an authority.
    pub(crate) fn checks_certificate(&self) -> bool {
        matches!(self.mode, SslMode::VerifyCa | SslMode::VerifyIdentity)
    }
}

fn mode(value: &str) -> Result<SslMode, String> {
    let folded = |name: &str| name.to_lowercase().replace('_', "-");
    NAMES
        .into_iter()
        .find_map(|(name, mode)| (folded(name) == folded(value)).then_some(mode))
        .ok_or_else(|| {
            let names: Vec<_> = NAMES[..5].iter().map(|(name, _)| *name).collect();
            format!("`sslMode` has to be one of {}", names.join(", "))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encryption(query: &str) -> Result<Encryption, String> {
        let mut parameters = SslParameters::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters.set(name, value)?;
        }
        parameters.encryption()
    }

    #[test]
    fn the_drivers_parameters_are_understood() {
        for (query, expected) in [
            ("", SslMode::Disabled),
            ("useUnicode=true", SslMode::Disabled),
            ("useSSL=false", SslMode::Disabled),
            ("useSSL=false&requireSSL=true", SslMode::Disabled),
            (
                "requireSSL=true&verifyServerCertificate=true&useSSL=false",
                SslMode::Disabled,
            ),
            ("sslMode=REQUIRED&useSSL=false", SslMode::Required),
            ("useSSL=true", SslMode::Preferred),
            ("usessl=true&requireSSL=true", SslMode::Required),
            ("requireSSL=true", SslMode::Required),
            (
                "useSSL=true&verifyServerCertificate=true",
                SslMode::VerifyCa,
            ),
            (
                "useSSL=true&verifyServerCertificate=false",
                SslMode::Preferred,
            ),
            ("sslMode=DISABLED&useSSL=true", SslMode::Disabled),
            ("sslMode=preferred", SslMode::Preferred),
            ("ssl-mode=REQUIRED", SslMode::Required),
            ("sslMode=trust", SslMode::Required),
            ("sslMode=verify-ca", SslMode::VerifyCa),
            ("sslMode=VERIFY_IDENTITY", SslMode::VerifyIdentity),
            ("sslMode=verify-full", SslMode::VerifyIdentity),
            ("sslMode=REQUIRED&trustStore=x.jks", SslMode::Required),
        ] {
            let mode = encryption(query).map(|encryption| encryption.mode);
            assert_eq!(mode, Ok(expected), "{query}");
        }
        let with_ca = encryption("sslCa=/etc/ca.pem&sslMode=VERIFY_CA").unwrap();
        assert_eq!(with_ca.ca, Some(PathBuf::from("/etc/ca.pem")));
        let options = with_ca.options().unwrap();
        assert!(options.disable_built_in_roots() && !options.accept_invalid_certs());
        assert!(options.skip_domain_validation());
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (query, expected) in [
            (
                "sslMode=yes",
                "has to be one of DISABLED, PREFERRED, REQUIRED,",
            ),
            ("useSSL=maybe", "`useSSL` has to be true or false"),
            ("sslMode=VERIFY_CA&sslCa=ca.pem", "begin with a slash"),
            ("sslCa=/etc/ca.pem", "`sslCa` requires"),
            ("sslMode=REQUIRED&sslCa=/etc/ca.pem", "`sslCa` requires"),
            ("sslMode=VERIFY_CA&trustStore=x", "a Java key store"),
            (
                "useSSL=true&verifyServerCertificate=true&trustCertificateKeyStoreUrl=file:x",
                "a Java key store",
            ),
        ] {
            let reason = encryption(query).unwrap_err();
            assert!(reason.contains(expected), "{query}: {reason}");
        }
    }
}
