//! Source and sink against a real broker, which `PSEIDON_TEST_KAFKA` names.

mod source;
mod support;
