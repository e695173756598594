//! The sandbox of `run` (`:sandbox`): what this process, and the programs that it executes, can no
//! longer do, even if an error in a library lets a record take it over.
//!
//! 1. Landlock: files are created, changed and deleted only below the folders of `:writable`, and
//!    in the state.
//! 2. Filters of system calls (seccomp): those that look into other processes, mount, load kernel
//!    code or leave or create a namespace are refused, and, unless `:programs` is set, those that
//!    execute a program.
//!
//! Both hold for the thread that sets them and for those that it starts, so that they are set before
//! any other thread exists.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus,
};
use pseidon_delivery::{Reason, WithCauses};
use pseidon_dsl::Document;
use pseidon_plan::Settings;
use pseidon_plan::settings::SandboxOptions;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::cli::Exit;
use crate::stderr_line;

/// The version of Landlock that is asked for, of Linux 6.2: the first one that refuses to truncate
/// files.
const LANDLOCK: ABI = ABI::V3;

/// Files for which nothing is asked: a program's standard streams are opened at the first one.
const DEVICES: [&str; 1] = ["/dev/null"];

/// Calls that look into other processes, or change the machine. No code of Pseidon uses them.
const REFUSED_CALLS: [libc::c_long; 42] = [
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
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
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

/// The namespaces that `clone` can create, as `unshare` does: in one of its own, a process mounts.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// What is added to the number of a call to use the x32 ABI of an x86-64 kernel, which counts as the
/// same architecture.
const X32: i64 = 0x4000_0000;

/// Calls that have another number in the x32 ABI, and their number there.
const X32_CALLS: [(libc::c_long, i64); 6] = [
    (libc::SYS_execve, 520),
    (libc::SYS_ptrace, 521),
    (libc::SYS_kexec_load, 528),
    (libc::SYS_process_vm_readv, 539),
    (libc::SYS_process_vm_writev, 540),
    (libc::SYS_execveat, 545),
];

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
        let reason = WithCauses(&reason);
        stderr_line!("error: cannot enter the sandbox (`:sandbox`): {reason}");
        Exit::Failed
    })
}

/// A folder or a file, and what may be done in it.
type WritablePath = (PathBuf, BitFlags<AccessFs>);

/// The folders and files that may be written to. Those of the state, of sockets and of fatal errors
/// are created if they do not exist, since a folder that does not exist cannot be named to the
/// kernel.
fn writable(
    settings: &Settings,
    options: &SandboxOptions,
    base: &Path,
    state: &Path,
) -> Result<Vec<WritablePath>, Reason> {
    let writes = AccessFs::from_write(LANDLOCK);
    let of_file = writes & AccessFs::from_file(LANDLOCK);
    let devices = DEVICES.iter().map(|device| (device.into(), of_file));
    let mut allowed: Vec<WritablePath> = devices.collect();
    for folder in &options.writable {
        let folder = base.join(folder);
        if !folder.is_dir() {
            let what = format!(
                "{} of `:writable` is not a folder; create it before the start",
                folder.display()
            );
            return Err(what.into());
        }
        allowed.push((folder, writes));
    }
    if settings.state.is_none() {
        create(state)?;
        allowed.push((state.to_owned(), writes));
    }
    // Nothing but the socket: its folder can be that of the pipeline file.
    let socket = AccessFs::MakeSock | AccessFs::RemoveFile;
    for folder in socket_folders(settings, base, state) {
        create(&folder)?;
        allowed.push((folder, socket));
    }
    if let Some(file) = &settings.fatal_errors {
        let file = base.join(file);
        if fs::symlink_metadata(&file).is_err() {
            let mut open = OpenOptions::new();
            let created = open.append(true).create(true).mode(0o600).open(&file);
            created.map_err(|error| cannot_create(&file, error))?;
        }
        allowed.push((file, of_file));
    }
    Ok(allowed)
}

/// The folders of the sockets of the service; one without a name of its own is in that of the state.
fn socket_folders(settings: &Settings, base: &Path, state: &Path) -> Vec<PathBuf> {
    let sockets = [&settings.monitor_socket, &settings.repl_socket];
    let named = sockets.into_iter().flatten();
    let folders = named.filter_map(|socket| base.join(socket).parent().map(Path::to_owned));
    let is_unnamed = settings.repl && settings.repl_socket.is_none();
    folders
        .chain(is_unnamed.then(|| state.to_owned()))
        .collect()
}

/// Creates a folder that only this user can use, unless it exists.
fn create(folder: &Path) -> Result<(), Reason> {
    let mut builder = DirBuilder::new();
    let created = builder.recursive(true).mode(0o700).create(folder);
    created.map_err(|error| cannot_create(folder, error))
}

fn cannot_create(path: &Path, error: io::Error) -> Reason {
    Reason::caused_by(format!("cannot create {}", path.display()), error)
}

