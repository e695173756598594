//! Tables of `lookup`s that are looked at during a run: when one has changed, the run continues with
//! another plan.
//!
//! A table is read again when its file looks different. The new plan is made before anything is
//! stopped, so a table that cannot be used changes nothing.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{
    Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, never, unbounded,
};
use parking_lot::Mutex;
use pseidon_delivery::Reason;
use pseidon_exec::{Control, Finished, PlanChanged, RunError};
use pseidon_expr::panics;
use pseidon_plan::Plan;

use crate::load::kept::{Tables, tables_of};

/// A file that was written less than this before it was looked at may be written again without
/// looking different.
const SETTLED: Duration = Duration::from_secs(2);

/// The shortest time between two looks.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// How often the tables of a plan are looked at; `None` if no `lookup` has `:reload`. If several
/// have it, the shortest time counts for all of them.
fn interval(plan: &Plan) -> Option<Duration> {
    let shortest = plan.tables.iter().filter_map(|table| table.reload).min();
    shortest.map(|interval| interval.max(MIN_INTERVAL))
}

/// Runs a plan, and asks the run to end when a table has changed. Returns how it ended, and the plan
/// with that table. `replan` makes a plan again with the tables as they are now; its error says why
/// that is not possible.
pub(crate) fn run_watched(
    plan: &Arc<Plan>,
    control: &Sender<Control>,
    replan: impl Fn(&Plan) -> Result<Plan, String> + Send + 'static,
    run: impl FnOnce() -> Result<Finished, RunError>,
) -> (Result<Finished, RunError>, Option<Plan>) {
    let Some(interval) = interval(plan) else {
        return (run(), None);
    };
    // The thread is not waited for: it may be reading a large table when the run ends.
    let ((running, ended), next) = (bounded::<()>(0), Arc::<Mutex<Option<Plan>>>::default());
    let (plan, control, found) = (plan.clone(), control.clone(), next.clone());
    let watch = move || {
        let Some(changed) = changed_plan(&plan, interval, &replan, &ended) else {
            return;
        };
        *found.lock() = Some(changed);
        if let Err(TryRecvError::Empty) = ended.try_recv() {
            let _ = control.send(Control::Reload);
        }
    };
    if let Err(error) = spawn(watch) {
        let reason = Reason::caused_by("cannot start a thread", error);
        return (Err(RunError::Failed(reason)), None);
    }
    let outcome = run();
    drop(running);
    (outcome, next.lock().take())
}

/// Looks at the tables of a template on a thread of its own, until the result is dropped. The tables
/// are received whenever one has changed.
pub(crate) fn watch_template(
    plan: Arc<Plan>,
    replan: impl Fn(&Plan) -> Result<Plan, String> + Send + 'static,
) -> io::Result<TemplateWatch> {
    let (running, ended) = bounded::<()>(0);
    let (tell, changes) = unbounded();
    let Some(interval) = interval(&plan) else {
        return Ok(TemplateWatch {
            changes: never(),
            _running: running,
        });
    };
    spawn(move || {
        let mut current = plan;
        while let Some(next) = changed_plan(&current, interval, &replan, &ended) {
            let _ = tell.send(tables_of(&next, |_| true));
            current = Arc::new(next);
        }
    })?;
    Ok(TemplateWatch {
        changes,
        _running: running,
    })
}

/// How many replaced plans are kept: the one before the current plan, and the one before that, whose
/// work it may not have finished. Each keeps its tables in memory.
const REPLACED_PLANS: usize = 2;

/// The last plans that were replaced in this process. Their tables need not be in the state.
#[derive(Default)]
pub(crate) struct ReplacedPlans(Vec<Arc<Plan>>);

impl ReplacedPlans {
    /// Adds a plan that was replaced just now.
    pub(crate) fn push(&mut self, plan: Arc<Plan>) {
        if self.0.len() == REPLACED_PLANS {
            self.0.remove(0);
        }
        self.0.push(plan);
    }

    /// The plan that has left this work, if it is one of them.
    pub(crate) fn find(&self, changed: &PlanChanged) -> Option<Arc<Plan>> {
        let is_it = |plan: &&Arc<Plan>| Some(&plan.fingerprint) == changed.plan.as_ref();
        self.0.iter().find(is_it).cloned()
    }
}

/// See [`watch_template`].
pub(crate) struct TemplateWatch {
    pub(crate) changes: Receiver<Tables>,
    _running: Sender<()>,
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("tables".to_owned());
    thread.spawn(work).map(drop)
}

