//! Encrypted connections to a real server, whose URL and certificate are in the environment.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use pseidon_delivery::WithCauses;
use pseidon_mysql::TableError;
use pseidon_mysql::database::Database;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: start the servers and set their URLs with: \
             eval \"$(scripts/local-up)\""
        )
    })
}

/// The cipher of a connection to this URL, empty if it is not encrypted.
fn cipher(url: &str) -> Result<String, TableError> {
    let database = Database::new(url, None, None)?;
    let rows = database.execute("show session status like 'Ssl_cipher'", &[])?;
    Ok(rows[0]["value"].clone().unwrap_or_default())
}

fn refused(url: &str) -> String {
    match cipher(url) {
        Err(TableError::Unreachable(reason) | TableError::Refused(reason)) => {
            WithCauses(&reason).to_string()
        }
        Ok(cipher) => panic!("{url}: {cipher:?}"),
    }
}

#[test]
fn connections_are_encrypted_as_the_url_requests_it() {
    let (server, ca) = (
        variable("PSEIDON_TEST_MYSQL"),
        variable("PSEIDON_TEST_MYSQL_CA"),
    );
    for (query, is_encrypted) in [
        ("", false),
        ("?sslMode=DISABLED", false),
        ("?sslMode=PREFERRED", true),
        ("?useSSL=true&requireSSL=true", true),
        ("?sslMode=REQUIRED", true),
        (&format!("?sslMode=VERIFY_CA&sslCa={ca}"), true),
        (&format!("?sslMode=VERIFY_IDENTITY&sslCa={ca}"), true),
    ] {
        let cipher = cipher(&format!("{server}/{query}")).unwrap();
        assert_eq!(!cipher.is_empty(), is_encrypted, "{query}: {cipher}");
    }
}

#[test]
fn a_server_with_an_unknown_certificate_is_refused() {
    let (server, ca) = (
        variable("PSEIDON_TEST_MYSQL"),
        variable("PSEIDON_TEST_MYSQL_CA"),
    );
    let by_name = server.replace("127.0.0.1", "localhost");
    for url in [
        format!("{server}/?sslMode=VERIFY_IDENTITY"),
        format!("{server}/?sslMode=VERIFY_CA"),
        // The certificate is for 127.0.0.1.
        format!("{by_name}/?sslMode=VERIFY_IDENTITY&sslCa={ca}"),
    ] {
        let reason = refused(&url);
        assert!(
            reason.contains("certificate verify failed"),
            "{url}: {reason}"
        );
    }
    assert!(cipher(&format!("{by_name}/?sslMode=VERIFY_CA&sslCa={ca}")).is_ok());
}

#[test]
fn a_server_without_tls_is_accepted_only_if_tls_is_not_required() {
    let address = without_tls(&variable("PSEIDON_TEST_MYSQL"));
    let url = |mode: &str| format!("mysql://root@{address}/?sslMode={mode}");
    for mode in ["REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"] {
        let reason = refused(&url(mode));
        assert!(reason.contains("SSL"), "{mode}: {reason}");
    }
    for mode in ["DISABLED", "PREFERRED"] {
        assert_eq!(cipher(&url(mode)).unwrap(), "", "{mode}");
    }
}

/// The flag in the greeting of a server that has TLS.
const CLIENT_SSL: u16 = 0x0800;

/// Starts a server that is another one, but that says in its greeting that it has no TLS.
fn without_tls(server: &str) -> SocketAddr {
    let target = server.rsplit_once('@').unwrap().1.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let mut server = TcpStream::connect(&target).unwrap();
            let greeting = changed_greeting(&mut server);
            (&client).write_all(&greeting).unwrap();
            for (mut from, mut to) in [
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server, client),
            ] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    address
}

/// Reads the greeting, a packet with a header of 4 bytes, and takes the flag out of it. Its place is
/// after the protocol's version, the server's version with a zero, the connection's number and 8
/// bytes with another zero.
fn changed_greeting(server: &mut TcpStream) -> Vec<u8> {
    let mut header = [0; 4];
    server.read_exact(&mut header).unwrap();
    let length = u32::from_le_bytes([header[0], header[1], header[2], 0]);
    let mut payload = vec![0; length as usize];
    server.read_exact(&mut payload).unwrap();
    let version_end = payload.iter().position(|byte| *byte == 0).unwrap();
    let flags = version_end + 1 + 4 + 8 + 1;
    let value = u16::from_le_bytes([payload[flags], payload[flags + 1]]);
    assert!(value & CLIENT_SSL != 0, "the server has TLS");
    payload[flags..flags + 2].copy_from_slice(&(value & !CLIENT_SSL).to_le_bytes());
    [&header[..], &payload].concat()
}
