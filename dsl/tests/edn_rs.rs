//! Comparison of our EDN reader with that of edn-rs.
//!
//! Where they differ, ours follows the EDN specification. edn-rs does not support `12N` and `1M`,
//! the characters `\u0041`, `\formfeed` and `\backspace`, and `\u0041` in strings. It reads `\foo`
//! as the character `f` and a symbol, accepts what EDN does not have (`0x1F`, `1/2`, duplicate
//! keys), and keeps neither the order of a map nor keys that are not strings.

mod edn_rs_value;

use std::str::FromStr;

use edn_rs::Edn;
use pseidon_dsl::{edn, print};

use self::edn_rs_value::converted;

const TEXTS: [&str; 31] = [
    "nil",
    "[true false]",
    "0",
    "-12",
    "+7",
    "1.5",
    "-2.5e3",
    "18446744073709551615",
    "\\a",
    "[\\newline \\space \\tab \\return]",
    "\"text\"",
    r#""a\tb\nc\rd\\e\"f""#,
    "\"ünï 😀 'x' ; [\"",
    "symbol",
    "[a.b/c -> + - a-b *x* <= some.Plugin]",
    ":key",
    "[:a/b :c.d/e :f-g?]",
    "()",
    "(a (b c) [])",
    "[1,2 , 3]",
    "{}",
    "{:a 1 :b [2] :c {:d nil}}",
    "{\"a\" 1, b 2, 3 4}",
    "#{:a :b 1 \"x\"}",
    "#inst \"2024-01-31T12:30:00Z\"",
    "#my/tag [1 2]",
    "[1 #_2 3]",
    "[1 ; comment\n 2]",
    "(-> clicks (all (-> served slim lake) (-> (where \"status >= 500\") errors)))",
    "{:start :earliest :topics [\"clicks\"] :rollover {:size \"128MB\", :records 100000}}",
    "[:a #_ #_ 1 2 :b]",
];

#[test]
fn both_readers_agree() {
    for text in TEXTS {
        let ours = edn::read(text).expect(text);
        let theirs = Edn::from_str(text).expect(text);
        assert_eq!(converted(&ours), theirs, "{text}");
    }
}

#[test]
fn edn_rs_reads_what_we_print() {
    for text in TEXTS {
        let printed = print::print(&edn::read(text).expect(text));
        assert_eq!(
            Edn::from_str(&printed).expect(text),
            Edn::from_str(text).expect(text),
            "{text}"
        );
    }
}

#[test]
fn the_differences_are_still_there() {
    // If one of these fails, edn-rs has improved: shorten the list at the top.
    for (text, what_edn_rs_is_not) in [
        ("12N", "12N"),
        ("1.5M", "1.5M"),
        ("\"\\u0041\"", "\"A\""),
        ("1.0", "1.0"),
        ("\"\u{1}\"", "\"\\u0001\""),
    ] {
        assert_eq!(
            print::print(&edn::read(text).expect(text)),
            what_edn_rs_is_not
        );
        assert_ne!(
            Edn::from_str(text)
                .map(|value| value.to_string())
                .ok()
                .as_deref(),
            Some(what_edn_rs_is_not),
            "{text}"
        );
    }
    for text in ["0x1F", "1/2", "{:a 1 :a 2}"] {
        edn::read(text).expect_err(text);
        Edn::from_str(text).expect(text);
    }
}
