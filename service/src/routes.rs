//! The HTTP endpoints and their responses.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use pseidon_dsl::printable;
use pseidon_dsl::printable::printable_json;
use serde_json::json;
use url::form_urlencoded;

use crate::actions::{Action, ActionError};
use crate::audit::{self, Client, Interface};
use crate::gate::{JSON, guarded, refuse};
use crate::guard::Caller;
use crate::http::Connection;
use crate::prometheus;
use crate::status_pages::StatusPages;
use crate::tokens::Role;

const TEXT: &str = "text/plain; charset=utf-8";

/// The paths that can be read, each with a description.
const PAGES: [(&str, &str); 8] = [
    (
        "/metrics",
        "counts and rates as JSON, or in Prometheus text format if the Accept header asks for it",
    ),
    ("/metrics/prometheus", "counts in Prometheus text format"),
    ("/health", "ok, or 503 with the current problems"),
    ("/live", "ok while the process makes progress"),
    ("/ready", "ok once startup is complete"),
    ("/stats", "totals, and counts by stage"),
    (
        "/logs",
        "status of each log: state, lag, rate, errors, open files, positions",
    ),
    ("/config", "the pipeline without its secrets"),
];

type Shared = State<Arc<StatusPages>>;

/// The router with all endpoints.
pub(crate) fn routes(pages: Arc<StatusPages>) -> Router {
    let mut router = Router::new()
        .route("/", get(|| async { Html(index()) }))
        .route("/metrics", get(metrics))
        .route(
            "/metrics/prometheus",
            get(|State(pages): Shared| async move {
                typed(prometheus::CONTENT_TYPE, pages.prometheus())
            }),
        )
        .route("/health", get(health))
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route(
            "/stats",
            get(|State(pages): Shared| async move { typed(JSON, pages.stats()) }),
        )
        .route("/logs", get(logs))
        .route("/logs/{name}", get(log))
        .route("/config", get(config));
    for action in Action::ALL {
        let execute =
            move |State(pages): Shared,
                  Extension(connection): Extension<Connection>,
                  Extension(caller): Extension<Caller>,
                  uri: Uri| async move { act(&pages, action, &connection, &caller, &uri) };
        router = router.route(&format!("/{}", action.as_str()), post(execute));
    }
    let routes = router
        .fallback(|| async {
            refuse(
                StatusCode::NOT_FOUND,
                "not found; endpoints are listed at /",
            )
        })
        .method_not_allowed_fallback(|| async {
            refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                "the endpoint does not have this method; endpoints are listed at /",
            )
        })
        .with_state(pages.clone());
    guarded(routes, pages)
}

async fn metrics(State(pages): Shared, headers: HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .unwrap_or_default();
    if wants_prometheus(accept) {
        typed(prometheus::CONTENT_TYPE, pages.prometheus())
    } else {
        typed(JSON, pages.metrics())
    }
}

async fn health(State(pages): Shared, Extension(caller): Extension<Caller>) -> Response {
    let troubles = pages.runs.troubles(caller.has(Role::Records));
    if troubles.is_empty() {
        return "ok\n".into_response();
    }
    let printed = |troubles: &[String]| {
        let lines: Vec<_> = troubles.iter().map(|trouble| printable(trouble)).collect();
        lines.join("\n")
    };
    let shown = if caller.has(Role::Read) {
        printed(&troubles)
    } else {
        "not ok: the reasons require the token".to_owned()
    };
    (StatusCode::SERVICE_UNAVAILABLE, shown + "\n").into_response()
}

async fn live(State(pages): Shared) -> Response {
    if pages.runs.is_alive() {
        return "ok\n".into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "the process has made no progress for too long\n",
    )
        .into_response()
}

async fn logs(State(pages): Shared, Extension(caller): Extension<Caller>) -> Response {
    typed(JSON, pages.logs(caller.has(Role::Records)))
}

async fn log(
    State(pages): Shared,
    Extension(caller): Extension<Caller>,
    name: Result<Path<String>, PathRejection>,
) -> Response {
    let name = match name {
        Ok(Path(name)) => name,
        Err(error) => return refuse(error.status(), &error.body_text()),
    };
    match pages.log(&name, caller.has(Role::Records)) {
        Some(log) => typed(JSON, log),
        None => refuse(
            StatusCode::NOT_FOUND,
            &ActionError::UnknownLog(name).to_string(),
        ),
    }
}

async fn ready(State(pages): Shared) -> Response {
    if pages.is_ready() {
        "ok\n".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: still starting\n",
        )
            .into_response()
    }
}

