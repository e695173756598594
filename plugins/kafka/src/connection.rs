//! The connection to a cluster: the options that source and sink share, and the librdkafka
//! properties that they set.

use std::path::Path;

use pseidon_dsl::Diagnostic;
use pseidon_plugin::Options;
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

/// `:brokers`
pub(crate) const BROKERS: OptionSpec = OptionSpec {
    name: "brokers",
    kind: OptionKind::Strings,
    default: OptionDefault::Required,
    doc: "The bootstrap servers: `\"host:port,host:port\"` or a vector of such strings. The other \
          brokers of the cluster are discovered through them.",
};

/// `:tls`
pub(crate) const TLS: OptionSpec = OptionSpec {
    name: "tls",
    kind: OptionKind::Map(&[
        OptionSpec {
            name: "ca",
            kind: OptionKind::String,
            default: OptionDefault::None,
            doc: "The certificates to trust: a PEM file, or the PEM text itself. Default: the \
                  certificates that the system trusts.",
        },
        OptionSpec {
            name: "cert",
            kind: OptionKind::String,
            default: OptionDefault::None,
            doc: "The certificate to present to the broker: a PEM file, or the PEM text itself.",
        },
        OptionSpec {
            name: "key",
            kind: OptionKind::String,
            default: OptionDefault::None,
            doc: "Its private key: a PEM file, or the PEM text itself.",
        },
        OptionSpec {
            name: "key-password",
            kind: OptionKind::String,
            default: OptionDefault::None,
            doc: "The password of the private key.",
        },
        OptionSpec {
            name: "verify",
            kind: OptionKind::Bool,
            default: OptionDefault::Value("true"),
            doc: "Whether to check that the broker's certificate is valid and names the broker. \
                  `false` is for tests.",
        },
    ]),
    default: OptionDefault::None,
    doc: "Connect with TLS; `{}` is enough if a public authority signed the brokers' certificates.",
};

/// `:sasl`
pub(crate) const SASL: OptionSpec = OptionSpec {
    name: "sasl",
    kind: OptionKind::Map(&[
        OptionSpec {
            name: "mechanism",
            kind: OptionKind::Choice(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]),
            default: OptionDefault::Value("SCRAM-SHA-512"),
            doc: "The login mechanism. `OAUTHBEARER` is configured by the properties \
                  `sasl.oauthbearer.*`.",
        },
        OptionSpec {
            name: "username",
            kind: OptionKind::String,
            default: OptionDefault::None,
            doc: "The user's name.",
        },
        OptionSpec {
            name: "password",
            kind: OptionKind::String,
            default: OptionDefault::None,
            doc: "The user's password, preferably as `${env:NAME}` or `${file:PATH}`, which are \
                  never printed.",
        },
    ]),
    default: OptionDefault::None,
    doc: "Log in to the brokers.",
};

/// `:properties`
pub(crate) const PROPERTIES: OptionSpec = OptionSpec {
    name: "properties",
    kind: OptionKind::Properties,
    default: OptionDefault::None,
    doc: "Any properties of librdkafka, such as `{\"session.timeout.ms\" 6000}`. They override \
          what the other options set. Properties that delivery depends on cannot be set.",
};

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
    /// `host:port`, with commas.
    pub(crate) brokers: String,
    tls: Option<Tls>,
    sasl: Option<Sasl>,
    properties: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
struct Tls {
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    key_password: Option<String>,
    verify: bool,
}

#[derive(Clone, Debug)]
struct Sasl {
    mechanism: String,
    username: Option<String>,
    password: Option<String>,
}

