//! The addresses, and what each answers.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use url::form_urlencoded;

use super::actions::{Action, Refusal};
use super::guard;
use super::prometheus;
use super::watched::Watched;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// What can be read.
const PAGES: [(&str, &str); 8] = [
    (
        "/metrics",
        "counts and rates as JSON; Prometheus' text where that is asked for",
    ),
    ("/metrics/prometheus", "counts for Prometheus"),
    ("/health", "ok, or 503 with what is wrong"),
    ("/live", "ok as long as the process shows signs of life"),
    ("/ready", "ok once everything has been started"),
    ("/stats", "totals, and counts by stage"),
    (
        "/logs",
        "how each log is: state, lag, rate, errors, open files, positions",
    ),
    ("/config", "the pipeline without its secrets"),
];

type Shared = State<Arc<Watched>>;

/// All addresses.
pub(crate) fn routes(watched: Arc<Watched>) -> Router {
    let mut router = Router::new()
        .route("/", get(|| async { Html(index()) }))
        .route("/metrics", get(metrics))
        .route(
            "/metrics/prometheus",
            get(|State(watched): Shared| async move {
                typed(prometheus::CONTENT_TYPE, &watched.prometheus())
            }),
        )
        .route("/health", get(health))
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route(
            "/stats",
            get(|State(watched): Shared| async move { typed(JSON, &watched.stats()) }),
        )
        .route(
            "/logs",
            get(|State(watched): Shared| async move { typed(JSON, &watched.logs()) }),
        )
        .route("/logs/{name}", get(log))
        .route("/config", get(config));
    for action in Action::ALL {
        let take = move |State(watched): Shared, headers: HeaderMap, uri: Uri| async move {
            act(&watched, action, &headers, &uri)
        };
        router = router.route(&format!("/{}", action.word()), post(take));
    }
    router
        .fallback(|| async {
            refuse(
                StatusCode::NOT_FOUND,
                "there is nothing at this address; / lists what there is",
            )
        })
        .with_state(watched)
}

async fn metrics(State(watched): Shared, headers: HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .unwrap_or_default();
    if wants_prometheus(accept) {
        typed(prometheus::CONTENT_TYPE, &watched.prometheus())
    } else {
        typed(JSON, &watched.metrics())
    }
}

async fn health(State(watched): Shared) -> Response {
    let troubles = watched.board.troubles();
    if troubles.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, troubles.join("\n") + "\n").into_response()
}

async fn live(State(watched): Shared) -> Response {
    if watched.board.is_alive() {
        return "ok\n".into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "the process has shown no sign of life for too long\n",
    )
        .into_response()
}

async fn log(State(watched): Shared, Path(name): Path<String>) -> Response {
    match watched.log(&name) {
        Some(log) => typed(JSON, &log),
        None => refuse(
            StatusCode::NOT_FOUND,
            &Refusal::UnknownLog(name).to_string(),
        ),
    }
}

async fn ready(State(watched): Shared) -> Response {
    if watched.is_ready() {
        "ok\n".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not everything has been started yet\n",
        )
            .into_response()
    }
}

async fn config(State(watched): Shared) -> Response {
    match watched.config() {
        Ok(text) => typed(TEXT, &text),
        Err(reason) => (StatusCode::INTERNAL_SERVER_ERROR, reason + "\n").into_response(),
    }
}

