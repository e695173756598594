//! Who may use the service of a run: tokens with roles, TLS, Unix sockets.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::harness::redis::Redis;
use crate::harness::servers::{ReplClient, free_port, get, get_with, post};
use crate::harness::{Pseidon, Site, wait_until};

const VIEWER: &str = "token-of-the-viewer";
const DEPLOY: &str = "token-of-the-deployment";
const SUPPORT: &str = "token-of-the-support";

/// A run with an HTTP port and a REPL, some of whose records are invalid.
struct Scene {
    pseidon: Pseidon,
    port: u16,
    repl_port: u16,
    /// Dropped last.
    site: Site,
}

impl Scene {
    /// Starts a run whose `tokens` are in a file, and waits until records were invalid.
    fn start(test: &str, tokens: &str) -> Scene {
        let site = Site::new(test);
        let (port, repl_port) = (free_port(), free_port());
        site.write(
            "pipeline.edn",
            format!(
                r#"{{:name "guarded"
                    :settings {{:monitor-port {port} :repl-port {repl_port} :token-file "tokens"}}
                    in (generate {{:record {{:n "n" :card "case when n % 50 = 7 then '4111x' else '1' end"}} :rate 500}})
                    cast (select "cast(card as int32) as card" {{:on-error :noop}})
                    pipeline (-> in cast (drop))}}"#
            ),
        );
        write_tokens(&site, tokens);
        let scene = Scene {
            pseidon: site.start(site.command("pipeline.edn")),
            port,
            repl_port,
            site,
        };
        wait_until("records are invalid", 30, || {
            let metrics = get(port, "/metrics").unwrap_or_default().1;
            metrics.contains("\"guarded\":")
        });
        scene
    }

    fn repl(&self, token: &str) -> ReplClient {
        let mut repl = ReplClient::open(self.repl_port);
        assert!(repl.send(&format!("auth {token}")).is_empty());
        repl
    }
}

fn write_tokens(site: &Site, tokens: &str) {
    let path = site.write("tokens", tokens);
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("it is ours");
}

#[test]
fn a_token_allows_what_its_roles_say() {
    let tokens = format!(
        "# NAME ROLES TOKEN\nviewer read {VIEWER}\ndeploy operate {DEPLOY}\nsupport read,records {SUPPORT}\n"
    );
    let mut scene = Scene::start("roles", &tokens);
    let port = scene.port;
    let config = |token| get_with(port, "/config", token).expect("an answer");
    let pause = |token| post(port, "/pause", token).expect("an answer");
    assert_eq!((config(VIEWER).0, pause(DEPLOY).0), (200, 200));
    let refused = |role| {
        let error = format!("{{\"error\":\"the token does not have the role `{role}`\"}}\n");
        (403, error)
    };
    assert_eq!(config(DEPLOY), refused("read"));
    assert_eq!(pause(SUPPORT), refused("operate"));
    assert_eq!(pause(""), post(port, "/pause", "x").expect("an answer"));

    let errors = scene.repl(SUPPORT).send("errors").join("\n");
    assert!(errors.contains("4111x"), "{errors}");
    let errors = scene.repl(VIEWER).send("errors").join("\n");
    assert!(errors.contains("cast "), "{errors}");
    assert!(!errors.contains("4111"), "{errors}");
    let last = scene.repl(VIEWER).send("last in 1");
    assert_eq!(last, ["error: the token does not have the role `records`"]);

    let log = scene.pseidon.log();
    for line in [
        r#"token="deploy" interface="http" action="pause""#,
        r#"token="support" interface="repl" action="errors""#,
        r#"token="viewer" interface="repl" action="errors""#,
    ] {
        assert!(log.contains(line), "{line} is not in {log}");
    }
    assert!(!log.contains("token-of-the"), "{log}");
    scene.pseidon.stop(30);
}

