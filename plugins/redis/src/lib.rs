//! The state store that instances on several machines can share: Redis, by itself, under Sentinel
//! or as a cluster.
//!
//! All keys of a pipeline carry one hash tag, `{namespace:pipeline}`, so they lie in one slot, and
//! every step of the delivery protocol is one Lua script over them. `address` reads the URL, `link`
//! keeps a connection and says which errors pass, `store` is the protocol and `scripts` its steps,
//! `replicas` makes a step count only once replicas have it, `migration` brings the keys of an
//! earlier format up to date, and `durability` asks the server what an acknowledged write is worth.
//!
//! | Key after the tag | Type | Content |
//! |---|---|---|
//! | `:meta` | hash | `format`, `identity` |
//! | `:plans` | hash | the texts of plans, by fingerprint |
//! | `:notes` | hash | the plugins' notes |
//! | `:sinks` | set | the sinks that have records |
//! | `:splits:SINK` | set | the sink's splits |
//! | `:split:SINK:SPLIT` | hash | a commit record: `v`, `epoch`, `seq`, `low`, `owner`, `plan`, `resume`, `finished`, and `a:LANE` for each lane that is ahead |
//! | `:fenced:SINK` | set | instances that were cut off from the sink |
//! | `:members:SOURCE` | sorted set | instances that share the source's splits, by when their lease runs out |
//! | `:claim:SOURCE:SPLIT` | string | the instance that reads the split; it expires with the lease |
//! | `:staged:SINK` | hash | what is staged and not yet published: id and detail |
//! | `:replicated` | string | the marker that replicas acknowledge after a step, where the URL has `wait-replicas` |

mod address;
mod durability;
mod link;
mod migration;
mod replicas;
mod scripts;
mod store;
mod work_queue;

pub use store::{DEFAULT_NAMESPACE, RedisStore};
pub use work_queue::WorkQueue;
