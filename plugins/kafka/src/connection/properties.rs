//! Properties of librdkafka that are refused, and those that make a connection less safe.

use pseidon_plugin::unchecked::{CERTIFICATE, warn_unchecked};
use rdkafka::ClientConfig;

/// The properties with which librdkafka executes a program, or loads it into the process.
const PROGRAMS: [&str; 4] = [
    "plugin.library.paths",
    "ssl.engine.location",
    "ssl.providers",
    "sasl.kerberos.kinit.cmd",
];

/// Why a property must not be set in any pipeline.
pub(super) fn danger(property: &str) -> Option<&'static str> {
    if PROGRAMS.contains(&property) {
        Some("librdkafka executes a program with it, or loads one into the process")
    } else if property.starts_with("test.") {
        Some("it is for tests of librdkafka: records would not reach the brokers")
    } else {
        None
    }
}

/// Warns if a client with this configuration does not check the brokers' certificates, or logs in
/// with a token that brokers cannot check.
pub(super) fn warn_of_unchecked(config: &ClientConfig, brokers: &str) {
    for (setting, consequence) in unchecked(config) {
        warn_unchecked(brokers, setting, consequence);
    }
}

/// The settings that make the connections of a client less safe, with their consequences.
fn unchecked(config: &ClientConfig) -> Vec<(&'static str, &'static str)> {
    let is = |name: &str, value: &str| {
        let set = config.get(name);
        set.is_some_and(|set| set.eq_ignore_ascii_case(value))
    };
    let mut found = Vec::new();
    let has_tls = is("security.protocol", "ssl") || is("security.protocol", "sasl_ssl");
    let any_certificate = is("enable.ssl.certificate.verification", "false");
    let any_host = is("ssl.endpoint.identification.algorithm", "none");
    let setting = match (any_certificate, any_host) {
        // `:tls` sets both.
        (true, true) => Some(":tls {:verify false}"),
        (true, false) => Some("enable.ssl.certificate.verification"),
        (false, true) => Some("ssl.endpoint.identification.algorithm"),
        (false, false) => None,
    };
    if let Some(setting) = setting.filter(|_| has_tls) {
        found.push((setting, CERTIFICATE));
    }
    if is("enable.sasl.oauthbearer.unsecure.jwt", "true") {
        let consequence = "the token is not signed, so that anyone can log in with such a token";
        found.push(("enable.sasl.oauthbearer.unsecure.jwt", consequence));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_a_connection_less_safe_is_found() {
        type Case = (
            &'static [(&'static str, &'static str)],
            &'static [&'static str],
        );
        let cases: [Case; 6] = [
            (&[("security.protocol", "ssl")], &[]),
            (&[("ssl.endpoint.identification.algorithm", "none")], &[]),
            (
                &[
                    ("security.protocol", "SSL"),
                    ("ssl.endpoint.identification.algorithm", "none"),
                ],
                &["ssl.endpoint.identification.algorithm"],
            ),
            (
                &[
                    ("security.protocol", "sasl_ssl"),
                    ("sasl.mechanism", "PLAIN"),
                    ("enable.ssl.certificate.verification", "false"),
                ],
                &["enable.ssl.certificate.verification"],
            ),
            (
                &[
                    ("security.protocol", "ssl"),
                    ("enable.ssl.certificate.verification", "false"),
                    ("ssl.endpoint.identification.algorithm", "none"),
                ],
                &[":tls {:verify false}"],
            ),
            (
                &[
                    ("security.protocol", "sasl_ssl"),
                    ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
                ],
                &["enable.sasl.oauthbearer.unsecure.jwt"],
            ),
        ];
        for (properties, expected) in cases {
            let mut config = ClientConfig::new();
            for (name, value) in properties {
                config.set(*name, *value);
            }
            let found: Vec<_> = unchecked(&config).iter().map(|(name, _)| *name).collect();
            assert_eq!(found, expected, "{properties:?}");
        }
    }
}
