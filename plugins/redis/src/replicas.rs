//! Steps that are done only once replicas have them: `?wait-replicas=N` in the URL.
//!
//! Redis answers a write before it sends it to its replicas. `WAIT` blocks until N of them have
//! processed everything up to the last write *of this connection*. Two cases have no such write: a
//! step that is repeated on another connection because its answer was lost, and that turns out to
//! be applied already; and a read whose result others act upon. Each step is therefore followed, on
//! the same connection, by another write, the marker, and then by `WAIT`. Replication has one
//! order: a replica that has the marker has everything that the server had applied before it,
//! regardless of the connection.
//!
//! `WAITAOF` (Redis 7.2, Valkey) waits until the server and the replicas have synced the marker to
//! disk. It is used if the server has the command and keeps an append-only file, which is checked
//! once for each connection.

use std::num::NonZeroU32;

use pseidon_delivery::Reason;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, Value, cmd};

use crate::link::{Acknowledgement, OpenConnection, unless_forbidden};

/// The timeouts of the successive `WAIT` commands, in milliseconds: together about 5 s, which is
/// less than the connection's own timeout and more than `appendfsync everysec` takes. A replica
/// that has yet to sync reports its progress at once and then only after a second, so the command
/// is repeated.
const WAIT_TIMEOUTS: [u64; 9] = [10, 20, 40, 80, 160, 320, 640, 1280, 2560];

/// The replicas that must have a step before it counts as done.
pub(crate) struct Replicas {
    count: NonZeroU32,
    /// The key of the marker, in the slot of all other keys of the pipeline.
    marker: String,
}

impl Replicas {
    pub(crate) fn new(count: NonZeroU32, marker: String) -> Replicas {
        Replicas { count, marker }
    }

    pub(crate) fn count(&self) -> u32 {
        self.count.get()
    }

    /// Sends a step, and returns its answer if enough replicas have acknowledged it. Otherwise the
    /// step may or may not be applied, and the reason says what is missing.
    pub(crate) fn query<T: FromRedisValue>(
        &self,
        connection: &mut OpenConnection,
        step: &Cmd,
    ) -> RedisResult<Result<T, Reason>> {
        let acknowledgement = self.acknowledgement(connection)?;
        let mut commands = step.get_packed_command();
        commands.extend(cmd("SET").arg(&self.marker).arg("").get_packed_command());
        // Both commands go in one packet, so that the server syncs both at once. A cluster's client
        // routes the packet by its first command.
        let answers = connection.keyed().req_packed_commands(&commands, 0, 2)?;
        let [answer, marked] = <[Value; 2]>::try_from(answers).map_err(|_| incomplete())?;
        let answer = unless_error(answer)?;
        let missing = match unless_error(marked)
            .and_then(|_| self.missing(connection, acknowledgement))
        {
            Ok(None) => return Ok(Ok(T::from_redis_value(answer)?)),
            Ok(Some(missing)) => missing,
            // The server became a replica, or its append-only file was switched off.
            Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
                connection.acknowledgement = None;
                error.to_string()
            }
            Err(error) => return Err(error),
        };
        let reason = format!("the step may be applied, but {missing}");
        Ok(Err(reason.into()))
    }

    /// What is missing after all timeouts; `None` if the marker was acknowledged.
    fn missing(
        &self,
        connection: &mut OpenConnection,
        acknowledgement: Acknowledgement,
    ) -> RedisResult<Option<String>> {
        let mut missing = None;
        for timeout in WAIT_TIMEOUTS {
            missing = self.missing_after(timeout, connection, acknowledgement)?;
            if missing.is_none() {
                break;
            }
        }
        Ok(missing)
    }

    /// What is missing after `timeout` milliseconds.
    fn missing_after(
        &self,
        timeout: u64,
        connection: &mut OpenConnection,
        acknowledgement: Acknowledgement,
    ) -> RedisResult<Option<String>> {
        let count = self.count.get();
        let (received, verb) = match acknowledgement {
            Acknowledgement::Received => (
                connection
                    .query_holder::<u32>(&self.marker, cmd("WAIT").arg(count).arg(timeout))?,
                "have received it",
            ),
            Acknowledgement::Synced => {
                let (server, replicas) = connection.query_holder::<(bool, u32)>(
                    &self.marker,
                    cmd("WAITAOF").arg(1).arg(count).arg(timeout),
                )?;
                if !server {
                    return Ok(Some(
                        "the server has not synced it to its append-only file".to_owned(),
                    ));
                }
                (
                    replicas,
                    "have synced it to an append-only file, which needs appendonly yes",
                )
            }
        };
        Ok((received < count)
            .then(|| format!("only {received} of {count} replicas (wait-replicas) {verb}")))
    }

    /// How the server acknowledges steps; looked up once for each connection.
    pub(crate) fn acknowledgement(
        &self,
        connection: &mut OpenConnection,
    ) -> RedisResult<Acknowledgement> {
        if let Some(known) = connection.acknowledgement {
            return Ok(known);
        }
        let described: Option<Vec<Value>> = unless_forbidden(
            connection.query_holder(&self.marker, cmd("COMMAND").arg("INFO").arg("WAITAOF")),
        )?;
        let persistence = connection.info(&self.marker, "persistence")?;
        let has_command =
            described.is_some_and(|commands| commands.iter().any(|command| *command != Value::Nil));
        let has_file = persistence
            .get("aof_enabled")
            .is_some_and(|enabled| enabled == "1");
        let acknowledgement = if has_command && has_file {
            Acknowledgement::Synced
        } else {
            Acknowledgement::Received
        };
        connection.acknowledgement = Some(acknowledgement);
        Ok(acknowledgement)
    }
}

fn unless_error(answer: Value) -> RedisResult<Value> {
    match answer {
        Value::ServerError(error) => Err(error.into()),
        answer => Ok(answer),
    }
}

fn incomplete() -> RedisError {
    (ErrorKind::Io, "the server did not answer every command").into()
}
