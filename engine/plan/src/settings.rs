//! `:settings`: the settings of a whole pipeline.

mod max_invalid;

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use pseidon_dsl::{Diagnostic, Document, Node, NodeKind, Span};
use pseidon_plugin::Secret;
use pseidon_plugin::options::kinds::{ByteSize, IntegerIn};
use pseidon_plugin::options::{Argument, Choice, OptionValue, Options, ParseResult, SpannedValue};
use pseidon_plugin::spec::{OptionGroup, OptionKind};

pub use self::max_invalid::MaxInvalid;

/// The declaration of the settings, for documentation.
pub static SETTINGS: OptionGroup = OptionGroup {
    name: ":settings",
    summary: "Settings of the whole pipeline.",
    options: Settings::DECLARED,
    example: "{:etl-threads 2 :memory \"512MB\" :state \"redis://localhost:6379\"}",
};

/// The settings of a pipeline.
#[derive(Clone, Debug, Options)]
pub struct Settings {
    /// The number of threads that decode, filter and route records. Default: the number of cores.
    pub etl_threads: Threads,
    /// The number of threads with which a source reads several splits concurrently.
    #[option(default = "2")]
    pub io_threads: Threads,
    /// The number of threads that encode, compress and write. Default: the number of cores.
    pub writer_threads: Threads,
    /// The memory budget. Half of it is for records in flight, a quarter for the buffers of open
    /// lanes, and the rest for sources and libraries. Sources pause when records in flight use
    /// their share; the least recently used lane is committed when lane buffers use theirs.
    #[option(default = "512MB")]
    pub memory: Memory,
    /// The store for commit records: a Redis URL (`redis://`, `rediss://`, `redis+sentinel://`,
    /// `redis-cluster://`). With `?wait-replicas=N`, each step waits until N replicas have it.
    /// Default: a file in `.pseidon/` next to the pipeline file.
    pub state: Option<Secret>,
    /// The key with which plans, staged files and inferred schemas in the state are signed, at least
    /// 16 characters, such as `"${file:/run/credentials/pseidon.service/state-key}"`: what another
    /// program has written there is refused instead of being run. All instances have the same key.
    /// Of a vector, to exchange a key, the first one signs, and all are valid. Default: a program
    /// that can write to the state can run commands as the process.
    pub state_key: Option<StateKeys>,
    /// Whether unsigned state is accepted, and signed: for the first start with a `:state-key`.
    #[option(default = "false")]
    pub accept_unsigned_state: bool,
    /// The prefix of every key in Redis, so that several pipelines and other programs can share a
    /// server.
    #[option(default = "pseidon")]
    pub namespace: String,
    /// With `:exactly-once`, a path with a weaker guarantee is an error.
    #[option(default = "any")]
    pub guarantee: SpannedValue<RequiredGuarantee>,
    /// How often positions are committed that advanced without a closed file, because records were
    /// filtered out.
    #[option(default = "5s")]
    pub commit_interval: Duration,
    /// How long an instance that shares the splits of a source (`files`, `generate`) can be
    /// unresponsive before other instances take over its splits. Kafka assigns partitions with its
    /// own group protocol.
    #[option(default = "15s")]
    pub lease: Lease,
    /// How long the state remembers a file that was read to its end and no longer exists. A file
    /// that reappears later is read again. With a sink whose positions are in its target, such as
    /// `kafka`, it is remembered for good.
    #[option(default = "7d")]
    pub forget_after: Duration,
    /// How many records may be invalid, as a share of those that a run has read (`"1%"`) or as a
    /// number: a run that ends with more has exit code 3. They are quarantined or dropped as
    /// without it, and are not read again. Default: any number.
    pub max_invalid: Option<MaxInvalid>,
    /// The maximum duration of a graceful stop. Records that are uncommitted by then are re-read at
    /// the next start.
    #[option(default = "30s")]
    pub shutdown_grace: Duration,
    /// The port that serves `/metrics`, `/health` and the other service pages. Default: no port is
    /// opened.
    pub monitor_port: Option<Port>,
    /// A Unix socket that serves the same pages, such as `"/run/pseidon/http.sock"`. Only the user
    /// of the process and root can use it; they need no token. Default: none.
    pub monitor_socket: Option<PathBuf>,
    /// Whether a REPL for inspecting the running pipeline is served on a Unix socket,
    /// `.pseidon/NAME.sock` next to the pipeline file. Only the user of the process and root can use
    /// it; they need no token.
    #[option(default = "false")]
    pub repl: bool,
    /// The path of the REPL's Unix socket, at most 107 bytes. Default: none, or that of `:repl`.
    pub repl_socket: Option<PathBuf>,
    /// A TCP port of the REPL, for clients on other machines or without Unix sockets. Default: no
    /// port is opened.
    pub repl_port: Option<Port>,
    /// The address on which both ports are opened. With `"0.0.0.0"` they are reachable on every
    /// address of the machine: then set `:tls`, and a `:token` or a `:token-file`.
    #[option(default = "127.0.0.1")]
    pub monitor_host: IpAddr,
    /// The names under which clients reach the HTTP port, such as that of a proxy. Requests for any
    /// name but these, `localhost` and IP addresses are refused, so that no web page can read the
    /// service through a browser. Default: none.
    pub monitor_names: Option<Vec<String>>,
    /// TLS on both ports. The files are read again on SIGHUP. Default: what is sent can be read and
    /// changed by anyone in the network between.
    pub tls: Option<ServiceTls>,
    /// Required for the REPL and, over HTTP, for `POST` requests and the pages of `:token-for`.
    /// Default: any client that can reach the ports can control the pipeline.
    pub token: Option<Secret>,
    /// In place of `:token`, a file with a line `NAME ROLES TOKEN` for each token, where the roles
    /// are one or several of `read`, `operate` and `records`, such as `deploy read,operate …`. It
    /// is read again on SIGHUP. Default: none.
    pub token_file: Option<PathBuf>,
    /// The pages that require a token, if one is set. `/live`, `/ready` and whether `/health`
    /// is ok never do.
    #[option(default = "pages")]
    pub token_for: TokenFor,
    /// Limits what the process can do on its machine, where the kernel supports it, even if a record
    /// takes it over through an error in a library. It cannot look into other processes, mount or
    /// load kernel code, and writes only in these folders. Default: the process can do what its user
    /// can.
    pub sandbox: Option<SandboxOptions>,
    /// A file to which a line is appended for every error that stops the process. Default: none.
    pub fatal_errors: Option<PathBuf>,
}

