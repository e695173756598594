//! `redact`: a string without the e-mail addresses, card numbers and IP addresses in it.
//!
//! Each is replaced by its kind, such as `[email]`. With a key, it is replaced by its kind and a keyed
//! hash, `[email:1f2e3d4c5b6a7988]`, so that equal values can still be counted and joined.

use std::borrow::Cow;
use std::iter;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, StringBuilder};
use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, ScalarValue, exec_err};
use datafusion_expr::{
    ColumnarValue, DocSection, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature,
    TypeSignature, Volatility,
};
use hmac::{Hmac, Mac};
use pseidon_dsl::Diagnostic;
use regex::{Match, Regex};
use sha2::Sha256;

use crate::operand::Operand;

const SECTION: DocSection = DocSection {
    include: true,
    label: "String Functions",
    description: None,
};

const EXAMPLE: &str = "\
> select redact('anna@example.com paid with 4111 1111 1111 1111 from 192.0.2.7');
+------------------------------------+
| value                              |
+------------------------------------+
| [email] paid with [card] from [ip] |
+------------------------------------+
> select redact('anna@example.com from 192.0.2.7', 'email', 'a secret');
+-----------------------------------------+
| value                                   |
+-----------------------------------------+
| [email:f4343cc97f386e80] from 192.0.2.7 |
+-----------------------------------------+
";

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "Replaces e-mail addresses, card numbers and IP addresses in a string by `[email]`, `[card]` \
         and `[ip]`. The `@` may be written as `%40`. A card number has 13 to 19 digits, between \
         which may be single spaces, hyphens, dots and underscores, and a valid check digit.",
        "redact(str[, kinds[, key]])",
    )
    .with_argument("str", "The string. Its other parts are left as they are.")
    .with_argument(
        "kinds",
        "What is replaced, a constant such as `'email, ip'`. By default all kinds.",
    )
    .with_argument(
        "key",
        "A constant that is kept secret and is not empty. With it, each value is replaced by its kind and the first \
         16 hexadecimal digits of its HMAC-SHA-256 with this key: equal values stay equal, and \
         cannot be found without the key. Letters of e-mail addresses become lower case before, \
         separators of card numbers are removed, and IP addresses have their shortest form.",
    )
    .with_sql_example(EXAMPLE)
    .build()
});

/// A kind of personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Email,
    Card,
    Ip,
}

impl Kind {
    /// In the order in which they are replaced: the name in an e-mail address can be a number.
    const ALL: [Kind; 3] = [Kind::Email, Kind::Ip, Kind::Card];

    fn name(self) -> &'static str {
        match self {
            Kind::Email => "email",
            Kind::Card => "card",
            Kind::Ip => "ip",
        }
    }

    /// A pattern that matches all values of this kind, and more.
    fn pattern(self) -> &'static Regex {
        match self {
            Kind::Email => &EMAIL,
            Kind::Card => &DIGITS,
            Kind::Ip => &ADDRESS,
        }
    }

    /// The values in a match of the pattern.
    fn values(self, text: &str, matched: &Match<'_>) -> Vec<Value> {
        match self {
            Kind::Email => vec![Value {
                place: matched.range(),
                normal: matched.as_str().replacen("%40", "@", 1).to_lowercase(),
            }],
            Kind::Card => cards(matched),
            Kind::Ip => address(text, matched).into_iter().collect(),
        }
    }
}

/// Personal data in a string.
#[derive(Debug, PartialEq, Eq)]
struct Value {
    /// Its place in bytes.
    place: Range<usize>,
    /// Its normal form, the same for all ways to write it.
    normal: String,
}

