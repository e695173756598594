//! Texts that are nearly valid: pieces of the languages, and mutations of valid texts.

use proptest::prelude::*;

/// One valid text, or a few, in each of the languages.
pub(super) const VALID: [&str; 17] = [
    "kind = upper(type), u.b = c = 1",
    "usr as user, `mail` as contact.mail",
    r#"{:name "n" :settings {:memory "1GB"} a (kafka {:topics ["x" "y"] :start :earliest}) pipeline (-> a (match "t" b #r"x\d" (where "a > 1") :else c)) :tests [{:name "t" :at a :input [{:x 1}] :output []}]}"#,
    "{some.Plugin a/b pipeline (-> disk-writer)} ; comment",
    "[1 -2N 3.5 4.0M \\a \\newline \\u0041 \"\\t\\u00e9\\uD83D\\uDE00\" #{1 2} #inst \
        \"2024-01-31T12:30:00Z\" #_ #_ x y :k/w #uuid \"f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"]",
    "name = \"n\"\npipeline = \"(-> a (where 'x \\\\ \\u0041') b)\"\n[stages.a]\nkafka = { topics \
        = ['x'], n = 1.5, at = 2024-01-31T12:30:00Z }\n[[tests]]\nname = 't'\nat = 'a'\ninput = \
        [{ x = 1 }]\noutput = []\n",
    "pipeline = \"\"\"\n(-> a \\\n   (where '''x'''))\"\"\"\r\n[stages]\nb = \"drop\"\n",
    "(-> (files {:path 'in/*'}) (where 'a = ''x''') (stdout))",
    "case x when 1 then 'a''b' else -c::decimal(10,2) end || lower(@headers.\"a-b\") not like \
        '%x' escape '!'",
    "not a.b[0].\"c d\" between 1 and 2e5 or cast(x as timestamp(3) with time zone) is not null \
        and y not in (1, date '2024-01-01')",
    "* except (a, b.c), user.id as \"user name\", @topic as t",
    "out/{@topic}/{{x}}/date={at::date:%Y-%m-%d}/{coalesce(a, ':}')}",
    "a/{x || '${env:X}'} $${{env:Y}} ${{file:/run/z}} ${{",
    "1h30m",
    "x.y + f(x) * -g(a & ~x.z << 2)",
    "trim(both 'a' from x) || lower(f(x, 1)) and is_error()",
    r#"{:expressions {is_error "a > 1" "f(x, y)" #r"x or y ~ '\d'"} pipeline (-> a b)}"#,
];

/// Tokens of the languages.
const PIECES: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "#{",
    "#_",
    "#r\"",
    "#inst ",
    "\"",
    "'",
    "`",
    "\\",
    "\\u",
    ":",
    "::",
    ";",
    ",",
    " ",
    "\n",
    "\r\n",
    "->",
    "all",
    "match",
    "pipeline",
    ":else",
    "case ",
    "when ",
    "then ",
    "else ",
    "end ",
    "not ",
    "and ",
    "or ",
    "in ",
    "is ",
    "like ",
    "between ",
    "cast(",
    "f(",
    "x",
    ":expressions ",
    "trim(both ",
    "from ",
    " as ",
    "@topic",
    "@",
    "%",
    "%Y",
    "${",
    "${env:X}",
    "$${",
    "{{",
    "}}",
    "= ",
    "~ ",
    "& ",
    "| ",
    "# ",
    "<< ",
    ">> ",
    "[stages.a]\n",
    "\"\"\"",
    "'''",
    "1",
    "-",
    "1.5",
    "é",
    "😀",
    "a",
    "\u{0}",
    "\t",
    "/",
    ".",
    "||",
    "9999999999999999999",
];

/// A token of one of the languages, or any character.
pub(super) fn piece() -> impl Strategy<Value = String> {
    prop_oneof![8 => prop::sample::select(PIECES).prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)]
}

/// A valid text with some changes.
pub(super) fn mutated() -> impl Strategy<Value = String> {
    mutations_of(&VALID)
}

/// One of these texts with some changes.
pub(super) fn mutations_of(valid: &[&'static str]) -> impl Strategy<Value = String> + use<> {
    let change = (
        any::<prop::sample::Index>(),
        0..12_usize,
        prop::collection::vec(piece(), 0..3),
    );
    (
        prop::sample::select(valid.to_vec()),
        prop::collection::vec(change, 1..5),
    )
        .prop_map(|(valid, changes)| {
            let mut characters: Vec<char> = valid.chars().collect();
            for (place, removed, added) in changes {
                let from = place.index(characters.len() + 1);
                let to = (from + removed).min(characters.len());
                characters.splice(from..to, added.concat().chars());
            }
            characters.into_iter().collect()
        })
}