#[test]
fn tokens_are_read_again_on_sighup() {
    let scene_of = |token: &str| format!("viewer read {token}\n");
    let mut scene = Scene::start("tokens-hangup", &scene_of(VIEWER));
    let status = |token: &str| get_with(scene.port, "/config", token).map(|(status, _)| status);
    write_tokens(&scene.site, "viewer read short\n");
    scene.pseidon.hang_up();
    wait_until("the invalid file is reported", 30, || {
        scene
            .pseidon
            .log()
            .contains("line 1: the token is too short")
    });
    assert_eq!(status(VIEWER), Some(200), "the earlier token is valid");
    write_tokens(&scene.site, &scene_of(DEPLOY));
    scene.pseidon.hang_up();
    wait_until("the new token is valid", 30, || status(DEPLOY) == Some(200));
    assert_eq!(status(VIEWER), Some(401));
    scene.pseidon.stop(30);
}

#[test]
fn a_hangup_does_not_end_a_process_that_is_starting() {
    let site = Site::new("tokens-early-hangup");
    let (mut redis, port) = (Redis::down(), free_port());
    write_tokens(&site, &format!("viewer read {VIEWER}\n"));
    let settings = format!(
        r#":state "{}" :monitor-port {port} :token-file "tokens""#,
        redis.url()
    );
    site.write(
        "pipeline.edn",
        format!(
            r#"{{:settings {{{settings}}}
                in (generate {{:record {{:n "n"}} :rate 100}})
                pipeline (-> in (drop))}}"#
        ),
    );
    let mut pseidon = site.run("pipeline.edn");
    wait_until("it waits for the state", 30, || {
        pseidon.log().contains("state store does not answer")
    });
    pseidon.hang_up();
    redis.up(&site);
    wait_until("the service has started", 60, || {
        get_with(port, "/config", VIEWER).is_some_and(|(status, _)| status == 200)
    });
    pseidon.stop(30);
}

/// Writes a certificate that signs itself, and its key.
fn write_certificate(site: &Site, name: &str) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    site.write(&format!("{name}.pem"), own.cert.pem());
    let key = site.write(&format!("{name}-key.pem"), own.signing_key.serialize_pem());
    fs::set_permissions(key, PermissionsExt::from_mode(0o600)).expect("it is ours");
}

/// The exit code and the output of `pseidon status`.
fn status(site: &Site, url: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = site.pseidon();
    let output = command.args(["status", url]).args(arguments).output();
    let output = output.expect("the binary can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text + &errors)
}

#[test]
fn status_is_read_over_tls_with_a_client_certificate() {
    let site = Site::new("tls");
    let port = free_port();
    write_certificate(&site, "server");
    write_certificate(&site, "client");
    site.write(
        "pipeline.edn",
        format!(
            r#"{{:name "encrypted"
                :settings {{:monitor-port {port}
                           :tls {{:cert "server.pem" :key "server-key.pem" :client-ca "client.pem"}}}}
                pipeline (-> (generate {{:record {{:n "n"}} :rate 500}}) (drop))}}"#
        ),
    );
    let mut pseidon = site.run("pipeline.edn");
    let url = format!("https://localhost:{port}");
    let status = |arguments: &[&str]| status(&site, &url, arguments);
    let own = [
        "--ca",
        "server.pem",
        "--cert",
        "client.pem",
        "--key",
        "client-key.pem",
    ];
    wait_until("the status is shown", 30, || status(&own).0 == Some(0));
    let (_, text) = status(&own);
    assert!(text.contains("records "), "{text}");
    let (code, text) = status(&[]);
    assert!(code == Some(1) && text.contains("--ca"), "{text}");
    let (code, text) = status(&["--ca", "server.pem"]);
    assert!(code == Some(1), "without a certificate: {text}");
    let (code, text) = status(&["--ca", "missing.pem"]);
    assert!(
        code == Some(1) && text.contains("cannot read missing.pem"),
        "{text}"
    );

    let posted = Command::new("curl")
        .args(["--silent", "--cacert", "server.pem", "--cert", "client.pem"])
        .args(["--key", "client-key.pem", "-X", "POST"])
        .arg(format!("https://localhost:{port}/roll"))
        .current_dir(site.path(""))
        .output()
        .expect("curl can be started");
    let answer = String::from_utf8_lossy(&posted.stdout);
    assert!(answer.contains("\"action\":\"roll\""), "{answer}");
    let log = pseidon.log();
    let fingerprint = |line: &str| {
        let from = line.split("certificate=\"").nth(1)?;
        let fingerprint = from.split('"').next()?;
        (fingerprint.len() == 64).then(|| fingerprint.to_owned())
    };
    let acted = log.lines().find(|line| line.contains("action=\"roll\""));
    assert!(acted.and_then(fingerprint).is_some(), "{log}");
    assert!(log.contains("no valid client certificate"), "{log}");

    write_certificate(&site, "server");
    pseidon.hang_up();
    wait_until("the new certificate is trusted", 30, || {
        status(&own).0 == Some(0)
    });
    pseidon.stop(30);
}

