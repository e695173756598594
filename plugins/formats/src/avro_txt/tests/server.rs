//! A schema registry for tests.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use pseidon_plugin::format::{Decoder, Format, WantedColumn};

use super::super::AvroTxt;

/// A schema registry that responds from a map of bodies and records its requests.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(super) struct State {
    /// Status and body for each id.
    pub(super) answers: HashMap<u32, (u16, String)>,
    /// The number of requests that get status 503 first.
    pub(super) refusals: usize,
    asked: Vec<String>,
}

impl Server {
    pub(super) fn start(schemas: &[(u32, &str)]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let body =
            |schema: &str| format!("{{\"schema\":{}}}", serde_json::to_string(schema).unwrap());
        let answers = schemas
            .iter()
            .map(|(id, schema)| (*id, (200, body(schema))))
            .collect();
        let state = Arc::new(Mutex::new(State {
            answers,
            ..State::default()
        }));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let request = lines.next().unwrap_or_default();
                let auth = lines
                    .take_while(|line| !line.is_empty())
                    .find(|line| line.to_lowercase().starts_with("authorization"));
                let mut state = shared.lock().unwrap();
                state.asked.push(
                    format!("{request} {}", auth.unwrap_or_default())
                        .trim()
                        .to_owned(),
                );
                let id = request
                    .split(' ')
                    .nth(1)
                    .and_then(|path| path.strip_prefix("/schemas/ids/")?.parse::<u32>().ok());
                let unknown = (404, "{\"error_code\":40403}".to_owned());
                let (status, body) = match state.refusals {
                    0 => id
                        .and_then(|id| state.answers.get(&id).cloned())
                        .unwrap_or(unknown),
                    _ => {
                        state.refusals -= 1;
                        (503, String::new())
                    }
                };
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
            }
        });
        Server { address, state }
    }

    pub(super) fn decoder(&self, settings: &str, columns: &[WantedColumn]) -> Box<dyn Decoder> {
        AvroTxt::default()
            .decoder(
                &format!("{settings};registry=http://{}", self.address),
                columns,
            )
            .unwrap()
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }
}
