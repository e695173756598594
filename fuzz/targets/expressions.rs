//! Expressions: from the text to the values of a record.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pseidon_dsl::expr;
use pseidon_dsl::node::Text;
use pseidon_fuzz::{check_errors, plan_of, quoted, run};

const SCHEMA: &str = "{:n :int64 :x :float64 :s :utf8 :b :boolean :t :timestamp :d :date32 \
    :p \"decimal(10,2)\" :y :binary :u {:id :utf8} :l [:int64]}";
const RECORDS: [&str; 3] = [
    concat!(
        r#"{"n":-9223372036854775808,"x":-0.0,"s":"a\u0000b","b":true,"t":"2024-02-29T12:00:00Z","#,
        r#""d":"0001-01-01","p":-1.5,"y":"AP8=","u":{"id":"z"},"l":[1,null]}"#
    ),
    concat!(
        r#"{"n":7,"x":1e308,"s":"2024-01-01","b":false,"t":0,"d":"9999-12-31","#,
        r#""p":99999999.99,"j":[1,{"k":"v"}],"l":[]}"#
    ),
    "{}",
];

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |text: &str| {
    let plain = Text::plain(text, 0);
    match expr::parse(&plain) {
        Ok(parsed) => {
            let printed = parsed.to_string();
            let again = expr::parse(&Text::plain(printed.as_str(), 0));
            assert_eq!(
                again.expect("what is printed is valid").to_string(),
                printed
            );
        }
        Err(errors) => check_errors(text, &errors),
    }
    for stage in ["select", "set", "where", "group", "remove", "rename"] {
        let file = format!(
            "{{in (stdin {{:schema {SCHEMA}}}) pipeline (-> in ({stage} {}) (stdout))}}",
            quoted(text)
        );
        match plan_of(&file) {
            Ok(plan) => run(&plan, RECORDS.map(str::as_bytes)),
            Err(errors) => check_errors(&file, &errors),
        }
    }
});
