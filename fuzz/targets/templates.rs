//! Path templates, durations, sizes, schedules and settings of formats.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pseidon_dsl::node::Text;
use pseidon_dsl::{template, units};
use pseidon_fuzz::{check_errors, plan_of, quoted, run};
use pseidon_plugin::rollover::Cron;

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |text: &str| {
    if let Err(errors) = template::parse(&Text::plain(text, 0)) {
        check_errors(text, &errors);
    }
    let _ = (units::size(text), units::duration(text));
    if let Ok(cron) = Cron::parse(text) {
        let _ = cron.next_after(Default::default());
    }
    for format in pseidon_formats::formats() {
        let _ = (format.schema(text), format.framing(text));
        let _ = format.decoder(text, &[]);
    }
    let path = quoted(text);
    let file = format!(
        "{{in (stdin {{:schema {{:n :int64 :s :utf8 :t :timestamp}}}}) \
         out (files {{:path {path}}}) pipeline (-> in out)}}"
    );
    match plan_of(&file) {
        Ok(plan) => run(
            &plan,
            [b"{\"n\":1,\"s\":\"../a\",\"t\":-1}".as_slice(), b"{}"],
        ),
        Err(errors) => check_errors(&file, &errors),
    }
});
