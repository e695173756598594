//! What a run says and does while it is between attempts.

use std::fs;
use std::net::TcpListener;

use crate::harness::output::hidden;
use crate::harness::servers::{free_port, get};
use crate::harness::{Pseidon, Site, wait_until};

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
                pipeline (-> src (files {{:path "out" :codec :json :rollover {{:age "3s"}}}}))}}"#
        ),
    );
    let mut pseidon = site.run("pipeline.edn");
    let out = site.path("out");
    for round in 0..2 {
        put_in_the_way(&site, &pseidon);
        wait_until("/health says it", 90, || {
            get(port, "/health")
                .is_some_and(|(status, text)| status == 503 && text.contains("restarting because"))
        });
        if round == 0 {
            fs::remove_file(&out).expect("the file can be removed");
            wait_until("all is well", 120, || {
                get(port, "/health").is_some_and(|(status, _)| status == 200)
            });
        }
    }
    wait_until("it waits for its next attempt", 60, || {
        pseidon
            .log()
            .matches("restarting from the committed positions")
            .count()
            > 2
    });
    pseidon.terminate();
    pseidon.expect_exit(1, 60);
    assert!(
        pseidon.log().contains("are read again at the next start"),
        "{}",
        pseidon.log()
    );
}

/// Replaces the sink's folder by a file while records are in a file that is open. Without such a
/// file the sink waits instead of failing; then it gets its folder back, for another try.
fn put_in_the_way(site: &Site, pseidon: &Pseidon) {
    let (out, moved) = (
        site.path("out"),
        site.path(&format!("moved-{}", pseidon.log().len())),
    );
    loop {
        // A folder that is only being made is one that cannot be opened, and ends the run.
        wait_until("a file is open", 60, || {
            hidden(&out)
                .iter()
                .any(|path| path.extension().is_some_and(|end| end == "open"))
        });
        let count = |what: &str| pseidon.log().matches(what).count();
        let (restarts, waits) = (count("restarting from"), count("cannot write"));
        fs::rename(&out, &moved).expect("the folder can be moved");
        site.write("out", "in the way");
        wait_until("it fails or waits", 60, || {
            count("restarting from") > restarts || count("cannot write") > waits
        });
        if count("restarting from") > restarts {
            return;
        }
        fs::remove_file(&out).expect("the file can be removed");
        fs::rename(&moved, &out).expect("the folder can be moved back");
        wait_until("it writes again", 60, || {
            count("can write again") > 0 || count("restarting from") > restarts
        });
    }
}

/// A server that takes connections and never answers: the sink cannot be opened, and that takes
/// long.
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
