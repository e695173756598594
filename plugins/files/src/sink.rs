//! The sink `files`: writes files, each exactly once, that roll by size, record count, idle time,
//! age and wall-clock time.
//!
//! The path of a record, in the order of the modules:
//!
//! - [`options`] declares the options; [`settings`] holds their checked values. [`mod@quarantine`]
//!   has the options of the sink to which the engine writes invalid records.
//! - [`route`] finds each row's bucket, which is one lane or several. A [`template`] yields the
//!   bucket's path and name, and [`lane_name`] keeps them inside the base directory. [`projection`]
//!   selects the columns that are written.
//! - [`lane`] writes a lane's file ([`open_file`]) and makes it durable; the engine decides when it
//!   is closed. [`single_record`] writes single records of a quarantine.
//! - [`staging`] creates the hidden files, each in the [`folder`] of its run, and cleans up after
//!   processes that died. The state store holds an [`entry`] for each committed file; [`place`]
//!   renames the file to its visible name. The [`verdict`] whether that is done already uses the
//!   identity of the [`disk`]. [`access`] says who may use what is created, and [`below`] keeps to
//!   the base directory, and [`permitted`] says which entries are applied. All of them use the
//!   operations of [`file_system`].
//! - [`follow_ups`] publishes in the background the files that could not be published at once, and
//!   does the follow-up work of a published file ([`follow_up`]): [`relocate`] moves it, after a
//!   check for [`damage`], and [`hook`] reports it. A test can kill the process when a file has
//!   been `moved` and when the report has succeeded (`hooked`).

mod access;
mod below;
mod damage;
mod disk;
mod entry;
mod file_system;
mod folder;
mod follow_up;
mod follow_ups;
mod hook;
mod host;
mod lane;
mod lane_name;
mod open_file;
mod options;
mod permitted;
mod place;
mod projection;
mod quarantine;
mod relocate;
mod route;
mod settings;
mod single_record;
mod staging;
mod template;
mod verdict;

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Waker;

use prometheus::{IntCounter, IntGauge};
use pseidon_delivery::{InstanceId, LaneId, Reason, StagedEntry, failpoint};
use pseidon_dsl::Diagnostic;
use pseidon_plugin::Rows;
use pseidon_plugin::lane::{Lane, LaneRules};
use pseidon_plugin::options::OnError;
use pseidon_plugin::sink::{
    PreparedSink, Protocol, PublishProgress, RoutedRows, Sink, SinkError, SinkFacts, SinkInput,
    SinkPlugin, SinkSetup, StagedFile, StateOrigin, TakenSplit, TakeoverResult,
};
use pseidon_plugin::spec::PluginSpec;

use self::access::Access;
use self::entry::{Move, read_moves};
use self::file_system::{needs_repair, sync_dirs};
use self::follow_up::{BROKEN, Destination};
use self::follow_ups::{FollowUps, SinkContext};
use self::hook::Hook;
use self::lane::FileLane;
use self::open_file::CloseContext;
use self::permitted::{PermittedPlaces, sink_folder};
use self::place::PublishOutcome;
use self::settings::{MoveSettings, Settings};
use self::staging::{HiddenFile, Staging, StagingPlaces};

pub use self::options::FilesSinkOptions;
pub use self::quarantine::quarantine;

/// The sink `files`.
pub struct FilesSink;

impl SinkPlugin for FilesSink {
    type Options = FilesSinkOptions;

    fn spec(&self) -> &'static PluginSpec {
        &options::SPEC
    }

    fn on_error(&self, options: &FilesSinkOptions) -> OnError {
        options.on_error.clone()
    }

    fn facts(&self, options: &FilesSinkOptions) -> SinkFacts {
        SinkFacts {
            needs_columns: options.codec.value.needs_columns(),
            copies_meta: false,
            protocol: Protocol::Staged,
            folder: settings::folder(options),
        }
    }

    fn prepare(
        &self,
        options: &FilesSinkOptions,
        input: &SinkInput,
    ) -> Result<Arc<dyn PreparedSink>, Vec<Diagnostic>> {
        Ok(Arc::new(PreparedFilesSink {
            settings: Arc::new(Settings::new(options, input)?),
        }))
    }
}

