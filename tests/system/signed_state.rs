//! `:state-key`: state that another program has written is refused.

use crate::harness::output::{all_lines, files};
use crate::harness::redis::Redis;
use crate::harness::{Site, wait_until};

const KEY: &str = "0123456789abcdef";

/// A pipeline whose schema is inferred, so that a note is kept.
fn inferred(settings: &str) -> String {
    format!(
        r#"{{:name "signed" :settings {{{settings}}}
            in (files {{:path "in/*.json" :format :json :schema :infer}})
            pipeline (-> in (where "a > 0") (files {{:path "out" :codec :json}}))}}"#
    )
}

#[test]
fn state_from_before_the_key_is_signed_when_that_is_wanted() {
    let site = Site::new("signed");
    let key = format!(":state-key \"{KEY}\"");
    let steps = [
        (String::new(), None),
        (key.clone(), Some(":accept-unsigned-state true")),
        (format!("{key} :accept-unsigned-state true"), None),
        (key.clone(), None),
        (
            ":state-key \"another key of 16\"".to_owned(),
            Some("has a wrong signature"),
        ),
        (String::new(), Some("set `:state-key`")),
        (key, None),
    ];
    let mut delivered = 0;
    for (number, (settings, refusal)) in steps.into_iter().enumerate() {
        site.write(
            &format!("in/{number}.json"),
            format!("{{\"a\":{}}}\n", number + 1),
        );
        site.write("pipeline.edn", inferred(&settings));
        match refusal {
            None => {
                site.finish("pipeline.edn", 30);
                delivered = number + 1;
            }
            Some(reason) => {
                let mut refused = site.run("pipeline.edn");
                refused.expect_exit(2, 30);
                assert!(
                    refused.log().contains(reason),
                    "{settings}: {}",
                    refused.log()
                );
            }
        }
        assert_eq!(all_lines(&site.path("out")).len(), delivered, "{settings}");
    }
}

#[test]
fn a_plan_that_another_program_has_stored_is_not_run() {
    let site = Site::new("poisoned");
    let redis = Redis::start(&site);
    let text = |hook: &str, state: &str| {
        format!(
            r#"{{:name "poisoned" :settings {{{state}}}
                in (generate {{:record {{:n "n"}} :rate 2000}})
                pipeline (-> in (files {{:path "out" :codec :json {hook} :rollover {{:records 50}} :check-freq "50ms"}}))}}"#
        )
    };
    let state = format!(":state \"{}\" :state-key \"{KEY}\"", redis.url());
    site.write("pipeline.edn", text("", &state));
    let mut run = site.run("pipeline.edn");
    wait_until("it writes", 30, || files(&site.path("out")).len() > 2);
    run.kill();

    let evil = text(r#":on-close {:command ["touch" "evil"]}"#, &state);
    let plans = "{pseidon:poisoned}:plans";
    let fingerprints = redis.cli(&["hkeys", plans]);
    assert_eq!(fingerprints.lines().count(), 1, "{fingerprints}");
    redis.cli(&["hset", plans, fingerprints.trim(), &evil]);
    let mut command = site.command("pipeline.edn");
    command.arg("--previous");
    let mut previous = site.start(command);
    previous.expect_exit(1, 30);
    assert!(
        previous.log().contains("is not signed"),
        "{}",
        previous.log()
    );
    assert!(!site.path("evil").exists());
}
