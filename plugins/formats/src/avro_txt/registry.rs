//! A client of a Confluent schema registry: `GET {address}/schemas/ids/{id}`.
//!
//! A schema never changes, so it is fetched once. If a registry is unreachable, its records may
//! still be valid, so the batch is retried later; if a registry does not have an ID, or its
//! response has no schema, the record is bad. Only one thread at a time sends a request to a
//! registry, and after a failure there is a pause before the next one, in which all get the same
//! error at once.
//!
//! The IDs are what the records say, so a record with a made-up ID must neither stop the pipeline
//! nor cost much: after [`MAX_UNKNOWN`] IDs that a registry does not have, it is asked for no other
//! for a while.

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use pseidon_delivery::Reason;
use serde::Deserialize;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// The registries that have been used, by address.
#[derive(Default)]
pub(super) struct Registries(Mutex<HashMap<String, Arc<SchemaRegistry>>>);

impl Registries {
    /// The registry at this address. The same address always returns the same registry.
    pub(super) fn at(&self, address: &str) -> Arc<SchemaRegistry> {
        lock(&self.0)
            .entry(address.to_owned())
            .or_insert_with(|| Arc::new(SchemaRegistry::new(address)))
            .clone()
    }
}

/// A registry, with a cache of its responses. Shared by threads.
pub(super) struct SchemaRegistry {
    address: String,
    agent: Agent,
    cache: Mutex<HashMap<u32, SchemaLookup>>,
    /// Locked by the one thread that sends a request.
    request_lock: Mutex<()>,
    /// The last request's error and when it occurred; `None` after a success.
    failure: Mutex<Option<(Reason, Instant)>>,
    unknown: Mutex<UnknownIds>,
    /// The largest ID that it has.
    largest: AtomicU32,
}

/// How many IDs were unknown in the current period of [`UNKNOWN_TTL`].
struct UnknownIds {
    since: Instant,
    count: usize,
    /// Whether a warning was logged about a response without a schema.
    is_reported: bool,
}

impl UnknownIds {
    fn new() -> UnknownIds {
        UnknownIds {
            since: Instant::now(),
            count: 0,
            is_reported: false,
        }
    }

    /// Begins a new period if the last one is over.
    fn current(&mut self) -> &mut UnknownIds {
        if self.since.elapsed() >= UNKNOWN_TTL {
            *self = UnknownIds::new();
        }
        self
    }
}

/// A registry's response for a schema ID.
#[derive(Clone)]
pub(super) enum SchemaLookup {
    /// The schema, as JSON.
    Schema(Arc<str>),
    /// The reason why there is no schema, and when the registry responded: an ID may be registered
    /// later.
    Unknown(String, Instant),
    /// The reason why the schema cannot be used.
    Unusable(String),
}

/// How long the response for an unknown ID is cached.
pub(super) const UNKNOWN_TTL: Duration = Duration::from_secs(30);
/// The size of the cache. Corrupt records contain random IDs, so responses for unknown IDs are
/// evicted when the cache is full.
const MAX_CACHED: usize = 10_000;
/// How many unknown IDs a registry is asked for in a period of [`UNKNOWN_TTL`]. Real IDs are
/// counted upwards from 1 and are asked for first, and records rarely have more than a few new
/// ones.
pub(super) const MAX_UNKNOWN: usize = 100;
/// The same for IDs up to the largest that the registry has, and some beyond it: real IDs are asked
/// for although another log, perhaps of another registry, has many that are unknown.
const MAX_UNKNOWN_NEAR: usize = 1000;
/// How far beyond the largest known ID the next real ones are.
const NEAR: u32 = 1000;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long no request is sent after a failed one.
pub(super) const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// The body of a successful response.
#[derive(Deserialize)]
struct SchemaResponse {
    schema: String,
    #[serde(default, rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<serde::de::IgnoredAny>,
}

