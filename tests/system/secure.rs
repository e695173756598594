//! Brokers with TLS and authentication.

use crate::harness::feed::Feeder;
use crate::harness::output::{files, lines};
use crate::harness::{Site, server};

/// A pipeline that reads a topic and writes it to another one, both over TLS with these
/// credentials.
fn pipeline(topic: &str, mechanism: &str, password: &str) -> String {
    let (brokers, ca) = (
        server("PSEIDON_TEST_KAFKA_SECURE"),
        server("PSEIDON_TEST_KAFKA_CA"),
    );
    let connection = format!(
        r#":brokers "{brokers}" :tls {{:ca "{ca}"}} :sasl {{:mechanism :{mechanism} :username "pseidon" :password "${{env:{password}}}"}}"#
    );
    format!(
        r#"{{in  (kafka {{{connection} :topics ["{topic}"] :group "{topic}-{mechanism}" :start :earliest :until :latest :format "raw"}})
            out (kafka {{{connection} :topic "{topic}-{mechanism}" :format :raw}})
            pipeline (-> in (all out (files {{:path "out" :codec :raw}})))}}"#
    )
}

#[test]
fn records_pass_over_tls_with_each_mechanism() {
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let site = Site::new(&format!("secure-{}", mechanism.to_lowercase()));
        let topic = site.name.clone();
        Feeder::new(&topic, 3).send(500);
        site.write(
            "pipeline.edn",
            pipeline(&topic, mechanism, "PSEIDON_TEST_PASSWORD"),
        );
        let mut command = site.command("pipeline.edn");
        command.env("PSEIDON_TEST_PASSWORD", "secret");
        site.start(command).expect_exit(0, 60);
        let written: usize = files(&site.path("out"))
            .iter()
            .map(|path| lines(path).len())
            .sum();
        assert_eq!(written, 500, "{mechanism}");
        let sent: usize = crate::harness::topics::committed(&format!("{topic}-{mechanism}"))
            .iter()
            .map(Vec::len)
            .sum();
        assert_eq!(sent, 500, "{mechanism}");
    }
}

#[test]
fn a_wrong_password_ends_the_run_and_is_not_shown() {
    let site = Site::new("secure-wrong");
    let topic = site.name.clone();
    Feeder::new(&topic, 3).send(1);
    // Only the source authenticates: a sink would report the error and wait, so that records that
    // were read are not lost while a password is being changed.
    let to_kafka_too = pipeline(&topic, "PLAIN", "PSEIDON_TEST_PASSWORD");
    let source = to_kafka_too.lines().next().expect("the source's line");
    site.write(
        "pipeline.edn",
        format!("{source} pipeline (-> in (files {{:path \"out\" :codec :raw}}))}}"),
    );
    let mut command = site.command("pipeline.edn");
    command.env("PSEIDON_TEST_PASSWORD", "guessed-wrong");
    let mut run = site.start(command);
    run.expect_exit(1, 60);
    let log = run.log();
    let denied = format!(
        "error: source `in`: {} refused access: ",
        server("PSEIDON_TEST_KAFKA_SECURE")
    );
    let reason = "Authentication failed: Invalid username or password";
    assert!(
        log.lines()
            .any(|line| line.starts_with(&denied) && line.contains(reason)),
        "{log}"
    );
    assert!(!log.contains("guessed-wrong"), "{log}");
}
