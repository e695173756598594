//! The keyspace of one pipeline: the names of its keys, and the requests that read and write them.

use pseidon_delivery::{SinkId, SplitId, StoreError, StoredPlan};
use redis::{Cmd, FromRedisValue, RedisResult, cmd};

use crate::address::StoreUrl;
use crate::durability::DurabilityReport;
use crate::link::{Link, OpenConnection};
use crate::replicas::Replicas;
use crate::scripts::ScriptCall;

/// The format of the keys. A store with another format was written by another version.
pub(crate) const FORMAT: &str = "2";

/// The keys of one pipeline on the server.
pub(crate) struct Keyspace {
    link: Link,
    /// The replicas to wait for; with `None` a step is done once the server has answered it.
    replicas: Option<Replicas>,
    /// `{namespace:pipeline}`: the prefix of all keys.
    tag: String,
}

/// The names of the keys.
impl Keyspace {
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.tag)
    }

    pub(crate) fn splits_key(&self, sink: &SinkId) -> String {
        self.key(&format!("splits:{}", encoded(sink.as_str())))
    }

    pub(crate) fn split_key(&self, sink: &SinkId, split: &SplitId) -> String {
        self.key(&format!("split:{}:{split}", encoded(sink.as_str())))
    }

    pub(crate) fn staged_key(&self, sink: &SinkId) -> String {
        self.key(&format!("staged:{}", encoded(sink.as_str())))
    }

    pub(crate) fn fenced_key(&self, sink: &SinkId) -> String {
        self.key(&format!("fenced:{}", encoded(sink.as_str())))
    }

    pub(crate) fn members_key(&self, source: &str) -> String {
        self.key(&format!("members:{}", encoded(source)))
    }

    pub(crate) fn claim_key(&self, source: &str, split: &SplitId) -> String {
        self.key(&format!("claim:{}:{split}", encoded(source)))
    }
}

/// Requests.
impl Keyspace {
    /// Connects to the server.
    pub(crate) fn connect(
        url: StoreUrl,
        namespace: &str,
        pipeline: &str,
    ) -> Result<Keyspace, StoreError> {
        let tag = format!("{{{}:{}}}", encoded(namespace), encoded(pipeline));
        Ok(Keyspace {
            link: Link::open(url.address)?,
            replicas: url
                .wait_replicas
                .map(|count| Replicas::new(count, format!("{tag}:replicated"))),
            tag,
        })
    }

    /// What the server that holds the keys reports about its durability.
    pub(crate) fn durability(&self) -> Result<DurabilityReport, StoreError> {
        DurabilityReport::query(&self.link, self.replicas.as_ref(), &self.key("meta"))
    }

    pub(crate) fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        self.link
            .request(|connection| command.query(connection.keyed()))
    }

    /// Like [`Keyspace::query`], but waits for the replicas, because other instances or systems
    /// rely on the result.
    pub(crate) fn query_confirmed<T: FromRedisValue>(
        &self,
        command: &Cmd,
    ) -> Result<T, StoreError> {
        self.link
            .request(|connection| self.query_replicated(connection, command))?
    }

    pub(crate) fn call_script<T: FromRedisValue>(
        &self,
        call: &ScriptCall<'_>,
    ) -> Result<T, StoreError> {
        self.link
            .request(|connection| call.send(|command| command.query(connection.keyed())))
    }

    /// Like [`Keyspace::query_confirmed`], for a script.
    pub(crate) fn call_confirmed<T: FromRedisValue>(
        &self,
        call: &ScriptCall<'_>,
    ) -> Result<T, StoreError> {
        self.link
            .request(|connection| call.send(|command| self.query_replicated(connection, command)))?
    }

    fn query_replicated<T: FromRedisValue>(
        &self,
        connection: &mut OpenConnection,
        command: &Cmd,
    ) -> RedisResult<Result<T, StoreError>> {
        match &self.replicas {
            None => command.query(connection.keyed()).map(Ok),
            Some(replicas) => Ok(replicas
                .query(connection, command)?
                .map_err(StoreError::Unavailable)),
        }
    }

    pub(crate) fn hash_field(&self, hash: &str, field: &str) -> Result<Option<String>, StoreError> {
        self.query(cmd("HGET").arg(self.key(hash)).arg(field))
    }

    pub(crate) fn sinks(&self) -> Result<Vec<SinkId>, StoreError> {
        let sinks: Vec<String> = self.query(cmd("SMEMBERS").arg(self.key("sinks")))?;
        Ok(sinks.into_iter().map(SinkId::from).collect())
    }

    pub(crate) fn splits(&self, sink: &SinkId) -> Result<Vec<SplitId>, StoreError> {
        let splits: Vec<String> = self.query(cmd("SMEMBERS").arg(self.splits_key(sink)))?;
        Ok(splits.into_iter().map(SplitId::from).collect())
    }

    pub(crate) fn add_plan(&self, plan: &StoredPlan) -> Result<(), StoreError> {
        self.query_confirmed::<i64>(
            cmd("HSET")
                .arg(self.key("plans"))
                .arg(&plan.fingerprint)
                .arg(&plan.text),
        )
        .map(drop)
    }
}

/// A name as a part of a key: percent-encodes the separator of parts and the bounds of the hash
/// tag.
fn encoded(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '%' | ':' | '{' | '}' => encoded.push_str(&format!("%{:02X}", u32::from(character))),
            other => encoded.push(other),
        }
    }
    encoded
}
