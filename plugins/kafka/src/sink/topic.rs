//! The sink's topic and its current rules: a rule that has changed meanwhile should not cost a
//! record.
//!
//! Records are judged on threads that all pipelines share. So a thread of its own asks the brokers,
//! and the thread that judges a record waits for the answer only for a moment.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pseidon_delivery::WithCauses;
use pseidon_plugin::sink::SinkError;

use super::rules::TopicRules;

/// Rules that are older than this are looked up again before they refuse a record.
const MAX_RULES_AGE: Duration = Duration::from_secs(30);
/// How long a record waits for a lookup, from its beginning. Later records do not wait for the same
/// lookup again.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(2);

/// Looks up the rules of the topic. May wait for brokers.
type RulesLookup = dyn Fn() -> Result<TopicRules, SinkError> + Send + Sync;

/// The sink's topic with its rules.
pub(super) struct SinkTopic(Arc<WatchedTopic>);

/// What a lookup shares with those who wait for it.
struct WatchedTopic {
    name: String,
    look_up: Box<RulesLookup>,
    cached: Mutex<CachedRules>,
    /// Notified when a lookup ends.
    answered: Condvar,
}

struct CachedRules {
    rules: Arc<TopicRules>,
    fresh_until: Instant,
    /// When the lookup in progress began.
    asked: Option<Instant>,
}

impl SinkTopic {
    /// A topic with the rules that were just looked up, and how to look them up again.
    pub(super) fn new(
        name: &str,
        rules: TopicRules,
        look_up: impl Fn() -> Result<TopicRules, SinkError> + Send + Sync + 'static,
    ) -> SinkTopic {
        SinkTopic(Arc::new(WatchedTopic {
            name: name.to_owned(),
            look_up: Box::new(look_up),
            cached: Mutex::new(CachedRules {
                rules: Arc::new(rules),
                fresh_until: Instant::now() + MAX_RULES_AGE,
                asked: None,
            }),
            answered: Condvar::new(),
        }))
    }

    /// The name of the topic.
    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    /// The cached rules, which may be outdated; see [`SinkTopic::newer_rules`].
    pub(super) fn rules(&self) -> Arc<TopicRules> {
        self.0.cached.lock().rules.clone()
    }

    /// Looks the rules up again, unless they are fresh. Returns them if they differ from `used`. If
    /// the lookup fails or takes long, the cached rules stay valid.
    pub(super) fn newer_rules(&self, used: &TopicRules) -> Option<Arc<TopicRules>> {
        let mut cached = self.0.cached.lock();
        if cached.asked.is_none() && cached.fresh_until <= Instant::now() {
            self.0.ask(&mut cached);
        }
        while let Some(asked) = cached.asked {
            let deadline = asked + LOOKUP_PATIENCE;
            if self
                .0
                .answered
                .wait_until(&mut cached, deadline)
                .timed_out()
            {
                break;
            }
        }
        (*cached.rules != *used).then(|| cached.rules.clone())
    }
}

impl WatchedTopic {
    /// Starts a lookup, or tries again a little later if that is not possible now.
    fn ask(self: &Arc<Self>, cached: &mut CachedRules) {
        let topic = self.clone();
        let thread = std::thread::Builder::new().name("kafka-rules".to_owned());
        match thread.spawn(move || topic.refresh()) {
            Ok(_) => cached.asked = Some(Instant::now()),
            Err(_) => cached.fresh_until = Instant::now() + LOOKUP_PATIENCE,
        }
    }

    /// Replaces the cached rules by the present ones.
    fn refresh(&self) {
        // The panic is already in the log.
        let looked_up = catch_unwind(AssertUnwindSafe(|| (self.look_up)()));
        let topic = &self.name;
        let found = match looked_up {
            Ok(Ok(rules)) => Some(rules),
            Ok(Err(error)) => {
                let error = WithCauses(&error);
                tracing::debug!(topic, %error, "cannot refresh the topic's configuration");
                None
            }
            Err(_) => None,
        };
        let mut cached = self.cached.lock();
        cached.fresh_until = Instant::now() + MAX_RULES_AGE;
        cached.asked = None;
        let changed = found.filter(|rules| *rules != *cached.rules);
        if let Some(rules) = &changed {
            cached.rules = Arc::new(rules.clone());
        }
        self.answered.notify_all();
        drop(cached);
        if let Some(rules) = changed {
            tracing::info!(topic, ?rules, "the limits of the topic have changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crossbeam_channel::bounded;

    use super::*;

    fn rules(partitions: i32) -> TopicRules {
        TopicRules::new(partitions, |_| None)
    }

    fn outdate(topic: &SinkTopic) {
        topic.0.cached.lock().fresh_until = Instant::now();
    }

    /// Waits until no lookup is in progress.
    fn settle(topic: &SinkTopic) {
        let mut cached = topic.0.cached.lock();
        while cached.asked.is_some() {
            topic.0.answered.wait(&mut cached);
        }
    }

    #[test]
    fn outdated_rules_are_looked_up_again() {
        let (answers, asked) = bounded(1);
        let topic = SinkTopic::new("t", rules(1), move || asked.recv().unwrap());
        let used = topic.rules();
        assert!(topic.newer_rules(&used).is_none(), "they are fresh");
        outdate(&topic);
        answers.send(Ok(rules(2))).unwrap();
        // On a busy machine the answer may come too late for this one.
        topic.newer_rules(&used);
        settle(&topic);
        let newer = topic.newer_rules(&used).unwrap();
        assert_eq!(*newer, rules(2));
        outdate(&topic);
        let failed = SinkError::Transient("no broker".into());
        answers.send(Err(failed)).unwrap();
        assert!(topic.newer_rules(&newer).is_none());
        settle(&topic);
        assert_eq!(*topic.rules(), rules(2));
    }

    #[test]
    fn a_lookup_that_hangs_holds_up_nobody() {
        let (answer, asked) = bounded(1);
        let lookups = Arc::new(AtomicUsize::new(0));
        let counted = lookups.clone();
        let topic = Arc::new(SinkTopic::new("t", rules(1), move || {
            counted.fetch_add(1, Ordering::Relaxed);
            asked.recv().unwrap();
            Ok(rules(2))
        }));
        let used = topic.rules();
        outdate(&topic);
        let (done, judged) = bounded(3);
        let judge = topic.clone();
        std::thread::spawn(move || {
            for _ in 0..3 {
                done.send(judge.newer_rules(&rules(1))).unwrap();
            }
        });
        for _ in 0..3 {
            let newer = judged.recv_timeout(Duration::from_secs(60));
            assert_eq!(newer.expect("it waits for the lookup"), None);
        }
        answer.send(()).unwrap();
        settle(&topic);
        assert_eq!(topic.newer_rules(&used).as_deref(), Some(&rules(2)));
        assert_eq!(lookups.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_lookup_that_panics_is_one_that_fails() {
        let topic = SinkTopic::new("t", rules(1), || panic!("on purpose"));
        outdate(&topic);
        let used = topic.rules();
        assert!(topic.newer_rules(&used).is_none());
        settle(&topic);
    }
}
