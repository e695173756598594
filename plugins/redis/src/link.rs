//! A connection that is made anew when it breaks, and which errors pass by themselves.

use std::time::Duration;

use parking_lot::Mutex;
use pseidon_delivery::StoreError;
use redis::cluster::{ClusterClient, ClusterConnection};
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use redis::{
    Client, Cmd, Connection, ConnectionInfo, ConnectionLike, ErrorKind, FromRedisValue, RedisError,
    RedisResult, ServerErrorKind,
};

use crate::address::{self, Address};
use crate::replicas::Acknowledgement;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Generous, since a server that rewrites its log may hold a commit up.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The way to the server. One request at a time: the protocol's steps follow one another anyway.
pub(crate) struct Link {
    address: Address,
    connection: Mutex<Option<Live>>,
}

/// An open connection.
pub(crate) struct Live {
    pub(crate) servers: Servers,
    /// How the server at the other end acknowledges steps; `None` before the first step that waits
    /// for replicas.
    pub(crate) acknowledgement: Option<Acknowledgement>,
}

/// What a connection leads to.
pub(crate) enum Servers {
    One(Connection),
    Cluster(Box<ClusterConnection>),
}

impl Live {
    fn to(servers: Servers) -> Live {
        Live {
            servers,
            acknowledgement: None,
        }
    }

    /// For commands and scripts that name their keys.
    pub(crate) fn keyed(&mut self) -> &mut dyn ConnectionLike {
        match &mut self.servers {
            Servers::One(connection) => connection,
            Servers::Cluster(connection) => connection.as_mut(),
        }
    }

    /// Asks the very server that holds `key` about itself.
    pub(crate) fn ask_holder<T: FromRedisValue>(
        &mut self,
        key: &str,
        command: &Cmd,
    ) -> RedisResult<T> {
        match &mut self.servers {
            Servers::One(connection) => command.query(connection),
            Servers::Cluster(connection) => {
                let holder = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(
                    Route::with_key(key, SlotAddr::Master),
                ));
                Ok(T::from_redis_value(
                    connection.route_command(command, holder)?,
                )?)
            }
        }
    }
}

impl Link {
    /// Connects.
    pub(crate) fn open(address: Address) -> Result<Link, StoreError> {
        let connection = connect(&address).map_err(|error| classify(&error))?;
        Ok(Link {
            address,
            connection: Mutex::new(Some(connection)),
        })
    }

    /// Whether a server may take over from another one that dies.
    pub(crate) fn fails_over(&self) -> bool {
        !matches!(self.address, Address::Server(_))
    }

    /// Makes a request. After an error that may be the connection's fault it is dropped, and the
    /// next request makes another one.
    pub(crate) fn request<T>(
        &self,
        request: impl FnOnce(&mut Live) -> RedisResult<T>,
    ) -> Result<T, StoreError> {
        let mut slot = self.connection.lock();
        let mut live = match slot.take() {
            Some(live) => live,
            None => connect(&self.address).map_err(|error| classify(&error))?,
        };
        let answer = request(&mut live).map_err(|error| classify(&error));
        if !matches!(answer, Err(StoreError::Unavailable(_))) {
            *slot = Some(live);
        }
        answer
    }
}

fn connect(address: &Address) -> RedisResult<Live> {
    match address {
        Address::Server(info) => {
            connect_to_server(info).map(|connection| Live::to(Servers::One(connection)))
        }
        Address::Sentinel {
            sentinels,
            service,
            master,
        } => connect_to_master(sentinels, service, master)
            .map(|connection| Live::to(Servers::One(connection))),
        Address::Cluster(nodes) => {
            // Without retries: the library would send a commit again whose answer was lost, and
            // take the second answer, a refusal, for the first. The committer knows that case.
            let client = ClusterClient::builder(nodes.iter().cloned())
                .connection_timeout(CONNECT_TIMEOUT)
                .response_timeout(RESPONSE_TIMEOUT)
                .retries(0)
                .build()?;
            Ok(Live::to(Servers::Cluster(Box::new(
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

/// Asks the sentinels in turn. The library has a client for this too, but it would wait forever for
/// a sentinel that hangs.
fn connect_to_master(
    sentinels: &[ConnectionInfo],
    service: &str,
    master: &ConnectionInfo,
) -> RedisResult<Connection> {
    let mut last_error = RedisError::from((ErrorKind::EmptySentinelList, "no sentinel"));
    for sentinel in sentinels {
        let found = connect_to_server(sentinel).and_then(|mut sentinel| {
            redis::cmd("SENTINEL")
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
        match connection.and_then(must_be_master) {
            Ok(connection) => return Ok(connection),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// A sentinel that missed a failover still names the old master, which may have become a replica.
fn must_be_master(mut connection: Connection) -> RedisResult<Connection> {
    let role: redis::Value = redis::cmd("ROLE").query(&mut connection)?;
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
        "the server that the sentinels name is not a master now",
    )
        .into())
}

/// How answers start that pass by themselves, or once somebody has looked after the server, without
/// a change to the pipeline.
const PASSING: [&str; 9] = [
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

/// Whether waiting can help.
fn classify(error: &RedisError) -> StoreError {
    let text = error.to_string();
    let passes = match error.kind() {
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::ClusterConnectionNotFound => {
            !blames_the_user(&text)
        }
        ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::NoScript)
        | ErrorKind::Extension => is_passing(error, &text),
        ErrorKind::Server(kind) => !matches!(
            kind,
            ServerErrorKind::NoPerm | ServerErrorKind::CrossSlot | ServerErrorKind::ExecAbort
        ),
        _ => false,
    };
    if passes {
        StoreError::Unavailable(text)
    } else {
        StoreError::Failed(format!("redis: {text}"))
    }
}

fn is_passing(error: &RedisError, text: &str) -> bool {
    let answer = format!(
        "{} {}",
        error.code().unwrap_or(""),
        error.detail().unwrap_or("")
    );
    // Servers before 7 wrap the error of a script's call into a text of their own, where it starts
    // with a dash.
    PASSING.iter().any(|passing| {
        answer.starts_with(&format!("{passing} ")) || text.contains(&format!(" -{passing} "))
    })
}

/// The answer, or `None` where the server forbids the question, as managed servers do; that is an
/// answer too.
pub(crate) fn unless_forbidden<T>(answer: RedisResult<T>) -> RedisResult<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind() == ErrorKind::Io => Err(error),
        Err(_) => Ok(None),
    }
}

/// The cluster client hides why it could not connect to any node.
fn blames_the_user(text: &str) -> bool {
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
