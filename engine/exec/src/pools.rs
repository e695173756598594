//! Threads and memory that runs share.
//!
//! One process may run many plans at once, such as one for each topic of a table: they queue their
//! batches for the same ETL threads and hand their lanes to the same writer threads, so threads and
//! memory do not grow with the number of plans.

use std::io;
use std::sync::Arc;

use pseidon_plan::Settings;
use pseidon_plugin::budget::Budget;

use crate::resources::Resources;
use crate::watch::RunWatcher;

/// ETL threads, writer threads, threads for other work, and the memory budget. The threads exit
/// when this is dropped and no run uses them any more.
pub struct Pools {
    watch: RunWatcher,
    resources: Arc<Resources>,
}

impl Pools {
    /// Starts the threads. Of the memory three eighths are for records that were read, and one
    /// eighth is for their results that wait for writers; a quarter is for open lanes, and the last
    /// quarter for what sources buffer themselves.
    pub fn start(settings: &Settings) -> io::Result<Pools> {
        let resources = Arc::new(Resources::start(settings)?);
        let watch = RunWatcher::start(resources.blocking().clone())?;
        Ok(Pools { watch, resources })
    }

    /// The budget for records in flight.
    pub fn budget(&self) -> &Arc<Budget> {
        self.resources.budget()
    }

    /// How many batches wait for an ETL thread.
    pub fn queued(&self) -> usize {
        self.resources.queue().len()
    }

    /// Runs work that may block on a thread that runs share. A panic in it is printed, and affects
    /// nothing else.
    pub fn run_blocking(&self, work: impl FnOnce() + Send + 'static) {
        self.resources.blocking().run(work);
    }

    /// What the attempts of runs share.
    pub(crate) fn resources(&self) -> &Arc<Resources> {
        &self.resources
    }

    pub(crate) fn watch(&self) -> &RunWatcher {
        &self.watch
    }
}