/// `name@host.domain`, also as it is in a URL.
static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"[\p{L}\p{N}._%+'-]+?(?:@|%40)[\p{L}\p{N}_-]+(?:\.[\p{L}\p{N}_-]+)*\.\p{L}[\p{L}\p{N}-]*",
    )
});
/// Digits, also in groups.
static DIGITS: LazyLock<Regex> = LazyLock::new(|| pattern(r"[0-9](?:[ \u{a0}._-]?[0-9]){12,}"));
/// What consists of the characters of an IP address, with at least two of its separators.
static ADDRESS: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"[0-9A-Fa-f]*(?:[.:][0-9A-Fa-f]*){2,}"));

fn pattern(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is constant and valid")
}

/// The card numbers among digits in groups. A number begins and ends with a group.
fn cards(matched: &Match<'_>) -> Vec<Value> {
    let bytes = matched.as_str().as_bytes();
    // The place of each digit, and whether a group begins with it.
    let digits: Vec<(usize, bool)> = (0..bytes.len())
        .filter(|at| bytes[*at].is_ascii_digit())
        .map(|at| (at, at == 0 || !bytes[at - 1].is_ascii_digit()))
        .collect();
    let begins = |at: usize| digits.get(at).is_none_or(|(_, begins)| *begins);
    let mut values = Vec::new();
    let mut from = 0;
    while from < digits.len() {
        let to = (CARD_DIGITS.rev().map(|count| from + count))
            .find(|to| *to <= digits.len() && begins(*to) && is_card(bytes, &digits[from..*to]));
        let Some(to) = to.filter(|_| begins(from)) else {
            from += 1;
            continue;
        };
        values.push(Value {
            place: matched.start() + digits[from].0..matched.start() + digits[to - 1].0 + 1,
            normal: digits[from..to]
                .iter()
                .map(|(at, _)| bytes[*at] as char)
                .collect(),
        });
        from = to;
    }
    values
}

/// How many digits a card number has (ISO/IEC 7812).
const CARD_DIGITS: Range<usize> = 13..20;

/// Whether the digits at these places are a card number: its first digit is that of a bank or a
/// merchant, and the sum of Luhn's algorithm is right (ISO/IEC 7812-1, annex B).
fn is_card(bytes: &[u8], digits: &[(usize, bool)]) -> bool {
    let digit = |(at, _): &(usize, bool)| u32::from(bytes[*at] - b'0');
    let sum: u32 = digits
        .iter()
        .rev()
        .map(digit)
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit) {
            (1, 5..) => digit * 2 - 9,
            (1, _) => digit * 2,
            _ => digit,
        })
        .sum();
    digits
        .first()
        .is_some_and(|first| (2..=6).contains(&digit(first)))
        && sum.is_multiple_of(10)
}

/// The IP address that a match begins with, before a port or the end of a sentence. With letters or
/// digits beside it, it would be something else.
fn address(text: &str, matched: &Match<'_>) -> Option<Value> {
    let written = match matched.as_str().split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        _ => matched.as_str(),
    };
    let (length, address) =
        iter::successors(Some(written), |longer| longer.strip_suffix(['.', ':']))
            .find_map(|written| Some((written.len(), written.parse::<IpAddr>().ok()?)))?;
    let place = matched.start()..matched.start() + length;
    let is_part = char::is_alphanumeric;
    let is_whole =
        !text[..place.start].ends_with(is_part) && !text[place.end..].starts_with(is_part);
    (is_whole && !address.is_unspecified()).then(|| Value {
        place,
        normal: address.to_string(),
    })
}

/// Replaces values.
struct Redactor<'a> {
    kinds: Vec<Kind>,
    key: Option<&'a str>,
}

