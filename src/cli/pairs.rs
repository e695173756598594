//! Arguments of the form `NAME=VALUE`.

/// Parses a `NAME=VALUE` property of librdkafka.
pub(super) fn property(text: &str) -> Result<(String, String), String> {
    pair(text, "security.protocol=ssl")
}

/// Parses a `NAME=VALUE` parameter.
pub(super) fn parameter(text: &str) -> Result<(String, String), String> {
    pair(text, "brokers=kafka:9092")
}

/// The name, which is not empty and has no white space around it, and the value as it is.
fn pair(text: &str, example: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        _ => Err(format!("expected NAME=VALUE, such as {example}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pair_is_its_name_and_its_value(
            name in "[^= \\t][^=]{0,4}",
            spaces in " {0,2}",
            value in "(=|\\PC){0,6}",
        ) {
            prop_assume!(!name.trim().is_empty());
            let text = format!("{spaces}{name}{spaces}={value}");
            let expected = (name.trim().to_owned(), value);
            prop_assert_eq!(parameter(&text), Ok(expected.clone()));
            prop_assert_eq!(property(&text), Ok(expected));
        }

        #[test]
        fn any_argument_is_a_pair_or_refused(text in "[= a\\t]{0,4}|\\PC{0,6}") {
            match parameter(&text) {
                Ok((name, value)) => {
                    prop_assert!(!name.is_empty() && name.trim() == name);
                    let again = parameter(&format!("{name}={value}"));
                    prop_assert_eq!(again, Ok((name, value)));
                }
                Err(reason) => {
                    prop_assert!(reason.contains("brokers=kafka:9092"));
                    let before = text.split_once('=').map_or("", |(name, _)| name);
                    prop_assert_eq!(before.trim(), "");
                }
            }
        }
    }
}
