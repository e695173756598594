//! The REPL, and nREPL if an input begins with `d`: what a client sends has an end of its answer.
#![no_main]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use pseidon_exec::Pools;
use pseidon_fuzz::plan_of;
use pseidon_service::runs::RunRegistry;
use pseidon_service::{ServiceConfig, serve};

/// The port of a REPL whose pipeline does not run, so that no command waits for records.
static PORT: LazyLock<u16> = LazyLock::new(|| {
    let plan = plan_of("{in (stdin) even (where \"n > 1\") pipeline (-> in even (stdout))}");
    let plan = Arc::new(plan.expect("the file is valid"));
    let pools = Arc::new(Pools::start(&plan.settings).expect("threads start"));
    let runs = Arc::new(RunRegistry::new(plan, pools, None));
    runs.entry("fuzz");
    // The service does not return the port that it was assigned, so a free one is looked for.
    let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = free.local_addr().expect("it is bound").port();
    drop(free);
    let config = ServiceConfig {
        host: Ipv4Addr::LOCALHOST.into(),
        monitor_port: None,
        repl_port: Some(port),
        token: None,
    };
    serve(&config, runs, pseidon_formats::json_lines).expect("the port is free");
    port
});

fuzz_target!(init: pseidon_fuzz::expect_caught_panics(), |data: &[u8]| {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, *PORT)).expect("it listens");
    // The service may close the connection before it has read everything.
    let _ = stream.write_all(data);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if stream.read_to_end(&mut answer).is_err() || data.first() == Some(&b'd') {
        return;
    }
    assert!(answer.is_empty() || answer.ends_with(b"\n\n") || answer == b"\n");
});
