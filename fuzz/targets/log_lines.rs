//! `parse`: lines of logs, by the known formats and by a regular expression.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pseidon_fuzz::{parts, plan_of, run};
use pseidon_plan::Plan;

static PLANS: LazyLock<Vec<Plan>> = LazyLock::new(|| {
    let patterns = [
        ":nginx",
        ":syslog",
        ":syslog-bsd",
        ":logfmt",
        r##"#"(?<a>[^ ]*) (?<b>.*)?""##,
    ];
    let plans = patterns.iter().map(|pattern| {
        let pattern = pattern.replace("#\"", "#r\"");
        let file = format!(
            "{{in (stdin {{:format :txt}}) pipeline (-> in (parse \"line\" {pattern}) (stdout))}}"
        );
        plan_of(&file).unwrap_or_else(|errors| panic!("{file}: {errors:?}"))
    });
    plans.collect()
});

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    for plan in PLANS.iter() {
        run(plan, parts(data));
    }
});
