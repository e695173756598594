//! The offsets that pseidon-etl keeps in Redis, to resume where it stopped.
//!
//! Its consumer (kafka-fast) distributes work through Redis: the string at
//! `/GROUP/offsets/TOPIC/PARTITION` is the offset up to which it has distributed work, and the
//! lists `GROUP-kafka-work-queue`, `GROUP-kafka-working-queue/HOST` and
//! `GROUP-kafka-complete-queue` hold the pieces of work that are not done. The offsets are
//! therefore the positions to resume at only if the lists are empty.

use pseidon_delivery::{Position, StoreError};
use redis::{RedisResult, cmd};

use crate::address;
use crate::link::{Endpoint, Link, OpenConnection};

/// The `COUNT` of one `SCAN`: roughly the number of keys that it examines.
const SCAN_COUNT: usize = 1000;

/// The offsets and unfinished work that an instance of pseidon-etl left behind.
pub struct WorkQueue {
    link: Link,
    group: String,
}

impl WorkQueue {
    /// Connects to the server or cluster that pseidon-etl uses.
    pub fn connect(url: &str, group: &str) -> Result<WorkQueue, StoreError> {
        // Nothing is written here, so the URL's number of replicas does not matter.
        let url = address::parse(url).map_err(|reason| StoreError::Failed(reason.into()))?;
        Ok(WorkQueue {
            link: Link::open(url.address)?,
            group: group.to_owned(),
        })
    }

    /// The offset at which a partition is to be resumed; `None` if it was never read.
    pub fn offset(&self, topic: &str, partition: i32) -> Result<Option<Position>, StoreError> {
        let key = format!("/{}/offsets/{topic}/{partition}", self.group);
        let text: Option<String> = self
            .link
            .request(|connection| cmd("GET").arg(&key).query(connection.keyed()))?;
        let unreadable = |text: &str| {
            let what = format!(
                "the offset that pseidon-etl left at {key} is invalid: `{text}` is not a number, \
                 as a single redis stores it"
            );
            StoreError::Failed(what.into())
        };
        text.map(|text| text.trim().parse().map_err(|_| unreadable(&text)))
            .transpose()
    }

    /// The number of unfinished pieces of work.
    pub fn left(&self) -> Result<u64, StoreError> {
        let mut lists = vec![
            format!("{}-kafka-work-queue", self.group),
            format!("{}-kafka-complete-queue", self.group),
        ];
        lists.extend(self.link.request(|connection| {
            matching_keys(connection, &format!("{}-kafka-working-queue/*", self.group))
        })?);
        let length = |list: &String| {
            self.link
                .request(|connection| cmd("LLEN").arg(list).query::<u64>(connection.keyed()))
        };
        lists
            .iter()
            .try_fold(0_u64, |left, list| Ok(left.saturating_add(length(list)?)))
    }
}

/// The keys that match the pattern.
fn matching_keys(connection: &mut OpenConnection, pattern: &str) -> RedisResult<Vec<String>> {
    let connection = match &mut connection.endpoint {
        Endpoint::One(connection) => connection,
        // `SCAN` does not work on a cluster as a whole; `KEYS` is sent to all its masters at once.
        Endpoint::Cluster(connection) => {
            return cmd("KEYS").arg(pattern).query(connection.as_mut());
        }
    };
    let mut names = Vec::new();
    let mut cursor = 0_u64;
    loop {
        let (next, some): (u64, Vec<String>) = cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(SCAN_COUNT)
            .query(connection)?;
        names.extend(some);
        cursor = next;
        if cursor == 0 {
            return Ok(names);
        }
    }
}