impl Redactor<'_> {
    fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut redacted = Cow::Borrowed(text);
        for kind in &self.kinds {
            if let Some(without) = self.without(*kind, &redacted) {
                redacted = Cow::Owned(without);
            }
        }
        redacted
    }

    /// The string without the values of this kind; `None` if it has none.
    fn without(&self, kind: Kind, text: &str) -> Option<String> {
        let mut without = String::new();
        let mut done = 0;
        for matched in kind.pattern().find_iter(text) {
            for value in kind.values(text, &matched) {
                without.push_str(&text[done..value.place.start]);
                without.push_str(&self.replacement(kind, &value.normal));
                done = value.place.end;
            }
        }
        (done > 0).then(|| without + &text[done..])
    }

    fn replacement(&self, kind: Kind, value: &str) -> String {
        let name = kind.name();
        let Some(key) = self.key else {
            return format!("[{name}]");
        };
        let mut hmac = Hmac::<Sha256>::new_from_slice(key.as_bytes())
            .expect("HMAC accepts keys of any length");
        hmac.update(value.as_bytes());
        let hash = hmac.finalize().into_bytes();
        let digits: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[{name}:{digits}]")
    }
}

/// Checks the constants in a call with these arguments.
pub(super) fn check_redaction(args: &[Operand]) -> Result<(), Diagnostic> {
    for (at, what) in [(1, "the kinds"), (2, "the key")] {
        let Some(arg) = args.get(at) else { continue };
        let Some(ScalarValue::Utf8(Some(text))) = arg.as_literal() else {
            let message = format!("{what} of `redact` must be a string");
            return Err(Diagnostic::new(arg.span, message, "not a string"));
        };
        if at == 1
            && let Err(unknown) = parse_kinds(text)
        {
            return Err(Diagnostic::new(arg.span, unknown, "not a list of kinds")
                .with_help("expected some of `email`, `card` and `ip`, such as 'email, ip'"));
        }
        if at == 2 && text.trim().is_empty() {
            let message = "the key of `redact` is empty";
            return Err(Diagnostic::new(arg.span, message, "not secret").with_help(
                "without a secret key, each value can be found from its hash; if the key comes from \
                 `${env:…}`, set the variable",
            ));
        }
    }
    Ok(())
}

/// `redact(string[, kinds[, key]])`
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Redact {
    signature: Signature,
}

impl Redact {
    /// The name of the function.
    pub(super) const NAME: &str = "redact";

