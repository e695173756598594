//! The sink's topic as it is now: a rule that has changed meanwhile must not cost a record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientConfig;

use super::cluster::Cluster;
use super::rules::TopicRules;

/// No record is refused by rules that are older.
const FRESH: Duration = Duration::from_secs(30);

/// The rules of the sink's topic.
pub(super) struct Topic {
    name: String,
    config: ClientConfig,
    known: Mutex<Known>,
    /// Held while the cluster is asked. What is known can be read meanwhile.
    asking: Mutex<()>,
}

struct Known {
    rules: Arc<TopicRules>,
    asked: Instant,
}

impl Topic {
    /// The topic with rules that were asked for just now.
    pub(super) fn new(name: &str, config: ClientConfig, rules: TopicRules) -> Topic {
        let known = Known {
            rules: Arc::new(rules),
            asked: Instant::now(),
        };
        Topic {
            name: name.to_owned(),
            config,
            known: Mutex::new(known),
            asking: Mutex::new(()),
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The rules as they are known.
    pub(super) fn rules(&self) -> Arc<TopicRules> {
        self.known.lock().rules.clone()
    }

    /// Asks for the rules again, unless they are fresh. Returns them if they are not the `used`
    /// ones. While the cluster does not answer, the old ones hold.
    pub(super) fn newer_rules(&self, used: &TopicRules) -> Option<Arc<TopicRules>> {
        let _asking = self.asking.lock();
        if self.known.lock().asked.elapsed() >= FRESH {
            let asked = Cluster::new(&self.config).and_then(|cluster| cluster.rules(&self.name));
            let mut known = self.known.lock();
            known.asked = Instant::now();
            match asked {
                Ok(rules) => known.rules = Arc::new(rules),
                Err(error) => {
                    tracing::debug!(topic = self.name, %error, "the topic's configuration could not be asked for again")
                }
            }
        }
        let rules = self.rules();
        let is_newer = *rules != *used;
        if is_newer {
            tracing::info!(
                topic = self.name,
                ?rules,
                "the topic accepts other records than before"
            );
        }
        is_newer.then_some(rules)
    }
}
