//! The sink `files`: files that roll by size, records, idle time, age and the clock, each exactly
//! once.
//!
//! A record's way, in the order of the modules:
//!
//! - [`options`]: what the user can say; [`settings`]: what they said, checked.
//! - [`route`] finds each row's bucket, which is a lane or several: the path and the name that a
//!   [`template`] gives, of which [`lane_name`] sees to it that they stay inside the base
//!   directory. It makes what is [`written`] of the record.
//! - [`lane`] writes a lane's file ([`open_file`]) and brings it to the disk; when it is closed is
//!   decided by the engine.
//! - [`staging`] makes the hidden files, each in the [`folder`] of its run, and cleans up after
//!   processes that died; [`place`] gives a committed file its visible name, and decides by the
//!   [`disk`] whether it has it.
//! - [`follow_ups`] publishes in the background what could not be published at once, and does what
//!   follows for a published file ([`follow_up`]): [`relocate`] moves it, [`hook`] reports it. A
//!   test can kill the process when a file has been `moved` and when the report has succeeded
//!   (`hooked`).

mod disk;
mod folder;
mod follow_up;
mod follow_ups;
mod hook;
mod host;
mod lane;
mod lane_name;
mod open_file;
mod options;
mod place;
mod relocate;
mod route;
mod settings;
mod staging;
mod template;
mod written;

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Waker;

use prometheus::{IntCounter, IntGauge};
use pseidon_delivery::{LaneId, Staged, failpoint};
use pseidon_dsl::Diagnostic;
use pseidon_plugin::lane::{Lane, LaneRules};
use pseidon_plugin::sink::{
    PreparedSink, Protocol, Publishing, Routed, Sink, SinkError, SinkFacts, SinkInput, SinkPlugin,
    SinkSetup, TakenOver, TakenSplit,
};
use pseidon_plugin::spec::PluginSpec;
use pseidon_plugin::{Options, Rows};

use self::follow_up::Destination;
use self::follow_ups::{FollowUps, SinkContext};
use self::hook::Hook;
use self::lane::FileLane;
use self::place::{Outcome, sync_dirs};
use self::settings::{MoveTo, Settings};
use self::staging::{Hidden, Staging, read_moves};

/// The sink `files`.
pub struct FilesSink;

impl SinkPlugin for FilesSink {
    fn spec(&self) -> &'static PluginSpec {
        &options::SPEC
    }

    fn facts(&self, options: &Options) -> SinkFacts {
        let typed = matches!(options.text("codec"), Some("parquet" | "avro"));
        SinkFacts {
            typed,
            copies_meta: false,
            protocol: Protocol::Staged,
            folder: settings::folder(options),
        }
    }

    fn prepare(
        &self,
        options: &Options,
        input: &SinkInput,
    ) -> Result<Arc<dyn PreparedSink>, Vec<Diagnostic>> {
        Ok(Arc::new(Files {
            settings: Arc::new(Settings::new(options, input)?),
        }))
    }
}

struct Files {
    settings: Arc<Settings>,
}

impl PreparedSink for Files {
    fn nondeterminism(&self) -> Option<String> {
        self.settings.nondeterminism.clone()
    }

    fn open(&self, setup: SinkSetup) -> Result<Arc<dyn Sink>, SinkError> {
        let settings = self.settings.clone();
        let bases = settings
            .base_dirs
            .iter()
            .map(|dir| absolute(&setup.base, dir))
            .collect::<Result<Vec<_>, _>>()?;
        let move_to = settings
            .move_to
            .as_ref()
            .map(|move_to| move_to.below(&setup.base))
            .transpose()?;
        let hook = match &settings.hook {
            Some(hook) => Some(Hook {
                folder: absolute(&setup.base, Path::new("."))?,
                ..hook.clone()
            }),
            None => None,
        };
        let (staging, failed) = Staging::open(&bases, &setup)?;
        let (stage, place) = setup.committer.sink().stage_and_place();
        let (stage, place) = (stage.to_owned(), place.map(str::to_owned));
        let follow_ups = FollowUps::new(SinkContext {
            pipeline: setup.pipeline.clone(),
            hook,
            committer: setup.committer.clone(),
            metrics: setup.metrics.clone(),
            stage: stage.clone(),
        });
        failed
            .into_iter()
            .for_each(|(id, moving)| follow_ups.publish_later(id, moving));
        let shared = Shared {
            open_files: setup.metrics.open_files.with_label_values(&[&stage]),
            files: setup.metrics.files.with_label_values(&[&stage]),
            bytes_out: setup.metrics.bytes_out.with_label_values(&[&stage]),
            extension: settings.codec.extension(),
            follow_ups,
            staging: Arc::new(staging),
            move_to,
            settings,
            place,
            setup,
        };
        Ok(Arc::new(OpenSink(Arc::new(shared))))
    }
}