struct PreparedFilesSink {
    settings: Arc<Settings>,
}

impl PreparedSink for PreparedFilesSink {
    fn nondeterminism(&self) -> Option<String> {
        self.settings.nondeterminism.clone()
    }

    fn hook_digest(&self) -> Option<String> {
        self.settings.hook.as_ref().map(Hook::digest)
    }

    fn example_files(&self, base: &Path, topic: &str) -> Vec<PathBuf> {
        self.settings.example_files(base, topic)
    }

    fn staged_file(&self, detail: &str, base: &Path) -> Option<StagedFile> {
        let bases = self.settings.base_dirs.iter().map(|dir| base.join(dir));
        Move::from_detail(detail).map(|moving| moving.describe(bases))
    }

    fn refused_entry(&self, detail: &str, origin: &StateOrigin<'_>) -> Option<String> {
        let moving = Move::from_detail(detail)?;
        let hidden = sink_folder(origin.pipeline, origin.sink.as_str(), origin.store);
        let permitted = PermittedPlaces::new(&self.settings, origin.base, hidden).ok()?;
        permitted.refusal_on_disks(&moving)
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
        let access = Access::new(settings.mode, settings.owner.as_ref())?;
        let sink = setup.committer.sink().clone();
        let hidden = sink_folder(&setup.pipeline, sink.as_str(), &setup.store);
        let permitted = match setup.trusts_state {
            true => None,
            false => Some(PermittedPlaces::new(
                &settings,
                &setup.base,
                hidden.clone(),
            )?),
        };
        let places = StagingPlaces {
            bases: &bases,
            hidden,
            permitted,
        };
        let (staging, failed) = Staging::open(places, access.clone(), &setup)?;
        let (stage, place) = sink.stage_and_place();
        let (stage, place) = (stage.to_owned(), place.map(str::to_owned));
        let follow_ups = FollowUps::new(SinkContext {
            pipeline: setup.pipeline.clone(),
            access: access.clone(),
            hook,
            committer: setup.committer.clone(),
            metrics: setup.metrics.clone(),
            stage: stage.clone(),
        });
        failed
            .into_iter()
            .for_each(|(id, moving)| follow_ups.publish_later(id, moving));
        let shared = RunContext {
            open_files: setup.metrics.open_files.with_label_values(&[sink.as_str()]),
            files: setup.metrics.files.with_label_values(&[sink.as_str()]),
            bytes_out: setup.metrics.bytes_out.with_label_values(&[sink.as_str()]),
            extension: settings.codec.extension(),
            access,
            follow_ups,
            staging: Arc::new(staging),
            move_to,
            settings,
            place,
            setup,
        };
        Ok(Arc::new(FilesRun(Arc::new(shared))))
    }
}

/// Resolves a folder to an absolute path. Its name must be UTF-8.
fn absolute(base: &Path, dir: &Path) -> Result<PathBuf, SinkError> {
    let dir = std::path::absolute(base.join(dir)).map_err(|error| {
        SinkError::Fatal(Reason::caused_by(
            format!("cannot resolve the folder {}", dir.display()),
            error,
        ))
    })?;
    match dir.to_str() {
        // The path is kept in the state store, which holds strings.
        None => Err(SinkError::Fatal(
            format!("the folder {} has a name that is not UTF-8", dir.display()).into(),
        )),
        Some(_) => Ok(dir),
    }
}

impl MoveSettings {
    /// The same settings with absolute paths.
    fn below(&self, base: &Path) -> Result<MoveSettings, SinkError> {
        let quarantine = self
            .quarantine
            .as_ref()
            .map(|folder| absolute(base, folder))
            .transpose()?;
        Ok(MoveSettings {
            folder: absolute(base, &self.folder)?,
            quarantine,
            ..self.clone()
        })
    }
}