impl Settings {
    /// Whether only the pipeline can have written what is run from its state: all of it is signed, or
    /// it is in a file that other users cannot write to.
    pub fn trusts_state(&self) -> bool {
        self.state.is_none() || self.state_key.is_some() && !self.accept_unsigned_state
    }

    /// Parses the settings of a document.
    ///
    /// # Errors
    /// All invalid settings.
    pub fn from_document(document: &Document) -> Result<Settings, Vec<Diagnostic>> {
        let settings = document.settings.iter();
        let entries: Vec<(Node, Node)> = settings
            .map(|(name, span, value)| {
                let key = Node {
                    kind: NodeKind::Keyword(name.clone()),
                    span: *span,
                };
                (key, value.clone())
            })
            .collect();
        let parsed = Settings::parse_map(SETTINGS.name, &entries, Span::default())?;
        if parsed.token.is_some() && parsed.token_file.is_some() {
            let mut settings = document.settings.iter();
            let file = settings.find(|(name, _, _)| name.name == "token-file");
            let span = file.map_or(Span::default(), |(_, span, _)| *span);
            let error = Diagnostic::new(
                span,
                "`:token` and `:token-file` cannot be combined",
                "expected only one of them",
            );
            return Err(vec![error.with_help(
                "add the token to the file, with a name and its roles: `NAME read,operate,records TOKEN`",
            )]);
        }
        Ok(parsed)
    }

    /// The position of `:guarantee :exactly-once`. `None` if any guarantee is accepted.
    pub fn exactly_once(&self) -> Option<Span> {
        match self.guarantee.value {
            RequiredGuarantee::ExactlyOnce => Some(self.guarantee.span),
            RequiredGuarantee::Any => None,
        }
    }
}

/// What is possible in the sandbox.
#[derive(Clone, Debug, Options)]
pub struct SandboxOptions {
    /// The folders in which files can be written: those of all sinks and quarantines. The state and
    /// the file of `:fatal-errors` need not be named. All folders have to exist at the start.
    pub writable: Vec<String>,
    /// Whether programs can be executed: set it if a sink has an `:on-close` with a `:command`.
    #[option(default = "false")]
    pub programs: bool,
}