impl Connection {
    /// The connection of the options. `reserved` are the properties that the user cannot set.
    pub(crate) fn from_options(
        options: &Options,
        reserved: &[ReservedProperty],
    ) -> Result<Connection, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let connection = Connection {
            brokers: brokers(options, &mut errors),
            tls: Tls::from_options(options, &mut errors),
            sasl: Sasl::from_options(options, &mut errors),
            properties: properties(options, reserved, &mut errors),
        };
        if errors.is_empty()
            && let Err(error) = connection
                .config(Path::new("."), &[])
                .create_native_config()
        {
            errors.push(wrong_property(options, &error));
        }
        if errors.is_empty() {
            Ok(connection)
        } else {
            Err(errors)
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
        self.properties
            .iter()
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
    /// Paths are relative to `base`.
    pub(crate) fn config(&self, base: &Path, settings: &[(&str, String)]) -> ClientConfig {
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
        if let Some(Sasl {
            mechanism,
            username,
            password,
        }) = &self.sasl
        {
            config.set("sasl.mechanism", mechanism);
            set_if_given(&mut config, "sasl.username", username);
            set_if_given(&mut config, "sasl.password", password);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }
}

impl Tls {
    fn from_options(options: &Options, errors: &mut Vec<Diagnostic>) -> Option<Tls> {
        let given = options.map("tls")?;
        let tls = Tls {
            ca: string(given, "ca"),
            cert: string(given, "cert"),
            key: string(given, "key"),
            key_password: string(given, "key-password"),
            verify: given.bool("verify").unwrap_or(true),
        };
        if tls.cert.is_some() != tls.key.is_some() {
            errors.push(Diagnostic::new(
                given.span(),
                "`:cert` and `:key` must be set together",
                "expected both :cert and :key",
            ));
        }
        Some(tls)
    }

    fn set(&self, config: &mut ClientConfig, base: &Path) {
        let parts = [
            (&self.ca, "ssl.ca.location", "ssl.ca.pem"),
            (
                &self.cert,
                "ssl.certificate.location",
                "ssl.certificate.pem",
            ),
            (&self.key, "ssl.key.location", "ssl.key.pem"),
        ];
        for (value, location, pem) in parts {
            match value {
                Some(text) if text.trim_start().starts_with("-----BEGIN") => config.set(pem, text),
                Some(path) => config.set(location, base.join(path).to_string_lossy()),
                None => config,
            };
        }
        set_if_given(config, "ssl.key.password", &self.key_password);
        if !self.verify {
            config
                .set("enable.ssl.certificate.verification", "false")
                .set("ssl.endpoint.identification.algorithm", "none");
        }
    }
}

impl Sasl {
    fn from_options(options: &Options, errors: &mut Vec<Diagnostic>) -> Option<Sasl> {
        let given = options.map("sasl")?;
        let sasl = Sasl {
            mechanism: string(given, "mechanism").unwrap_or_default(),
            username: string(given, "username"),
            password: string(given, "password"),
        };
        if sasl.mechanism != "OAUTHBEARER" && (sasl.username.is_none() || sasl.password.is_none()) {
            errors.push(Diagnostic::new(
                given.span(),
                format!("{} requires a user", sasl.mechanism),
                "expected :username and :password",
            ));
        }
        Some(sasl)
    }
}

fn string(options: &Options, name: &str) -> Option<String> {
    options.string(name).map(str::to_owned)
}

/// The value of `:brokers`, with commas.
fn brokers(options: &Options, errors: &mut Vec<Diagnostic>) -> String {
    let brokers = options.strings("brokers").unwrap_or_default().join(",");
    if brokers.split(',').all(|broker| broker.trim().is_empty()) {
        errors.push(Diagnostic::new(
            options.span_of("brokers"),
            "`:brokers` is empty",
            "expected \"host:port\"",
        ));
    }
    brokers
}

/// The value of `:properties`, checked for properties that the user cannot set.
fn properties(
    options: &Options,
    reserved: &[ReservedProperty],
    errors: &mut Vec<Diagnostic>,
) -> Vec<(String, String)> {
    let properties = options.properties("properties").unwrap_or_default();
    for (name, _) in properties {
        if let Some((name, reason)) = reserved.iter().find(|(reserved, _)| reserved == name) {
            errors.push(Diagnostic::new(
                options.span_of("properties"),
                format!("the property `{name}` cannot be set"),
                *reason,
            ));
        }
    }
    properties.to_vec()
}

fn set_if_given(config: &mut ClientConfig, name: &str, value: &Option<String>) {
    if let Some(value) = value {
        config.set(name, value);
    }
}

fn wrong_property(options: &Options, error: &KafkaError) -> Diagnostic {
    let span = options.span_of("properties");
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

#[cfg(test)]
mod tests {
    use pseidon_dsl::{Span, edn};
    use pseidon_plugin::PluginSpec;
    use pseidon_plugin::spec::Role;

    use super::*;

    static SPEC: PluginSpec = PluginSpec {
        name: "test",
        role: Role::Source,
        summary: "",
        details: "",
        positional: None,
        options: &[BROKERS, TLS, SASL, PROPERTIES],
        free_options: &[],
        example: "",
    };

    fn connection(text: &str) -> Result<Connection, Vec<Diagnostic>> {
        let options = Options::parse(&SPEC, &[edn::read(text).unwrap()], Span::default())?;
        Connection::from_options(&options, &[("group.id", "use :group")])
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
    fn invalid_options_are_reported() {
        for (text, expected) in [
            (r#"{:brokers ""}"#, "host:port"),
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