/// The state that the lanes of a run share.
struct RunContext {
    settings: Arc<Settings>,
    setup: SinkSetup,
    follow_ups: FollowUps,
    staging: Arc<Staging>,
    access: Access,
    move_to: Option<MoveSettings>,
    /// Which of the stage's places in the flow this is; `None` for the first.
    place: Option<String>,
    extension: String,
    open_files: IntGauge,
    files: IntCounter,
    bytes_out: IntCounter,
}

impl RunContext {
    /// How files are completed.
    fn close_context(&self) -> CloseContext<'_> {
        let name = self.settings.router.name.as_ref();
        CloseContext {
            pipeline: &self.setup.pipeline,
            sink: self.setup.committer.sink().as_str(),
            place: self.place.as_deref(),
            has_topic: name.is_some_and(|name| name.has_topic),
            extension: &self.extension,
            has_hook: self.settings.hook.is_some(),
        }
    }

    /// Where a hidden file is moved after it was published; its first record is the first of these
    /// rows.
    fn destination(
        &self,
        rows: &Rows,
        hidden: &HiddenFile,
    ) -> Result<Option<Destination>, SinkError> {
        let Some(move_to) = &self.move_to else {
            return Ok(None);
        };
        // The rows were routed, so every expression can be evaluated for them.
        let below = self
            .settings
            .router
            .destination(rows)
            .map_err(|error| SinkError::Fatal(Reason::of(error)))?;
        let quarantine = move_to.check.then(|| match &move_to.quarantine {
            Some(folder) => folder.clone(),
            None => hidden.base().join(BROKEN),
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

struct FilesRun(Arc<RunContext>);

impl Sink for FilesRun {
    fn rules(&self) -> LaneRules {
        let settings = &self.0.settings;
        LaneRules {
            single_writer: false,
            rollover: settings.rollover.clone(),
            check_every: settings.check_freq,
            most_open: settings.max_open_files,
        }
    }

    fn take_over(
        &self,
        splits: &[TakenSplit],
        staged: &[StagedEntry],
    ) -> Result<TakeoverResult, SinkError> {
        let mut failed = Vec::new();
        let is_other = |owner: &InstanceId| *owner != self.0.setup.instance;
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
        Ok(TakeoverResult {
            published: published.done,
            ..TakeoverResult::default()
        })
    }

    fn route(&self, rows: Rows) -> RoutedRows {
        let settings = &self.0.settings;
        settings
            .router
            .route(rows, |rows| settings.codec.check(rows))
    }

    fn write_single(&self, row: Rows, id: &str) -> Result<(), SinkError> {
        single_record::write_single(&self.0, self.route(row), id)
    }

    fn lane(&self, lane: &LaneId, _waker: &Waker) -> Result<Box<dyn Lane>, SinkError> {
        Ok(Box::new(FileLane::new(self.0.clone(), lane.clone())))
    }

    fn publish(&self, staged: &[StagedEntry]) -> Result<PublishProgress, SinkError> {
        let shared = &self.0;
        let moves = read_moves(staged.to_vec())?;
        let (mut changed, mut not_here, mut failure) = (BTreeSet::new(), HashSet::new(), None);
        for (id, moving) in &moves {
            match moving.apply(&shared.access, &mut changed) {
                Ok(PublishOutcome::NotHere(_)) => _ = not_here.insert(id.clone()),
                Ok(PublishOutcome::Taken) => {}
                Ok(PublishOutcome::Published) => {
                    failpoint::reach("renamed");
                    // An earlier call may have renamed the file, and not have synced its folders.
                    changed.extend(moving.dirs());
                }
                // The others need not wait for it.
                Err(error) if needs_repair(&error) => _ = not_here.insert(id.clone()),
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure.or(sync_dirs(&changed).err()) {
            return Ok(PublishProgress::Blocked(error.to_string()));
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
        Ok(PublishProgress::Done(done))
    }
}

#[cfg(test)]
mod tests;
