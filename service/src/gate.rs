//! What each request passes before its endpoint, and each answer after it.

use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use pseidon_dsl::printable;
use serde_json::json;

use crate::audit::Interface;
use crate::guard::{Caller, SiteError};
use crate::http::Connection;
use crate::status_pages::StatusPages;

/// The content type of errors and of most pages.
pub(crate) const JSON: &str = "application/json";
/// The longest body of a request. No endpoint reads one.
const MAX_BODY: u64 = 64 << 10;
/// The pages that are served although there are too many connections.
const RESERVED: [&str; 2] = ["/live", "/ready"];
/// The headers of every answer: it is not kept, no page of another site can use it, and `/` can
/// load nothing.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// The routes behind the gate.
pub(crate) fn guarded(routes: Router, pages: Arc<StatusPages>) -> Router {
    routes
        .layer(from_fn_with_state(pages, admit))
        .layer(map_response(with_headers))
}

/// An error as JSON.
pub(crate) fn refuse(status: StatusCode, reason: &str) -> Response {
    let body = json!({ "error": printable(reason) });
    (status, [(header::CONTENT_TYPE, JSON)], format!("{body}\n")).into_response()
}

/// Passes a request to its endpoint, or refuses it. The endpoint can ask for the [`Caller`].
async fn admit(
    State(pages): State<Arc<StatusPages>>,
    Extension(connection): Extension<Connection>,
    mut request: Request,
    next: Next,
) -> Response {
    if connection.is_reserved && !RESERVED.contains(&request.uri().path()) {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
    }
    let site = pages
        .access
        .check_site(request.version(), request.uri(), request.headers());
    // Probes have any host, and what is answered to them is no secret.
    let is_probe = site == Err(SiteError::Host) && RESERVED.contains(&request.uri().path());
    if let (Err(error), false) = (site, is_probe) {
        pages
            .refusals
            .refused(connection.peer, Interface::Http, describe(error));
        return refuse(StatusCode::FORBIDDEN, describe(error));
    }
    if request.body().size_hint().lower() > MAX_BODY {
        return refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body of the request is too long; no endpoint reads one",
        );
    }
    let caller = pages.access.caller(request.headers());
    let is_open = pages.access.is_open(request.method(), request.uri().path());
    let refused = match caller {
        Caller::Known => None,
        Caller::Anonymous => (!is_open).then_some("no token"),
        Caller::Impostor => Some("wrong token"),
    };
    if let Some(reason) = refused {
        pages
            .refusals
            .refused(connection.peer, Interface::Http, reason);
        if caller == Caller::Impostor {
            tokio::time::sleep(pages.limits.wrong_token).await;
        }
        let refused = refuse(
            StatusCode::UNAUTHORIZED,
            "missing or invalid token; expected the header `Authorization: Bearer TOKEN` with \
             the :token of the pipeline",
        );
        return ([(header::WWW_AUTHENTICATE, "Bearer")], refused).into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn describe(error: SiteError) -> &'static str {
    match error {
        SiteError::Host => {
            "the `Host` of the request is not an IP address, `localhost` or one of `:monitor-names`"
        }
        SiteError::Page => "cross-origin requests are not allowed",
    }
}

async fn with_headers(mut response: Response) -> Response {
    response.headers_mut().extend(HEADERS);
    response
}
