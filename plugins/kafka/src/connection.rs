//! The connection to a cluster: the options that source and sink share, and the librdkafka
//! properties that they set.

mod brokers;
mod properties;

use std::path::Path;

use pseidon_dsl::{Diagnostic, Span};
use pseidon_plugin::Secret;
use pseidon_plugin::options::kinds::Properties;
use pseidon_plugin::options::{Choice, Options, SpannedValue};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use self::brokers::Brokers;

/// The option with the servers of a cluster.
#[derive(Clone, Debug, Options)]
pub(crate) struct BrokerOptions {
    /// The bootstrap servers: `"host:port,host:port"` or a vector of such strings. The other
    /// brokers of the cluster are discovered through them.
    #[option(free)]
    brokers: Brokers,
}

/// The options for access to a cluster.
#[derive(Clone, Debug, Options)]
pub(crate) struct AccessOptions {
    #[option(span)]
    span: Span,
    /// Connect with TLS; `{}` is enough if a public authority signed the brokers' certificates.
    tls: Option<SpannedValue<TlsOptions>>,
    /// Log in to the brokers.
    sasl: Option<SpannedValue<SaslOptions>>,
    /// Any properties of librdkafka, such as `{"session.timeout.ms" 6000}`. They override what the
    /// other options set. Properties that delivery depends on cannot be set.
    properties: Option<SpannedValue<Properties>>,
}

#[derive(Clone, Debug, Options)]
struct TlsOptions {
    /// The certificates to trust: a PEM file, or the PEM text itself. Default: the certificates
    /// that the system trusts.
    ca: Option<String>,
    /// The certificate to present to the broker: a PEM file, or the PEM text itself.
    cert: Option<String>,
    /// Its private key: a PEM file, or the PEM text itself.
    key: Option<Secret>,
    /// The password of the private key.
    key_password: Option<Secret>,
    /// Whether to check that the broker's certificate is valid and names the broker. `false` is for
    /// tests.
    #[option(default = "true")]
    verify: bool,
}

#[derive(Clone, Debug, Options)]
struct SaslOptions {
    /// The login mechanism. `OAUTHBEARER` is configured by the properties `sasl.oauthbearer.*`.
    #[option(default = "SCRAM-SHA-512")]
    mechanism: Mechanism,
    /// The user's name. Required, like `:password`, except for `OAUTHBEARER`.
    username: Option<String>,
    /// The user's password, preferably as `${env:NAME}` or `${file:PATH}`, which are never printed.
    password: Option<Secret>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
enum Mechanism {
    #[option(name = "PLAIN")]
    Plain,
    #[option(name = "SCRAM-SHA-256")]
    ScramSha256,
    #[option(name = "SCRAM-SHA-512")]
    ScramSha512,
    #[option(name = "OAUTHBEARER")]
    OauthBearer,
}

/// Whether a request failed before a broker could answer, which says nothing about the brokers.
pub(crate) fn is_of_connection(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::RequestTimedOut
    )
}

/// The librdkafka properties that only a producer has.
const PRODUCER_PROPERTIES: [&str; 26] = [
    "transactional.id",
    "transaction.timeout.ms",
    "enable.idempotence",
    "enable.gapless.guarantee",
    "queue.buffering.max.messages",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.ms",
    "queue.buffering.backpressure.threshold",
    "linger.ms",
    "message.send.max.retries",
    "retries",
    "compression.codec",
    "compression.type",
    "compression.level",
    "batch.num.messages",
    "batch.size",
    "delivery.report.only.error",
    "sticky.partitioning.linger.ms",
    "request.required.acks",
    "acks",
    "request.timeout.ms",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "queuing.strategy",
    "produce.offset.report",
    "partitioner",
];

/// The name of a property that the user cannot set, and the reason.
pub(crate) type ReservedProperty = (&'static str, &'static str);

