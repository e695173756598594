//! Tests of Unix sockets: who can use them, and what is in their way.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use pseidon_delivery::{Reason, WithCauses};
use tempfile::TempDir;

use super::{HttpResponse, TestService, registry, serve_with};
use crate::limits::Limits;
use crate::runs::EntryState;
use crate::{Service, start};

/// A service with a socket for HTTP and one for the REPL, and the folder of both.
fn serve_sockets(token: Option<&str>, change: impl FnOnce(&mut Limits)) -> (TestService, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let served = serve_with(&["a"], true, token, |config, limits| {
        config.monitor_socket = Some(folder.path().join("http"));
        config.repl_socket = Some(folder.path().join("repl"));
        change(limits);
    });
    (served, folder)
}

fn request(path: &Path, head: &str) -> HttpResponse {
    let mut stream = UnixStream::connect(path).unwrap();
    let request = format!("{head}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    HttpResponse::read(&mut stream)
}

/// The reply of the REPL to these lines, of which the last one is `quit`.
fn replies(path: &Path, lines: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(lines.as_bytes()).unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    replies
}

#[test]
fn a_socket_is_for_the_user_alone_and_needs_no_token() {
    let (served, folder) = serve_sockets(Some("s3cret"), |_| {});
    let (http, repl) = (folder.path().join("http"), folder.path().join("repl"));
    for path in [&http, &repl] {
        let metadata = fs::symlink_metadata(path).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }
    for page in ["GET /logs", "GET /config", "POST /reset-errors"] {
        let response = request(&http, &format!("{page} HTTP/1.1\r\nHost: any.example"));
        assert_eq!(response.status, 200, "{page}");
    }
    assert_eq!(
        replies(&repl, "logs\nquit\n"),
        "a starting lag=0 rate=0.0 errors=0 open-files=0\n\n\n"
    );
    // A token that is sent counts, and so does the site of a page.
    for (header, status) in [
        ("Authorization: Bearer s3cret", 200),
        ("Authorization: Bearer s3cre", 401),
        ("Sec-Fetch-Site: cross-site", 403),
        ("Origin: http://evil.example", 403),
    ] {
        let response = request(&http, &format!("GET /logs HTTP/1.1\r\nHost: a\r\n{header}"));
        assert_eq!(response.status, status, "{header}");
    }
    assert_eq!(served.get("/logs").status, 401, "the port needs the token");
    drop(served);
    for path in [&http, &repl] {
        assert!(!path.exists(), "it is removed at the end");
    }
}

#[test]
fn connections_of_a_socket_are_limited_and_not_those_of_a_port() {
    let (served, folder) = serve_sockets(None, |limits| {
        (limits.connections, limits.reserved, limits.repl_connections) = (4, 4, 4);
    });
    let (http, repl) = (folder.path().join("http"), folder.path().join("repl"));
    let mut place = UnixStream::connect(&http).unwrap();
    place.write_all(b"GET /live HTT").unwrap();
    let refused = request(&http, "GET /logs HTTP/1.1\r\nHost: a");
    assert_eq!(refused.status, 503);
    assert_eq!(request(&http, "GET /live HTTP/1.1\r\nHost: a").status, 200);
    let mut place = BufReader::new(UnixStream::connect(&repl).unwrap());
    place.get_mut().write_all(b"logs\n").unwrap();
    place.read_line(&mut String::new()).unwrap();
    assert_eq!(replies(&repl, ""), "error: too many connections\n\n");
    assert_eq!(served.get("/logs").status, 200);
    served.runs.entry("a").set_state(EntryState::Running);
}

/// A service with a socket for the REPL at this path.
fn started(path: &Path) -> Result<Service, Reason> {
    let base = tempfile::tempdir().unwrap();
    let (runs, _) = registry(base.path(), &[], false);
    let mut config = super::config(None);
    config.repl_socket = Some(path.to_owned());
    let json = pseidon_formats::json_lines;
    start(&config, runs, Limits::of_process(), json)
}

/// Why a service does not start with a socket at this path.
fn refusal(path: &Path) -> Option<String> {
    let refused = started(path).err();
    refused.map(|error| WithCauses(&error).to_string())
}

/// A socket that accepts no further client, and the one that waits for it.
fn busy(path: &Path) -> (tokio::net::UnixListener, UnixStream) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let _context = runtime.enter();
    let socket = tokio::net::UnixSocket::new_stream().unwrap();
    socket.bind(path).unwrap();
    let listener = socket.listen(0).unwrap();
    (listener, UnixStream::connect(path).unwrap())
}

#[test]
fn only_the_socket_of_a_dead_process_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    drop(UnixListener::bind(path("dead")).unwrap());
    let service = started(&path("dead")).unwrap();
    assert_eq!(replies(&path("dead"), "quit\n"), "\n");
    drop(service);
    assert!(!path("dead").exists());

    let living = UnixListener::bind(path("living")).unwrap();
    let (_busy, _waiting) = busy(&path("busy"));
    let _other_kind = UnixDatagram::bind(path("other-kind")).unwrap();
    fs::write(path("file"), "content").unwrap();
    fs::create_dir(path("folder")).unwrap();
    symlink(path("dead"), path("dangling")).unwrap();
    symlink(path("living"), path("link")).unwrap();
    for (name, expected) in [
        ("living", "a process listens on it already"),
        ("busy", "a process listens on it already"),
        ("other-kind", "wrong type for socket"),
        ("file", "something else than a socket"),
        ("folder", "something else than a socket"),
        ("dangling", "something else than a socket"),
        ("link", "something else than a socket"),
    ] {
        let reason = refusal(&path(name)).unwrap();
        assert!(reason.contains(expected), "{reason}");
        assert!(reason.contains("`:repl-socket`"), "{reason}");
        assert!(fs::symlink_metadata(path(name)).is_ok(), "{name} is left");
    }
    drop(living);
    assert_eq!(fs::read_to_string(path("file")).unwrap(), "content");
}

#[test]
fn a_folder_that_others_can_write_to_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let below = |mode: u32| {
        let shared = folder.path().join(format!("{mode:o}"));
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, PermissionsExt::from_mode(mode)).unwrap();
        refusal(&shared.join("s"))
    };
    for mode in [0o777, 0o775, 0o722] {
        let reason = below(mode).unwrap();
        assert!(
            reason.contains("other users can write to the folder"),
            "{reason}"
        );
    }
    for mode in [0o755, 0o700, 0o1777] {
        assert_eq!(below(mode), None, "{mode:o}");
    }
    let created = folder.path().join("new");
    assert_eq!(refusal(&created.join("s")), None);
    let mode = fs::metadata(&created).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "it is created for the user alone");
    let reason = refusal(&created.join("missing/folders/s")).unwrap();
    assert!(reason.contains("cannot use the folder"), "{reason}");
}

#[test]
fn a_long_path_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let of_length = |length: usize| -> PathBuf {
        let rest = length - folder.path().as_os_str().len() - 1;
        folder.path().join("s".repeat(rest))
    };
    let reason = refusal(&of_length(108)).unwrap();
    assert!(
        reason.contains("the path has 108 bytes; expected at most 107"),
        "{reason}"
    );
    assert_eq!(refusal(&of_length(107)), None);
}