/// The keys of signed state: the current one, and earlier ones. `{:?}` does not print them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateKeys {
    /// The key with which state is signed.
    pub current: Secret,
    /// The keys with which it may be signed.
    pub earlier: Vec<Secret>,
}

/// The shortest key that can be a random one.
const MIN_KEY: usize = 16;

impl OptionValue for StateKeys {
    const KIND: OptionKind = OptionKind::Strings;

    fn parse(argument: &Argument<'_>) -> ParseResult<StateKeys> {
        let keys = Vec::<String>::parse(argument)?;
        let is_short = keys.iter().any(|key| key.len() < MIN_KEY);
        let mut keys = keys.into_iter().map(Secret::new);
        match keys.next() {
            Some(current) if !is_short => Ok(StateKeys {
                current,
                earlier: keys.collect(),
            }),
            _ => {
                let message = format!("`:{}` is too short", argument.name());
                let expected = format!("expected a key of at least {MIN_KEY} characters");
                Err(argument.error(message, expected))
            }
        }
    }
}

/// TLS on the ports of the service.
#[derive(Clone, Debug, Options)]
pub struct ServiceTls {
    /// The certificate of the service, followed by those that lead to its authority: a PEM file.
    pub cert: PathBuf,
    /// Its private key, not encrypted: a PEM file.
    pub key: PathBuf,
    /// The authorities that sign the certificates of clients: a PEM file. Clients without such a
    /// certificate are refused, also by `/live` and `/ready`. Default: clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// The weakest guarantee that a path may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub enum RequiredGuarantee {
    /// A path with a weaker guarantee is an error.
    ExactlyOnce,
    /// Any guarantee is accepted.
    Any,
}

/// The pages that require the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub enum TokenFor {
    /// Those that show the configuration, the logs and their problems: `/config`, `/logs`,
    /// `/stats`, and what `/health` says.
    Pages,
    /// Also `/metrics` and `/`.
    All,
}

/// A number of threads. The default is the number of cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads(usize);

/// The valid numbers of threads.
type ThreadCount = IntegerIn<1, 1024>;

impl Threads {
    /// The number, at least 1.
    pub fn get(self) -> usize {
        self.0
    }
}

impl OptionValue for Threads {
    const KIND: OptionKind = ThreadCount::KIND;
    const OPTIONAL: bool = true;

    fn parse(argument: &Argument<'_>) -> ParseResult<Threads> {
        ThreadCount::parse(argument).map(|count| Threads(count.get() as usize))
    }

    fn missing() -> Option<Threads> {
        let cores = std::thread::available_parallelism();
        Some(Threads(cores.map_or(2, NonZeroUsize::get)))
    }
}

/// A memory budget of at least 16 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory(usize);

impl Memory {
    /// The budget in bytes.
    pub fn bytes(self) -> usize {
        self.0
    }
}

impl OptionValue for Memory {
    const KIND: OptionKind = ByteSize::KIND;

    fn parse(argument: &Argument<'_>) -> ParseResult<Memory> {
        let ByteSize(bytes) = ByteSize::parse(argument)?;
        if bytes < 16 << 20 {
            return Err(argument.error("`:memory` is too small", "expected at least \"16MiB\""));
        }
        Ok(Memory(bytes as usize))
    }
}

/// The duration of a claim on a split if it is not renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease(Duration);

impl Lease {
    /// A lease is renewed three times before it expires, and a late renewal must not lose it.
    const MIN: Duration = Duration::from_secs(1);

    /// The duration, at least 1 second.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl OptionValue for Lease {
    const KIND: OptionKind = Duration::KIND;

    fn parse(argument: &Argument<'_>) -> ParseResult<Lease> {
        let lease = Duration::parse(argument)?;
        if lease < Lease::MIN {
            return Err(argument.error("`:lease` is too short", "expected at least \"1s\""));
        }
        Ok(Lease(lease))
    }
}

/// A TCP port to listen on: 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port(u16);

/// The valid ports.
type PortNumber = IntegerIn<1, { u16::MAX as u64 }>;

impl Port {
    /// The number, never 0.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl OptionValue for Port {
    const KIND: OptionKind = PortNumber::KIND;

    fn parse(argument: &Argument<'_>) -> ParseResult<Port> {
        PortNumber::parse(argument).map(|port| Port(port.get() as u16))
    }
}
