//! Schemas from a Confluent schema registry: `GET {address}/schemas/ids/{id}`.
//!
//! A schema never changes, so it is fetched once. A registry that cannot be reached says nothing
//! about the records, so they are read again later; an id that it does not know does. Threads that
//! have other work must not wait for it, so it is asked by one of them at a time, and not at every
//! turn while it is away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// The registries by address.
#[derive(Default)]
pub(super) struct Registries(Mutex<HashMap<String, Arc<Registry>>>);

impl Registries {
    /// The registry at this address.
    pub(super) fn at(&self, address: &str) -> Arc<Registry> {
        lock(&self.0)
            .entry(address.to_owned())
            .or_insert_with(|| Arc::new(Registry::new(address)))
            .clone()
    }
}

/// A registry, with what it has said. Shared by threads.
pub(super) struct Registry {
    address: String,
    agent: Agent,
    answers: Mutex<HashMap<u32, Answer>>,
    /// Held by the one thread that asks.
    asking: Mutex<()>,
    /// Why it could not be asked the last time, and when that was.
    trouble: Mutex<Option<(String, Instant)>>,
}

/// What a registry says of an id.
#[derive(Clone)]
pub(super) enum Answer {
    /// The schema, as JSON.
    Schema(Arc<str>),
    /// Why there is none, and when it said so: an id may become known.
    None(String, Instant),
}

/// How long an unknown id is taken for unknown.
const UNKNOWN: Duration = Duration::from_secs(30);
/// Broken records make ids up, so what is unknown is not kept without end.
const MOST_ANSWERS: usize = 10_000;
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a registry that could not be asked is left alone.
const PAUSE: Duration = Duration::from_secs(2);

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
        let tls = TlsConfig::builder()
            .provider(TlsProvider::NativeTls)
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .tls_config(tls)
            .build();
        Registry {
            address: address.to_owned(),
            agent: config.into(),
            answers: Mutex::default(),
            asking: Mutex::new(()),
            trouble: Mutex::default(),
        }
    }

    /// What it says of this id. The error says why it cannot be asked just now.
    pub(super) fn schema(&self, id: u32) -> Result<Answer, String> {
        if let Some(known) = self.known(id) {
            return Ok(known);
        }
        let trouble = lock(&self.trouble).clone();
        let _asking = match trouble {
            None => lock(&self.asking),
            Some((trouble, _)) => match self.asking.try_lock() {
                Ok(asking) => asking,
                Err(TryLockError::Poisoned(asking)) => asking.into_inner(),
                Err(TryLockError::WouldBlock) => return Err(trouble),
            },
        };
        // Another thread may have asked meanwhile.
        if let Some(known) = self.known(id) {
            return Ok(known);
        }
        if let Some((trouble, since)) = lock(&self.trouble).as_ref()
            && since.elapsed() < PAUSE
        {
            return Err(trouble.clone());
        }
        match self.ask(id) {
            Ok(answer) => {
                *lock(&self.trouble) = None;
                self.keep(id, answer.clone());
                Ok(answer)
            }
            Err(error) => {
                let trouble = format!(
                    "the schema registry {} cannot be asked for schema {id}: {error}",
                    self.shown()
                );
                *lock(&self.trouble) = Some((trouble.clone(), Instant::now()));
                Err(trouble)
            }
        }
    }

    fn known(&self, id: u32) -> Option<Answer> {
        let known = lock(&self.answers).get(&id).cloned();
        known.filter(
            |answer| !matches!(answer, Answer::None(_, since) if since.elapsed() >= UNKNOWN),
        )
    }

    fn keep(&self, id: u32, answer: Answer) {
        let mut answers = lock(&self.answers);
        if answers.len() >= MOST_ANSWERS {
            answers.retain(|_, answer| matches!(answer, Answer::Schema(_)));
        }
        answers.insert(id, answer);
    }

    /// Asks once. The error says why the registry cannot be asked just now.
    fn ask(&self, id: u32) -> Result<Answer, String> {
        let none = |reason| Ok(Answer::None(reason, Instant::now()));
        let mut response = self
            .agent
            .get(format!("{}/schemas/ids/{id}", self.address))
            .call()
            .map_err(|error| error.to_string())?;
        match response.status().as_u16() {
            200 => {}
            404 => return none(format!("the schema registry knows no schema {id}")),
            status => return Err(format!("it answers with the status {status}")),
        }
        let text = response
            .body_mut()
            .read_to_string()
            .map_err(|error| error.to_string())?;
        let body: Body = sonic_rs::from_str(&text)
            .map_err(|_| "its answer is not that of a schema registry".to_owned())?;
        match body.kind {
            Some(kind) if kind != "AVRO" => {
                none(format!("schema {id} is of the type {kind}, not AVRO"))
            }
            _ if !body.references.is_empty() => none(format!(
                "schema {id} refers to other schemas, which avro-txt cannot follow"
            )),
            _ => Ok(Answer::Schema(body.schema.into())),
        }
    }

    /// The address without user and password.
    fn shown(&self) -> &str {
        self.address
            .rsplit_once('@')
            .map_or(self.address.as_str(), |(_, host)| host)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
