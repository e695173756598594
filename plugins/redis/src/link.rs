//! A connection that is reopened after it breaks, what is known of the server at its other end, and
//! the classification of errors.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use pseidon_delivery::{Reason, StoreError};
use redis::cluster::{ClusterClient, ClusterConnection};
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{
    Client, Cmd, Connection, ConnectionInfo, ConnectionLike, ErrorKind, FromRedisValue, RedisError,
    RedisResult, ServerErrorKind, cmd,
};

use crate::address::{self, ServerAddress};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Generous, since a server that rewrites its log may delay a commit.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The link to the server. Requests are serialized, as the steps of the protocol are anyway.
pub(crate) struct Link {
    address: ServerAddress,
    connection: Mutex<Option<OpenConnection>>,
}

/// An open connection. [`Link::request`] drops it if it may be broken.
pub(crate) struct OpenConnection {
    pub(crate) endpoint: Endpoint,
    /// How the server at the other end acknowledges steps; `None` before the first step that waits
    /// for replicas.
    pub(crate) acknowledgement: Option<Acknowledgement>,
}

/// How a replica acknowledges a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acknowledgement {
    /// `WAIT`: it has processed the step.
    Received,
    /// `WAITAOF`: it has synced the step to disk, and so has the server.
    Synced,
}

/// What a connection is connected to.
pub(crate) enum Endpoint {
    One(Connection),
    Cluster(Box<ClusterConnection>),
}

impl OpenConnection {
    fn to(endpoint: Endpoint) -> OpenConnection {
        OpenConnection {
            endpoint,
            acknowledgement: None,
        }
    }

    /// The connection for commands and scripts that name their keys.
    pub(crate) fn keyed(&mut self) -> &mut dyn ConnectionLike {
        match &mut self.endpoint {
            Endpoint::One(connection) => connection,
            Endpoint::Cluster(connection) => connection.as_mut(),
        }
    }

    /// Sends a command to the very server that holds `key`.
    pub(crate) fn query_holder<T: FromRedisValue>(
        &mut self,
        key: &str,
        command: &Cmd,
    ) -> RedisResult<T> {
        match &mut self.endpoint {
            Endpoint::One(connection) => command.query(connection),
            Endpoint::Cluster(connection) => {
                let holder = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(
                    Route::with_key(key, SlotAddr::Master),
                ));
                Ok(T::from_redis_value(
                    connection.route_command(command, holder)?,
                )?)
            }
        }
    }

    /// A section of `INFO` of the server that holds `key`. Empty if the server forbids the command.
    pub(crate) fn info(
        &mut self,
        key: &str,
        section: &str,
    ) -> RedisResult<HashMap<String, String>> {
        let text: Option<String> =
            unless_forbidden(self.query_holder(key, cmd("INFO").arg(section)))?;
        Ok(parse_info(&text.unwrap_or_default()).collect())
    }
}

