//! Where the service listens, and what clients need.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use pseidon_delivery::Reason;
use pseidon_plan::Settings;
use pseidon_plan::settings::{Port, TokenFor};
use pseidon_plugin::Secret;

use crate::tokens::Tokens;

/// What a client needs to have, to control what runs and to see more than that it is well.
pub enum TokenSource {
    /// Nothing: every client may do everything.
    None,
    /// The one token that allows everything.
    One(Secret),
    /// One of the tokens of this file, each of which allows what is said there.
    File(PathBuf),
}

impl TokenSource {
    /// Reads the tokens, if any are needed.
    pub(crate) fn read(&self) -> Result<Option<Tokens>, Reason> {
        match self {
            TokenSource::None => Ok(None),
            TokenSource::One(token) => Tokens::one(token).map(Some),
            TokenSource::File(path) => Tokens::read(path).map(Some),
        }
    }
}

/// The files, all in PEM, of TLS on both ports.
#[derive(Clone)]
pub struct TlsFiles {
    /// The certificate of the service, followed by those that lead to its authority.
    pub cert: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The authorities of clients; `None` if clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// The addresses and the tokens of the service.
pub struct ServiceConfig {
    /// The address that both ports listen on.
    pub host: IpAddr,
    /// The port of the HTTP endpoints; `None` disables them, 0 picks a free port.
    pub monitor_port: Option<u16>,
    /// The port of the REPL; `None` disables it, 0 picks a free port.
    pub repl_port: Option<u16>,
    /// The Unix socket of the HTTP endpoints, if there is one.
    pub monitor_socket: Option<PathBuf>,
    /// The Unix socket of the REPL, if there is one.
    pub repl_socket: Option<PathBuf>,
    /// The names, beside addresses, by which clients may reach the HTTP endpoints.
    pub names: Vec<String>,
    /// The files for TLS on both ports; `None` disables it.
    pub tls: Option<TlsFiles>,
    /// What is required for control requests and for the REPL.
    pub tokens: TokenSource,
    /// The pages that require a token too.
    pub token_for: TokenFor,
}

impl ServiceConfig {
    /// Whether it listens anywhere.
    pub(crate) fn is_enabled(&self) -> bool {
        let has_port = self.monitor_port.is_some() || self.repl_port.is_some();
        has_port || self.monitor_socket.is_some() || self.repl_socket.is_some()
    }

    /// Whether the service has files that are read again while it runs.
    pub fn has_files(&self) -> bool {
        let has_tokens = matches!(self.tokens, TokenSource::File(_));
        self.is_enabled() && (has_tokens || self.tls.is_some())
    }

    /// The configuration in the `:settings` of a pipeline, whose file is in the folder `base`.
    /// `socket` is the path of the REPL's socket if none is set.
    pub fn of(settings: &Settings, base: &Path, socket: PathBuf) -> ServiceConfig {
        let below = |path: &Option<PathBuf>| path.as_ref().map(|path| base.join(path));
        let tokens = match (&settings.token_file, &settings.token) {
            (Some(path), _) => TokenSource::File(base.join(path)),
            (None, Some(token)) => TokenSource::One(token.clone()),
            (None, None) => TokenSource::None,
        };
        let tls = settings.tls.as_ref().map(|tls| TlsFiles {
            cert: base.join(&tls.cert),
            key: base.join(&tls.key),
            client_ca: below(&tls.client_ca),
        });
        ServiceConfig {
            host: settings.monitor_host,
            monitor_port: settings.monitor_port.map(Port::get),
            repl_port: settings.repl_port.map(Port::get),
            monitor_socket: below(&settings.monitor_socket),
            repl_socket: below(&settings.repl_socket).or(settings.repl.then_some(socket)),
            names: settings.monitor_names.clone().unwrap_or_default(),
            tls,
            tokens,
            token_for: settings.token_for,
        }
    }
}
