//! Runs that share their threads: what one of them does, or does not do, is its own.

use std::path::Path;

use crossbeam_channel::{Receiver, Sender, unbounded};
use pseidon_delivery::{Commit, CommitError, SinkId};
use pseidon_dsl::document;
use pseidon_plan::{Context, plan};
use pseidon_plugin::metrics::Metrics;

use super::*;
use crate::plugins::registry;

/// Ends by itself.
const PIPELINE: &str = r#"{:name "test" :settings {:etl-threads 1 :writer-threads 1 :memory "32MiB"}
    in (generate {:record {:n "n"} :count 1000})
    pipeline (-> in (drop))}"#;

fn plan_in(base: &Path) -> Arc<Plan> {
    let document = document::from_edn(PIPELINE).unwrap();
    let infer = |_: &str, _: &dyn Source, _: &dyn Format| Err("nothing is there".to_owned());
    let registry = registry();
    let context = Context {
        registry: &registry,
        default_name: "test".into(),
        base: base.into(),
        text: PIPELINE.into(),
        infer: &infer,
    };
    Arc::new(plan(&document, context).unwrap_or_else(|mistakes| panic!("{mistakes:?}")))
}

/// What a store does at each step.
enum Step {
    /// Reports that, and hangs until the channel is disconnected.
    Hang(Sender<()>, Receiver<()>),
    Panic,
}

struct Hostile {
    store: Arc<dyn StateStore>,
    step: Step,
}

impl Hostile {
    fn take_step(&self) {
        match &self.step {
            Step::Hang(say, way) => {
                let _ = say.send(());
                let _ = way.recv();
            }
            Step::Panic => panic!("as it should"),
        }
    }
}

impl StateStore for Hostile {
    fn commit(&self, sink: &SinkId, commit: &Commit) -> Result<(), CommitError> {
        self.take_step();
        self.store.commit(sink, commit)
    }

    fn commit_many(&self, steps: &[(&SinkId, &Commit)]) -> Vec<Result<(), CommitError>> {
        self.take_step();
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
        let base = tempfile::tempdir().unwrap();
        let plan = plan_in(base.path());
        Runs {
            pools: Arc::new(Pools::start(&plan.settings).unwrap()),
            plan,
            base,
        }
    }

    fn state(&self, name: &str) -> Arc<dyn StateStore> {
        Arc::new(EmbeddedStore::open(self.base.path(), name).unwrap())
    }

    /// A run over this state. `end` receives its outcome.
    fn start(
        &self,
        store: Arc<dyn StateStore>,
        end: &Sender<Result<Finished, RunError>>,
    ) -> Sender<pseidon_exec::Control> {
        let ((control, said), end) = (unbounded(), end.clone());
        let (plan, pools) = (self.plan.clone(), self.pools.clone());
        let run = Run {
            plan,
            pools,
            store,
            metrics: Metrics::new(),
            accept_changed_plan: false,
            control: said,
            view: Arc::default(),
        };
        run.start(move |outcome| end.send(outcome).unwrap());
        control
    }
}

#[test]
fn runs_whose_state_hangs_hold_up_no_other() {
    let runs = Runs::new();
    let (say, hanging) = unbounded();
    let (let_go, way) = unbounded();
    let (end_hanging, hanging_ended) = unbounded();
    let hang = |name| Hostile {
        store: runs.state(name),
        step: Step::Hang(say.clone(), way.clone()),
    };
    let names: Vec<String> = (0..20).map(|number| format!("hanging-{number}")).collect();
    let controls: Vec<_> = names
        .iter()
        .map(|name| runs.start(Arc::new(hang(name)), &end_hanging))
        .collect();
    names.iter().for_each(|_| hanging.recv().unwrap());
    let (end, ended) = unbounded();
    let control = runs.start(runs.state("free"), &end);
    assert_eq!(ended.recv().unwrap().unwrap(), Finished::Complete);
    assert!(hanging_ended.is_empty());
    // All of them go on from where they hung.
    drop(let_go);
    names
        .iter()
        .for_each(|_| assert_eq!(hanging_ended.recv().unwrap().unwrap(), Finished::Complete));
    drop((controls, control));
}

#[test]
fn a_panic_is_a_failure_of_its_run() {
    let runs = Runs::new();
    let (end, ended) = unbounded();
    let hostile = Hostile {
        store: runs.state("hostile"),
        step: Step::Panic,
    };
    let control = runs.start(Arc::new(hostile), &end);
    let failure = ended.recv().unwrap().unwrap_err();
    assert!(
        matches!(&failure, RunError::Failed(reason) if reason.contains("internal error in thread")),
        "{failure}"
    );
    let control_of_other = runs.start(runs.state("other"), &end);
    assert_eq!(ended.recv().unwrap().unwrap(), Finished::Complete);
    drop((control, control_of_other));
}

#[test]
fn what_a_run_holds_is_gone_when_it_says_that_it_has_ended() {
    let runs = Runs::new();
    let (end, ended) = unbounded();
    for _ in 0..3 {
        // A file that is still open cannot be opened.
        let control = runs.start(runs.state("again"), &end);
        assert_eq!(ended.recv().unwrap().unwrap(), Finished::Complete);
        drop(control);
    }
}