/// Parses the response to `INFO`.
pub(crate) fn parse_info(text: &str) -> impl Iterator<Item = (String, String)> {
    text.lines()
        .filter_map(|line| line.trim().split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

impl Link {
    /// Connects to the server.
    pub(crate) fn open(address: ServerAddress) -> Result<Link, StoreError> {
        let connection = connect(&address).map_err(classify)?;
        Ok(Link {
            address,
            connection: Mutex::new(Some(connection)),
        })
    }

    /// Whether another server may take over from one that fails.
    pub(crate) fn fails_over(&self) -> bool {
        !matches!(self.address, ServerAddress::Server(_))
    }

    /// Makes a request. After an error that the connection may have caused, the connection is
    /// dropped and the next request opens another one.
    pub(crate) fn request<T>(
        &self,
        request: impl FnOnce(&mut OpenConnection) -> RedisResult<T>,
    ) -> Result<T, StoreError> {
        let mut slot = self.connection.lock();
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => connect(&self.address).map_err(classify)?,
        };
        let answer = request(&mut connection).map_err(classify);
        if !matches!(answer, Err(StoreError::Unavailable(_))) {
            *slot = Some(connection);
        }
        answer
    }
}

fn connect(address: &ServerAddress) -> RedisResult<OpenConnection> {
    match address {
        ServerAddress::Server(info) => {
            connect_to_server(info).map(|connection| OpenConnection::to(Endpoint::One(connection)))
        }
        ServerAddress::Sentinel {
            sentinels,
            service,
            master,
        } => connect_to_master(sentinels, service, master)
            .map(|connection| OpenConnection::to(Endpoint::One(connection))),
        ServerAddress::Cluster(nodes) => {
            // Without retries: the library would resend a commit whose answer was lost, and take
            // the second answer, a refusal, for the first. The committer handles that case.
            let client = ClusterClient::builder(nodes.iter().cloned())
                .connection_timeout(CONNECT_TIMEOUT)
                .response_timeout(RESPONSE_TIMEOUT)
                .retries(0)
                .build()?;
            Ok(OpenConnection::to(Endpoint::Cluster(Box::new(
                client.get_connection()?,
            ))))
        }
    }
}

fn connect_to_server(info: &ConnectionInfo) -> RedisResult<Connection> {
    let connection = Client::open(info.clone())?.get_connection_with_timeout(CONNECT_TIMEOUT)?;
    connection.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
    connection.set_write_timeout(Some(RESPONSE_TIMEOUT))?;
    Ok(connection)
}

/// Queries the sentinels in turn. The library has a client for this too, but it would wait forever
/// for a sentinel that hangs.
fn connect_to_master(
    sentinels: &[ConnectionInfo],
    service: &str,
    master: &ConnectionInfo,
) -> RedisResult<Connection> {
    let mut last_error = RedisError::from((ErrorKind::EmptySentinelList, "no sentinel"));
    for sentinel in sentinels {
        let found = connect_to_server(sentinel).and_then(|mut sentinel| {
            cmd("SENTINEL")
                .arg("GET-MASTER-ADDR-BY-NAME")
                .arg(service)
                .query::<Option<(String, u16)>>(&mut sentinel)
        });
        let connection = match found {
            Ok(Some((host, port))) => connect_to_server(&address::at(master, host, port)),
            Ok(None) => Err((
                ErrorKind::MasterNameNotFoundBySentinel,
                "the sentinels do not know the service",
                service.to_owned(),
            )
                .into()),
            Err(error) => Err(error),
        };
        match connection.and_then(ensure_master) {
            Ok(connection) => return Ok(connection),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// Checks the role: a sentinel that missed a failover still names the old master, which may be a
/// replica by now.
fn ensure_master(mut connection: Connection) -> RedisResult<Connection> {
    let role: redis::Value = cmd("ROLE").query(&mut connection)?;
    let name = match role {
        redis::Value::Array(parts) => parts
            .into_iter()
            .next()
            .map(String::from_redis_value)
            .transpose()?,
        _ => None,
    };
    if name.as_deref() == Some("master") {
        return Ok(connection);
    }
    Err((
        ErrorKind::Io,
        "the server that the sentinels name is no longer a master",
    )
        .into())
}

/// The prefixes of errors that pass by themselves or after maintenance of the server, without a
/// change to the pipeline.
const TRANSIENT_PREFIXES: [&str; 9] = [
    "BUSY",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "READONLY",
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "ERR max number of clients",
];

/// Classifies an error by whether waiting can help.
fn classify(error: RedisError) -> StoreError {
    let text = error.to_string();
    let is_transient = match error.kind() {
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::ClusterConnectionNotFound => {
            !is_configuration_error(&text)
        }
        ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::NoScript)
        | ErrorKind::Extension => is_transient(&error, &text),
        ErrorKind::Server(kind) => !matches!(
            kind,
            ServerErrorKind::NoPerm | ServerErrorKind::CrossSlot | ServerErrorKind::ExecAbort
        ),
        _ => false,
    };
    if is_transient {
        StoreError::Unavailable(Reason::of(error))
    } else {
        StoreError::Failed(Reason::caused_by("redis", error))
    }
}

fn is_transient(error: &RedisError, text: &str) -> bool {
    let answer = format!(
        "{} {}",
        error.code().unwrap_or(""),
        error.detail().unwrap_or("")
    );
    // Servers before version 7 wrap the error of a script's call into a message of their own, in
    // which it starts with a dash.
    TRANSIENT_PREFIXES.iter().any(|prefix| {
        answer.starts_with(&format!("{prefix} ")) || text.contains(&format!(" -{prefix} "))
    })
}

/// The answer, or `None` if the server forbids the command, as managed servers do.
pub(crate) fn unless_forbidden<T>(answer: RedisResult<T>) -> RedisResult<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind() == ErrorKind::Io => Err(error),
        Err(_) => Ok(None),
    }
}

/// Whether the cause is a wrong setting. The cluster client hides why it could not connect to any
/// node, so the message is searched.
fn is_configuration_error(text: &str) -> bool {
    [
        "WRONGPASS",
        "NOAUTH",
        "NOPERM",
        "Password authentication failed",
        "AuthenticationFailed",
        "certificate",
    ]
    .iter()
    .any(|part| text.contains(part))
}