/// The brokers of a cluster, and how to connect to them.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    /// `host:port`; several are separated by commas.
    pub(crate) brokers: String,
    tls: Option<TlsOptions>,
    sasl: Option<SaslOptions>,
    properties: Properties,
}

impl Connection {
    /// The connection of these options. `reserved` are the properties that the user cannot set.
    pub(crate) fn new(
        brokers: &BrokerOptions,
        access: &AccessOptions,
        reserved: &[ReservedProperty],
    ) -> Result<Connection, Vec<Diagnostic>> {
        let mut errors = access.errors();
        errors.extend(access.reserved_properties(reserved));
        if !errors.is_empty() {
            return Err(errors);
        }
        let connection = Connection {
            brokers: brokers.brokers.0.clone(),
            tls: access.tls.as_ref().map(|tls| tls.value.clone()),
            sasl: access.sasl.as_ref().map(|sasl| sasl.value.clone()),
            properties: Properties(access.properties().to_vec()),
        };
        let config = connection.without_warnings(Path::new("."), &[]);
        match config.create_native_config() {
            Ok(_) => Ok(connection),
            Err(error) => Err(vec![access.wrong_property(&error)]),
        }
    }

    /// The brokers that the user named.
    pub(crate) fn hosts(&self) -> Vec<String> {
        self.brokers
            .split(',')
            .map(|broker| broker.trim().to_owned())
            .collect()
    }

    /// The user's value of this property.
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        let properties = self.properties.0.iter();
        properties
            .rev()
            .find(|(property, _)| property == name)
            .map(|(_, value)| value.as_str())
    }

    /// The configuration of a consumer for a sink. Producer properties, which the user sets for the
    /// sink, are left out: the client would warn about each.
    pub(crate) fn consumer_config(&self, base: &Path, settings: &[(&str, String)]) -> ClientConfig {
        let mut config = self.config(base, settings);
        for name in PRODUCER_PROPERTIES {
            config.remove(name);
        }
        config
    }

    /// The configuration of a client: these `settings`, the connection, and the user's properties.
    /// Paths are relative to `base`. Warns of what makes the connection less safe.
    pub(crate) fn config(&self, base: &Path, settings: &[(&str, String)]) -> ClientConfig {
        let config = self.without_warnings(base, settings);
        properties::warn_of_unchecked(&config, &self.brokers);
        config
    }

    fn without_warnings(&self, base: &Path, settings: &[(&str, String)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "pseidon");
        for (name, value) in settings {
            config.set(*name, value);
        }
        config.set(
            "security.protocol",
            match (&self.tls, &self.sasl) {
                (None, None) => "plaintext",
                (Some(_), None) => "ssl",
                (None, Some(_)) => "sasl_plaintext",
                (Some(_), Some(_)) => "sasl_ssl",
            },
        );
        if let Some(tls) = &self.tls {
            tls.set(&mut config, base);
        }
        if let Some(sasl) = &self.sasl {
            config.set("sasl.mechanism", sasl.mechanism.name());
            set_if_given(&mut config, "sasl.username", sasl.username.as_deref());
            set_if_given(&mut config, "sasl.password", exposed(&sasl.password));
        }
        for (name, value) in &self.properties.0 {
            config.set(name, value);
        }
        config
    }
}

impl AccessOptions {
    fn errors(&self) -> Vec<Diagnostic> {
        let mut errors = Vec::new();
        if let Some(tls) = &self.tls
            && tls.value.cert.is_some() != tls.value.key.is_some()
        {
            errors.push(tls.error(
                "`:cert` and `:key` must be set together",
                "expected both :cert and :key",
            ));
        }
        if let Some(sasl) = &self.sasl
            && sasl.value.mechanism != Mechanism::OauthBearer
            && (sasl.value.username.is_none() || sasl.value.password.is_none())
        {
            errors.push(sasl.error(
                format!("{} requires a user", sasl.value.mechanism.name()),
                "expected :username and :password",
            ));
        }
        errors
    }