impl SchemaRegistry {
    fn new(address: &str) -> SchemaRegistry {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::NativeTls)
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST_TIMEOUT))
            .tls_config(tls)
            .build();
        SchemaRegistry {
            address: address.to_owned(),
            agent: config.into(),
            cache: Mutex::default(),
            request_lock: Mutex::new(()),
            failure: Mutex::default(),
            unknown: Mutex::new(UnknownIds::new()),
            largest: AtomicU32::new(0),
        }
    }

    /// Returns the schema with this ID. The error says why the registry is unavailable.
    pub(super) fn schema(&self, id: u32) -> Result<SchemaLookup, Reason> {
        if let Some(answer) = self.cached(id) {
            return Ok(answer);
        }
        let failure = lock(&self.failure).clone();
        let _guard = match failure {
            None => lock(&self.request_lock),
            Some((failure, _)) => match self.request_lock.try_lock() {
                Ok(request_lock) => request_lock,
                Err(TryLockError::Poisoned(request_lock)) => request_lock.into_inner(),
                Err(TryLockError::WouldBlock) => return Err(failure),
            },
        };
        // Another thread may have fetched it in the meantime.
        if let Some(answer) = self.cached(id) {
            return Ok(answer);
        }
        if let Some((failure, since)) = lock(&self.failure).as_ref()
            && since.elapsed() < RETRY_PAUSE
        {
            return Err(failure.clone());
        }
        match self.request(id) {
            Ok(answer) => {
                *lock(&self.failure) = None;
                self.store(id, answer.clone());
                Ok(answer)
            }
            Err(error) => {
                let what = format!(
                    "cannot fetch schema {id} from schema registry {}",
                    self.display_address()
                );
                let failure = Reason::caused_by(what, error);
                *lock(&self.failure) = Some((failure.clone(), Instant::now()));
                Err(failure)
            }
        }
    }

    /// The response for this id, unless a request has to be sent.
    pub(super) fn cached(&self, id: u32) -> Option<SchemaLookup> {
        let cached = lock(&self.cache).get(&id).cloned();
        let cached = cached.filter(|answer| match answer {
            SchemaLookup::Schema(_) | SchemaLookup::Unusable(_) => true,
            SchemaLookup::Unknown(_, since) => since.elapsed() < UNKNOWN_TTL,
        });
        cached.or_else(|| self.refused(id))
    }

    /// The response for an id if too many ids were unknown in this period.
    fn refused(&self, id: u32) -> Option<SchemaLookup> {
        let is_near = id <= self.largest.load(Ordering::Relaxed).saturating_add(NEAR);
        let most = if is_near {
            MAX_UNKNOWN_NEAR
        } else {
            MAX_UNKNOWN
        };
        let mut unknown = lock(&self.unknown);
        (unknown.current().count >= most).then(|| {
            let reason = format!(
                "schema {id} was not looked up, because the schema registry did not have {most} \
                 other schemas"
            );
            SchemaLookup::Unknown(reason, unknown.since)
        })
    }

    fn store(&self, id: u32, answer: SchemaLookup) {
        match answer {
            SchemaLookup::Unknown(..) => self.count_unknown(),
            SchemaLookup::Schema(_) | SchemaLookup::Unusable(_) => {
                self.largest.fetch_max(id, Ordering::Relaxed);
            }
        }
        let mut cache = lock(&self.cache);
        if cache.len() >= MAX_CACHED {
            cache.retain(|_, answer| !matches!(answer, SchemaLookup::Unknown(..)));
        }
        cache.insert(id, answer);
    }

    fn count_unknown(&self) {
        let mut unknown = lock(&self.unknown);
        let unknown = unknown.current();
        unknown.count += 1;
        if unknown.count == MAX_UNKNOWN {
            tracing::warn!(
                registry = self.display_address(),
                "the schema registry does not have the schemas of many records; records with other \
                 new schemas are invalid for {UNKNOWN_TTL:?}"
            );
        }
    }

    /// The response for an id whose request was answered without a schema. The first one of a
    /// period is logged: it can be an error of the registry.
    fn without_schema(&self, id: u32, what: &str) -> SchemaLookup {
        let mut unknown = lock(&self.unknown);
        let is_reported = std::mem::replace(&mut unknown.current().is_reported, true);
        if !is_reported {
            tracing::warn!(
                registry = self.display_address(),
                schema = id,
                "{what}; its records are invalid"
            );
        }
        SchemaLookup::Unknown(format!("schema {id}: {what}"), Instant::now())
    }

    /// Sends one request. The error says why the registry is unavailable.
    fn request(&self, id: u32) -> Result<SchemaLookup, Box<dyn Error + Send + Sync>> {
        let unknown = |reason| Ok(SchemaLookup::Unknown(reason, Instant::now()));
        let mut response = self
            .agent
            .get(format!("{}/schemas/ids/{id}", self.address))
            .call()?;
        let status = response.status().as_u16();
        match status {
            // What depends on the caller and not on the ID: its login, its speed.
            401 | 403 | 408 | 429 => return Err(unexpected_status(status)),
            200 | 400..500 => {}
            _ => return Err(unexpected_status(status)),
        }
        let bytes = match response.body_mut().read_to_vec() {
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                let what = "the response of the schema registry is too large";
                return Ok(self.without_schema(id, what));
            }
            bytes => bytes?,
        };
        // A proxy, a page for a login or one about maintenance says nothing about an ID.
        let is_of_registry = sonic_rs::from_slice::<sonic_rs::Object>(&bytes).is_ok();
        match status {
            200 if is_of_registry => {}
            200 => return Err("the response is not JSON".into()),
            _ if !is_of_registry => return Err(unexpected_status(status)),
            404 => return unknown(format!("schema {id} does not exist in the schema registry")),
            _ => {
                return unknown(format!(
                    "schema {id} is not available: the schema registry responded with HTTP status \
                     {status}"
                ));
            }
        }
        let Ok(body) = sonic_rs::from_slice::<SchemaResponse>(&bytes) else {
            let what = "the response of the schema registry has no schema";
            return Ok(self.without_schema(id, what));
        };
        Ok(match body.kind {
            Some(kind) if kind != "AVRO" => {
                SchemaLookup::Unusable(format!("schema {id} has type {kind}; expected AVRO"))
            }
            _ if !body.references.is_empty() => SchemaLookup::Unusable(format!(
                "schema {id} references other schemas, which avro-txt does not support"
            )),
            _ => SchemaLookup::Schema(body.schema.into()),
        })
    }

    /// The address without user and password, for messages.
    fn display_address(&self) -> &str {
        self.address
            .rsplit_once('@')
            .map_or(self.address.as_str(), |(_, host)| host)
    }
}

fn unexpected_status(status: u16) -> Box<dyn Error + Send + Sync> {
    format!("unexpected HTTP status {status}").into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
