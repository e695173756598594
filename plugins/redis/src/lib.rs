//! The state store that instances on several machines can share, in Redis: a single server, under
//! Sentinel, or a cluster.
//!
//! All keys of a pipeline carry one hash tag, `{namespace:pipeline}`, so that they lie in one slot,
//! and every step of the delivery protocol is one Lua script over them. `address` parses the URL,
//! `link` keeps a connection and classifies errors, `replicas` waits until replicas have a step, and
//! `keyspace` names the keys and sends requests for them. `store` implements the protocol, `scripts`
//! its steps, and `encoding` writes and parses steps and records. `migration` converts the keys of
//! an earlier format, and `durability` checks how durable an acknowledged write is. `work_queue`
//! reads what pseidon-etl left in Redis.
//!
//! | Key after the tag | Type | Content |
//! |---|---|---|
//! | `:meta` | hash | `format`, `identity` |
//! | `:plans` | hash | the plans in text form, by fingerprint |
//! | `:notes` | hash | the plugins' notes |
//! | `:sinks` | set | the sinks that have records |
//! | `:splits:SINK` | set | the sink's splits |
//! | `:split:SINK:SPLIT` | hash | a commit record: `v`, `epoch`, `seq`, `low`, `owner`, `plan`, `resume`, `finished`, and `a:LANE` for each lane that is ahead |
//! | `:fenced:SINK` | set | instances that were fenced off from the sink |
//! | `:members:SOURCE` | sorted set | instances that share the source's splits, by the expiry of their lease |
//! | `:claim:SOURCE:SPLIT` | string | the instance that reads the split; it expires with the lease |
//! | `:staged:SINK` | hash | entries that are staged and not yet published: id and detail |
//! | `:replicated` | string | the marker that replicas acknowledge after a step, if the URL has `wait-replicas` |

#![forbid(unsafe_code)]

mod address;
mod durability;
mod encoding;
mod keyspace;
mod link;
mod migration;
mod operator;
mod replicas;
mod scripts;
mod store;
mod work_queue;

pub use address::check_url;
pub use store::{DEFAULT_NAMESPACE, RedisStore};
pub use work_queue::WorkQueue;
