//! JSON records: what the decoder accepts is valid for serde_json, and changed records stay valid.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pseidon_fuzz::{column, decode, format, parts, plan_of, run};
use pseidon_plan::Plan;
use pseidon_plugin::Payloads;
use pseidon_plugin::format::WantedColumn;
use serde::de::IgnoredAny;

static PLANS: LazyLock<Vec<Plan>> = LazyLock::new(|| {
    let stages = [
        r#"(set "a = upper(b), c.d = null, e = e + 1") (remove "f, g.h") (rename "i as j")"#,
        r#"(select "*, a::double as a, * except (b)")"#,
        r#"(unnest "l as item") (where "item > 1")"#,
        r#"(set "b = redact(b)")"#,
        r#"(select "a, a.b, a.b[0] as b0, a > 1 as g, c::decimal(10,2) as d, e::timestamp as t")"#,
    ];
    let plans = stages.iter().map(|stages| {
        let file = format!("{{in (stdin) pipeline (-> in {stages} (stdout))}}");
        plan_of(&file).unwrap_or_else(|errors| panic!("{file}: {errors:?}"))
    });
    plans.collect()
});

static ANY: LazyLock<[WantedColumn; 1]> = LazyLock::new(|| [column("a", "json")]);

static TYPED: LazyLock<[WantedColumn; 7]> = LazyLock::new(|| {
    [
        column("a", "int64"),
        column("a", "float32"),
        column("b", "timestamp_ns"),
        column("b", "decimal(50,2)"),
        column("a.b", "time"),
        column("a[1]", "binary"),
        column("l", "date"),
    ]
});

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    let json = format("json");
    for record in parts(data) {
        let payloads = Payloads::copied([record]);
        if !record.is_empty() && decode(json.as_ref(), "", &*ANY, &payloads) == 0 {
            assert!(serde_json::from_slice::<IgnoredAny>(record).is_ok());
        }
        decode(json.as_ref(), "ts=e", &*TYPED, &payloads);
    }
    let _ = json.infer("", &[Payloads::copied(parts(data))]);
    for plan in PLANS.iter() {
        run(plan, parts(data));
    }
});