#[test]
fn sockets_serve_the_user_of_the_process_and_root() {
    let site = Site::new("sockets");
    site.write(
        "pipeline.edn",
        r#"{:name "local"
            :settings {:repl true :monitor-socket "http.sock" :token "not-for-its-sockets"}
            pipeline (-> (generate {:record {:n "n"} :rate 500}) (drop))}"#,
    );
    let mut pseidon = site.run("pipeline.edn");
    let (http, repl) = (site.path("http.sock"), site.path(".pseidon/local.sock"));
    wait_until("it listens", 30, || http.exists() && repl.exists());
    let stdout = |mut command: Command| {
        let output = command.current_dir(site.path("")).output();
        let output = output.expect("the program can be started");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let mut status = site.pseidon();
    status
        .args(["status", "unix:http.sock"])
        .env_remove("PSEIDON_TOKEN");
    let text = stdout(status);
    assert!(text.contains("records "), "{text}");
    let curl = |method: &str| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--unix-socket", "http.sock", "-X", method]);
        curl.arg("http://any.example/roll");
        curl
    };
    let answer = stdout(curl("POST"));
    assert!(answer.contains("\"action\":\"roll\""), "{answer}");

    let mut stream = UnixStream::connect(&repl).expect("it listens");
    stream.write_all(b"logs\nquit\n").expect("it reads");
    let mut replies = String::new();
    stream.read_to_string(&mut replies).expect("text");
    assert!(replies.starts_with("local running"), "{replies}");

    let uid = rustix::process::geteuid().as_raw();
    let log = pseidon.log();
    let acted = format!("audit: action peer=unix:uid={uid},pid=");
    assert!(log.contains(&acted), "{log}");
    let own = format!(
        "peer=unix:uid={uid},pid={} interface=\"repl\" action=\"logs\"",
        std::process::id()
    );
    assert!(log.contains(&own), "{log}");

    if rustix::process::geteuid().is_root() {
        // Whatever the modes of the files say.
        for path in [&site.path(""), &http] {
            fs::set_permissions(path, PermissionsExt::from_mode(0o777)).expect("it is ours");
        }
        assert_eq!(stdout(site.without_privileges(curl("POST"))), "");
        let log = pseidon.log();
        assert!(log.contains("refused peer=unix:uid=65534,pid="), "{log}");
    }
    pseidon.stop(30);
    assert!(!http.exists() && !repl.exists(), "they are removed");
}

#[test]
fn the_socket_of_a_killed_run_is_replaced() {
    let site = Site::new("stale-socket");
    site.write(
        "pipeline.edn",
        r#"{:name "local" :settings {:repl true}
            pipeline (-> (generate {:record {:n "n"} :rate 500}) (drop))}"#,
    );
    let repl = site.path(".pseidon/local.sock");
    let is_served = || UnixStream::connect(&repl).is_ok();
    let mut killed = site.run("pipeline.edn");
    wait_until("it listens", 30, is_served);
    killed.kill();
    assert!(repl.exists() && !is_served());
    let mut pseidon = site.run("pipeline.edn");
    wait_until("it listens again", 30, is_served);
    pseidon.stop(30);
}
