//! Connections with TLS: a server that speaks it in front of another one, which does not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use native_tls::{Identity, TlsAcceptor, TlsStream};

use crate::{impostor, refused, unreachable};

/// How long a side of a connection is waited for before the other one is served.
const TURN: Duration = Duration::from_millis(20);

/// A certificate for 127.0.0.1, which is its own authority.
pub(crate) struct TestCertificate {
    /// The PEM file with the certificate.
    pub(crate) ca: PathBuf,
    identity: Identity,
    _folder: tempfile::TempDir,
}

impl TestCertificate {
    /// A new one.
    pub(crate) fn new() -> TestCertificate {
        let folder = tempfile::tempdir().unwrap();
        let (key, ca) = (folder.path().join("key.pem"), folder.path().join("ca.pem"));
        let made = Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ])
            .args([
                "-subj",
                "/CN=test",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&ca)
            .output()
            .expect("openssl is needed");
        assert!(made.status.success());
        let read = |path| std::fs::read(path).unwrap();
        TestCertificate {
            identity: Identity::from_pkcs8(&read(&ca), &read(&key)).unwrap(),
            ca,
            _folder: folder,
        }
    }

    /// Starts a server with this certificate, which passes on what it receives to `HOST:PORT`.
    pub(crate) fn serve(&self, target: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::new(self.identity.clone()).unwrap();
        let target = target.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that does not trust the certificate ends the handshake.
                if let Ok(client) = acceptor.accept(stream.unwrap()) {
                    let server = TcpStream::connect(&target).unwrap();
                    std::thread::spawn(move || pass_on(client, server));
                }
            }
        });
        address
    }
}

/// Passes on what both sides send until one of them has closed the connection.
fn pass_on(mut client: TlsStream<TcpStream>, mut server: TcpStream) {
    client.get_ref().set_read_timeout(Some(TURN)).unwrap();
    server.set_read_timeout(Some(TURN)).unwrap();
    while copy(&mut client, &mut server) && copy(&mut server, &mut client) {}
}

/// Copies what has arrived. Returns whether the connection is open.
fn copy(from: &mut impl Read, to: &mut impl Write) -> bool {
    let mut buffer = vec![0; 64 << 10];
    match from.read(&mut buffer) {
        Ok(0) => false,
        Ok(read) => to.write_all(&buffer[..read]).is_ok(),
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

#[test]
fn a_server_with_an_unknown_certificate_is_refused() {
    let (trusted, other) = (TestCertificate::new(), TestCertificate::new());
    let address = other.serve("127.0.0.1:1");
    let ca = trusted.ca.display();
    for url in [
        format!("thrifts://{address}"),
        format!("thrifts://{address}?sslCa={ca}"),
        format!("jdbc:hive2://{address}/default;ssl=true"),
        format!("jdbc:hive2://{address}/default;ssl=true;sslCa={ca}"),
    ] {
        let reason = unreachable(&url);
        let expected = "cannot establish a TLS connection: ";
        assert!(
            reason.contains(expected) && reason.contains("certificate verify failed"),
            "{url}: {reason}"
        );
    }
    // The certificate is for 127.0.0.1.
    let port = trusted.serve("127.0.0.1:1").port();
    let reason = unreachable(&format!("thrifts://localhost:{port}?sslCa={ca}"));
    assert!(reason.contains("certificate verify failed"), "{reason}");
}

#[test]
fn a_server_without_tls_is_refused() {
    let plain = impostor(1, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let reason = unreachable(&format!("thrifts://{plain}"));
    assert!(
        reason.contains("cannot establish a TLS connection"),
        "{reason}"
    );
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let reason = unreachable(&format!("thrifts://{}", silent.local_addr().unwrap()));
    assert!(reason.contains("no response within 5 s"), "{reason}");
}

#[test]
fn a_file_without_certificates_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.pem");
    std::fs::write(&path, "secret").unwrap();
    let missing = folder.path().join("missing.pem");
    for path in [&path, &missing] {
        let url = format!("thrifts://127.0.0.1:1?sslCa={}", path.display());
        let reason = refused(&url.parse().unwrap(), "web.clicks");
        let expected = format!("cannot use the certificates in {}: ", path.display());
        assert!(
            reason.contains(&expected) && !reason.contains("secret"),
            "{reason}"
        );
    }
}