/// The folder as an absolute path.
fn absolute(base: &Path, dir: &Path) -> Result<PathBuf, SinkError> {
    let dir = std::path::absolute(base.join(dir))
        .map_err(|error| SinkError::Fatal(format!("no folder {}: {error}", dir.display())))?;
    match dir.to_str() {
        // It is written down in the state store, which holds texts.
        None => Err(SinkError::Fatal(format!(
            "the folder {} has a name that is not UTF-8",
            dir.display()
        ))),
        Some(_) => Ok(dir),
    }
}

impl MoveTo {
    /// The same with absolute paths.
    fn below(&self, base: &Path) -> Result<MoveTo, SinkError> {
        let quarantine = self
            .quarantine
            .as_ref()
            .map(|folder| absolute(base, folder))
            .transpose()?;
        Ok(MoveTo {
            folder: absolute(base, &self.folder)?,
            quarantine,
            ..self.clone()
        })
    }
}

/// What the lanes of a run share.
struct Shared {
    settings: Arc<Settings>,
    setup: SinkSetup,
    follow_ups: FollowUps,
    staging: Arc<Staging>,
    move_to: Option<MoveTo>,
    /// Which of the stage's places in the flow this is, if not the first.
    place: Option<String>,
    extension: String,
    open_files: IntGauge,
    files: IntCounter,
    bytes_out: IntCounter,
}

impl Shared {
    /// Where a hidden file is moved when it is published, whose first record is the first of these
    /// rows.
    fn destination(&self, rows: &Rows, hidden: &Hidden) -> Result<Option<Destination>, SinkError> {
        let Some(move_to) = &self.move_to else {
            return Ok(None);
        };
        // The rows were routed, and every expression has given something then.
        let below = self
            .settings
            .router
            .destination(rows)
            .map_err(|error| SinkError::Fatal(error.to_string()))?;
        let quarantine = move_to.check.then(|| match &move_to.quarantine {
            Some(folder) => folder.clone(),
            None => hidden.base().join("quarantine"),
        });
        let folder = below.map_or_else(
            || move_to.folder.clone(),
            |below| move_to.folder.join(below),
        );
        Ok(Some(Destination {
            folder,
            prefix: move_to.prefix.clone(),
            quarantine,
        }))
    }
}

struct OpenSink(Arc<Shared>);

impl Sink for OpenSink {
    fn rules(&self) -> LaneRules {
        let settings = &self.0.settings;
        LaneRules {
            single_writer: false,
            rollover: settings.rollover.clone(),
            check_every: settings.check_freq,
            most_open: settings.max_open_files,
        }
    }

    fn take_over(&self, splits: &[TakenSplit], staged: &[Staged]) -> Result<TakenOver, SinkError> {
        let mut failed = Vec::new();
        let is_other = |owner: &String| *owner != self.0.setup.instance;
        if splits.iter().any(|taken| taken.owners.iter().any(is_other)) {
            failed = self.0.staging.clean_up_all()?;
        }
        let published = self.0.staging.publish(staged.to_vec())?;
        failed
            .into_iter()
            .chain(published.failed)
            .for_each(|(id, moving)| self.0.follow_ups.publish_later(id, moving));
        for (id, moving) in published.to_follow {
            if let Some(follow_up) = moving.follow_up.clone() {
                self.0.follow_ups.follow(id, moving, follow_up);
            }
        }
        Ok(TakenOver {
            published: published.done,
            ..TakenOver::default()
        })
    }

    fn route(&self, rows: Rows) -> Routed {
        let settings = &self.0.settings;
        settings
            .router
            .route(rows, |rows| settings.codec.check(rows))
    }

    fn lane(&self, lane: &LaneId, _waker: &Waker) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(FileLane::new(self.0.clone(), lane.clone())))
    }

    fn publish(&self, staged: &[Staged]) -> Result<Publishing, SinkError> {
        let shared = &self.0;
        let moves = read_moves(staged.to_vec())?;
        let (mut changed, mut not_here, mut failure) = (BTreeSet::new(), HashSet::new(), None);
        for (id, moving) in &moves {
            match moving.apply(&mut changed) {
                Ok(Outcome::NotHere(_)) => _ = not_here.insert(id.clone()),
                Ok(Outcome::Taken) => {}
                Ok(Outcome::Published) => {
                    failpoint::reach("renamed");
                    // An earlier call may have renamed the file, and not have synced its folders.
                    changed.extend(moving.dirs());
                }
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure.or(sync_dirs(&changed).err()) {
            return Ok(Publishing::Blocked(error.to_string()));
        }
        shared
            .bytes_out
            .inc_by(moves.iter().filter_map(|(_, moving)| moving.bytes).sum());
        shared.files.inc_by((moves.len() - not_here.len()) as u64);
        let mut done = Vec::new();
        for (id, moving) in moves {
            match moving.follow_up.clone() {
                _ if not_here.contains(&id) => shared.follow_ups.publish_later(id, moving),
                Some(follow_up) => shared.follow_ups.follow(id, moving, follow_up),
                None => done.push(id),
            }
        }
        Ok(Publishing::Done(done))
    }
}

#[cfg(test)]
mod tests;
