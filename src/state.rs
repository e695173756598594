//! The state store of a pipeline: a file beside the pipeline file, or Redis.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pseidon_delivery::embedded::{EmbeddedStore, STATE_FOLDER};
use pseidon_delivery::{
    GroupCommit, OperatorStore, Reason, SignedStore, StateKey, StateStore, StoreError, WithCauses,
};
use pseidon_plan::Plan;
use pseidon_plugin::Secret;
use pseidon_plugin::secret::hosts_of_urls;
use pseidon_redis::RedisStore;

/// The pause between attempts to connect to a state store that does not answer.
const CONNECT_PAUSE: Duration = Duration::from_millis(500);
/// How often a wait for the state store is reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// The folder for the state of the pipelines in the folder `base`.
pub(crate) fn folder(base: &Path) -> PathBuf {
    base.join(STATE_FOLDER)
}

/// Opens the state store: Redis if `:state` is set, otherwise a file in `folder`, which is created
/// if it does not exist. Steps that wait at the same time are committed together. What is run from
/// the state is signed with `:state-key`.
pub(crate) fn open(plan: &Plan, folder: &Path) -> Result<Arc<GroupCommit>, StoreError> {
    let store = connected(plan, folder)?;
    let exposed = |key: &Secret| key.expose().to_owned();
    let key = plan.settings.state_key.as_ref().map(|keys| StateKey {
        secret: exposed(&keys.current),
        earlier: keys.earlier.iter().map(exposed).collect(),
        accepts_unsigned: plan.settings.accept_unsigned_state,
    });
    let signed = SignedStore::new(store, &plan.name, key);
    Ok(Arc::new(GroupCommit::new(Arc::new(signed))))
}

/// Opens the state to show and forget what is staged in it. Nothing is run from it, so signatures do
/// not matter: what is signed with a lost key can be forgotten.
pub(crate) fn open_staged(plan: &Plan, folder: &Path) -> Result<SignedStore, StoreError> {
    connected(plan, folder).map(SignedStore::unchecked)
}

fn connected(plan: &Plan, folder: &Path) -> Result<Arc<dyn StateStore>, StoreError> {
    Ok(match &plan.settings.state {
        Some(url) => Arc::new(connect(url.expose(), plan)?),
        None => Arc::new(EmbeddedStore::open(folder, &plan.name)?),
    })
}

/// Whether the pipeline may have state: a file in `folder`, or a Redis server that holds it.
pub(crate) fn may_exist(plan: &Plan, folder: &Path) -> bool {
    plan.settings.state.is_some() || EmbeddedStore::exists(folder, &plan.name)
}

/// The state of a pipeline as it is now, for commands that change nothing.
pub(crate) struct StateView {
    pub(crate) store: Arc<dyn StateStore>,
    /// The path of the file, or `Redis`.
    pub(crate) place: String,
    /// Whether a process has the file open; `false` for Redis, where the records have owners.
    pub(crate) is_in_use: bool,
    /// When the file was last written.
    pub(crate) written: Option<SystemTime>,
}

impl StateView {
    /// A state that this process has opened.
    pub(crate) fn of(store: Arc<dyn OperatorStore>) -> StateView {
        StateView {
            store,
            place: String::new(),
            is_in_use: false,
            written: None,
        }
    }
}

/// Looks at the state, also while a run uses it. `None` if the pipeline has no state.
pub(crate) fn view(plan: &Plan, folder: &Path) -> Result<Option<StateView>, StoreError> {
    let Some(url) = &plan.settings.state else {
        let snapshot = EmbeddedStore::snapshot(folder, &plan.name)?;
        return Ok(snapshot.map(|snapshot| StateView {
            store: Arc::new(snapshot.store),
            place: place(plan, folder),
            is_in_use: snapshot.is_in_use,
            written: snapshot.written,
        }));
    };
    let store = connect_once(url.expose(), plan)?;
    let is_empty = store.sinks()?.is_empty();
    Ok((!is_empty).then(|| StateView {
        store: Arc::new(store),
        place: place(plan, folder),
        is_in_use: false,
        written: None,
    }))
}

/// Opens the state to change it while no run has it open. `None` if the pipeline has no state. Does
/// not wait for a server that does not answer.
pub(crate) fn open_to_change(
    plan: &Plan,
    folder: &Path,
) -> Result<Option<Arc<dyn OperatorStore>>, StoreError> {
    let Some(url) = &plan.settings.state else {
        if !EmbeddedStore::exists(folder, &plan.name) {
            return Ok(None);
        }
        return Ok(Some(Arc::new(EmbeddedStore::open(folder, &plan.name)?)));
    };
    let store = connect_once(url.expose(), plan)?;
    let is_empty = store.sinks()?.is_empty();
    Ok((!is_empty).then(|| Arc::new(store) as Arc<dyn OperatorStore>))
}

/// Where the state of a pipeline is, for people.
pub(crate) fn place(plan: &Plan, folder: &Path) -> String {
    match &plan.settings.state {
        Some(_) => format!("Redis, namespace {}", plan.settings.namespace),
        None => {
            let path = EmbeddedStore::path(folder, &plan.name);
            path.strip_prefix(".")
                .unwrap_or(&path)
                .display()
                .to_string()
        }
    }
}

/// Connects to Redis, and waits while it does not answer: when all machines start at the same time,
/// Redis may be the last to be ready.
fn connect(url: &str, plan: &Plan) -> Result<RedisStore, StoreError> {
    let mut reported: Option<Instant> = None;
    loop {
        let opened = connect_once(url, plan);
        let Err(StoreError::Unavailable(reason)) = opened else {
            return opened;
        };
        if reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
            let reason = WithCauses(&reason).to_string();
            tracing::warn!(reason, "state store does not answer; waiting");
            reported = Some(Instant::now());
        }
        std::thread::sleep(CONNECT_PAUSE);
    }
}

/// Connects to Redis. The error of a server that does not answer has its address, without the
/// password.
fn connect_once(url: &str, plan: &Plan) -> Result<RedisStore, StoreError> {
    RedisStore::connect(url, &plan.settings.namespace, &plan.name)
        .and_then(|store| store.identity().map(|_| store))
        .map_err(|error| match error {
            StoreError::Unavailable(reason) => {
                let what = format!("no Redis server answers at {}", hosts_of_urls(url));
                StoreError::Unavailable(
                    Reason::caused_by(what, reason)
                        .followed_by("; check that it runs and that `:state` has its address"),
                )
            }
            other => other,
        })
}