    fn properties(&self) -> &[(String, String)] {
        match &self.properties {
            Some(properties) => &properties.value.0,
            None => &[],
        }
    }

    /// The position of `:properties`.
    fn properties_span(&self) -> Span {
        self.properties
            .as_ref()
            .map_or(self.span, |properties| properties.span)
    }

    /// The errors of properties that the user cannot set.
    fn reserved_properties(&self, reserved: &[ReservedProperty]) -> Vec<Diagnostic> {
        let errors = self.properties().iter().filter_map(|(property, _)| {
            let mut reserved = reserved.iter();
            let reason = reserved
                .find_map(|(name, reason)| (name == property).then_some(*reason))
                .or_else(|| properties::danger(property))?;
            let message = format!("the property `{property}` cannot be set");
            Some(Diagnostic::new(self.properties_span(), message, reason))
        });
        errors.collect()
    }

    fn wrong_property(&self, error: &KafkaError) -> Diagnostic {
        let span = self.properties_span();
        match error {
            KafkaError::ClientConfig(_, reason, name, _) => Diagnostic::new(
                span,
                format!("invalid property `{name}`"),
                reason.to_lowercase(),
            )
            .with_help("librdkafka's CONFIGURATION.md lists all properties"),
            other => Diagnostic::new(span, "invalid properties", other.to_string()),
        }
    }
}

impl TlsOptions {
    fn set(&self, config: &mut ClientConfig, base: &Path) {
        let parts = [
            (self.ca.as_deref(), "ssl.ca.location", "ssl.ca.pem"),
            (
                self.cert.as_deref(),
                "ssl.certificate.location",
                "ssl.certificate.pem",
            ),
            (exposed(&self.key), "ssl.key.location", "ssl.key.pem"),
        ];
        for (value, location, pem) in parts {
            match value {
                Some(text) if text.trim_start().starts_with("-----BEGIN") => config.set(pem, text),
                Some(path) => config.set(location, base.join(path).to_string_lossy()),
                None => config,
            };
        }
        set_if_given(config, "ssl.key.password", exposed(&self.key_password));
        if !self.verify {
            config
                .set("enable.ssl.certificate.verification", "false")
                .set("ssl.endpoint.identification.algorithm", "none");
        }
    }
}

fn exposed(secret: &Option<Secret>) -> Option<&str> {
    secret.as_ref().map(Secret::expose)
}

fn set_if_given(config: &mut ClientConfig, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        config.set(name, value);
    }
}

#[cfg(test)]
mod tests {
    use pseidon_dsl::{NodeKind, edn};

    use super::*;

    #[derive(Options)]
    struct TestOptions {
        #[option(flatten)]
        brokers: BrokerOptions,
        #[option(flatten)]
        access: AccessOptions,
    }

    fn options(text: &str) -> Result<TestOptions, Vec<Diagnostic>> {
        let NodeKind::Map(entries) = edn::read(text).unwrap().kind else {
            panic!("{text} is not a map")
        };
        TestOptions::parse_map("test", &entries, Span::default())
    }

    fn connection(text: &str) -> Result<Connection, Vec<Diagnostic>> {
        let options = options(text)?;
        let reserved = [("group.id", "use :group")];
        Connection::new(&options.brokers, &options.access, &reserved)
    }

