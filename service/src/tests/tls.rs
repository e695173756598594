//! Tests of TLS on both ports, with certificates that the tests make.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pseidon_delivery::WithCauses;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, version};
use tempfile::TempDir;

use super::{HttpResponse, TestService, registry, serve_with};
use crate::limits::Limits;
use crate::{TlsFiles, start};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);
/// How soon a limit is reached that a test waits for.
const SOON: Duration = Duration::from_millis(50);

/// An authority, and a folder with files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key, in PEM.
struct Identity {
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn issue(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        Identity {
            cert: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// Writes a file for the process alone.
    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    /// The files of a service, with a new certificate.
    fn files(&self, needs_certificate: bool) -> TlsFiles {
        let own = self.issue();
        TlsFiles {
            cert: self.write("cert.pem", &own.cert),
            key: self.write("key.pem", &own.key),
            client_ca: needs_certificate.then(|| self.write("ca.pem", &self.issuer.pem())),
        }
    }

    fn serve(&self, needs_certificate: bool, change: impl FnOnce(&mut Limits)) -> TestService {
        serve_with(&["a"], true, None, |config, limits| {
            config.tls = Some(self.files(needs_certificate));
            change(limits);
        })
    }

    /// What a client trusts and presents.
    fn client(
        &self,
        identity: Option<&Identity>,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        match identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let cert = CertificateDer::from_pem_slice(identity.cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![cert], key).unwrap()
            }
        }
    }
}

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

fn connect(address: SocketAddr, config: ClientConfig) -> TlsStream {
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, TcpStream::connect(address).unwrap())
}

/// What is answered to bytes after which the service closes the connection.
fn exchange(address: SocketAddr, config: ClientConfig, sent: &str) -> io::Result<String> {
    let mut stream = connect(address, config);
    stream.write_all(sent.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

const LIVE: &str = "GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[test]
fn both_ports_have_tls() {
    let authority = Authority::new();
    let served = authority.serve(false, |_| {});
    for version in [&version::TLS12, &version::TLS13] {
        let config = || authority.client(None, version);
        let answer = exchange(served.monitor, config(), LIVE).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let answer = exchange(served.repl, config(), "logs\nquit\n").unwrap();
        assert!(answer.starts_with("a starting"), "{answer}");
    }
    for address in [served.monitor, served.repl] {
        let mut plain = TcpStream::connect(address).unwrap();
        plain.write_all(LIVE.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "without TLS: {answer:?}");
        let other = Authority::new().client(None, &version::TLS13);
        let error = exchange(address, other, LIVE).unwrap_err().to_string();
        assert!(error.contains("invalid peer certificate"), "{error}");
    }
}

#[test]
fn a_client_without_a_valid_certificate_is_refused() {
    let authority = Authority::new();
    let served = authority.serve(true, |_| {});
    let (own, other) = (authority.issue(), Authority::new().issue());
    for version in [&version::TLS12, &version::TLS13] {
        for (address, sent) in [(served.monitor, LIVE), (served.repl, "logs\nquit\n")] {
            let config = |identity| authority.client(identity, version);
            assert!(exchange(address, config(Some(&own)), sent).is_ok());
            for invalid in [None, Some(&other)] {
                let error = exchange(address, config(invalid), sent).unwrap_err();
                assert!(error.to_string().contains("alert"), "{error}");
            }
        }
    }
}

#[test]
fn certificates_are_read_again() {
    let authority = Authority::new();
    let served = authority.serve(false, |_| {});
    let presented = || {
        let mut stream = connect(served.monitor, authority.client(None, &version::TLS13));
        stream.write_all(LIVE.as_bytes()).unwrap();
        HttpResponse::read(&mut stream);
        stream.conn.peer_certificates().unwrap()[0].to_vec()
    };
    let files = served.service.files().unwrap();
    let first = presented();
    files.reload();
    assert_eq!(presented(), first, "nothing has changed");
    authority.write("cert.pem", &authority.issue().cert);
    files.reload();
    assert_eq!(
        presented(),
        first,
        "the key is that of the earlier certificate"
    );
    authority.files(false);
    assert_eq!(presented(), first, "not before they are read again");
    files.reload();
    assert_ne!(presented(), first);
}

#[test]
fn invalid_files_are_named() {
    let authority = Authority::new();
    let error = |change: &dyn Fn(&mut TlsFiles)| {
        let mut files = authority.files(true);
        change(&mut files);
        let served = serve_invalid(files);
        assert!(!served.contains("PRIVATE"), "{served}");
        served
    };
    let pem = |name: &str| authority.write(name, "-----BEGIN PRIVATE KEY-----\nAAAA\n");
    for (reason, named, part) in [
        (
            error(&|files| files.cert = "/missing/cert.pem".into()),
            "`:cert` /missing/cert.pem",
            "(os error 2)",
        ),
        (
            error(&|files| files.key = "/missing/key.pem".into()),
            "`:key` /missing/key.pem",
            "(os error 2)",
        ),
        (
            error(&|files| files.client_ca = Some("/missing/ca.pem".into())),
            "`:client-ca` /missing/ca.pem",
            "(os error 2)",
        ),
        (
            error(&|files| files.key = authority.write("other", &authority.issue().key)),
            "`:key`",
            "does not match the `:cert`",
        ),
        (
            error(&|files| files.key = files.cert.clone()),
            "`:key`",
            "expected a private key in PEM",
        ),
        (
            error(&|files| files.key = pem("cut")),
            "`:key`",
            "expected a private key",
        ),
        (
            error(&|files| files.cert = files.key.clone()),
            "`:cert`",
            "expected a certificate in PEM",
        ),
        (
            error(&|files| files.client_ca = Some(files.key.clone())),
            "`:client-ca`",
            "expected a certificate in PEM",
        ),
    ] {
        assert!(reason.contains(named) && reason.contains(part), "{reason}");
    }
}

/// Why a service does not start with these files.
fn serve_invalid(files: TlsFiles) -> String {
    let base = tempfile::tempdir().unwrap();
    let (runs, _) = registry(base.path(), &[], false);
    let mut config = super::config(None);
    config.tls = Some(files);
    let json = pseidon_formats::json_lines;
    let started = start(&config, runs, Limits::of_process(), json);
    WithCauses(&started.err().unwrap()).to_string()
}

#[test]
fn a_handshake_is_a_part_of_the_time_for_a_request() {
    let authority = Authority::new();
    let served = authority.serve(false, |limits| limits.request = SOON);
    for address in [served.monitor, served.repl] {
        // The beginning of a handshake of TLS.
        for sent in [&b""[..], b"\x16", b"\x16\x03\x01\x00\xf0\x01"] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(sent).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"");
        }
    }
}

#[test]
fn probes_are_answered_while_handshakes_use_all_connections() {
    let authority = Authority::new();
    let served = authority.serve(false, |limits| {
        (limits.connections, limits.reserved) = (2, 2);
        (limits.request, limits.idle) = (LONG, LONG);
        limits.repl_connections = 1;
    });
    let begin = |address| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"\x16\x03\x01").unwrap();
        stream
    };
    let _slow: Vec<TcpStream> = (0..20).map(|_| begin(served.monitor)).collect();
    let config = || authority.client(None, &version::TLS13);
    let answer = exchange(served.monitor, config(), LIVE).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let other = LIVE.replace("/live", "/metrics");
    let answer = exchange(served.monitor, config(), &other).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");

    let _slow = begin(served.repl);
    assert!(exchange(served.repl, config(), "logs\nquit\n").is_err());
}
