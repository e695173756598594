//! `:settings`: the settings of a whole pipeline.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use pseidon_dsl::{Diagnostic, Document, Node, NodeKind, Span};
use pseidon_plugin::options::Options;
use pseidon_plugin::spec::{OptionDefault, OptionGroup, OptionKind, OptionSpec};

/// The declaration of the settings, for parsing and documentation.
pub static SETTINGS: OptionGroup = OptionGroup {
    name: ":settings",
    summary: "Settings of the whole pipeline.",
    options: &[
        OptionSpec {
            name: "etl-threads",
            kind: OptionKind::Integer,
            default: OptionDefault::None,
            doc: "The number of threads that decode, filter and route records. Default: the \
                number of cores.",
        },
        OptionSpec {
            name: "io-threads",
            kind: OptionKind::Integer,
            default: OptionDefault::Value("2"),
            doc: "The number of threads with which a source reads several splits concurrently.",
        },
        OptionSpec {
            name: "writer-threads",
            kind: OptionKind::Integer,
            default: OptionDefault::None,
            doc: "The number of threads that encode, compress and write. Default: the number of \
                cores.",
        },
        OptionSpec {
            name: "memory",
            kind: OptionKind::Bytes,
            default: OptionDefault::Value("512MB"),
            doc: "The memory budget. Half of it is for records in flight, a quarter for the \
                buffers of open lanes, and the rest for sources and libraries. Sources pause when \
                records in flight use their share; the least recently used lane is committed when \
                lane buffers use theirs.",
        },
        OptionSpec {
            name: "state",
            kind: OptionKind::String,
            default: OptionDefault::None,
            doc: "The store for commit records: a Redis URL (`redis://`, `rediss://`, \
                `redis+sentinel://`, `redis-cluster://`). With `?wait-replicas=N`, each step \
                waits until N replicas have it. Default: a file in `.pseidon/` next to the \
                pipeline file.",
        },
        OptionSpec {
            name: "namespace",
            kind: OptionKind::String,
            default: OptionDefault::Value("pseidon"),
            doc: "The prefix of every key in Redis, so that several pipelines and other programs \
                can share a server.",
        },
        OptionSpec {
            name: "guarantee",
            kind: OptionKind::Choice(&["exactly-once", "any"]),
            default: OptionDefault::Value("any"),
            doc: "With `:exactly-once`, a path with a weaker guarantee is an error.",
        },
        OptionSpec {
            name: "commit-interval",
            kind: OptionKind::Duration,
            default: OptionDefault::Value("5s"),
            doc: "How often positions are committed that advanced without a closed file, because \
                records were filtered out.",
        },
        OptionSpec {
            name: "lease",
            kind: OptionKind::Duration,
            default: OptionDefault::Value("15s"),
            doc: "How long an instance that shares the splits of a source (`files`, `generate`) \
                can be unresponsive before other instances take over its splits. Kafka assigns \
                partitions with its own group protocol.",
        },
        OptionSpec {
            name: "forget-after",
            kind: OptionKind::Duration,
            default: OptionDefault::Value("7d"),
            doc: "How long the state remembers a file that was read to its end and no longer \
                exists. A file that reappears later is read again.",
        },
        OptionSpec {
            name: "shutdown-grace",
            kind: OptionKind::Duration,
            default: OptionDefault::Value("30s"),
            doc: "The maximum duration of a graceful stop. Records that are uncommitted by then \
                are re-read at the next start.",
        },
        OptionSpec {
            name: "monitor-port",
            kind: OptionKind::Integer,
            default: OptionDefault::None,
            doc: "The port that serves `/metrics`, `/health` and the other service pages. \
                Default: no port is opened.",
        },
        OptionSpec {
            name: "repl-port",
            kind: OptionKind::Integer,
            default: OptionDefault::None,
            doc: "The port of a REPL for inspecting the running pipeline. Default: no port is \
                opened.",
        },
        OptionSpec {
            name: "monitor-host",
            kind: OptionKind::CheckedString(check_address),
            default: OptionDefault::Value("127.0.0.1"),
            doc: "The address on which both ports are opened. With `\"0.0.0.0\"` they are \
                reachable on every address of the machine: then set a `:token`.",
        },
        OptionSpec {
            name: "token",
            kind: OptionKind::String,
            default: OptionDefault::None,
            doc: "Required for control requests (`POST` requests, the REPL). Default: any client \
                that can reach the ports can control the pipeline.",
        },
        OptionSpec {
            name: "fatal-errors",
            kind: OptionKind::String,
            default: OptionDefault::None,
            doc: "A file to which a line is appended for every error that stops the process. \
                Default: none.",
        },
    ],
    example: "{:etl-threads 2 :memory \"512MB\" :state \"redis://localhost:6379\"}",
};

/// The minimum lease. A lease is renewed three times before it expires, and a late renewal must not
/// lose it.
const MIN_LEASE: Duration = Duration::from_secs(1);

