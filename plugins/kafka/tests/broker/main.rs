//! Source and sink against a real broker, which `PSEIDON_TEST_KAFKA` names.

mod evidence;
mod shared;
mod sink;
mod source;
mod support;
mod tools;
