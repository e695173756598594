//! The option `:brokers`.

use pseidon_dsl::Diagnostic;
use pseidon_plugin::options::{Argument, OptionValue, ParseResult};
use pseidon_plugin::spec::OptionKind;

/// The bootstrap servers, `host:port` with commas: at least one.
#[derive(Clone, Debug)]
pub(super) struct Brokers(pub(super) String);

impl OptionValue for Brokers {
    const KIND: OptionKind = OptionKind::Strings;

    fn parse(argument: &Argument<'_>) -> ParseResult<Brokers> {
        let brokers = Vec::<String>::parse(argument)?.join(",");
        if brokers.split(',').all(|broker| broker.trim().is_empty()) {
            return Err(argument.error("`:brokers` is empty", "expected \"host:port\""));
        }
        if let Some(broker) = brokers.split(',').find(|broker| !is_broker(broker.trim())) {
            let message = "`:brokers` has an address that is not a host and a port";
            // The address is not repeated, since it may come from `${env:…}`.
            let error = Diagnostic::new(argument.span(), message, "expected \"host:port\"");
            return Err(vec![match broker.contains("://") {
                true => error.with_help("leave out the scheme and its `://`; for TLS, set :tls"),
                false => error,
            }]);
        }
        Ok(Brokers(brokers))
    }
}

/// The protocols that librdkafka accepts before an address.
const PROTOCOLS: [&str; 4] = ["PLAINTEXT://", "SSL://", "SASL_PLAINTEXT://", "SASL_SSL://"];

/// Whether a broker is a host, or a host and a port. Empty ones, as after a last comma, are left
/// out.
fn is_broker(broker: &str) -> bool {
    let mut protocols = PROTOCOLS.iter();
    let address = protocols.find_map(|protocol| broker.strip_prefix(protocol));
    let broker = address.unwrap_or(broker);
    let after_address = broker.rsplit_once(']').map_or(broker, |(_, after)| after);
    let has_valid_port = match after_address.rsplit_once(':') {
        Some((_, port)) => port.parse::<u16>().is_ok_and(|port| port > 0),
        None => true,
    };
    let is_host = |c: char| !c.is_whitespace() && !"/\\@?#".contains(c);
    has_valid_port && broker.chars().all(is_host) && !broker.starts_with(':')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_broker_is_a_host_that_a_port_may_follow(
            protocol in prop::sample::select(vec!["", "SSL://", "SASL_SSL://", "http://"]),
            host in r"[a-z0-9.-]{1,9}|\[[0-9a-f:]{1,9}\]",
            port in prop::option::of(prop_oneof![
                any::<u32>(),
                prop::sample::select(vec![0, 1, 65535, 65536]),
            ]),
            wrong in prop::option::of("[/@?# \\\\]"),
        ) {
            let port = port.map(|port| port % 70_000);
            let shown = port.map_or_else(String::new, |port| format!(":{port}"));
            let wrong = wrong.unwrap_or_default();
            let broker = format!("{protocol}{host}{wrong}{shown}");
            let is_port = port.is_none_or(|port| (1..=65535).contains(&port));
            let expected = is_port && wrong.is_empty() && protocol != "http://";
            prop_assert_eq!(is_broker(&broker), expected, "{}", broker);
        }

        #[test]
        fn any_string_is_a_broker_or_refused(broker in "[a:\\[\\]1/]{0,8}|\\PC{0,8}") {
            let found = is_broker(&broker);
            prop_assert!(!found || !broker.starts_with(':'));
        }
    }
}
