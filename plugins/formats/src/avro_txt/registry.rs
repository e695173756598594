//! Schemas from a Confluent schema registry: `GET {address}/schemas/ids/{id}`.
//!
//! A schema never changes, so it is fetched once. A registry that cannot be reached says nothing about the records, so whoever asks waits for
//! it; an id that it does not know does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tracing::{info, warn};
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// The registries by address.
#[derive(Default)]
pub(super) struct Registries(Mutex<HashMap<String, Arc<Registry>>>);

impl Registries {
    /// The registry at this address.
    pub(super) fn at(&self, address: &str) -> Arc<Registry> {
        lock(&self.0).entry(address.to_owned()).or_insert_with(|| Arc::new(Registry::new(address))).clone()
    }
}

/// A registry, with what it has said. Shared by threads.
pub(super) struct Registry {
    address: String,
    agent: Agent,
    answers: Mutex<HashMap<u32, Answer>>,
    /// Held by the one thread that asks.
    asking: Mutex<()>,
}

#[derive(Clone)]
enum Answer {
    Schema(Arc<str>),
    /// Why there is none, and when it said so: an id may become known.
    None(String, Instant),
}

/// How long an unknown id is taken for unknown.
const UNKNOWN: Duration = Duration::from_secs(30);
/// Broken records make ids up, so what is unknown is not kept without end.
const MOST_ANSWERS: usize = 10_000;
const TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the registry answers with.
#[derive(Deserialize)]
struct Body {
    schema: String,
    #[serde(default, rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<serde::de::IgnoredAny>,
}

impl Registry {
    fn new(address: &str) -> Registry {
        let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).tls_config(tls).build();
        Registry { address: address.to_owned(), agent: config.into(), answers: Mutex::default(), asking: Mutex::new(()) }
    }

    /// The schema of this id, as JSON. Waits for as long as the registry does not answer. The error says why there is no such schema.
    pub(super) fn schema(&self, id: u32) -> Result<Arc<str>, String> {
        if let Some(known) = self.known(id) {
            return known;
        }
        let _asking = lock(&self.asking);
        // Another thread may have asked meanwhile.
        if let Some(known) = self.known(id) {
            return known;
        }
        let answer = self.wait_for(id);
        let mut answers = lock(&self.answers);
        if answers.len() >= MOST_ANSWERS {
            answers.retain(|_, answer| matches!(answer, Answer::Schema(_)));
        }
        answers.insert(id, answer.clone());
        answer.into_result()
    }

    fn known(&self, id: u32) -> Option<Result<Arc<str>, String>> {
        match lock(&self.answers).get(&id)? {
            Answer::None(_, since) if since.elapsed() >= UNKNOWN => None,
            answer => Some(answer.clone().into_result()),
        }
    }

    fn wait_for(&self, id: u32) -> Answer {
        let mut pause = FIRST_PAUSE;
        let mut waiting = false;
        loop {
            match self.ask(id) {
                Ok(answer) => {
                    if waiting {
                        info!(registry = self.shown(), "the schema registry answers again");
                    }
                    return answer;
                }
                Err(error) if !waiting => {
                    warn!(registry = self.shown(), id, error, "cannot get a schema from the registry; records wait for it");
                    waiting = true;
                }
                Err(_) => {}
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Asks once. The error says why the registry cannot be asked just now.
    fn ask(&self, id: u32) -> Result<Answer, String> {
        let none = |reason| Ok(Answer::None(reason, Instant::now()));
        let mut response = self.agent.get(format!("{}/schemas/ids/{id}", self.address)).call().map_err(|error| error.to_string())?;
        match response.status().as_u16() {
            200 => {}
            404 => return none(format!("the schema registry knows no schema {id}")),
            status => return Err(format!("it answers with the status {status}")),
        }
        let text = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
        let body: Body = sonic_rs::from_str(&text).map_err(|_| "its answer is not that of a schema registry".to_owned())?;
        match body.kind {
            Some(kind) if kind != "AVRO" => none(format!("schema {id} is of the type {kind}, not AVRO")),
            _ if !body.references.is_empty() => none(format!("schema {id} refers to other schemas, which avro-txt cannot follow")),
            _ => Ok(Answer::Schema(body.schema.into())),
        }
    }

    /// The address without user and password.
    fn shown(&self) -> &str {
        self.address.rsplit_once('@').map_or(self.address.as_str(), |(_, host)| host)
    }
}

impl Answer {
    fn into_result(self) -> Result<Arc<str>, String> {
        match self {
            Answer::Schema(schema) => Ok(schema),
            Answer::None(reason, _) => Err(reason),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
