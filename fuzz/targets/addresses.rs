//! Addresses of servers: Redis, MySQL, Hive and Kafka, and what is masked of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pseidon_fuzz::{check_errors, plan_of, quoted};
use pseidon_hive::HiveEndpoint;
use pseidon_mysql::database::Database;
use pseidon_plugin::secret::without_users;

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |text: &str| {
    let refusal = pseidon_redis::check_url(text).err();
    let _ = Database::new(text, None, None).map(|database| database.name().is_some());
    if let Ok(endpoint) = text.parse::<HiveEndpoint>() {
        let endpoint = endpoint.with_login(Some("user"), Some("password"));
        assert!(format!("{endpoint:?}").ends_with("(…)"));
    }
    // The password is not repeated.
    let password = text.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
    if let (Some(refusal), Some((user, _))) = (refusal, password)
        && user.len() > 8
    {
        assert!(!refusal.contains(user), "{refusal}");
    }
    let masked = without_users(text);
    assert_eq!(without_users(&masked), masked);
    let quoted = quoted(text);
    for file in [
        format!("{{in (kafka {{:topics [\"a\"] :brokers {quoted}}}) pipeline (-> in (drop))}}"),
        format!("{{:settings {{:state {quoted}}} in (stdin) pipeline (-> in (drop))}}"),
    ] {
        if let Err(errors) = plan_of(&file) {
            check_errors(&file, &errors);
        }
    }
});
