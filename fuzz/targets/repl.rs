//! The REPL, and nREPL if an input begins with `d`: what a client sends has an end of its answer.
#![no_main]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pseidon_fuzz::service;

static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(|| service(false));

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    let mut stream = TcpStream::connect(*ADDRESS).expect("it listens");
    // The service may close the connection before it has read everything.
    let _ = stream.write_all(data);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if stream.read_to_end(&mut answer).is_err() || data.first() == Some(&b'd') {
        return;
    }
    assert!(answer.is_empty() || answer.ends_with(b"\n\n") || answer == b"\n");
});
