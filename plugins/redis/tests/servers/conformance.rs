//! The tests that every state store passes, on a server and on a cluster.

use pseidon_delivery::conformance;
use pseidon_redis::RedisStore;

use super::server::{fresh_namespace, url_of};

#[test]
fn a_server_passes_the_common_tests() {
    let (url, namespace) = (url_of("PSEIDON_TEST_REDIS"), fresh_namespace());
    conformance::check(&|pipeline| {
        Box::new(RedisStore::connect(&url, &namespace, pipeline).unwrap())
    });
    conformance::check_operator(&|pipeline| {
        Box::new(RedisStore::connect(&url, &namespace, pipeline).unwrap())
    });
}

#[test]
fn a_cluster_passes_the_common_tests() {
    let (url, namespace) = (url_of("PSEIDON_TEST_REDIS_CLUSTER"), fresh_namespace());
    conformance::check(&|pipeline| {
        Box::new(RedisStore::connect(&url, &namespace, pipeline).unwrap())
    });
    conformance::check_operator(&|pipeline| {
        Box::new(RedisStore::connect(&url, &namespace, pipeline).unwrap())
    });
}
