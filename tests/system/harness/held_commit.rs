//! A way to a Redis server on which a commit is held, as on a slow network: its sender can die
//! while it is under way.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What only a commit that stages files holds.
const STAGES_FILES: &[u8] = b"\\\"hidden\\\"";
/// How a run asks what is staged for the sink `files`.
const ASKS_FOR_STAGED: [&[u8]; 2] = [b"HGETALL", b":staged:files\r\n"];

/// A proxy in front of a Redis server.
pub(crate) struct HeldCommit {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    /// How many commits go through before one is held.
    let_through: AtomicU64,
    is_holding: AtomicBool,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// The rest of the commit, and its connection to the server.
    commit: Option<(Vec<u8>, TcpStream)>,
    answer: Option<String>,
}

impl HeldCommit {
    /// One in front of the server at `HOST:PORT`, which holds the commit after the first
    /// `let_through`.
    pub(crate) fn start(upstream: &str, let_through: u64) -> HeldCommit {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (let_through, is_holding) = (AtomicU64::new(let_through), AtomicBool::new(false));
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            let_through,
            is_holding,
            held: Mutex::default(),
        });
        let for_clients = shared.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = for_clients.clone();
                std::thread::spawn(move || shared.serve(client));
            }
        });
        HeldCommit { port, shared }
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Whether a commit is held.
    pub(crate) fn is_holding(&self) -> bool {
        self.shared.is_holding.load(Ordering::Relaxed)
    }

    /// What the server answered when the held commit reached it. It does so just before the next
    /// run learns what is staged.
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
        let asks_for_staged = Arc::new(AtomicBool::new(false));
        std::thread::scope(|scope| {
            let asked = asks_for_staged.clone();
            scope.spawn(move || {
                let mut piece = vec![0; 1 << 16];
                while let Ok(read @ 1..) = from_server.read(&mut piece) {
                    if asked.swap(false, Ordering::Relaxed) {
                        self.let_held_arrive();
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
                asks_for_staged.store(
                    ASKS_FOR_STAGED.iter().all(|word| contains(piece, word)),
                    Ordering::Relaxed,
                );
                if server.write_all(piece).is_err() {
                    break;
                }
            }
            let _ = server.shutdown(std::net::Shutdown::Read);
        });
    }

    /// Counts a commit. Returns whether it is the one to hold.
    fn holds_now(&self) -> bool {
        let left = self
            .let_through
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        left.is_err() && !self.is_holding.swap(true, Ordering::Relaxed)
    }

    /// Keeps the commit until its sender is gone.
    fn hold(&self, mut commit: Vec<u8>, client: &mut TcpStream, server: &TcpStream) {
        let _ = client.read_to_end(&mut commit);
        let server = TcpStream::connect(&self.upstream)
            .or_else(|_| server.try_clone())
            .expect("a connection to the server");
        self.held.lock().expect("no panic").commit = Some((commit, server));
    }

    fn let_held_arrive(&self) {
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
