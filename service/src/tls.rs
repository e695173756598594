//! TLS on the ports: the certificate of the service, and which certificates of clients are valid.
//!
//! rustls has TLS 1.2 and 1.3 only, and no weak algorithms. The certificates are read again on
//! demand: a connection keeps those with which it began.

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use pseidon_delivery::{Reason, WithCauses};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;
use crate::credentials::CredentialFile;

/// The certificates that are used now.
pub(crate) struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files. An error names the one that is invalid.
    pub(crate) fn read(files: &TlsFiles) -> Result<Tls, Reason> {
        Ok(Tls {
            current: RwLock::new(server_config(files)?),
            files: files.clone(),
        })
    }

    /// Reads the files again, for further connections.
    pub(crate) fn reload(&self) -> Result<(), Reason> {
        *self.current.write() = server_config(&self.files)?;
        Ok(())
    }

    /// What a new connection is accepted with.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().clone().into()
    }

    /// Whether clients need a certificate.
    pub(crate) fn knows_clients(&self) -> bool {
        self.files.client_ca.is_some()
    }
}

fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, Reason> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients: Arc<dyn ClientCertVerifier> = match &files.client_ca {
        Some(path) => {
            let refused = |error| invalid("client-ca", path, error);
            let mut roots = RootCertStore::empty();
            for certificate in certificates("client-ca", path)? {
                roots.add(certificate).map_err(refused)?;
            }
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
                .build()
                .map_err(|error| invalid("client-ca", path, error))?
        }
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let chain = certificates("cert", &files.cert)?;
    let key = private_key(&files.key)?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Reason::of)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key);
    let config = config.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let (key, cert) = (files.key.display(), files.cert.display());
            format!("invalid `:tls`: the `:key` {key} does not match the `:cert` {cert}").into()
        }
        error => invalid("cert", &files.cert, error),
    })?;
    Ok(Arc::new(config))
}

fn invalid(
    option: &str,
    path: &Path,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Reason {
    let what = format!("invalid `:{option}` {} of `:tls`", path.display());
    Reason::caused_by(what, error)
}

/// The certificates in a file, at least one.
fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Reason> {
    let file = CredentialFile::read(path).map_err(|error| invalid(option, path, error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&file.content).collect();
    match found {
        Ok(found) if found.is_empty() => {
            let error = Reason::from("expected a certificate in PEM");
            Err(invalid(option, path, error))
        }
        found => found.map_err(|error| invalid(option, path, error)),
    }
}

/// The private key in a file. Warns if other users know it.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Reason> {
    let file = CredentialFile::read(path).map_err(|error| invalid("key", path, error))?;
    if let Some(weakness) = file.weakness {
        tracing::warn!(key = %path.display(), reason = weakness, "the key of :tls is not secret");
    }
    PrivateKeyDer::from_pem_slice(&file.content).map_err(|_| {
        // The error of the library could show a part of the key.
        let error = Reason::from("expected a private key in PEM that is not encrypted");
        invalid("key", path, error)
    })
}

/// The SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` prints it, without colons
/// and in lower case.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = Sha256::digest(certificate);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The client's fault, if a handshake has failed because of its certificate.
pub(crate) fn certificate_error(error: &std::io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    matches!(
        error,
        rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)
    )
    .then(|| format!("no valid client certificate: {}", WithCauses(error)))
}
