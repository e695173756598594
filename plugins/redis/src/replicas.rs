//! Steps that count only once replicas have them: `?wait-replicas=N` in the URL.
//!
//! Redis answers a write before it sends it to its replicas. `WAIT` blocks until so many of them
//! have processed everything up to the last write *of this connection*. Two cases have no such
//! write: a step that is repeated on another connection because its answer was lost, and finds
//! itself applied; and a read whose result others act upon. So each step is followed, on the same
//! connection, by a write of its own, the marker, and then by `WAIT`. Replication has one order: a
//! replica that has the marker has everything that the server had applied before it, whichever
//! connection that came from.
//!
//! `WAITAOF` (Redis 7.2, Valkey) waits until the server and the replicas have synced the marker to
//! disk. It is used where the server has the command and keeps an append-only file. The server is
//! asked for both once for each connection.

use std::collections::HashMap;
use std::num::NonZeroU32;

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, Value, cmd};

use crate::durability::parse_info;
use crate::link::{Live, unless_forbidden};

/// How long each question waits, in milliseconds: together about 5 s, which is less than the
/// connection's own time-out and more than `appendfsync everysec` takes. A replica that is asked
/// while it has yet to sync says how far it was, and then nothing for a second; so it is asked
/// again.
const PATIENCE: [u64; 9] = [10, 20, 40, 80, 160, 320, 640, 1280, 2560];

/// What a replica says when it acknowledges a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acknowledgement {
    /// `WAIT`: it has processed the step.
    Received,
    /// `WAITAOF`: it has synced the step to its disk, and so has the server.
    Synced,
}

/// The replicas that must have a step before it is answered.
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
    /// step is applied or not, and the string says what is missing.
    pub(crate) fn query<T: FromRedisValue>(
        &self,
        live: &mut Live,
        step: &Cmd,
    ) -> RedisResult<Result<T, String>> {
        let acknowledgement = self.acknowledgement(live)?;
        let mut commands = step.get_packed_command();
        commands.extend(cmd("SET").arg(&self.marker).arg("").get_packed_command());
        // In one packet, so that the server syncs both at once. A cluster's client finds the server
        // by the first command.
        let answers = live.keyed().req_packed_commands(&commands, 0, 2)?;
        let [answer, marked] = <[Value; 2]>::try_from(answers).map_err(|_| incomplete())?;
        let answer = unless_error(answer)?;
        let missing = match unless_error(marked).and_then(|_| self.missing(live, acknowledgement)) {
            Ok(None) => return Ok(Ok(T::from_redis_value(answer)?)),
            Ok(Some(missing)) => missing,
            // It became a replica, or its append-only file was switched off.
            Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
                live.acknowledgement = None;
                error.to_string()
            }
            Err(error) => return Err(error),
        };
        Ok(Err(format!("the step may be applied, but {missing}")))
    }

    /// What the marker lacks in the end.
    fn missing(
        &self,
        live: &mut Live,
        acknowledgement: Acknowledgement,
    ) -> RedisResult<Option<String>> {
        let mut missing = None;
        for patience in PATIENCE {
            missing = self.missing_after(patience, live, acknowledgement)?;
            if missing.is_none() {
                break;
            }
        }
        Ok(missing)
    }

    /// What the marker lacks after `patience` milliseconds.
    fn missing_after(
        &self,
        patience: u64,
        live: &mut Live,
        acknowledgement: Acknowledgement,
    ) -> RedisResult<Option<String>> {
        let count = self.count.get();
        let (received, did) = match acknowledgement {
            Acknowledgement::Received => (
                live.ask_holder::<u32>(&self.marker, cmd("WAIT").arg(count).arg(patience))?,
                "have received it",
            ),
            Acknowledgement::Synced => {
                let (server, replicas) = live.ask_holder::<(bool, u32)>(
                    &self.marker,
                    cmd("WAITAOF").arg(1).arg(count).arg(patience),
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
            .then(|| format!("only {received} of {count} replicas (wait-replicas) {did}")))
    }

    /// How the server acknowledges; it is asked if this connection has not asked yet.
    pub(crate) fn acknowledgement(&self, live: &mut Live) -> RedisResult<Acknowledgement> {
        if let Some(known) = live.acknowledgement {
            return Ok(known);
        }
        let described: Option<Vec<Value>> = unless_forbidden(
            live.ask_holder(&self.marker, cmd("COMMAND").arg("INFO").arg("WAITAOF")),
        )?;
        let persistence: Option<String> =
            unless_forbidden(live.ask_holder(&self.marker, cmd("INFO").arg("persistence")))?;
        let has_command =
            described.is_some_and(|commands| commands.iter().any(|command| *command != Value::Nil));
        let persistence: HashMap<String, String> =
            parse_info(&persistence.unwrap_or_default()).collect();
        let has_file = persistence
            .get("aof_enabled")
            .is_some_and(|enabled| enabled == "1");
        let asked = if has_command && has_file {
            Acknowledgement::Synced
        } else {
            Acknowledgement::Received
        };
        live.acknowledgement = Some(asked);
        Ok(asked)
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
