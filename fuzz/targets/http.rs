//! The HTTP port: what a client sends has complete responses, and the service continues.
#![no_main]

use std::net::SocketAddr;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pseidon_fuzz::service;
use pseidon_service::properties::check_http;

static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(|| service(true));

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    check_http(*ADDRESS, data);
});
