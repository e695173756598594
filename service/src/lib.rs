//! The service of a running process: HTTP endpoints for status and control, and a REPL to inspect
//! what runs.
//!
//! The binary fills a [`RunRegistry`] and calls [`serve`]. The service shows what the engine knows
//! of a run; it depends on no plugin.
//!
//! 1. [`listener`]: the ports and [`socket`]s of [`config`], where each [`peer`] connects, with
//!    [`tls`] or without.
//!    [`http`]: the connections of the HTTP endpoints, within [`limits`] and, by [`timed_stream`],
//!    within time.
//! 2. [`routes`]: the HTTP endpoints, behind a [`gate`] that [`guard`] opens or closes, by the
//!    [`tokens`] of [`credentials`] files. [`actions`] executes control requests, [`audit`] logs
//!    them.
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
mod config;
mod counts;
mod credentials;
mod gate;
mod guard;
mod http;
mod limits;
mod listener;
mod masking;
mod peer;
mod process;
mod prometheus;
#[cfg(any(test, feature = "fuzz"))]
pub mod properties;
mod rates;
mod repl;
mod routes;
pub mod runs;
mod socket;
mod stages;
mod status_pages;
mod timed_stream;
mod tls;
mod tokens;
mod ttl_cache;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use pseidon_delivery::{Reason, WithCauses};
use pseidon_plugin::rows::Rows;
use pseidon_plugin::sink::RecordShape;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval_at};

use audit::Interface;
use guard::Access;
use limits::Limits;
use listener::Listener;
use runs::RunRegistry;
use socket::SocketFile;
use status_pages::StatusPages;
use tls::Tls;
use tokens::Tokens;

pub use config::{ServiceConfig, TlsFiles, TokenSource};

/// An encoder of rows as lines of JSON. Formats are plugins, so the binary passes it.
pub type JsonLines = fn(&Rows, RecordShape) -> Result<Vec<String>, String>;

/// A service, which runs until the process exits. Its sockets are removed when this is dropped.
#[derive(Default)]
pub struct Service {
    monitor: Option<SocketAddr>,
    repl: Option<SocketAddr>,
    sockets: Vec<SocketFile>,
    files: Option<ServiceFiles>,
}

impl Service {
    /// What reads its files again; `None` if it has none.
    pub fn files(&self) -> Option<ServiceFiles> {
        self.files.clone()
    }
}

/// The files of a service that can be read again while it runs.
#[derive(Clone)]
pub struct ServiceFiles {
    tokens: Option<PathBuf>,
    tls: Option<Arc<Tls>>,
    pages: Arc<StatusPages>,
}

impl ServiceFiles {
    /// Reads the files again. If one is invalid, what was read of it before remains valid.
    pub fn reload(&self) {
        let tokens = self.tokens.as_ref().map(|path| {
            let tokens = Tokens::read(path);
            tokens.map(|tokens| self.pages.access.replace_tokens(tokens))
        });
        report("tokens", tokens);
        report("certificates", self.tls.as_ref().map(|tls| tls.reload()));
    }
}

/// Logs the outcome of reading a kind of file again, if there is one.
fn report(what: &str, outcome: Option<Result<(), Reason>>) {
    match outcome {
        None => {}
        Some(Ok(())) => tracing::info!("read the {what} again"),
        Some(Err(error)) => tracing::warn!(
            reason = %WithCauses(&error),
            "cannot use the new {what}; the earlier ones remain valid"
        ),
    }
}

/// Starts the service. An error says which port or socket is not available, or why the tokens or
/// certificates are invalid.
pub fn serve(
    config: &ServiceConfig,
    runs: Arc<RunRegistry>,
    json: JsonLines,
) -> Result<Service, Reason> {
    let service = start(config, runs, Limits::of_process(), json)?;
    if let Some(address) = service.monitor {
        tracing::info!(%address, "serving HTTP; endpoints are listed at /");
    }
    if let Some(address) = service.repl {
        tracing::info!(%address, "serving the REPL");
    }
    for file in &service.sockets {
        tracing::info!(socket = %file.path().display(), "serving the user of the process and root");
    }
    Ok(service)
}

