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

use crate::audit::{Client, Interface};
use crate::guard::{Caller, SiteError, role_of};
use crate::http::Connection;
use crate::status_pages::StatusPages;
use crate::tokens::{Role, missing_role};

/// The content type of errors and of most pages.
pub(crate) const JSON: &str = "application/json";
/// The longest body of a request. No endpoint reads one.
const MAX_BODY: u64 = 64 << 10;
/// The probes: pages that are served although there are too many connections, for any host, and
/// whatever token a request has.
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
    let is_probe = RESERVED.contains(&request.uri().path());
    if connection.is_reserved && !is_probe {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
    }
    let site = pages.access.check_site(
        &connection.peer,
        request.version(),
        request.uri(),
        request.headers(),
    );
    if let Err(error) = site
        // What is answered to a probe is no secret.
        && !(is_probe && error == SiteError::Host)
    {
        refused(&pages, &connection, None, describe(error));
        return refuse(StatusCode::FORBIDDEN, describe(error));
    }
    if request.body().size_hint().lower() > MAX_BODY {
        return refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body of the request is too long; no endpoint reads one",
        );
    }
    let caller = if is_probe && role_of(request.method()) == Role::Read {
        Caller::Anonymous
    } else {
        let caller = pages.access.caller(&connection.peer, request.headers());
        let is_open = pages.access.is_open(request.method(), request.uri().path());
        let needed = (!is_open).then(|| role_of(request.method()));
        match authorize(&pages, &connection, caller, needed).await {
            Ok(caller) => caller,
            Err(refused) => return refused,
        }
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Who sends a request that needs this role, or none. A wrong token is no reason to refuse an open
/// page, so that monitoring does not depend on tokens; but the answer is late, and the token is
/// logged.
async fn authorize(
    pages: &StatusPages,
    connection: &Connection,
    caller: Caller,
    needed: Option<Role>,
) -> Result<Caller, Response> {
    match (&caller, needed) {
        (Caller::Known(_) | Caller::Anonymous, None) => return Ok(caller),
        (Caller::Known(grant), Some(role)) => {
            if grant.allows(role) {
                return Ok(caller);
            }
            let reason = missing_role(role);
            refused(pages, connection, caller.name(), &reason);
            return Err(refuse(StatusCode::FORBIDDEN, &reason));
        }
        (Caller::Anonymous, Some(_)) => refused(pages, connection, None, "no token"),
        (Caller::Impostor, _) => {
            refused(pages, connection, None, "wrong token");
            tokio::time::sleep(pages.limits.wrong_token).await;
            if needed.is_none() {
                return Ok(Caller::Anonymous);
            }
        }
    }
    let refused = refuse(
        StatusCode::UNAUTHORIZED,
        "missing or invalid token; expected the header `Authorization: Bearer TOKEN` with \
         the :token of the pipeline, or one of its :token-file",
    );
    Err(([(header::WWW_AUTHENTICATE, "Bearer")], refused).into_response())
}

fn refused(pages: &StatusPages, connection: &Connection, token: Option<&str>, reason: &str) {
    let client = Client {
        peer: &connection.peer,
        interface: Interface::Http,
        token,
    };
    pages.refusals.refused(&client, reason);
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