fn check_address(text: &str) -> Result<(), String> {
    text.parse::<IpAddr>()
        .map(drop)
        .map_err(|_| "expected an IP address such as \"127.0.0.1\"".to_owned())
}

/// The checked settings of a pipeline, with defaults applied.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The number of threads that decode, filter and route records: 1 to 1024.
    pub etl_threads: usize,
    /// The number of threads with which a source reads splits: 1 to 1024.
    pub io_threads: usize,
    /// The number of writer threads: 1 to 1024.
    pub writer_threads: usize,
    /// The memory budget in bytes, at least 16 MiB.
    pub memory: usize,
    /// The URL of the state store. `None` for the embedded store.
    pub state: Option<String>,
    /// The prefix of keys in a shared store.
    pub namespace: String,
    /// The position of `:guarantee :exactly-once`, with which a path with a weaker guarantee is an
    /// error. `None` if any guarantee is accepted.
    pub exactly_once: Option<Span>,
    /// The interval at which positions are committed that advanced without a closed lane.
    pub commit_interval: Duration,
    /// The duration of a claim on a split if it is not renewed.
    pub lease: Duration,
    /// How long the state remembers a finished split that no longer exists.
    pub forget_after: Duration,
    /// The maximum duration of a graceful stop.
    pub shutdown_grace: Duration,
    /// The port of the service pages. `None` if they are not served.
    pub monitor_port: Option<u16>,
    /// The port of the REPL. `None` if it is disabled.
    pub repl_port: Option<u16>,
    /// The address on which both ports are opened.
    pub monitor_host: IpAddr,
    /// The token required for control requests. `None` if none is required.
    pub token: Option<String>,
    /// The file to which errors that stop the process are appended.
    pub fatal_errors: Option<PathBuf>,
}

impl Settings {
    /// Checks the settings of a document.
    ///
    /// # Errors
    /// All invalid settings.
    pub fn from_document(document: &Document) -> Result<Settings, Vec<Diagnostic>> {
        let key = |name: &pseidon_dsl::Name, span: &Span| Node {
            kind: NodeKind::Keyword(name.clone()),
            span: *span,
        };
        let entries: Vec<(Node, Node)> = document
            .settings
            .iter()
            .map(|(name, span, value)| (key(name, span), value.clone()))
            .collect();
        let options = Options::parse_group(&SETTINGS, &entries, Span::default())?;

        let mut errors = Vec::new();
        let cores = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        let mut threads = |name: &str| match options.integer(name) {
            None => cores,
            Some(count @ 1..=1024) => count as usize,
            Some(_) => {
                let message = format!("`:{name}` is out of range");
                errors.push(Diagnostic::new(
                    options.span_of(name),
                    message,
                    "expected an integer from 1 to 1024",
                ));
                cores
            }
        };
        let (etl_threads, io_threads, writer_threads) = (
            threads("etl-threads"),
            threads("io-threads"),
            threads("writer-threads"),
        );
        let memory = options.integer("memory").unwrap_or_default() as usize;
        if memory < 16 << 20 {
            errors.push(Diagnostic::new(
                options.span_of("memory"),
                "`:memory` is too small",
                "expected at least \"16MiB\"",
            ));
        }
        if options
            .duration("lease")
            .is_some_and(|lease| lease < MIN_LEASE)
        {
            errors.push(Diagnostic::new(
                options.span_of("lease"),
                "`:lease` is too short",
                "expected at least \"1s\"",
            ));
        }
        let mut port = |name: &str| {
            let port = options.integer(name)?;
            let valid = u16::try_from(port).ok().filter(|port| *port > 0);
            if valid.is_none() {
                errors.push(Diagnostic::new(
                    options.span_of(name),
                    "invalid port",
                    "expected an integer from 1 to 65535",
                ));
            }
            valid
        };
        let (monitor_port, repl_port) = (port("monitor-port"), port("repl-port"));
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Settings {
            etl_threads,
            io_threads,
            writer_threads,
            memory,
            state: options.string("state").map(str::to_owned),
            namespace: options.string("namespace").unwrap_or_default().to_owned(),
            exactly_once: (options.string("guarantee") == Some("exactly-once"))
                .then(|| options.span_of("guarantee")),
            commit_interval: options.duration("commit-interval").unwrap_or_default(),
            lease: options.duration("lease").unwrap_or_default(),
            forget_after: options.duration("forget-after").unwrap_or_default(),
            shutdown_grace: options.duration("shutdown-grace").unwrap_or_default(),
            monitor_port,
            repl_port,
            monitor_host: options
                .string("monitor-host")
                .and_then(|host| host.parse().ok())
                .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            token: options.string("token").map(str::to_owned),
            fatal_errors: options.string("fatal-errors").map(PathBuf::from),
        })
    }
}
