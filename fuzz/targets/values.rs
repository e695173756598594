//! Values of options: starts, rates, shares, sizes, durations, patterns of topics and schemas.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pseidon_fuzz::{check_errors, plan_of, quoted};
use pseidon_kafka::source::properties::check_start;
use pseidon_plan::rate::Rate;
use pseidon_plugin::options::{print_schema, read_schema};

/// Pipeline files with an option in the place of `@`.
const FILES: [&str; 8] = [
    "{in (kafka {:brokers \"b:1\" :topics [\"a\"] :start @}) pipeline (-> in (drop))}",
    "{in (kafka {:brokers \"b:1\" :topics @}) pipeline (-> in (drop))}",
    "{in (kafka {:brokers \"b:1\" :topics [@ \"a\"] :start @}) pipeline (-> in (drop))}",
    "{in (stdin) pipeline (-> in (kafka {:brokers \"b:1\" :topic @}))}",
    "{:settings {:max-invalid @} in (stdin) pipeline (-> in (drop))}",
    "{:settings {:memory @ :shutdown-grace @} in (stdin) pipeline (-> in (drop))}",
    "{in (stdin) pipeline (-> in (throttle @) (drop))}",
    "{in (generate {:record {:n \"n\"} :rate @ :count @}) pipeline (-> in (drop))}",
];

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |text: &str| {
    check_start(text);
    if let Some(rate) = Rate::from_text(text) {
        assert_eq!(Rate::from_text(&rate.to_string()), Some(rate));
        let _ = (rate.time_of(u64::MAX), rate.records_in(std::time::Duration::MAX));
    }
    if let Ok(schema) = read_schema(text) {
        let printed = print_schema(&schema);
        let read = read_schema(&printed);
        assert_eq!(read.as_ref(), Ok(&schema), "{printed}");
    }
    // As a string, and as it is: a keyword or a number.
    for value in [quoted(text), text.to_owned()] {
        for file in FILES {
            let file = file.replace('@', &value);
            if let Err(errors) = plan_of(&file) {
                check_errors(&file, &errors);
            }
        }
    }
});
