//! The HTTP client of `pseidon status`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pseidon_delivery::Reason;
use pseidon_dsl::printable::beginning;
use serde_json::Value;
use ureq::Agent;
use ureq::tls::{
    Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsProvider, parse_pem,
};
use ureq::unversioned::resolver::DefaultResolver;

use super::MAX_SHOWN;
use super::unix::UnixConnector;
use crate::cli::StatusArgs;

/// How long the process may take to answer a request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A client of one process.
pub(super) struct Client {
    agent: Agent,
    /// What the paths of pages are appended to.
    url: String,
    /// The same for people: the path of a socket instead of a host.
    shown: String,
    token: Option<String>,
}

impl Client {
    /// Reads the certificates.
    pub(super) fn new(args: &StatusArgs) -> Result<Client, Reason> {
        let roots = match &args.ca {
            Some(path) => RootCerts::new_with_certs(&certificates(path)?),
            None => RootCerts::PlatformVerifier,
        };
        let own = match (&args.cert, &args.key) {
            (Some(cert), Some(key)) => Some(ClientCert::new_with_certs(
                &certificates(cert)?,
                private_key(key)?,
            )),
            _ => None,
        };
        let tls = TlsConfig::builder()
            .provider(TlsProvider::NativeTls)
            .root_certs(roots)
            .client_cert(own)
            .build();
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            // The body of an answer says what is wrong.
            .http_status_as_error(false)
            .tls_config(tls);
        let (agent, url) = match args.url.strip_prefix("unix:") {
            None => (config.build().into(), args.url.trim_end_matches('/')),
            Some(path) => {
                let connector = UnixConnector { path: path.into() };
                let config = config.proxy(None).build();
                let resolver = DefaultResolver::default();
                let agent = Agent::with_parts(config, connector, resolver);
                // A host that needs no look-up.
                (agent, "http://127.0.0.1")
            }
        };
        Ok(Client {
            agent,
            url: url.to_owned(),
            shown: args.url.trim_end_matches('/').to_owned(),
            token: args.token.clone(),
        })
    }

    /// Reads a page.
    pub(super) fn page(&self, path: &str) -> Result<Value, Reason> {
        let page = format!("{}{path}", self.shown);
        let cannot_read = |error| Reason::caused_by(format!("cannot read {page}"), error);
        let request = self.agent.get(format!("{}{path}", self.url));
        let mut request = request.header("Accept", "application/json");
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = request.call().map_err(cannot_read)?;
        let body = response.body_mut().read_to_vec().map_err(cannot_read)?;
        let json = serde_json::from_slice(&body);
        if !response.status().is_success() {
            let json: Option<Value> = json.ok();
            let said = json.as_ref().and_then(|json| json["error"].as_str());
            let said = said.map_or(String::new(), |error| {
                format!(": {}", beginning(error, MAX_SHOWN))
            });
            let status = ureq::Error::StatusCode(response.status().as_u16());
            return Err(Reason::caused_by(
                format!("cannot read {page}{said}"),
                status,
            ));
        }
        json.map_err(|error| Reason::caused_by(format!("{page}: expected JSON"), error))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Reason> {
    fs::read(path)
        .map_err(|error| Reason::caused_by(format!("cannot read {}", path.display()), error))
}

/// The certificates in a PEM file, at least one.
fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Reason> {
    let content = read(path)?;
    let mut found = Vec::new();
    for item in parse_pem(&content) {
        let cannot_read =
            |error| Reason::caused_by(format!("cannot read {}", path.display()), error);
        if let PemItem::Certificate(certificate) = item.map_err(cannot_read)? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(format!("{}: expected a certificate in PEM", path.display()).into());
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>, Reason> {
    PrivateKey::from_pem(&read(path)?)
        .map_err(|_| format!("{}: expected a private key in PEM", path.display()).into())
}
