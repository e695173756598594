//! Runs that share threads: a run that hangs or panics does not affect the others.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};
use pseidon_delivery::embedded::EmbeddedStore;
use pseidon_delivery::{
    Claimant, Commit, CommitError, Reason, SinkId, SplitCommit, SplitId, StoreError, WithCauses,
};
use pseidon_dsl::document;
use pseidon_exec::Run;
use pseidon_plan::{PlanContext, plan};
use pseidon_plugin::metrics::Metrics;

use super::*;
use crate::registry::registry;

/// A pipeline with a finite source.
const PIPELINE: &str = r#"{:name "test" :settings {:etl-threads 1 :writer-threads 1 :memory "32MiB"}
    in (generate {:record {:n "n"} :count 1000})
    pipeline (-> in (drop))}"#;

pub(super) fn plan_in(base: &Path, pipeline: &str) -> Arc<Plan> {
    let document = document::from_edn(pipeline).unwrap();
    let infer = |_: &str, _: &dyn Source, _: &dyn Format| Err("there are no records".to_owned());
    let registry = registry();
    let context = PlanContext {
        registry: &registry,
        default_name: "test".into(),
        base: base.into(),
        text: pipeline.into(),
        infer: &infer,
        tables: &|_| Err("no table can be read here".to_owned()),
        keeps_state: true,
    };
    Arc::new(plan(&document, context).unwrap_or_else(|errors| panic!("{errors:?}")))
}

/// What a faulty store does instead of a commit.
enum Fault {
    /// Sends a message, and hangs until the other channel is disconnected.
    Hang(Sender<()>, Receiver<()>),
    Panic,
    /// Fails because the disk is full.
    Full,
}

/// A store whose commits hang, panic or fail.
struct FaultyStore {
    store: Arc<dyn StateStore>,
    fault: Fault,
}

impl FaultyStore {
    fn fail(&self) -> Result<(), CommitError> {
        match &self.fault {
            Fault::Hang(hanging, release) => {
                let _ = hanging.send(());
                let _ = release.recv();
                Ok(())
            }
            Fault::Panic => panic!("as the test demands"),
            Fault::Full => {
                let full = io::Error::from_raw_os_error(28);
                Err(StoreError::Failed(Reason::caused_by("cannot write the state", full)).into())
            }
        }
    }
}

impl StateStore for FaultyStore {
    fn commit(&self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        self.fail()?;
        self.store.commit(sink, commit)
    }

    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        match self.fail() {
            Ok(()) => self.store.commit_many(steps),
            Err(error) => steps.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    pseidon_delivery::forward_to_store!(store);
}

/// A store that counts the calls that commit.
struct CountingStore {
    store: Arc<dyn StateStore>,
    commits: AtomicUsize,
}

impl StateStore for CountingStore {
    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.store.commit_many(steps)
    }

    pseidon_delivery::forward_to_store!(store);
}

/// Runs that share threads, each with a state of its own.
struct Runs {
    base: tempfile::TempDir,
    pools: Arc<Pools>,
    plan: Arc<Plan>,
}

impl Runs {
    fn new() -> Runs {
        Runs::of(PIPELINE)
    }

    fn of(pipeline: &str) -> Runs {
        let base = tempfile::tempdir().unwrap();
        let plan = plan_in(base.path(), pipeline);
        Runs {
            pools: Arc::new(Pools::start(&plan.settings).unwrap()),
            plan,
            base,
        }
    }

    fn state(&self, name: &str) -> Arc<dyn StateStore> {
        Arc::new(EmbeddedStore::open(self.base.path(), name).unwrap())
    }

    /// Starts a run with this state. `end` receives its outcome.
    fn start(
        &self,
        store: Arc<dyn StateStore>,
        end: &Sender<Result<Finished, RunError>>,
    ) -> Sender<pseidon_exec::Control> {
        let ((control, controls), end) = (unbounded(), end.clone());
        let (plan, pools) = (self.plan.clone(), self.pools.clone());
        let run = Run {
            plan,
            pools,
            store,
            metrics: Metrics::new(),
            accept_changed_plan: false,
            catch_up: None,
            was_open: false,
            control: controls,
            view: Arc::default(),
        };
        run.start(move |outcome| end.send(outcome).unwrap());
        control
    }
}

