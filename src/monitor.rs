//! `/metrics` and `/health`, for machines that watch.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use pseidon_plugin::metrics::Metrics;
use tokio::net::TcpListener;

/// Serves until the process ends. An error says why the port cannot be had.
pub(crate) fn serve(port: u16, metrics: Metrics) -> Result<(), String> {
    let refused = |error: std::io::Error| format!("cannot serve /metrics on 127.0.0.1:{port}: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(refused)?;
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", port))).map_err(refused)?;
    let routes = Router::new().route("/metrics", get(show_metrics)).route("/health", get(show_health)).with_state(metrics);
    let serve = move || {
        if let Err(error) = runtime.block_on(async { axum::serve(listener, routes).await }) {
            tracing::error!(%error, "the metrics page has ended");
        }
    };
    std::thread::Builder::new().name("monitor".to_owned()).spawn(serve).map_err(refused)?;
    Ok(())
}

async fn show_metrics(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())
}

async fn show_health(State(metrics): State<Metrics>) -> impl IntoResponse {
    let troubles = metrics.troubles();
    if troubles.is_empty() { (StatusCode::OK, "ok\n".to_owned()) } else { (StatusCode::SERVICE_UNAVAILABLE, troubles.join("\n") + "\n") }
}
