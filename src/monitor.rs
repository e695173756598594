//! `/metrics` and `/health`, for machines that watch.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use pseidon_plan::Settings;
use tokio::net::TcpListener;

use crate::board::{Board, Entry};

/// Serves until the process ends, if there is a port for it. An error says why the port cannot be had.
pub(crate) fn serve(settings: &Settings, board: &Arc<Board>) -> Result<(), String> {
    let Some(port) = settings.monitor_port else { return Ok(()) };
    let refused = |error: std::io::Error| format!("cannot serve /metrics on {}:{port}: {error}", settings.monitor_host);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(refused)?;
    let listener = runtime.block_on(TcpListener::bind((settings.monitor_host, port))).map_err(refused)?;
    let routes = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/health", get(show_health))
        .route("/logs", get(show_logs))
        .route("/logs/{name}", get(show_log))
        .route("/reload", post(reload))
        .with_state(board.clone());
    let serve = move || {
        if let Err(error) = runtime.block_on(async { axum::serve(listener, routes).await }) {
            tracing::error!(%error, "the metrics page has ended");
        }
    };
    std::thread::Builder::new().name("monitor".to_owned()).spawn(serve).map_err(refused)?;
    Ok(())
}

async fn show_metrics(State(board): State<Arc<Board>>) -> impl IntoResponse {
    let pages: String = board.entries().iter().map(|entry| entry.metrics.render()).collect();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], pages)
}

async fn show_health(State(board): State<Arc<Board>>) -> impl IntoResponse {
    let troubles = board.troubles();
    if troubles.is_empty() { (StatusCode::OK, "ok\n".to_owned()) } else { (StatusCode::SERVICE_UNAVAILABLE, troubles.join("\n") + "\n") }
}

async fn show_logs(State(board): State<Arc<Board>>) -> String {
    board.entries().iter().map(|entry| describe(entry)).collect()
}

async fn show_log(State(board): State<Arc<Board>>, Path(name): Path<String>) -> impl IntoResponse {
    match board.find(&name) {
        Some(entry) => (StatusCode::OK, describe(&entry)),
        None => (StatusCode::NOT_FOUND, "there is no such log\n".to_owned()),
    }
}

async fn reload(State(board): State<Arc<Board>>) -> StatusCode {
    if board.reload() { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

fn describe(entry: &Entry) -> String {
    let state = entry.state();
    let since =
        entry.live().map_or(String::new(), |live| format!(" for {} s, {} sinks", live.since.elapsed().as_secs(), live.plan.sinks.len()));
    let reason = state.reason().map_or(String::new(), |reason| format!(": {reason}"));
    format!("{} {}{since}{reason}\n", entry.name, state.word())
}
