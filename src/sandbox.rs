//! The sandbox of `run` (`:sandbox`): what this process, and the programs that it executes, can no
//! longer do, even if an error in a library lets a record take it over.
//!
//! 1. Landlock: files are created, changed and deleted only below the folders of `:writable`, and
//!    in the state.
//! 2. A filter of system calls (seccomp): those that look into other processes, mount, load kernel
//!    code or leave a namespace are refused, and, unless `:programs` is set, those that execute a
//!    program.
//!
//! Both hold for the thread that sets them and for those that it starts, so that they are set before
//! any other thread exists.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus,
};
use pseidon_delivery::Reason;
use pseidon_dsl::Document;
use pseidon_plan::Settings;
use pseidon_plan::settings::SandboxOptions;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::cli::Exit;
use crate::stderr_line;

/// The version of Landlock that is asked for, of Linux 6.2: the first one that refuses to truncate
/// files.
const LANDLOCK: ABI = ABI::V3;

/// Files for which nothing is asked: a program's standard streams are opened at the first one.
const DEVICES: [&str; 1] = ["/dev/null"];

/// Calls that look into other processes, or change the machine. No code of Pseidon uses them.
const REFUSED_CALLS: [libc::c_long; 40] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// Calls that execute a program.
const PROGRAM_CALLS: [libc::c_long; 2] = [libc::SYS_execve, libc::SYS_execveat];

/// Enters the sandbox of a pipeline, if it has one. `base` is the folder of the pipeline file,
/// `state` that of its state. No other thread may have been started. Errors are printed.
///
/// What is wrong with the settings is reported when the pipeline is planned.
pub(crate) fn enter(document: &Document, base: &Path, state: &Path) -> Result<(), Exit> {
    let Ok(settings) = Settings::from_document(document) else {
        return Ok(());
    };
    let Some(options) = &settings.sandbox else {
        return Ok(());
    };
    let entered = writable(&settings, options, base, state)
        .and_then(restrict_files)
        .and_then(|()| restrict_calls(options.programs));
    entered.map_err(|reason| {
        let reason = pseidon_delivery::WithCauses(&reason);
        stderr_line!("error: cannot enter the sandbox (`:sandbox`): {reason}");
        Exit::Failed
    })
}

/// The folders and files that may be written to. Those of the state and of fatal errors are created
/// if they do not exist, since a folder that does not exist cannot be named to the kernel.
fn writable(
    settings: &Settings,
    options: &SandboxOptions,
    base: &Path,
    state: &Path,
) -> Result<Vec<PathBuf>, Reason> {
    let mut paths: Vec<PathBuf> = DEVICES.iter().map(PathBuf::from).collect();
    for folder in &options.writable {
        let folder = base.join(folder);
        if !folder.is_dir() {
            let what = format!(
                "{} of `:writable` is no folder; create it before the start",
                folder.display()
            );
            return Err(what.into());
        }
        paths.push(folder);
    }
    if settings.state.is_none() {
        let mut builder = DirBuilder::new();
        let created = builder.recursive(true).mode(0o700).create(state);
        created.map_err(|error| cannot_create(state, error))?;
        paths.push(state.to_owned());
    }
    if let Some(file) = &settings.fatal_errors {
        let file = base.join(file);
        if fs::symlink_metadata(&file).is_err() {
            let mut open = OpenOptions::new();
            let created = open.append(true).create(true).mode(0o600).open(&file);
            created.map_err(|error| cannot_create(&file, error))?;
        }
        paths.push(file);
    }
    Ok(paths)
}

fn cannot_create(path: &Path, error: io::Error) -> Reason {
    Reason::caused_by(format!("cannot create {}", path.display()), error)
}

fn restrict_files(writable: Vec<PathBuf>) -> Result<(), Reason> {
    let refused = |error: RulesetError| Reason::caused_by("Landlock", error);
    let writes = AccessFs::from_write(LANDLOCK);
    let mut rules = Ruleset::default()
        .handle_access(writes)
        .and_then(Ruleset::create)
        .map_err(refused)?;
    for path in writable {
        let what = || format!("cannot open {}", path.display());
        let beneath = PathFd::new(&path).map_err(|error| Reason::caused_by(what(), error))?;
        let allowed = match path.is_dir() {
            true => writes,
            false => writes & AccessFs::from_file(LANDLOCK),
        };
        rules = rules
            .add_rule(PathBeneath::new(beneath, allowed))
            .map_err(refused)?;
    }
    let status = rules.restrict_self().map_err(refused)?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => {}
        RulesetStatus::PartiallyEnforced => tracing::warn!(
            "the kernel enforces a part of :sandbox :writable only: files elsewhere can be \
             truncated or renamed; it needs Linux 6.2"
        ),
        RulesetStatus::NotEnforced => tracing::warn!(
            "the kernel does not enforce :sandbox :writable: it has no Landlock, or it is switched \
             off"
        ),
    }
    Ok(())
}

fn restrict_calls(programs: bool) -> Result<(), Reason> {
    let refused = |error: seccompiler::BackendError| Reason::caused_by("seccomp", error);
    let more: &[libc::c_long] = if programs { &[] } else { &PROGRAM_CALLS };
    // Without conditions, a call is refused whatever its arguments are.
    let rules: BTreeMap<i64, _> = REFUSED_CALLS
        .iter()
        .chain(more)
        .map(|call| (*call, Vec::new()))
        .collect();
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(refused)?;
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        arch,
    );
    let program: BpfProgram = filter.and_then(BpfProgram::try_from).map_err(refused)?;
    seccompiler::apply_filter(&program).map_err(|error| Reason::caused_by("seccomp", error))
}
