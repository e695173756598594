//! A proxy for a Redis server that holds a commit back, as a slow network does: its sender can die
//! before the commit arrives.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A string that only occurs in a commit that stages files.
const STAGES_FILES: &[u8] = b"\\\"hidden\\\"";
/// The strings in a run's query for the staged files of the sink `files`.
const STAGED_QUERY: [&[u8]; 2] = [b"HGETALL", b":staged:files\r\n"];

/// A proxy in front of a Redis server.
pub(crate) struct HeldCommit {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    /// The number of commits to forward before one is held.
    forward_first: AtomicU64,
    is_holding: AtomicBool,
    held: Mutex<HeldState>,
}

#[derive(Default)]
struct HeldState {
    /// The bytes of the commit, and a connection to the server.
    commit: Option<(Vec<u8>, TcpStream)>,
    answer: Option<String>,
}

impl HeldCommit {
    /// Starts a proxy for the server at `HOST:PORT` that holds the commit after the first
    /// `forward_first`.
    pub(crate) fn start(upstream: &str, forward_first: u64) -> HeldCommit {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (forward_first, is_holding) = (AtomicU64::new(forward_first), AtomicBool::new(false));
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            forward_first,
            is_holding,
            held: Mutex::default(),
        });
        let for_clients = shared.clone();
        // The thread ends with the test process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = for_clients.clone();
                std::thread::spawn(move || shared.serve(client));
            }
        });
        HeldCommit { port, shared }
    }

    /// The URL of the proxy.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Whether a commit is held.
    pub(crate) fn is_holding(&self) -> bool {
        self.shared.is_holding.load(Ordering::Relaxed)
    }

    /// The answer of the server to the held commit, which is forwarded just before the next run
    /// gets its list of staged files.
    pub(crate) fn answer(&self) -> Option<String> {
        self.shared.held.lock().expect("no panic").answer.clone()
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) {
        let Ok(mut server) = TcpStream::connect(&self.upstream) else {
            return;
        };
        let (Ok(mut to_client), Ok(mut from_server)) = (client.try_clone(), server.try_clone())
        else {
            return;
        };
        let is_staged_query = Arc::new(AtomicBool::new(false));
        std::thread::scope(|scope| {
            let is_query = is_staged_query.clone();
            scope.spawn(move || {
                let mut piece = vec![0; 1 << 16];
                while let Ok(read @ 1..) = from_server.read(&mut piece) {
                    if is_query.swap(false, Ordering::Relaxed) {
                        self.forward_held();
                    }
                    if to_client.write_all(&piece[..read]).is_err() {
                        break;
                    }
                }
                let _ = to_client.shutdown(std::net::Shutdown::Both);
            });
            let mut piece = vec![0; 1 << 16];
            while let Ok(read @ 1..) = client.read(&mut piece) {
                let piece = &piece[..read];
                if contains(piece, STAGES_FILES) && self.holds_now() {
                    self.hold(piece.to_vec(), &mut client, &server);
                    break;
                }
                is_staged_query.store(
                    STAGED_QUERY.iter().all(|word| contains(piece, word)),
                    Ordering::Relaxed,
                );
                if server.write_all(piece).is_err() {
                    break;
                }
            }
            let _ = server.shutdown(std::net::Shutdown::Read);
        });
    }

    /// Counts a commit. Returns whether it should be held.
    fn holds_now(&self) -> bool {
        let left = self
            .forward_first
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        left.is_err() && !self.is_holding.swap(true, Ordering::Relaxed)
    }

    /// Keeps the commit until its sender has died.
    fn hold(&self, mut commit: Vec<u8>, client: &mut TcpStream, server: &TcpStream) {
        let _ = client.read_to_end(&mut commit);
        let server = TcpStream::connect(&self.upstream)
            .or_else(|_| server.try_clone())
            .expect("a connection to the server");
        self.held.lock().expect("no panic").commit = Some((commit, server));
    }

    fn forward_held(&self) {
        let mut held = self.held.lock().expect("no panic");
        let Some((commit, mut server)) = held.commit.take() else {
            return;
        };
        let mut answer = [0; 4096];
        let read = server
            .write_all(&commit)
            .and_then(|()| server.read(&mut answer))
            .expect("the server answers");
        held.answer = Some(String::from_utf8_lossy(&answer[..read]).into_owned());
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part == word)
}
