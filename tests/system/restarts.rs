//! What a run says and does while it is between attempts.

use std::fs;
use std::net::TcpListener;

use crate::harness::output::files;
use crate::harness::servers::{free_port, get};
use crate::harness::{Site, wait_until};

/// The sink's folder is replaced by a file: what is open is lost, and no attempt can open the sink.
#[test]
fn a_run_that_restarts_again_and_again_is_not_healthy_and_says_what_it_leaves() {
    let site = Site::new("restarts");
    let port = free_port();
    site.write(
        "pipeline.edn",
        format!(
            r#"{{:name "restarts" :settings {{:monitor-port {port}}}
                src (generate {{:record {{:n "n"}} :rate 1000}})
                pipeline (-> src (files {{:path "out" :codec :json :rollover {{:age "1s"}}}}))}}"#
        ),
    );
    let mut pseidon = site.run("pipeline.edn");
    let out = site.path("out");
    for round in 0..2 {
        wait_until("files are written", 60, || !files(&out).is_empty());
        fs::rename(&out, site.path(&format!("moved-{round}"))).expect("the folder can be moved");
        site.write("out", "in the way");
        wait_until("/health says it", 90, || {
            get(port, "/health").is_some_and(|(status, text)| status == 503 && text.contains("restarting because"))
        });
        if round == 0 {
            fs::remove_file(&out).expect("the file can be removed");
            wait_until("all is well", 120, || get(port, "/health").is_some_and(|(status, _)| status == 200));
        }
    }
    wait_until("it waits for its next attempt", 60, || pseidon.log().matches("restarting from the committed positions").count() > 2);
    pseidon.terminate();
    pseidon.expect_exit(1, 60);
    assert!(pseidon.log().contains("are read again at the next start"), "{}", pseidon.log());
}

/// A server that takes connections and never answers: the sink cannot be opened, and that takes long.
#[test]
fn a_run_whose_sink_is_still_being_opened_stops_at_once() {
    let site = Site::new("opening");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    site.write(
        "pipeline.edn",
        format!(
            r#"{{:name "opening"
                src (generate {{:record {{:n "n"}} :rate 10}})
                pipeline (-> src (kafka {{:brokers "{address}" :topic "t"}}))}}"#
        ),
    );
    let mut pseidon = site.run("pipeline.edn");
    // The sink's client has come.
    let _connection = listener.accept().expect("a connection");
    pseidon.stop(60);
    assert!(!pseidon.log().contains("grace"), "{}", pseidon.log());
}