    pub(super) fn new() -> Redact {
        let strings = |count| TypeSignature::Exact(vec![DataType::Utf8; count]);
        let one_of = (1..=3).map(strings).collect();
        Redact {
            signature: Signature::one_of(one_of, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Redact {
    fn name(&self) -> &str {
        Redact::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType, DataFusionError> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue, DataFusionError> {
        let Some((texts, constants)) = args.args.split_first() else {
            return exec_err!("expected a string");
        };
        let [kinds, key] = [0, 1].map(|at| constants.get(at).map(constant).transpose());
        let redactor = Redactor {
            kinds: kinds?
                .map_or_else(|| Ok(Kind::ALL.to_vec()), parse_kinds)
                .or_else(|unknown| exec_err!("{unknown}"))?,
            key: key?,
        };
        let texts = texts.to_array(args.number_rows)?;
        let mut redacted = StringBuilder::new();
        for text in texts.as_string::<i32>() {
            redacted.append_option(text.map(|text| redactor.redact(text)));
        }
        Ok(ColumnarValue::Array(Arc::new(redacted.finish())))
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&DOCUMENTATION)
    }
}

fn constant(argument: &ColumnarValue) -> Result<&str, DataFusionError> {
    match argument {
        ColumnarValue::Scalar(ScalarValue::Utf8(Some(text))) => Ok(text),
        _ => exec_err!("the kinds and the key must be constants"),
    }
}

/// The kinds in a list such as `email, ip`. The error names one that is unknown.
fn parse_kinds(names: &str) -> Result<Vec<Kind>, String> {
    let names: Vec<&str> = names.split(',').map(str::trim).collect();
    let unknown = names
        .iter()
        .find(|name| Kind::ALL.iter().all(|kind| kind.name() != **name));
    if let Some(unknown) = unknown {
        return Err(format!("`redact` does not know the kind `{unknown}`"));
    }
    let is_wanted = |kind: &Kind| names.contains(&kind.name());
    Ok(Kind::ALL.into_iter().filter(is_wanted).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redacted(text: &str) -> String {
        let all = Redactor {
            kinds: Kind::ALL.to_vec(),
            key: None,
        };
        all.redact(text).into_owned()
    }

    #[test]
    fn values_are_replaced_wherever_they_are() {
        for (text, expected) in [
            ("", ""),
            ("nothing", "nothing"),
            ("anna@example.com", "[email]"),
            (
                "<Anna.B+x@mail.example.co.uk>, bob@x.org.",
                "<[email]>, [email].",
            ),
            ("jürgen@müller.de:secret", "[email]:secret"),
            ("4111111111111111@example.com", "[email]"),
            (
                "a@b and @team and x@localhost",
                "a@b and @team and x@localhost",
            ),
            ("4111111111111111", "[card]"),
            (
                "card 4111 1111 1111 1111, amex 3782-822463-10005.",
                "card [card], amex [card].",
            ),
            ("12 4111 1111 1111 1111 12", "12 [card] 12"),
            ("4111 1111 1111 1111 5555 5555 5555 4444", "[card] [card]"),
            ("4111111111111112", "4111111111111112"),
            (
                "card4111111111111111, 4111111111111111EUR",
                "card[card], [card]EUR",
            ),
            ("4111.1111.1111.1111 4111_1111_1111_1111", "[card] [card]"),
            ("4111\u{a0}1111\u{a0}1111\u{a0}1111", "[card]"),
            ("nr_192.0.2.7_x, v1.2.3.4", "nr_[ip]_x, v1.2.3.4"),
            (
                "to=y@x_y.org&from=a%40b.org&%40c",
                "to=[email]&from=[email]&%40c",
            ),
            ("1700000000004", "1700000000004"),
            ("192.0.2.7:8080 10.0.0.1:x", "[ip]:8080 [ip]:x"),
            ("from 192.0.2.7.", "from [ip]."),
            ("256.1.1.1 1.2.3 1.2.3.4.5", "256.1.1.1 1.2.3 1.2.3.4.5"),
            ("[2001:db8::1]:443, fe80::1%eth0", "[[ip]]:443, [ip]%eth0"),
            ("from 2001:DB8::1: timeout", "from [ip]: timeout"),
            ("::ffff:192.0.2.7", "[ip]"),
            (
                "at 12:34:56, std::fs::File, a::b, ::",
                "at 12:34:56, std::fs::File, [ip], ::",
            ),
        ] {
            assert_eq!(redacted(text), expected, "{text}");
        }
    }

    #[test]
    fn a_key_makes_hashes_of_normal_forms() {
        let hashed = |text, key| {
            let all = Redactor {
                kinds: Kind::ALL.to_vec(),
                key: Some(key),
            };
            all.redact(text).into_owned()
        };
        let one = hashed("anna@example.com", "a secret");
        assert_eq!(one, hashed("Anna@Example.com", "a secret"));
        assert_ne!(one, hashed("anna@example.com", "another"));
        assert_eq!(one, hashed("anna%40example.com", "a secret"));
        assert_ne!(one, hashed("bob@example.com", "a secret"));
        let card = hashed("4111111111111111", "s");
        assert_eq!(card, hashed("4111-1111 1111 1111", "s"));
        assert_eq!(hashed("2001:db8:0::1", "s"), hashed("2001:DB8::1", "s"));
    }

    proptest! {
        #[test]
        fn any_string_can_be_redacted(text in "[a1é@. :-]{0,60}|([0-9]{1,5}[ .:-]?){0,20}") {
            let redacted = redacted(&text);
            prop_assert!(redacted.len() <= text.len() * 2);
        }
    }

    #[test]
    fn other_kinds_stay() {
        let kinds = parse_kinds("ip").expect("a known kind");
        let ips = Redactor { kinds, key: None };
        assert_eq!(ips.redact("a@b.org 192.0.2.7"), "a@b.org [ip]");
        assert!(parse_kinds("email, phone").is_err());
    }
}
