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
}

struct Known {
    rules: Arc<TopicRules>,
    asked: Instant,
}

impl Topic {
    /// The topic with rules that were asked for just now.
    pub(super) fn new(name: &str, config: ClientConfig, rules: TopicRules) -> Topic {
        Topic { name: name.to_owned(), config, known: Mutex::new(Known { rules: Arc::new(rules), asked: Instant::now() }) }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The rules as they are known.
    pub(super) fn rules(&self) -> Arc<TopicRules> {
        self.known.lock().rules.clone()
    }

    /// Asks for the rules again, unless they are fresh. Returns them if they have changed. While the cluster does not answer, the old ones hold.
    pub(super) fn changed_rules(&self) -> Option<Arc<TopicRules>> {
        let mut known = self.known.lock();
        if known.asked.elapsed() < FRESH {
            return None;
        }
        let asked = Cluster::new(&self.config).and_then(|cluster| cluster.rules(&self.name));
        known.asked = Instant::now();
        match asked {
            Ok(rules) if rules != *known.rules => {
                tracing::info!(topic = self.name, ?rules, "the topic accepts other records than before");
                known.rules = Arc::new(rules);
                Some(known.rules.clone())
            }
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(topic = self.name, %error, "the topic's configuration could not be asked for again");
                None
            }
        }
    }
}
