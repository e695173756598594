//! Tests of slow clients of the REPL, in paused time, which advances when everything waits.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pseidon_plan::settings::TokenFor;
use pseidon_plugin::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex, split};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{in_paused_time, network_peer, registry};
use crate::guard::Access;
use crate::limits::Limits;
use crate::repl::serve_client;
use crate::status_pages::StatusPages;
use crate::tokens::Tokens;

/// How much the network between client and service holds.
const NETWORK: usize = 64;

/// A client, and the service that serves it.
struct Scene {
    client: DuplexStream,
    served: JoinHandle<io::Result<()>>,
    pages: Arc<StatusPages>,
    since: Instant,
}

impl Scene {
    fn new(token: Option<&str>) -> Scene {
        let json = pseidon_formats::json_lines;
        let (runs, _) = registry(Path::new(""), &["a"], true);
        let tokens = token.map(|token| Tokens::one(&Secret::new(token)).unwrap());
        let access = Access::new(tokens, TokenFor::Pages, &[]);
        let pages = Arc::new(StatusPages::new(runs, access, Limits::of_process(), json));
        let (client, stream) = duplex(NETWORK);
        let served = {
            let pages = pages.clone();
            tokio::spawn(async move {
                let (input, output) = split(stream);
                let peer = network_peer();
                let input = BufReader::new(input);
                serve_client(input, output, &pages, peer, Instant::now()).await
            })
        };
        Scene {
            client,
            served,
            pages,
            since: Instant::now(),
        }
    }

    async fn send(&mut self, bytes: &str) {
        self.client.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Reads until the reply ends.
    async fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let line = self.read_to("\n").await;
            reply.push_str(&line);
            if line == "\n" {
                return reply;
            }
        }
    }

    /// Reads until what was read ends with this.
    async fn read_to(&mut self, end: &str) -> String {
        let mut read = String::new();
        while !read.ends_with(end) {
            read.push(char::from(self.client.read_u8().await.unwrap()));
        }
        read
    }

    /// Waits until the service closes the connection; returns the reason and after how many
    /// seconds.
    async fn closed(self) -> (Option<io::ErrorKind>, u64) {
        let result = self.served.await.unwrap();
        let reason = result.err().map(|error| error.kind());
        (reason, self.since.elapsed().as_secs())
    }
}

const TIMED_OUT: Option<io::ErrorKind> = Some(io::ErrorKind::TimedOut);

#[test]
fn the_first_line_and_the_token_have_to_arrive_in_time() {
    in_paused_time(async {
        assert_eq!(Scene::new(None).closed().await, (TIMED_OUT, 10));

        let mut begun = Scene::new(None);
        begun.send("lo").await;
        assert_eq!(begun.closed().await, (TIMED_OUT, 10));

        let mut trickling = Scene::new(Some("s3cret"));
        for part in ["a", "u", "t", "h", " s3"] {
            trickling.send(part).await;
            tokio::time::sleep(Duration::from_millis(1900)).await;
        }
        assert_eq!(trickling.closed().await, (TIMED_OUT, 10));

        let mut nrepl = Scene::new(Some("s3cret"));
        for _ in 0..2 {
            nrepl.send("d2:op5:clonee").await;
            nrepl.read_to("4:doneee").await;
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        assert_eq!(nrepl.closed().await, (TIMED_OUT, 10), "without the token");
    });
}

#[test]
fn a_client_that_has_said_something_may_be_idle() {
    in_paused_time(async {
        let mut idle = Scene::new(None);
        idle.send("reset b\n").await;
        assert!(idle.reply().await.starts_with("error: unknown log"));
        assert_eq!(idle.closed().await, (TIMED_OUT, 900));

        let mut idle = Scene::new(Some("s3cret"));
        idle.send("auth s3cret\n").await;
        assert_eq!(idle.reply().await, "\n");
        assert_eq!(idle.closed().await, (TIMED_OUT, 900));
    });
}

#[test]
fn a_reply_has_to_be_received_in_time() {
    in_paused_time(async {
        let mut reader = Scene::new(None);
        reader.send("help\n").await;
        assert_eq!(reader.closed().await, (TIMED_OUT, 10));
    });
}

#[test]
fn a_wrong_token_is_answered_later() {
    in_paused_time(async {
        let mut guess = Scene::new(Some("s3cret"));
        guess.send("auth s3cre\n").await;
        assert_eq!(guess.reply().await, "error: invalid token\n\n");
        assert_eq!(guess.since.elapsed().as_millis(), 200);
        assert_eq!(guess.closed().await, (None, 0));
    });
}

#[test]
fn one_expression_is_evaluated_at_a_time() {
    in_paused_time(async {
        let mut scene = Scene::new(None);
        // An evaluation that does not end.
        std::mem::forget(scene.pages.evaluation.lock());
        scene.send("eval a in n\n").await;
        let reply = scene.reply().await;
        assert!(reply.starts_with("error: another expression"), "{reply}");
    });
}
