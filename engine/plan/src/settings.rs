//! `:settings`: what holds for a whole pipeline.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use pseidon_dsl::{Diagnostic, Document, Node, NodeKind, Span};
use pseidon_plugin::options::Options;
use pseidon_plugin::spec::{OptionDefault, OptionKind, OptionSpec, PluginSpec, Role};

/// The declaration of the settings.
pub static SETTINGS: PluginSpec = PluginSpec {
    name: ":settings",
    role: Role::Transform,
    summary: "What holds for the whole pipeline.",
    details: "",
    positional: None,
    options: &[
        OptionSpec {
            name: "etl-threads",
            kind: OptionKind::Count,
            default: OptionDefault::None,
            doc: "Threads that decode, filter and route records. Default: the number of cores.",
        },
        OptionSpec {
            name: "io-threads",
            kind: OptionKind::Count,
            default: OptionDefault::Value("2"),
            doc: "Threads with which a source may read several splits at once.",
        },
        OptionSpec {
            name: "writer-threads",
            kind: OptionKind::Count,
            default: OptionDefault::None,
            doc: "Threads that encode, compress and write. Default: the number of cores.",
        },
        OptionSpec {
            name: "memory",
            kind: OptionKind::Bytes,
            default: OptionDefault::Value("512MB"),
            doc: "The memory budget. Half of it is for records in flight, a quarter for the buffers of open lanes, the rest for what sources \
                  and libraries hold. Sources pause when their part is used up; the lane used longest ago is committed when the other is.",
        },
        OptionSpec {
            name: "state",
            kind: OptionKind::Text,
            default: OptionDefault::None,
            doc: "Where commit records are kept: a Redis URL (`redis://`, `rediss://`, `redis+sentinel://`, `redis-cluster://`), with \
                  `?wait-replicas=N` to have steps wait for so many replicas. Default: a file in `.pseidon/` beside the pipeline file.",
        },
        OptionSpec {
            name: "namespace",
            kind: OptionKind::Text,
            default: OptionDefault::Value("pseidon"),
            doc: "The first part of every key in Redis, so that many pipelines and other programs share a server.",
        },
        OptionSpec {
            name: "guarantee",
            kind: OptionKind::Choice(&["exactly-once", "any"]),
            default: OptionDefault::Value("any"),
            doc: "With `:exactly-once` a path that delivers less is a mistake in the file.",
        },
        OptionSpec {
            name: "commit-interval",
            kind: OptionKind::Duration,
            default: OptionDefault::Value("5s"),
            doc: "How often positions are committed that moved although no file was closed, because records were filtered out.",
        },
        OptionSpec {
            name: "lease",
            kind: OptionKind::Duration,
            default: OptionDefault::Value("15s"),
            doc: "How long an instance that shares a source's splits with others (`files`, `generate`) may be silent before they read its \
                  splits. Kafka shares partitions by its own group protocol.",
        },
        OptionSpec {
            name: "forget-after",
            kind: OptionKind::Duration,
            default: OptionDefault::Value("7d"),
            doc: "How long the state remembers a file that was read to its end and does not exist any more. One that comes back later is read \
                  again.",
        },
        OptionSpec {
            name: "shutdown-grace",
            kind: OptionKind::Duration,
            default: OptionDefault::Value("30s"),
            doc: "How long a graceful stop may take. What is not committed by then is read again at the next start.",
        },
        OptionSpec {
            name: "monitor-port",
            kind: OptionKind::Count,
            default: OptionDefault::None,
            doc: "Serves `/metrics`, `/health` and the rest of the service pages on this port. Default: nothing is served.",
        },
        OptionSpec {
            name: "repl-port",
            kind: OptionKind::Count,
            default: OptionDefault::None,
            doc: "Opens a REPL on this port, in which the running pipeline can be looked at. Default: none is opened.",
        },
        OptionSpec {
            name: "monitor-host",
            kind: OptionKind::Checked(check_address),
            default: OptionDefault::Value("127.0.0.1"),
            doc: "The address that both ports are opened on. `\"0.0.0.0\"` is every address of the machine: set a `:token` then.",
        },
        OptionSpec {
            name: "token",
            kind: OptionKind::Text,
            default: OptionDefault::None,
            doc: "Who tells the running pipeline what to do (`POST` requests, the REPL) has to know this. Default: whoever reaches the ports may.",
        },
        OptionSpec {
            name: "fatal-errors",
            kind: OptionKind::Text,
            default: OptionDefault::None,
            doc: "A file to which a line is added for every error that ends the process. Default: none.",
        },
    ],
    free_options: &[],
    example: "{:etl-threads 2 :memory \"512MB\" :state \"redis://localhost:6379\"}",
};