#[test]
fn runs_whose_state_hangs_do_not_block_others() {
    let runs = Runs::new();
    let (hang, hanging) = unbounded();
    let (let_go, released) = unbounded();
    let (end_hanging, hanging_ended) = unbounded();
    let hanging_store = |name| FaultyStore {
        store: runs.state(name),
        fault: Fault::Hang(hang.clone(), released.clone()),
    };
    let names: Vec<String> = (0..20).map(|number| format!("hanging-{number}")).collect();
    let controls: Vec<_> = names
        .iter()
        .map(|name| runs.start(Arc::new(hanging_store(name)), &end_hanging))
        .collect();
    names.iter().for_each(|_| hanging.recv().unwrap());
    let (end, ended) = unbounded();
    let control = runs.start(runs.state("free"), &end);
    assert_eq!(ended.recv().unwrap().unwrap(), Finished::Complete);
    assert!(hanging_ended.is_empty());
    // All of them resume where they hung.
    drop(let_go);
    names
        .iter()
        .for_each(|_| assert_eq!(hanging_ended.recv().unwrap().unwrap(), Finished::Complete));
    drop((controls, control));
}

#[test]
fn a_panic_fails_only_its_own_run() {
    let runs = Runs::new();
    let (end, ended) = unbounded();
    let store = FaultyStore {
        store: runs.state("faulty"),
        fault: Fault::Panic,
    };
    let control = runs.start(Arc::new(store), &end);
    let failure = ended.recv().unwrap().unwrap_err();
    assert!(
        matches!(&failure, RunError::Failed(reason) if reason.to_string().contains("internal error in thread") && reason.to_string().contains("as the test demands")),
        "{failure}"
    );
    let control_of_other = runs.start(runs.state("other"), &end);
    assert_eq!(ended.recv().unwrap().unwrap(), Finished::Complete);
    drop((control, control_of_other));
}

#[test]
fn a_run_has_released_its_resources_when_it_reports_its_end() {
    let runs = Runs::new();
    let (end, ended) = unbounded();
    for _ in 0..3 {
        // The store cannot be opened while another run has it open.
        let control = runs.start(runs.state("again"), &end);
        assert_eq!(ended.recv().unwrap().unwrap(), Finished::Complete);
        drop(control);
    }
}

#[test]
fn many_files_are_begun_and_ended_in_few_commits_and_are_released() {
    const FILES: usize = 300;
    let runs = Runs::of(
        r#"{:name "test" :settings {:memory "32MiB"} in (files {:path "in/*.txt" :format :txt})
            pipeline (-> in (files {:path "out" :codec :txt}))}"#,
    );
    std::fs::create_dir(runs.base.path().join("in")).unwrap();
    for number in 0..FILES {
        let path = runs.base.path().join(format!("in/{number}.txt"));
        std::fs::write(path, format!("{number}\n")).unwrap();
    }
    let store = Arc::new(CountingStore {
        store: runs.state("test"),
        commits: AtomicUsize::new(0),
    });
    let (end, ended) = unbounded();
    // The second run finds only files that are read to their end.
    for run in 1..=2 {
        let control = runs.start(store.clone(), &end);
        assert_eq!(ended.recv().unwrap().unwrap(), Finished::Complete);
        drop(control);
        let commits = store.commits.swap(0, Ordering::Relaxed);
        assert!(commits < FILES / 10, "run {run}: {commits} commits");
        for sink in store.sinks().unwrap() {
            assert_eq!(store.records(&sink).unwrap().len(), FILES, "{sink}");
            assert_eq!(store.owners(&sink).unwrap(), [].into(), "run {run}: {sink}");
        }
    }
}

/// The I/O error that caused an error.
fn io_error(error: &RunError) -> Option<&io::Error> {
    std::iter::successors(Some(error as &dyn Error), |&error| error.source())
        .find_map(|error| error.downcast_ref())
}

