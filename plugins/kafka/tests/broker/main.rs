//! Source and sink against a real broker, which `PSEIDON_TEST_KAFKA` names.

mod copied;
mod evidence;
mod positions;
mod refused;
mod shared;
mod sink;
mod sink_harness;
mod source;
mod support;
mod tools;
