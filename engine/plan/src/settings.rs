//! `:settings`: what holds for a whole pipeline.

use std::num::NonZeroUsize;
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
            doc: "Where commit records are kept: a Redis URL (`redis://`, `rediss://`, `redis+sentinel://`, `redis-cluster://`). Default: a \
                  file in `.pseidon/` beside the pipeline file.",
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
            name: "shutdown-grace",
            kind: OptionKind::Duration,
            default: OptionDefault::Value("30s"),
            doc: "How long a graceful stop may take. What is not committed by then is read again at the next start.",
        },
        OptionSpec {
            name: "monitor-port",
            kind: OptionKind::Count,
            default: OptionDefault::None,
            doc: "Serves `/metrics` (Prometheus) and `/health` on this port of 127.0.0.1. Default: nothing is served.",
        },
    ],
    free_options: &[],
    example: "{:etl-threads 2 :memory \"512MB\" :state \"redis://localhost:6379\"}",
};

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
    /// How long a graceful stop may take.
    pub shutdown_grace: Duration,
    /// The port of the metrics page.
    pub monitor_port: Option<u16>,
}

impl Settings {
    /// Checks the settings of a document.
    pub fn of(document: &Document) -> Result<Settings, Vec<Diagnostic>> {
        let key = |name: &pseidon_dsl::Name, span: &Span| Node { kind: NodeKind::Keyword(name.clone()), span: *span };
        let entries = document.settings.iter().map(|(name, span, value)| (key(name, span), value.clone())).collect();
        let map = Node { kind: NodeKind::Map(entries), span: Span::default() };
        let options = Options::parse(&SETTINGS, &[map], Span::default())?;

        let mut mistakes = Vec::new();
        let cores = std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
        let mut threads = |name: &str| match options.count(name) {
            None => cores,
            Some(count @ 1..=1024) => count as usize,
            Some(_) => {
                let message = format!("`:{name}` is out of range");
                mistakes.push(Diagnostic::new(options.span_of(name), message, "expected a number from 1 to 1024"));
                cores
            }
        };
        let (etl_threads, io_threads, writer_threads) = (threads("etl-threads"), threads("io-threads"), threads("writer-threads"));
        let memory = options.count("memory").unwrap_or_default() as usize;
        if memory < 16 << 20 {
            mistakes.push(Diagnostic::new(options.span_of("memory"), "`:memory` is too small", "expected at least \"16MiB\""));
        }
        let monitor_port = options.count("monitor-port").map(|port| {
            u16::try_from(port).ok().filter(|port| *port > 0).unwrap_or_else(|| {
                mistakes.push(Diagnostic::new(options.span_of("monitor-port"), "this is not a port", "expected a number from 1 to 65535"));
                0
            })
        });
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
            exactly_once: (options.text("guarantee") == Some("exactly-once")).then(|| options.span_of("guarantee")),
            commit_interval: options.duration("commit-interval").unwrap_or_default(),
            shutdown_grace: options.duration("shutdown-grace").unwrap_or_default(),
            monitor_port,
        })
    }
}
