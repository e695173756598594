//! What holds for any bytes that a client sends to the HTTP port: for the tests, and for the fuzz
//! target.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// A request after which the service closes the connection. The empty line ends one that is cut.
const LAST: &[u8] = b"\r\n\r\nGET /live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Sends these bytes on one connection, and a last request. Each of the responses is complete and
/// is not an error of the server, and its JSON is valid. The service continues to serve. Returns
/// the status of each response.
pub fn check_http(address: SocketAddr, sent: &[u8]) -> Vec<u16> {
    let received = exchange(address, sent);
    let statuses = check_responses(sent, &received);
    let live = exchange(address, b"");
    assert!(live.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", shown(&live));
    statuses
}

/// What is received until the service closes the connection.
fn exchange(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let mut received = Vec::new();
    // The service may close the connection before it has read everything. Then the last responses
    // may be lost.
    let _ = stream.write_all(&[sent, LAST].concat());
    let head = String::from_utf8_lossy(sent).to_lowercase();
    // The last request may be part of a body, of which the service waits for the rest.
    if ["content-length", "transfer-encoding"]
        .iter()
        .any(|name| head.contains(name))
    {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let _ = stream.read_to_end(&mut received);
    received
}

fn check_responses(sent: &[u8], received: &[u8]) -> Vec<u16> {
    // The response to HEAD has the length of a body that is not sent.
    let has_bodies = !sent.windows(5).any(|bytes| bytes == b"HEAD ");
    let (mut statuses, mut rest) = (Vec::new(), received);
    while let Some(response) = Response::parse(rest) {
        let Response { status, head, .. } = response;
        assert!(matches!(status, 200..500 | 503), "{head}");
        statuses.push(status);
        if !has_bodies {
            return statuses;
        }
        let body = response.body.get(..response.length);
        // Cut if the service has closed the connection with unread bytes.
        let Some(body) = body else { return statuses };
        if head.contains("content-type: application/json") {
            let value = serde_json::from_slice::<serde_json::Value>(body);
            assert!(value.is_ok(), "{head}\n{}", shown(body));
        }
        rest = &response.body[response.length..];
    }
    let is_cut = !statuses.is_empty() || rest.is_empty();
    assert!(
        is_cut || b"HTTP/1.".starts_with(&rest[..rest.len().min(7)]),
        "{}",
        shown(rest)
    );
    statuses
}

struct Response<'a> {
    status: u16,
    /// The status line and the headers, in lower case.
    head: String,
    /// The length of the body, in bytes.
    length: usize,
    /// What follows the head.
    body: &'a [u8],
}

impl Response<'_> {
    /// The first response in these bytes; `None` if its head is not there as a whole.
    fn parse(bytes: &[u8]) -> Option<Response<'_>> {
        let end = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
        let (head, body) = bytes.split_at(end + 4);
        let head = std::str::from_utf8(head).expect("ASCII").to_lowercase();
        let status = head
            .strip_prefix("http/1.")
            .expect("a status line")
            .get(2..5);
        let length = head
            .split("\r\n")
            .find_map(|line| line.strip_prefix("content-length: "));
        Some(Response {
            status: status
                .and_then(|status| status.parse().ok())
                .expect("a status"),
            length: length.map_or(0, |length| length.parse().expect("a length")),
            head,
            body,
        })
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