/// Reads the tokens. Warns if they do not protect the service.
fn access(config: &ServiceConfig, tls: Option<&Tls>) -> Result<Access, Reason> {
    let tokens = config.tokens.read()?;
    let has_port = config.monitor_port.is_some() || config.repl_port.is_some();
    let is_guarded = config.host.is_loopback() || tls.is_some_and(Tls::knows_clients) || !has_port;
    match &tokens {
        None if !is_guarded => tracing::warn!(
            host = %config.host,
            "no :token or :token-file set: anyone who can reach this host can control the pipeline"
        ),
        Some(tokens) if tokens.has_short() => {
            tracing::warn!("the :token has fewer than 16 characters and can be guessed");
        }
        _ => {}
    }
    Ok(Access::new(tokens, config.token_for, &config.names))
}

/// What a service listens on.
#[derive(Default)]
struct OpenListeners {
    listeners: Vec<(Interface, Listener)>,
    monitor: Option<SocketAddr>,
    repl: Option<SocketAddr>,
    sockets: Vec<SocketFile>,
}

impl OpenListeners {
    async fn open(&mut self, config: &ServiceConfig, tls: Option<&Arc<Tls>>) -> Result<(), Reason> {
        let tls = || tls.cloned();
        if let Some(port) = config.monitor_port {
            let (listener, address) = on_port(config, "monitor-port", port, tls()).await?;
            self.monitor = Some(address);
            self.listeners.push((Interface::Http, listener));
        }
        if let Some(port) = config.repl_port {
            let (listener, address) = on_port(config, "repl-port", port, tls()).await?;
            self.repl = Some(address);
            self.listeners.push((Interface::Repl, listener));
        }
        let sockets = [
            (Interface::Http, "monitor-socket", &config.monitor_socket),
            (Interface::Repl, "repl-socket", &config.repl_socket),
        ];
        for (interface, setting, path) in sockets {
            let Some(path) = path else { continue };
            let (listener, file) = socket::listen(path).await.map_err(|error| {
                let what = format!("cannot listen on {} (`:{setting}`)", path.display());
                Reason::caused_by(what, error)
            })?;
            self.sockets.push(file);
            self.listeners.push((interface, Listener::Socket(listener)));
        }
        Ok(())
    }
}

async fn on_port(
    config: &ServiceConfig,
    setting: &str,
    port: u16,
    tls: Option<Arc<Tls>>,
) -> Result<(Listener, SocketAddr), Reason> {
    let address = SocketAddr::new(config.host, port);
    let cannot_listen = |error| {
        let what = format!("cannot listen on {address} (`:{setting}`)");
        Reason::caused_by(what, error)
    };
    let port = TcpListener::bind(address).await.map_err(cannot_listen)?;
    let bound = port.local_addr().map_err(cannot_listen)?;
    Ok((Listener::Port(port, tls), bound))
}

fn start(
    config: &ServiceConfig,
    runs: Arc<RunRegistry>,
    limits: Limits,
    json: JsonLines,
) -> Result<Service, Reason> {
    if !config.is_enabled() {
        return Ok(Service::default());
    }
    let tls = config.tls.as_ref().map(Tls::read).transpose()?;
    let tls = tls.map(Arc::new);
    let access = access(config, tls.as_deref())?;
    let refused = |error: io::Error| Reason::caused_by("cannot start the service", error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(refused)?;
    let mut opened = OpenListeners::default();
    runtime.block_on(opened.open(config, tls.as_ref()))?;
    let pages = Arc::new(StatusPages::new(runs, access, limits, json));
    let (listeners, served) = (opened.listeners, pages.clone());
    let serve = move || runtime.block_on(work(listeners, served));
    std::thread::Builder::new()
        .name("service".to_owned())
        .spawn(serve)
        .map_err(refused)?;
    let tokens = match &config.tokens {
        TokenSource::File(tokens) => Some(tokens.clone()),
        TokenSource::None | TokenSource::One(_) => None,
    };
    let has_files = tokens.is_some() || tls.is_some();
    let files = has_files.then_some(ServiceFiles { tokens, tls, pages });
    Ok(Service {
        monitor: opened.monitor,
        repl: opened.repl,
        sockets: opened.sockets,
        files,
    })
}

async fn work(listeners: Vec<(Interface, Listener)>, pages: Arc<StatusPages>) {
    for (interface, listener) in listeners {
        match interface {
            Interface::Http => {
                let routes = routes::routes(pages.clone());
                tokio::spawn(http::serve(listener, routes, pages.clone()));
            }
            Interface::Repl => {
                tokio::spawn(repl::serve(listener, pages.clone()));
            }
        }
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