async fn config(State(pages): Shared) -> Response {
    match pages.config() {
        Ok(text) => typed(TEXT, text),
        Err(reason) => (StatusCode::INTERNAL_SERVER_ERROR, reason + "\n").into_response(),
    }
}

fn act(
    pages: &StatusPages,
    action: Action,
    connection: &Connection,
    caller: &Caller,
    uri: &Uri,
) -> Response {
    let query = uri.query().unwrap_or_default();
    let (response, error) = match execute(pages, action, query) {
        Ok(body) => (typed(JSON, body), None),
        Err((status, reason)) => (refuse(status, &reason), Some(reason)),
    };
    let client = Client {
        peer: &connection.peer,
        interface: Interface::Http,
        token: caller.name(),
    };
    audit::action(&client, action.as_str(), query, error.as_deref());
    response
}

/// Executes an action. Returns the body of the response, or the status code and the reason.
fn execute(
    pages: &StatusPages,
    action: Action,
    query: &str,
) -> Result<String, (StatusCode, String)> {
    let log = log_of(query).map_err(|reason| (StatusCode::BAD_REQUEST, reason))?;
    let report = action.execute(&pages.runs, log.as_deref());
    let done = report.map_err(|error| {
        let status = match error {
            ActionError::UnknownLog(_) => StatusCode::NOT_FOUND,
            ActionError::NotRunning | ActionError::NoTable => StatusCode::CONFLICT,
        };
        (status, error.to_string())
    })?;
    let body = json!({
        "action": action.as_str(),
        "logs": done.logs,
        "not-running": done.not_running,
    });
    Ok(printable_json(&format!("{body}\n"), &["action", "logs", "not-running"]).into_owned())
}

/// The log in the query `log=NAME`. Any other parameter is an error: with a mistyped one, the
/// action would be executed on all logs instead of one.
fn log_of(query: &str) -> Result<Option<String>, String> {
    let mut log = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name != "log" || log.is_some() {
            return Err(format!(
                "unexpected parameter `{name}`; expected at most one log=NAME"
            ));
        }
        log = Some(value.into_owned());
    }
    Ok(log)
}

fn typed(content_type: &'static str, body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, content_type)], body.into()).into_response()
}

/// Whether an `Accept` header (RFC 9110, section 12.5.1) prefers a Prometheus format to JSON.
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

/// The page at `/`, which lists the endpoints.
fn index() -> String {
    let page = |(path, description): &(&str, &str)| {
        format!("<tr><td><a href=\"{path}\">{path}</a></td><td>{description}</td></tr>\n")
    };
    let action = |action: &Action| {
        format!(
            "<tr><td>POST /{}</td><td>{}</td></tr>\n",
            action.as_str(),
            action.summary()
        )
    };
    let (pages, actions): (String, String) = (
        PAGES.iter().map(page).collect(),
        Action::ALL.iter().map(action).collect(),
    );
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>pseidon</title></head><body>\n<h1>pseidon {}</h1>\n\
         <table>\n{pages}{actions}</table>\n<p>Actions apply to all logs, or with <code>?log=NAME</code> to one.</p>\n</body></html>\n",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_log_can_be_named(name in "([&=%+# ]|\\PC){0,8}") {
            let mut query = form_urlencoded::Serializer::new(String::new());
            let query = query.append_pair("log", &name).finish();
            prop_assert_eq!(log_of(&query), Ok(Some(name)));
            let with_another = format!("{query}&x=1");
            prop_assert!(log_of(&with_another).is_err());
        }

        #[test]
        fn any_query_and_header_is_read_or_refused(
            query in "((log|x|)(=([a%+]|%[0-9a-f]{2}|\\PC){0,3})?&?){0,3}",
            accept in "((text/plain|application/json|[*]/[*])(;q=[0-9.e-]{0,4})?,?){0,3}|\\PC{0,9}",
        ) {
            let names = form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name == "log");
            let names: Vec<bool> = names.collect();
            prop_assert_eq!(log_of(&query).is_ok(), names.is_empty() || names == [true]);
            // Without a type of Prometheus, JSON is answered.
            prop_assert!(!wants_prometheus(&accept) || accept.contains("text/plain"));
        }
    }

    #[test]
    fn prometheus_is_distinguished_from_browsers_and_programs() {
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
    fn the_only_parameter_is_a_log() {
        assert_eq!(log_of(""), Ok(None));
        assert_eq!(log_of("log=a%20b"), Ok(Some("a b".into())));
        for wrong in ["lgo=a", "log=a&log=b", "log=a&x"] {
            assert!(log_of(wrong).is_err(), "{wrong}");
        }
    }
}
