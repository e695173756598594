//! The service's face: what it shows over HTTP, what it can be told, and a REPL to look into what
//! runs.
//!
//! 1. [`routes`]: the addresses; [`guard`] says whose requests may change something, [`actions`]
//!    does it.
//! 2. [`watched`]: what the addresses show, made from the board; [`counts`], [`rates`] and
//!    [`process`] are what it is made of, [`prometheus`] and [`masking`] two ways to write it.
//! 3. [`repl`]: the same and more, by lines.
//!
//! All of it runs on one thread beside the pipeline's own, and costs nothing while nobody asks.

mod actions;
mod counts;
mod guard;
mod kept;
mod masking;
mod process;
mod prometheus;
mod rates;
mod repl;
mod routes;
mod stages;
mod watched;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use pseidon_plan::Settings;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval_at};

use crate::board::Board;
use guard::Token;
use watched::Watched;

/// Where the service is reached.
pub(crate) struct Face {
    /// The address of both ports.
    pub(crate) host: IpAddr,
    /// The port of the HTTP pages; nothing is served without it.
    pub(crate) monitor_port: Option<u16>,
    /// The port of the REPL.
    pub(crate) repl_port: Option<u16>,
    /// What callers have to know to change something, or to use the REPL.
    pub(crate) token: Option<String>,
}

impl Face {
    /// As the settings say.
    pub(crate) fn of(settings: &Settings) -> Face {
        Face {
            host: settings.monitor_host,
            monitor_port: settings.monitor_port,
            repl_port: settings.repl_port,
            token: settings.token.clone(),
        }
    }
}

/// Serves until the process ends. An error says why a port cannot be had.
pub(crate) fn serve(face: &Face, board: Arc<Board>) -> Result<(), String> {
    let served = start(face, board)?;
    if let Some(address) = served.monitor {
        tracing::info!(%address, "serving /metrics, /health and what else / lists");
    }
    if let Some(address) = served.repl {
        tracing::info!(%address, "serving the REPL");
    }
    Ok(())
}

/// Where it is served.
#[derive(Default)]
struct Served {
    monitor: Option<SocketAddr>,
    repl: Option<SocketAddr>,
}

fn start(face: &Face, board: Arc<Board>) -> Result<Served, String> {
    if face.monitor_port.is_none() && face.repl_port.is_none() {
        return Ok(Served::default());
    }
    let token = face
        .token
        .as_deref()
        .map(Token::new)
        .transpose()
        .map_err(|reason| format!("`:token` cannot be used: {reason}"))?;
    if token.is_none() && !face.host.is_loopback() {
        tracing::warn!(host = %face.host, "everybody who reaches this host may tell the pipeline what to do: set a :token");
    }
    let refused = |error: io::Error| format!("cannot start to serve: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(refused)?;
    let listen = |setting: &str, port: Option<u16>| -> Result<Option<TcpListener>, String> {
        let Some(port) = port else { return Ok(None) };
        let address = SocketAddr::new(face.host, port);
        let listener = runtime.block_on(TcpListener::bind(address));
        listener
            .map(Some)
            .map_err(|error| format!("cannot serve on {address} (`:{setting}`): {error}"))
    };
    let (monitor, repl) = (
        listen("monitor-port", face.monitor_port)?,
        listen("repl-port", face.repl_port)?,
    );
    let address = |listener: &Option<TcpListener>| {
        listener
            .as_ref()
            .and_then(|listener| listener.local_addr().ok())
    };
    let served = Served {
        monitor: address(&monitor),
        repl: address(&repl),
    };
    let watched = Arc::new(Watched::new(board, token));
    let serve = move || runtime.block_on(work(monitor, repl, watched));
    std::thread::Builder::new()
        .name("service".to_owned())
        .spawn(serve)
        .map_err(refused)?;
    Ok(served)
}

async fn work(monitor: Option<TcpListener>, repl: Option<TcpListener>, watched: Arc<Watched>) {
    if let Some(listener) = monitor {
        let routes = routes::routes(watched.clone());
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!(%error, "the monitor port is not served any more");
            }
        });
    }
    if let Some(listener) = repl {
        tokio::spawn(repl::serve(listener, watched.clone()));
    }
    let mut looks = interval_at(Instant::now().into(), rates::LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        watched.look();
    }
}

#[cfg(test)]
mod tests;