/// Looks at the tables of a plan until one has changed; returns the plan with it. `None` when
/// `ended` is disconnected.
fn changed_plan(
    plan: &Plan,
    interval: Duration,
    replan: &dyn Fn(&Plan) -> Result<Plan, String>,
    ended: &Receiver<()>,
) -> Option<Plan> {
    let reloaded = plan.tables.iter().filter(|table| table.reload.is_some());
    let mut files: Vec<WatchedFile> = reloaded
        .map(|table| WatchedFile::new(&plan.base, &table.path))
        .collect();
    let mut trouble: Option<String> = None;
    loop {
        if ended.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
            return None;
        }
        // All of them are looked at, so that each has its new look.
        let different = files.iter_mut().filter_map(WatchedFile::looks_different);
        if different.count() == 0 && trouble.is_none() {
            continue;
        }
        let made = catch_unwind(AssertUnwindSafe(|| replan(plan)))
            .unwrap_or_else(|panic| Err(format!("internal error: {}", panics::describe(&*panic))));
        match made {
            Ok(next) => {
                let changed = names_of_changed(plan, &next);
                if !changed.is_empty() {
                    tracing::info!(
                        tables = changed.join(", "),
                        "a table has changed; the run continues with it"
                    );
                    return Some(next);
                }
                if trouble.take().is_some() {
                    tracing::info!("the tables can be read again, and are as they were");
                }
            }
            Err(reason) => {
                if trouble.as_ref() != Some(&reason) {
                    tracing::warn!(
                        reason,
                        "a table has changed and cannot be used; the run continues with the one \
                         that it has"
                    );
                }
                trouble = Some(reason);
            }
        }
    }
}

/// The paths of the tables that differ.
fn names_of_changed<'a>(plan: &Plan, next: &'a Plan) -> Vec<&'a str> {
    let is_new = |path: &str, digest: &str| {
        let known = plan.tables.iter().find(|table| table.path == path);
        known.is_none_or(|known| known.table.digest != digest)
    };
    let changed = next.tables.iter();
    let changed = changed.filter(|table| is_new(&table.path, &table.table.digest));
    changed.map(|table| table.path.as_str()).collect()
}

/// A table's file.
struct WatchedFile {
    path: PathBuf,
    /// How it looked the last time; `None` if that says nothing.
    look: Option<Look>,
}

/// What distinguishes a version of a file without reading it: device, inode, size, and the times of
/// the last change of its content and of its status.
type Look = (u64, u64, u64, (i64, i64), (i64, i64));

impl WatchedFile {
    /// A file that was read some time ago: it has to be read once to know what it looks like.
    fn new(base: &Path, path: &str) -> WatchedFile {
        WatchedFile {
            path: base.join(path),
            look: None,
        }
    }

    /// `Some` if the file may have changed since the last call.
    fn looks_different(&mut self) -> Option<()> {
        let before = self.look.take();
        let Ok(file) = std::fs::metadata(&self.path) else {
            return Some(());
        };
        let look = (
            file.dev(),
            file.ino(),
            file.size(),
            (file.mtime(), file.mtime_nsec()),
            (file.ctime(), file.ctime_nsec()),
        );
        let now = SystemTime::now();
        let age = file.modified().map(|at| now.duration_since(at));
        // A time in the future does not come closer by another look.
        let is_settled = age.is_ok_and(|age| age.is_err() || age.is_ok_and(|age| age >= SETTLED));
        self.look = is_settled.then_some(look);
        (before != Some(look)).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn a_file_is_read_again_only_if_it_looks_different() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.csv");
        let write = |content: &str, age: u64| {
            fs::write(&path, content).unwrap();
            let at = SystemTime::now() - Duration::from_secs(age);
            File::options()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_modified(at))
                .unwrap();
        };
        write("one", 60);
        let mut file = WatchedFile::new(folder.path(), "table.csv");
        assert!(file.looks_different().is_some(), "the first time");
        assert!(file.looks_different().is_none());
        write("two", 60);
        assert!(file.looks_different().is_some());
        assert!(file.looks_different().is_none());
        // It may be written again at the same time.
        write("three", 0);
        assert!(file.looks_different().is_some());
        assert!(file.looks_different().is_some());
        fs::remove_file(&path).unwrap();
        assert!(file.looks_different().is_some());
        assert!(file.looks_different().is_some());
    }
}
