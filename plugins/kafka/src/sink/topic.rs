//! The sink's topic and its current rules: a rule that has changed meanwhile must not cost a
//! record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pseidon_delivery::WithCauses;
use rdkafka::ClientConfig;

use super::cluster::Cluster;
use super::rules::TopicRules;

/// Rules that are older than this are looked up again before they refuse a record.
const MAX_RULES_AGE: Duration = Duration::from_secs(30);

/// The sink's topic with its rules.
pub(super) struct SinkTopic {
    name: String,
    config: ClientConfig,
    cached: Mutex<CachedRules>,
    /// Held during a lookup. The cached rules can be read meanwhile.
    asking: Mutex<()>,
}

struct CachedRules {
    rules: Arc<TopicRules>,
    looked_up: Instant,
}

impl SinkTopic {
    /// A topic whose rules were just looked up.
    pub(super) fn new(name: &str, config: ClientConfig, rules: TopicRules) -> SinkTopic {
        let cached = CachedRules {
            rules: Arc::new(rules),
            looked_up: Instant::now(),
        };
        SinkTopic {
            name: name.to_owned(),
            config,
            cached: Mutex::new(cached),
            asking: Mutex::new(()),
        }
    }

    /// The name of the topic.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The cached rules, which may be outdated; see [`SinkTopic::newer_rules`].
    pub(super) fn rules(&self) -> Arc<TopicRules> {
        self.cached.lock().rules.clone()
    }

    /// Looks the rules up again, unless they are fresh. Returns them if they differ from `used`. If
    /// the lookup fails, the cached rules stay valid.
    pub(super) fn newer_rules(&self, used: &TopicRules) -> Option<Arc<TopicRules>> {
        let _asking = self.asking.lock();
        if self.cached.lock().looked_up.elapsed() >= MAX_RULES_AGE {
            let looked_up =
                Cluster::new(&self.config).and_then(|cluster| cluster.rules(&self.name));
            let mut cached = self.cached.lock();
            cached.looked_up = Instant::now();
            match looked_up {
                Ok(rules) => cached.rules = Arc::new(rules),
                Err(error) => {
                    tracing::debug!(
                        topic = self.name, error = %WithCauses(&error),
                        "cannot refresh the topic's configuration"
                    )
                }
            }
        }
        let rules = self.rules();
        let is_newer = *rules != *used;
        if is_newer {
            tracing::info!(
                topic = self.name,
                ?rules,
                "the limits of the topic have changed"
            );
        }
        is_newer.then_some(rules)
    }
}