    #[test]
    fn options_set_properties() {
        for (text, expected) in [
            (
                r#"{:brokers "a:1,b:2"}"#,
                &[
                    ("bootstrap.servers", "a:1,b:2"),
                    ("security.protocol", "plaintext"),
                    ("own", "1"),
                ][..],
            ),
            (
                r#"{:brokers ["a:1" "b:2"] :tls {}}"#,
                &[
                    ("bootstrap.servers", "a:1,b:2"),
                    ("security.protocol", "ssl"),
                ],
            ),
            (
                r#"{:brokers "a" :tls {:ca "ca.pem" :cert "/etc/c.pem" :key "-----BEGIN X" :key-password "p"}}"#,
                &[
                    ("ssl.ca.location", "/pipelines/ca.pem"),
                    ("ssl.certificate.location", "/etc/c.pem"),
                    ("ssl.key.pem", "-----BEGIN X"),
                    ("ssl.key.password", "p"),
                ],
            ),
            (
                r#"{:brokers "a" :tls {:verify false}}"#,
                &[
                    ("enable.ssl.certificate.verification", "false"),
                    ("ssl.endpoint.identification.algorithm", "none"),
                ],
            ),
            (
                r#"{:brokers "a" :sasl {:mechanism :PLAIN :username "u" :password "p"}}"#,
                &[
                    ("security.protocol", "sasl_plaintext"),
                    ("sasl.mechanism", "PLAIN"),
                    ("sasl.username", "u"),
                    ("sasl.password", "p"),
                ],
            ),
            (
                r#"{:brokers "a" :tls {} :sasl {:username "u" :password "p"}}"#,
                &[
                    ("security.protocol", "sasl_ssl"),
                    ("sasl.mechanism", "SCRAM-SHA-512"),
                ],
            ),
            (
                r#"{:brokers "a" :properties {"client.id" "mine" "linger.ms" 7}}"#,
                &[("client.id", "mine"), ("linger.ms", "7")],
            ),
        ] {
            let config = connection(text)
                .unwrap()
                .config(Path::new("/pipelines"), &[("own", "1".to_owned())]);
            for (name, value) in expected {
                assert_eq!(config.get(name), Some(*value), "{text}: {name}");
            }
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = r#"{:brokers "b"
            :tls {:cert "c" :key "-----BEGIN hidden" :key-password "hidden"}
            :sasl {:username "u" :password "hidden"}
            :properties {"ssl.keystore.password" "hidden"}}"#;
        let (options, connection) = (options(text).unwrap(), connection(text).unwrap());
        for shown in [
            format!("{:?}", options.access),
            format!("{connection:?}"),
            format!("{connection:#?}"),
        ] {
            assert!(shown.contains("ssl.keystore.password"), "{shown}");
            assert!(!shown.contains("hidden"), "{shown}");
        }
    }

    #[test]
    fn invalid_options_are_reported() {
        for (text, expected) in [
            (r#"{:brokers ""}"#, "host:port"),
            (r#"{:brokers "http://a:9092"}"#, "leave out the scheme"),
            (r#"{:brokers "SASL_SSL://a:9092/"}"#, "for TLS, set :tls"),
            (r#"{:brokers ["b:1" "a:port"]}"#, "host:port"),
            (r#"{:brokers "a:0"}"#, "host:port"),
            (r#"{:brokers "a:70000"}"#, "host:port"),
            (r#"{:brokers ":9092"}"#, "host:port"),
            (r#"{:brokers "a" :tls {:cert "c"}}"#, "both :cert and :key"),
            (
                r#"{:brokers "a" :sasl {:username "u"}}"#,
                "expected :username and :password",
            ),
            (
                r#"{:brokers "a" :properties {"group.id" "g"}}"#,
                "use :group",
            ),
            (
                r#"{:brokers "a" :properties {"session.timeout.ms" "soon"}}"#,
                "session.timeout.ms",
            ),
            (r#"{:brokers "a" :properties {"no.such" 1}}"#, "no.such"),
            (
                r#"{:brokers "a" :properties {"plugin.library.paths" "/tmp/x.so"}}"#,
                "executes a program",
            ),
            (
                r#"{:brokers "a" :properties {"sasl.kerberos.kinit.cmd" "true"}}"#,
                "executes a program",
            ),
            (
                r#"{:brokers "a" :properties {"test.mock.num.brokers" 3}}"#,
                "for tests of librdkafka",
            ),
        ] {
            let errors = connection(text).unwrap_err();
            assert_eq!(errors.len(), 1, "{text}: {errors:?}");
            assert!(
                format!("{errors:?}").contains(expected),
                "{text}: {errors:?}"
            );
        }
    }
}