fn act(watched: &Watched, action: Action, headers: &HeaderMap, uri: &Uri) -> Response {
    match guard::check(headers, watched.token.as_ref()) {
        Ok(()) => {}
        Err(guard::Refusal::Token) => {
            let refused = refuse(
                StatusCode::UNAUTHORIZED,
                "this needs the header `Authorization: Bearer TOKEN` with the token of the settings",
            );
            return ([(header::WWW_AUTHENTICATE, "Bearer")], refused).into_response();
        }
        Err(guard::Refusal::Origin) => {
            return refuse(
                StatusCode::FORBIDDEN,
                "a page of another address may not do this",
            );
        }
    }
    let log = match log_of(uri.query().unwrap_or_default()) {
        Ok(log) => log,
        Err(reason) => return refuse(StatusCode::BAD_REQUEST, &reason),
    };
    match action.take(&watched.board, log.as_deref()) {
        Ok(done) => {
            let answer = json!({ "action": action.word(), "logs": done.logs, "not-running": done.not_running });
            typed(JSON, &format!("{answer}\n"))
        }
        Err(refusal @ Refusal::UnknownLog(_)) => {
            refuse(StatusCode::NOT_FOUND, &refusal.to_string())
        }
        Err(refusal) => refuse(StatusCode::CONFLICT, &refusal.to_string()),
    }
}

/// The log of `log=NAME`. Anything else is refused: a mistyped name would do to all logs what was
/// meant for one.
fn log_of(query: &str) -> Result<Option<String>, String> {
    let mut log = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name != "log" || log.is_some() {
            return Err(format!(
                "`{name}` is not expected here; only one log=NAME is"
            ));
        }
        log = Some(value.into_owned());
    }
    Ok(log)
}

fn refuse(status: StatusCode, reason: &str) -> Response {
    let answer = json!({ "error": reason });
    (
        status,
        [(header::CONTENT_TYPE, JSON)],
        format!("{answer}\n"),
    )
        .into_response()
}

fn typed(content_type: &'static str, body: &str) -> Response {
    ([(header::CONTENT_TYPE, content_type)], body.to_owned()).into_response()
}

/// Whether an `Accept` (RFC 9110, section 12.5.1) prefers what Prometheus reads to JSON.
fn wants_prometheus(accept: &str) -> bool {
    let quality = |types: &[&str]| {
        let ranges = accept.split(',').filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next()?;
            let quality = parts
                .find_map(|part| part.strip_prefix("q="))
                .map_or(Some(1.0), |quality| quality.parse().ok());
            types
                .iter()
                .any(|wanted| name.eq_ignore_ascii_case(wanted))
                .then_some(quality?)
        });
        ranges.fold(0.0, f64::max)
    };
    quality(&["text/plain", "application/openmetrics-text"]) > quality(&[JSON])
}

fn index() -> String {
    let page = |(address, what): &(&str, &str)| {
        format!("<tr><td><a href=\"{address}\">{address}</a></td><td>{what}</td></tr>\n")
    };
    let action = |action: &Action| {
        format!(
            "<tr><td>POST /{}</td><td>{}</td></tr>\n",
            action.word(),
            action.summary()
        )
    };
    let (pages, actions): (String, String) = (
        PAGES.iter().map(page).collect(),
        Action::ALL.iter().map(action).collect(),
    );
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>pseidon</title></head><body>\n<h1>pseidon {}</h1>\n\
         <table>\n{pages}{actions}</table>\n<p>Actions are for all logs, or for one with <code>?log=NAME</code>.</p>\n</body></html>\n",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_is_told_from_browsers_and_programs() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        let cases = [
            (prometheus, true),
            ("text/plain", true),
            ("Text/Plain; version=0.0.4", true),
            ("application/openmetrics-text", true),
            ("text/plain, application/json;q=0.5", true),
            (browser, false),
            ("*/*", false),
            ("", false),
            ("application/json", false),
            ("application/json, text/plain, */*", false),
            ("application/json;q=0.9, text/plain;q=0.1", false),
            ("text/plain;q=0", false),
            ("text/plain;q=x", false),
        ];
        for (accept, expected) in cases {
            assert_eq!(wants_prometheus(accept), expected, "{accept}");
        }
    }

    #[test]
    fn only_a_log_may_be_asked_for() {
        assert_eq!(log_of(""), Ok(None));
        assert_eq!(log_of("log=a%20b"), Ok(Some("a b".into())));
        for wrong in ["lgo=a", "log=a&log=b", "log=a&x"] {
            assert!(log_of(wrong).is_err(), "{wrong}");
        }
    }
}