#[test]
fn the_io_error_of_a_sink_is_a_cause_of_the_failed_run() {
    let runs = Runs::of(&PIPELINE.replace("(drop)", r#"(files "taken/out")"#));
    std::fs::write(runs.base.path().join("taken"), "").unwrap();
    let (end, ended) = unbounded();
    let control = runs.start(runs.state("test"), &end);
    let failure = ended.recv().unwrap().unwrap_err();
    let text = WithCauses(&failure).to_string();
    let below = format!("cannot write in {}/taken/", runs.base.path().display());
    assert!(
        text.starts_with("sink `")
            && text.contains(&below)
            && text.ends_with(": Not a directory (os error 20)"),
        "{text}"
    );
    let kind = io_error(&failure).map(io::Error::kind);
    assert_eq!(kind, Some(io::ErrorKind::NotADirectory));
    drop(control);
}

#[test]
fn the_io_error_of_a_store_is_a_cause_of_the_failed_run() {
    let runs = Runs::new();
    let (end, ended) = unbounded();
    let store = FaultyStore {
        store: runs.state("full"),
        fault: Fault::Full,
    };
    let control = runs.start(Arc::new(store), &end);
    let failure = ended.recv().unwrap().unwrap_err();
    assert!(matches!(&failure, RunError::State(_)), "{failure:?}");
    assert_eq!(
        WithCauses(&failure).to_string(),
        "cannot write the state: No space left on device (os error 28)"
    );
    let kind = io_error(&failure).map(io::Error::kind);
    assert_eq!(kind, Some(io::ErrorKind::StorageFull));
    drop(control);
}

/// A run that is stopped while it ends because of another plan's work ends as stopped. Otherwise the
/// request, which it has taken from the channel, would not reach the run that finishes that work.
#[test]
fn a_stop_request_counts_more_than_the_work_of_another_plan() {
    let text = r#"{:name "test" :settings {:memory "32MiB" :commit-interval "1h"}
        left (generate {:record {:n "n"} :rate 10})
        endless (generate {:record {:n "n"} :rate 1000})
        pipeline (all (-> left (all (drop) (drop)))
                      (-> endless (files {:path "out" :codec :json :rollover {:idle "1h"}})))}"#;
    let runs = Runs::of(text);
    let store = runs.state("test");
    let left = runs
        .plan
        .sources
        .iter()
        .find(|source| source.stage == "left");
    let split = SplitId::from("left:0");
    for (sink, low) in left.unwrap().sinks.iter().zip(1..) {
        let sink = &runs.plan.sinks[*sink].id;
        let claimant = Claimant {
            owner: "dead".into(),
            plan: "another".to_owned(),
            accepts_other_plans: false,
        };
        let splits = std::slice::from_ref(&split);
        store.take(sink, splits, &claimant.owner).unwrap();
        store.hold(sink, &[(split.clone(), 1)], &claimant).unwrap();
        let step = SplitCommit::to_low(split.clone(), 1, 0, low);
        let commit = Commit {
            splits: vec![step],
            ..Commit::of(claimant.owner)
        };
        store.commit(sink, &commit).unwrap();
    }
    let (hang, hanging) = unbounded();
    let (let_go, released) = unbounded();
    let faulty = FaultyStore {
        store,
        fault: Fault::Hang(hang, released),
    };
    let (end, ended) = unbounded();
    let control = runs.start(Arc::new(faulty), &end);
    // The first commit of the endless source begins its split. Its records are committed only
    // because reading has stopped, which is so because the other source was refused.
    hanging.recv().unwrap();
    let_go.send(()).unwrap();
    hanging.recv().unwrap();
    control.send(pseidon_exec::Control::Stop).unwrap();
    while !control.is_empty() {
        std::thread::yield_now();
    }
    drop(let_go);
    assert_eq!(ended.recv().unwrap().unwrap(), Finished::Stopped);
}

/// A run that continues with another plan stays paused.
#[test]
fn a_pause_lasts_beyond_a_reload() {
    use pseidon_exec::Control;

    let text = r#"{:name "test" :settings {:memory "32MiB"}
        in (generate {:record {:n "n"} :rate 1000})
        pipeline (-> in (drop))}"#;
    let runs = Runs::of(text);
    let view: Arc<pseidon_exec::View> = Arc::default();
    let start = |controls| {
        let run = Run {
            plan: runs.plan.clone(),
            pools: runs.pools.clone(),
            store: runs.state("test"),
            metrics: Metrics::new(),
            accept_changed_plan: false,
            catch_up: None,
            was_open: false,
            control: controls,
            view: view.clone(),
        };
        run.run().unwrap()
    };
    let (control, controls) = unbounded();
    for request in [Control::Pause, Control::Reload] {
        control.send(request).unwrap();
    }
    assert_eq!(start(controls.clone()), Finished::Reloading);
    assert!(view.is_paused());
    control.send(Control::Stop).unwrap();
    assert_eq!(start(controls), Finished::Stopped);
    assert!(view.is_paused());
    view.resume();
    assert!(!view.is_paused());
}