fn restrict_files(writable: Vec<WritablePath>) -> Result<(), Reason> {
    let refused = |error: RulesetError| Reason::caused_by("Landlock", error);
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_write(LANDLOCK))
        .and_then(Ruleset::create)
        .map_err(refused)?;
    for (path, allowed) in writable {
        let what = || format!("cannot open {}", path.display());
        let beneath = PathFd::new(&path).map_err(|error| Reason::caused_by(what(), error))?;
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
    // The flags of `clone3` are in memory, which a filter cannot read. The C library uses `clone`
    // on a kernel that does not know `clone3`.
    let unknown = with_x32([(libc::SYS_clone3, Vec::new())]);
    let filters =
        refused_calls(programs).map(|refused| [(refused, libc::EPERM), (unknown, libc::ENOSYS)]);
    let filters = filters.map_err(|error| Reason::caused_by("seccomp", error))?;
    for (rules, error) in filters {
        let program = filter(rules, error).map_err(|error| Reason::caused_by("seccomp", error))?;
        seccompiler::apply_filter(&program).map_err(|error| Reason::caused_by("seccomp", error))?;
    }
    Ok(())
}

/// The filter that answers these calls with an error.
fn filter(rules: Rules, error: libc::c_int) -> Result<BpfProgram, BackendError> {
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(error.cast_unsigned()),
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?;
    BpfProgram::try_from(filter)
}

/// Calls by their numbers, each with the conditions under which it is refused. Without conditions, a
/// call is refused whatever its arguments are.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn refused_calls(programs: bool) -> Result<Rules, BackendError> {
    let more: &[libc::c_long] = if programs { &[] } else { &PROGRAM_CALLS };
    let calls = REFUSED_CALLS.iter().chain(more);
    let creates = |namespace: libc::c_int| {
        let flag = u64::from(namespace.cast_unsigned());
        let has_flag = SeccompCmpOp::MaskedEq(flag);
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, has_flag, flag)?;
        SeccompRule::new(vec![condition])
    };
    let creates: Result<Vec<_>, _> = NAMESPACES.into_iter().map(creates).collect();
    let calls = calls.map(|call| (*call, Vec::new()));
    Ok(with_x32(calls.chain([(libc::SYS_clone, creates?)])))
}

/// The rules for these calls, however they are called.
fn with_x32(calls: impl IntoIterator<Item = (libc::c_long, Vec<SeccompRule>)>) -> Rules {
    let mut rules = Rules::new();
    for (call, conditions) in calls {
        if cfg!(target_arch = "x86_64") {
            let of_x32 = X32_CALLS.iter().filter(|(known, _)| *known == call);
            let numbers = of_x32.map(|(_, number)| *number).chain([call]);
            rules.extend(numbers.map(|number| (X32 | number, conditions.clone())));
        }
        rules.insert(call, conditions);
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_each_socket_can_have_it() {
        let base = tempfile::tempdir().expect("a folder");
        let state = base.path().join("state");
        let redis = r#":state "redis://localhost" :state-key "0123456789abcdef0123456789abcdef""#;
        for (sockets, expected) in [
            ("", vec![]),
            (":repl true", vec!["state"]),
            (r#":repl true :repl-socket "run/repl""#, vec!["run"]),
            (
                r#":repl-socket "deep/run/repl" :monitor-socket "http""#,
                vec!["", "deep/run"],
            ),
        ] {
            let text = format!(
                "{{:settings {{{redis} {sockets} :sandbox {{:writable []}}}}
                   pipeline (-> (stdin) (stdout))}}"
            );
            let document = pseidon_dsl::document::from_edn(&text).expect("a pipeline");
            let settings = Settings::from_document(&document).expect("settings");
            let options = settings.sandbox.as_ref().expect("a sandbox");
            let allowed = writable(&settings, options, base.path(), &state).expect("folders");
            let allowed = allowed.iter().filter(|(path, _)| path.is_dir());
            let found: Vec<_> = allowed.collect();
            let expected: Vec<_> = expected
                .into_iter()
                .map(|path| base.path().join(path))
                .collect();
            let paths: Vec<_> = found.iter().map(|(path, _)| path.clone()).collect();
            assert_eq!(paths, expected, "{sockets}");
            let is_for_sockets = |(_, allowed): &&WritablePath| {
                allowed.contains(AccessFs::MakeSock | AccessFs::RemoveFile)
                    && !allowed.contains(AccessFs::WriteFile)
            };
            assert!(found.iter().all(is_for_sockets), "{sockets}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn each_refused_call_is_refused_in_the_x32_abi() {
        let rules = refused_calls(false).expect("rules");
        let of_x32 = rules.keys().filter(|number| **number & X32 != 0).count();
        let named = REFUSED_CALLS.len() + PROGRAM_CALLS.len() + 1;
        assert_eq!(of_x32, named + X32_CALLS.len());
        assert_eq!(rules.len(), 2 * named + X32_CALLS.len());
        assert!(rules.contains_key(&(X32 | 520)), "execve");
        assert!(
            !refused_calls(true)
                .expect("rules")
                .contains_key(&(X32 | 520))
        );
        assert_eq!(rules[&libc::SYS_clone].len(), NAMESPACES.len());
        assert!(rules[&libc::SYS_ptrace].is_empty(), "without a condition");
    }
}
