//! The service of a running process: HTTP endpoints for status and control, and a REPL to inspect
//! what runs.
//!
//! The binary fills a [`RunRegistry`] and calls [`serve`]. The service shows what the engine knows
//! of a run; it depends on no plugin.
//!
//! 1. [`http`]: the connections of the HTTP endpoints, within [`limits`] and, by [`timed_stream`],
//!    within time.
//! 2. [`routes`]: the HTTP endpoints, behind a [`gate`] that [`guard`] opens or closes. [`actions`]
//!    executes control requests, [`audit`] logs them.
//! 3. [`status_pages`]: the responses, built from the registry of runs. [`counts`], [`rates`] and
//!    [`process`] are their inputs, [`prometheus`] and [`masking`] render two of them, and
//!    [`ttl_cache`] limits how often they are built.
//! 4. [`repl`]: the same information and more, over a line protocol.
//!
//! The service runs on one thread of its own. Apart from sampling the rates every few seconds, it
//! uses no CPU without requests.

#![forbid(unsafe_code)]

mod actions;
mod audit;
mod counts;
mod gate;
mod guard;
mod http;
mod limits;
mod masking;
mod process;
mod prometheus;
#[cfg(any(test, feature = "fuzz"))]
pub mod properties;
mod rates;
mod repl;
mod routes;
pub mod runs;
mod stages;
mod status_pages;
mod timed_stream;
mod ttl_cache;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use pseidon_delivery::Reason;
use pseidon_plan::Settings;
use pseidon_plan::settings::{Port, TokenFor};
use pseidon_plugin::Secret;
use pseidon_plugin::rows::Rows;
use pseidon_plugin::sink::RecordShape;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval_at};

use guard::Access;
use limits::Limits;
use runs::RunRegistry;
use status_pages::StatusPages;

/// An encoder of rows as lines of JSON. Formats are plugins, so the binary passes it.
pub type JsonLines = fn(&Rows, RecordShape) -> Result<Vec<String>, String>;

/// The addresses and the token of the service.
pub struct ServiceConfig {
    /// The address that both ports listen on.
    pub host: IpAddr,
    /// The port of the HTTP endpoints; `None` disables them, 0 picks a free port.
    pub monitor_port: Option<u16>,
    /// The port of the REPL; `None` disables it, 0 picks a free port.
    pub repl_port: Option<u16>,
    /// The names, beside addresses, by which clients may reach the HTTP endpoints.
    pub names: Vec<String>,
    /// The token that is required for control requests and for the REPL; `None` allows everyone.
    pub token: Option<Secret>,
    /// The pages that require the token too.
    pub token_for: TokenFor,
}

impl ServiceConfig {
    /// The configuration in the `:settings` of a pipeline.
    pub fn of(settings: &Settings) -> ServiceConfig {
        ServiceConfig {
            host: settings.monitor_host,
            monitor_port: settings.monitor_port.map(Port::get),
            repl_port: settings.repl_port.map(Port::get),
            names: settings.monitor_names.clone().unwrap_or_default(),
            token: settings.token.clone(),
            token_for: settings.token_for,
        }
    }
}

/// Starts the service, which runs until the process exits. An error says which port is not
/// available or that the token is invalid.
pub fn serve(
    config: &ServiceConfig,
    runs: Arc<RunRegistry>,
    json: JsonLines,
) -> Result<(), Reason> {
    let served = start(config, runs, Limits::of_process(), json)?;
    if let Some(address) = served.monitor {
        tracing::info!(%address, "serving HTTP; endpoints are listed at /");
    }
    if let Some(address) = served.repl {
        tracing::info!(%address, "serving the REPL");
    }
    Ok(())
}

/// The addresses on which the service listens.
#[derive(Default)]
struct ServedAddresses {
    monitor: Option<SocketAddr>,
    repl: Option<SocketAddr>,
}

fn start(
    config: &ServiceConfig,
    runs: Arc<RunRegistry>,
    limits: Limits,
    json: JsonLines,
) -> Result<ServedAddresses, Reason> {
    if config.monitor_port.is_none() && config.repl_port.is_none() {
        return Ok(ServedAddresses::default());
    }
    let access = Access::new(config.token.as_ref(), config.token_for, &config.names)
        .map_err(|reason| format!("invalid `:token`: {reason}"))?;
    if !access.has_token() && !config.host.is_loopback() {
        tracing::warn!(
            host = %config.host,
            "no :token set: anyone who can reach this host can control the pipeline"
        );
    }
    if access.has_short_token() {
        tracing::warn!("the :token has fewer than 16 characters and can be guessed");
    }
    let refused = |error: io::Error| Reason::caused_by("cannot start the service", error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(refused)?;
    let listen = |setting: &str, port: Option<u16>| -> Result<Option<TcpListener>, Reason> {
        let Some(port) = port else { return Ok(None) };
        let address = SocketAddr::new(config.host, port);
        let listener = runtime.block_on(TcpListener::bind(address));
        listener.map(Some).map_err(|error| {
            let what = format!("cannot listen on {address} (`:{setting}`)");
            Reason::caused_by(what, error)
        })
    };
    let (monitor, repl) = (
        listen("monitor-port", config.monitor_port)?,
        listen("repl-port", config.repl_port)?,
    );
    let address = |listener: &Option<TcpListener>| {
        listener
            .as_ref()
            .and_then(|listener| listener.local_addr().ok())
    };
    let served = ServedAddresses {
        monitor: address(&monitor),
        repl: address(&repl),
    };
    let pages = Arc::new(StatusPages::new(runs, access, limits, json));
    let serve = move || runtime.block_on(work(monitor, repl, pages));
    std::thread::Builder::new()
        .name("service".to_owned())
        .spawn(serve)
        .map_err(refused)?;
    Ok(served)
}

async fn work(monitor: Option<TcpListener>, repl: Option<TcpListener>, pages: Arc<StatusPages>) {
    if let Some(listener) = monitor {
        let routes = routes::routes(pages.clone());
        tokio::spawn(http::serve(listener, routes, pages.limits));
    }
    if let Some(listener) = repl {
        tokio::spawn(repl::serve(listener, pages.clone()));
    }
    let mut samples = interval_at(Instant::now().into(), rates::SAMPLE_INTERVAL);
    samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        samples.tick().await;
        pages.sample_rates();
    }
}

#[cfg(test)]
mod tests;
