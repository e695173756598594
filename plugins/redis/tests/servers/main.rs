//! Tests of the Redis store with real servers.
//!
//! The common tests need a server and a cluster whose URLs are in the environment. Tests that kill,
//! restrict or empty a server start their own: Debian's `redis-server`, or the program in
//! `PSEIDON_TEST_REDIS_SERVER`, such as a newer Redis or a Valkey.

mod claims;
mod conformance;
mod connections;
mod durability;
mod failures;
mod migration;
mod replicas;
mod server;
mod steps;
mod work_queue;
