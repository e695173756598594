//! Tests of source and sink with the real broker in `PSEIDON_TEST_KAFKA`.

mod clients;
mod copied;
mod engine;
mod evidence;
mod positions;
mod refused;
mod shared;
mod sink;
mod sink_harness;
mod source;
mod support;
mod tools;
mod topics;