/// A lease is renewed three times before it runs out, and what runs late then must not cost work.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

fn check_address(text: &str) -> Result<(), String> {
    text.parse::<IpAddr>()
        .map(drop)
        .map_err(|_| "expected an address, such as \"127.0.0.1\"".to_owned())
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads of the ETL pool.
    pub etl_threads: usize,
    /// Threads of a source.
    pub io_threads: usize,
    /// Writer threads.
    pub writer_threads: usize,
    /// The memory budget in bytes.
    pub memory: usize,
    /// The URL of the state store; `None` for the embedded one.
    pub state: Option<String>,
    /// The namespace in a shared store.
    pub namespace: String,
    /// Whether a path that is not exactly-once is a mistake; with its place.
    pub exactly_once: Option<Span>,
    /// How often positions that moved by themselves are committed.
    pub commit_interval: Duration,
    /// How long claims of splits last without being renewed.
    pub lease: Duration,
    /// How long finished splits that do not exist any more are remembered.
    pub forget_after: Duration,
    /// How long a graceful stop may take.
    pub shutdown_grace: Duration,
    /// The port of the service pages.
    pub monitor_port: Option<u16>,
    /// The port of the REPL.
    pub repl_port: Option<u16>,
    /// The address of both.
    pub monitor_host: IpAddr,
    /// What has to be known to tell the pipeline what to do.
    pub token: Option<String>,
    /// Where errors that end the process are written down.
    pub fatal_errors: Option<PathBuf>,
}

impl Settings {
    /// Checks the settings of a document.
    pub fn of(document: &Document) -> Result<Settings, Vec<Diagnostic>> {
        let key = |name: &pseidon_dsl::Name, span: &Span| Node {
            kind: NodeKind::Keyword(name.clone()),
            span: *span,
        };
        let entries = document
            .settings
            .iter()
            .map(|(name, span, value)| (key(name, span), value.clone()))
            .collect();
        let map = Node {
            kind: NodeKind::Map(entries),
            span: Span::default(),
        };
        let options = Options::parse(&SETTINGS, &[map], Span::default())?;

        let mut mistakes = Vec::new();
        let cores = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        let mut threads = |name: &str| match options.count(name) {
            None => cores,
            Some(count @ 1..=1024) => count as usize,
            Some(_) => {
                let message = format!("`:{name}` is out of range");
                mistakes.push(Diagnostic::new(
                    options.span_of(name),
                    message,
                    "expected a number from 1 to 1024",
                ));
                cores
            }
        };
        let (etl_threads, io_threads, writer_threads) = (
            threads("etl-threads"),
            threads("io-threads"),
            threads("writer-threads"),
        );
        let memory = options.count("memory").unwrap_or_default() as usize;
        if memory < 16 << 20 {
            mistakes.push(Diagnostic::new(
                options.span_of("memory"),
                "`:memory` is too small",
                "expected at least \"16MiB\"",
            ));
        }
        if options
            .duration("lease")
            .is_some_and(|lease| lease < SHORTEST_LEASE)
        {
            mistakes.push(Diagnostic::new(
                options.span_of("lease"),
                "`:lease` is too short",
                "expected at least \"1s\"",
            ));
        }
        let mut port = |name: &str| {
            let port = options.count(name)?;
            let valid = u16::try_from(port).ok().filter(|port| *port > 0);
            if valid.is_none() {
                mistakes.push(Diagnostic::new(
                    options.span_of(name),
                    "this is not a port",
                    "expected a number from 1 to 65535",
                ));
            }
            valid
        };
        let (monitor_port, repl_port) = (port("monitor-port"), port("repl-port"));
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Settings {
            etl_threads,
            io_threads,
            writer_threads,
            memory,
            state: options.text("state").map(str::to_owned),
            namespace: options.text("namespace").unwrap_or_default().to_owned(),
            exactly_once: (options.text("guarantee") == Some("exactly-once"))
                .then(|| options.span_of("guarantee")),
            commit_interval: options.duration("commit-interval").unwrap_or_default(),
            lease: options.duration("lease").unwrap_or_default(),
            forget_after: options.duration("forget-after").unwrap_or_default(),
            shutdown_grace: options.duration("shutdown-grace").unwrap_or_default(),
            monitor_port,
            repl_port,
            monitor_host: options
                .text("monitor-host")
                .and_then(|host| host.parse().ok())
                .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            token: options.text("token").map(str::to_owned),
            fatal_errors: options.text("fatal-errors").map(PathBuf::from),
        })
    }
}
