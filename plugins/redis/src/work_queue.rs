//! The offsets that pseidon-etl keeps in Redis, to go on where it has stopped.
//!
//! Its consumer (kafka-fast) shares the work through Redis: the text at
//! `/GROUP/offsets/TOPIC/PARTITION` is the offset up to which it has handed out work, and the lists
//! `GROUP-kafka-work-queue`, `GROUP-kafka-working-queue/HOST` and `GROUP-kafka-complete-queue` hold
//! the pieces of work that are not done. So the offsets say where to go on only when nothing is
//! left in the lists.

use pseidon_delivery::{Position, StoreError};
use redis::{RedisResult, cmd};

use crate::address;
use crate::link::{Link, Live, Servers};

/// How many names one step of a search looks at.
const SEARCHED_AT_ONCE: usize = 1000;

/// What a pseidon-etl has left.
pub struct WorkQueue {
    link: Link,
    group: String,
}

impl WorkQueue {
    /// Connects to the server or cluster that pseidon-etl uses.
    pub fn connect(url: &str, group: &str) -> Result<WorkQueue, StoreError> {
        // Nothing is written here, so nothing waits for replicas, whatever the URL says of them.
        let url = address::parse(url).map_err(StoreError::Failed)?;
        Ok(WorkQueue {
            link: Link::open(url.address)?,
            group: group.to_owned(),
        })
    }

    /// The offset from which a partition is to be read on; `None` if it was never read.
    pub fn offset(&self, topic: &str, partition: i32) -> Result<Option<Position>, StoreError> {
        let key = format!("/{}/offsets/{topic}/{partition}", self.group);
        let text: Option<String> = self
            .link
            .request(|live| cmd("GET").arg(&key).query(live.keyed()))?;
        let unreadable = |text: &str| {
            StoreError::Failed(format!(
                "the offset that pseidon-etl left at {key} cannot be read: `{text}` is not a number, as it is in a single redis"
            ))
        };
        text.map(|text| text.trim().parse().map_err(|_| unreadable(&text)))
            .transpose()
    }

    /// How many pieces of work are not done.
    pub fn left(&self) -> Result<u64, StoreError> {
        let mut lists = vec![
            format!("{}-kafka-work-queue", self.group),
            format!("{}-kafka-complete-queue", self.group),
        ];
        lists.extend(
            self.link.request(|live| {
                names_like(live, &format!("{}-kafka-working-queue/*", self.group))
            })?,
        );
        lists
            .iter()
            .map(|list| {
                self.link
                    .request(|live| cmd("LLEN").arg(list).query::<u64>(live.keyed()))
            })
            .sum()
    }
}

/// The keys that match.
fn names_like(live: &mut Live, pattern: &str) -> RedisResult<Vec<String>> {
    let connection = match &mut live.servers {
        Servers::One(connection) => connection,
        // A cluster cannot be searched step by step as one; this asks all its masters at once.
        Servers::Cluster(connection) => return cmd("KEYS").arg(pattern).query(connection.as_mut()),
    };
    let mut names = Vec::new();
    let mut cursor = 0_u64;
    loop {
        let (next, some): (u64, Vec<String>) = cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(SEARCHED_AT_ONCE)
            .query(connection)?;
        names.extend(some);
        cursor = next;
        if cursor == 0 {
            return Ok(names);
        }
    }
}
