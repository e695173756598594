//! A run between its attempts: what it reports, and how it stops.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use crate::harness::output::{count_gapless, hidden};
use crate::harness::pipeline::state_in;
use crate::harness::redis::Redis;
use crate::harness::servers::{free_port, get};
use crate::harness::{Pseidon, Site, exchange, wait_until};

/// The sink's folder is replaced by a file: open files are lost, and no attempt can open the sink.
#[test]
fn a_run_that_restarts_repeatedly_is_unhealthy_and_reports_uncommitted_records() {
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
        block_output_folder(&site, &pseidon);
        wait_until("/health reports it", 90, || {
            get(port, "/health")
                .is_some_and(|(status, text)| status == 503 && text.contains("restarting because"))
        });
        if round == 0 {
            fs::remove_file(&out).expect("the file can be removed");
            wait_until("/health is ok", 120, || {
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
        pseidon.log().contains("are re-read at the next start"),
        "{}",
        pseidon.log()
    );
}

/// A graceful stop leaves nothing hidden, also one that comes while the sinks are being opened.
#[test]
fn a_stop_in_the_first_moments_leaves_nothing_hidden() {
    let site = Site::new("early-stop");
    site.write(
        "pipeline.edn",
        r#"{:name "early" src (generate {:record {:n "n"} :rate 1000})
            pipeline (-> src (files {:path "out" :codec :json}))}"#,
    );
    for _ in 0..100 {
        let mut pseidon = site.run("pipeline.edn");
        std::thread::sleep(site.random.millis(0..60));
        pseidon.terminate();
        pseidon.wait_exit(30);
        assert_eq!(
            hidden(&site.path("out")),
            Vec::<PathBuf>::new(),
            "{}",
            pseidon.log()
        );
    }
}

/// Replaces the sink's folder by a file while records are in an open file. Without an open file,
/// the sink waits instead of failing; then the folder is restored, and this is tried again.
fn block_output_folder(site: &Site, pseidon: &Pseidon) {
    let (out, moved) = (
        site.path("out"),
        site.path(&format!("moved-{}", pseidon.log().len())),
    );
    loop {
        // Replacing the folder while it is being created would end the run.
        wait_until("a file is open", 60, || {
            hidden(&out)
                .iter()
                .any(|path| path.extension().is_some_and(|end| end == "open"))
        });
        let count = |what: &str| pseidon.log().matches(what).count();
        let (restarts, waits) = (count("restarting from"), count("cannot write"));
        fs::write(&moved, "in the way").expect("a file");
        exchange(&out, &moved);
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

/// The server accepts connections and never answers: opening the sink takes long and fails.
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
    // The client of the sink has connected.
    let _connection = listener.accept().expect("a connection");
    pseidon.stop(60);
    assert!(!pseidon.log().contains("grace"), "{}", pseidon.log());
}

/// Two sinks clean up after a run that was killed. The store goes down after the first has done so.
#[test]
fn a_store_that_goes_down_while_sinks_are_opened_is_a_problem() {
    let site = Site::new("store-at-opening");
    let mut redis = Redis::start(&site);
    let port = free_port();
    let state = state_in(&site, &redis.url());
    site.write(
        "pipeline.edn",
        format!(
            r#"{{:name "opening" :settings {{:monitor-port {port} {state}}}
                src (generate {{:record {{:n "n"}} :rate 1000}})
                pipeline (-> src (all (files {{:path "out" :codec :json :rollover {{:records 50}}}})
                                      (files {{:path "copy" :codec :json :rollover {{:records 50}}}})))}}"#
        ),
    );
    let start = |variable: &str, step: &str| {
        let mut command = site.command("pipeline.edn");
        command.env(variable, format!("{step}:1"));
        site.start(command)
    };
    start("PSEIDON_FAIL", "committed").expect_death("committed", 60);
    let mut pseidon = start("PSEIDON_FREEZE", "republished");
    wait_until("it cleans up", 60, || pseidon.is_frozen());
    redis.kill();
    pseidon.wake();
    wait_until("/health reports it", 60, || {
        get(port, "/health").is_some_and(|(status, text)| {
            status == 503 && text.contains("state store does not answer")
        })
    });
    redis.up(&site);
    wait_until("/health is ok", 60, || {
        get(port, "/health").is_some_and(|(status, _)| status == 200)
    });
    pseidon.stop(60);
    count_gapless(&site.path("out"));
    count_gapless(&site.path("copy"));
}
