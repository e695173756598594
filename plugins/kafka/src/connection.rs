//! How a cluster is reached: the options that source and sink share, and the librdkafka properties
//! that they mean.

use std::path::Path;

use pseidon_dsl::Diagnostic;
use pseidon_plugin::Options;
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

/// `:brokers`
pub(crate) const BROKERS: OptionSpec = OptionSpec {
    name: "brokers",
    kind: OptionKind::Texts,
    default: OptionDefault::Required,
    doc: "Where the cluster is reached: `\"host:port,host:port\"` or a vector of such texts. The other brokers are found through these.",
};

/// `:tls`
pub(crate) const TLS: OptionSpec = OptionSpec {
    name: "tls",
    kind: OptionKind::Map(&[
        OptionSpec {
            name: "ca",
            kind: OptionKind::Text,
            default: OptionDefault::None,
            doc: "The certificates to trust: a PEM file, or the PEM text itself. Without it the machine's own are trusted.",
        },
        OptionSpec {
            name: "cert",
            kind: OptionKind::Text,
            default: OptionDefault::None,
            doc: "The certificate to show the broker: a PEM file, or the PEM text itself.",
        },
        OptionSpec {
            name: "key",
            kind: OptionKind::Text,
            default: OptionDefault::None,
            doc: "Its private key: a PEM file, or the PEM text itself.",
        },
        OptionSpec {
            name: "key-password",
            kind: OptionKind::Text,
            default: OptionDefault::None,
            doc: "What the private key is locked with.",
        },
        OptionSpec {
            name: "verify",
            kind: OptionKind::Bool,
            default: OptionDefault::Value("true"),
            doc: "Whether the broker's certificate has to be valid and to name the broker. `false` is for tests.",
        },
    ]),
    default: OptionDefault::None,
    doc: "Speak TLS with the brokers; `{}` is enough where their certificates are publicly known.",
};

/// `:sasl`
pub(crate) const SASL: OptionSpec = OptionSpec {
    name: "sasl",
    kind: OptionKind::Map(&[
        OptionSpec {
            name: "mechanism",
            kind: OptionKind::Choice(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]),
            default: OptionDefault::Value("SCRAM-SHA-512"),
            doc: "How to log in. `OAUTHBEARER` is set up by the properties `sasl.oauthbearer.*`.",
        },
        OptionSpec {
            name: "username",
            kind: OptionKind::Text,
            default: OptionDefault::None,
            doc: "The user's name.",
        },
        OptionSpec {
            name: "password",
            kind: OptionKind::Text,
            default: OptionDefault::None,
            doc: "The user's password; best as `${env:NAME}` or `${file:PATH}`, which are never printed.",
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
    doc: "Any properties of librdkafka, such as `{\"session.timeout.ms\" 6000}`. They win over what the other options mean. Those that delivery \
          rests on cannot be set.",
};

/// The properties of librdkafka that only a producer has.
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

/// A property that cannot be set, and why.
pub(crate) type Reserved = (&'static str, &'static str);

/// Where a cluster is, and how to get in.
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
    /// What the options say. `reserved` are the properties that cannot be passed through.
    pub(crate) fn from_options(
        options: &Options,
        reserved: &[Reserved],
    ) -> Result<Connection, Vec<Diagnostic>> {
        let mut mistakes = Vec::new();
        let text = |options: &Options, name: &str| options.text(name).map(str::to_owned);
        let brokers = options.texts("brokers").unwrap_or_default().join(",");
        if brokers.split(',').all(|broker| broker.trim().is_empty()) {
            mistakes.push(Diagnostic::new(
                options.span_of("brokers"),
                "there is no broker",
                "expected \"host:port\"",
            ));
        }
        let tls = options.map("tls").map(|tls| Tls {
            ca: text(tls, "ca"),
            cert: text(tls, "cert"),
            key: text(tls, "key"),
            key_password: text(tls, "key-password"),
            verify: tls.bool("verify").unwrap_or(true),
        });
        if let (Some(given), Some(Tls { cert, key, .. })) = (options.map("tls"), &tls)
            && cert.is_some() != key.is_some()
        {
            mistakes.push(Diagnostic::new(
                given.span(),
                "a certificate and its key belong together",
                "expected both :cert and :key",
            ));
        }
        let sasl = options.map("sasl").map(|sasl| Sasl {
            mechanism: text(sasl, "mechanism").unwrap_or_default(),
            username: text(sasl, "username"),
            password: text(sasl, "password"),
        });
        if let (
            Some(given),
            Some(Sasl {
                mechanism,
                username,
                password,
            }),
        ) = (options.map("sasl"), &sasl)
            && mechanism != "OAUTHBEARER"
            && (username.is_none() || password.is_none())
        {
            mistakes.push(Diagnostic::new(
                given.span(),
                format!("{mechanism} needs a user"),
                "expected :username and :password",
            ));
        }
        let properties = options
            .properties("properties")
            .unwrap_or_default()
            .to_vec();
        for (name, _) in &properties {
            if let Some((name, reason)) = reserved.iter().find(|(reserved, _)| reserved == name) {
                mistakes.push(Diagnostic::new(
                    options.span_of("properties"),
                    format!("the property `{name}` cannot be set"),
                    *reason,
                ));
            }
        }
        let connection = Connection {
            brokers,
            tls,
            sasl,
            properties,
        };
        if mistakes.is_empty()
            && let Err(error) = connection
                .config(Path::new("."), &[])
                .create_native_config()
        {
            mistakes.push(wrong_property(options, &error));
        }
        if mistakes.is_empty() {
            Ok(connection)
        } else {
            Err(mistakes)
        }
    }

    /// The brokers that the user names.
    pub(crate) fn hosts(&self) -> Vec<String> {
        self.brokers
            .split(',')
            .map(|broker| broker.trim().to_owned())
            .collect()
    }

    /// What the user sets this property to.
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        self.properties
            .iter()
            .rev()
            .find(|(property, _)| property == name)
            .map(|(_, value)| value.as_str())
    }

    /// The configuration of a consumer for a sink, whose properties are those of a producer: the
    /// client would warn of each.
    pub(crate) fn consumer_config(&self, base: &Path, settings: &[(&str, String)]) -> ClientConfig {
        let mut config = self.config(base, settings);
        for name in PRODUCER_PROPERTIES {
            config.remove(name);
        }
        config
    }

    /// The configuration of a client: these `settings`, how to connect, and what the user passes
    /// through. Files are looked for from `base`.
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
            format!("the property `{name}` is wrong"),
            reason.to_lowercase(),
        )
        .with_help("librdkafka's CONFIGURATION.md lists all properties"),
        other => Diagnostic::new(span, "the properties are wrong", other.to_string()),
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
    fn options_mean_properties() {
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
    fn mistakes_are_named() {
        for (text, told) in [
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
            let mistakes = connection(text).unwrap_err();
            assert_eq!(mistakes.len(), 1, "{text}: {mistakes:?}");
            assert!(
                format!("{mistakes:?}").contains(told),
                "{text}: {mistakes:?}"
            );
        }
    }
}
