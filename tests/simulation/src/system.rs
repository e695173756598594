//! The operating system as the code under test sees it: calls that find a full disk.
//!
//! The program uses the C library for files, so this binary has its own versions of these functions,
//! as it has for the time (`clock`) and for randomness (`entropy`). On a thread without a simulation
//! they do what the functions of the C library do.
//!
//! On a full disk a call that needs room fails or succeeds, as the seed decides: files of others
//! come and go. A write may stop in the middle. A file system that checks for room only when a file
//! is synced accepts every write; then the sync fails, and the content of the file is lost.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_void};

use libc::{mode_t, size_t, ssize_t};

use crate::full_disk::{FailureOdds, fullness};
use crate::scenario::Mutation;
use crate::world::{SharedWorld, World};

thread_local! {
    static WORLD: RefCell<Option<SharedWorld>> = const { RefCell::new(None) };
}

/// Sets the world of this thread's simulation; `None` ends it.
pub(crate) fn set_world(world: Option<SharedWorld>) {
    WORLD.set(world);
}

/// The effect of a full disk on a call.
enum FullDiskEffect {
    /// The call fails.
    Fails,
    /// A write stops after this many bytes.
    Takes(usize),
    /// Nothing is done, and the call reports success.
    Lies,
}

/// The effect on a call that needs room, given how many of nine fail and how; `None` if it finds
/// room. The simulator itself, while it has the world, always finds room.
fn refusal(
    what: &str,
    odds: impl FnOnce(FailureOdds) -> u32,
    how: impl FnOnce(&mut World) -> FullDiskEffect,
) -> Option<FullDiskEffect> {
    let full = fullness()?;
    let world = WORLD
        .try_with(|world| world.try_borrow().ok()?.clone())
        .ok()??;
    let mut world = world.try_lock()?;
    if world.rng.u32(0..9) >= odds(full.odds()) {
        return None;
    }
    let refusal = how(&mut world);
    let outcome = match refusal {
        FullDiskEffect::Fails => "fails".to_owned(),
        FullDiskEffect::Takes(count) => format!("stops after {count} bytes"),
        FullDiskEffect::Lies => "reports success".to_owned(),
    };
    world.note(|| format!("disk  is full: {what} {outcome}"));
    Some(refusal)
}

/// Fails, or hides the failure if that safeguard is removed.
fn fail_without(world: &World, mutation: Mutation) -> FullDiskEffect {
    if world.mutation == Some(mutation) {
        FullDiskEffect::Lies
    } else {
        FullDiskEffect::Fails
    }
}

fn refuse_write(world: &mut World, length: usize) -> FullDiskEffect {
    match world.rng.u32(0..6) {
        0 if length > 1 => FullDiskEffect::Takes(world.rng.usize(1..length)),
        _ => fail_without(world, Mutation::UnnoticedWrites),
    }
}

/// Reports that the disk is full, as a call does.
fn no_room() -> c_int {
    // Safety: the pointer is to this thread's number.
    unsafe { *libc::__errno_location() = libc::ENOSPC };
    -1
}

/// The size of this file; `None` for a folder.
fn size_of_file(file: c_int) -> Option<i64> {
    // Safety: all zeros is a value of this type.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    // Safety: the pointer is to a value of the right type.
    let answer = unsafe { libc::fstat(file, &raw mut found) };
    (answer == 0 && found.st_mode & libc::S_IFMT == libc::S_IFREG).then_some(found.st_size)
}

/// Loses what was written to the file: it is replaced by zeros, as after a failed sync.
fn lose_content(file: c_int, size: i64) {
    let zeros = vec![0u8; usize::try_from(size).unwrap_or_default()];
    // Safety: the buffer has as many bytes. A file that accepts none of them keeps its content.
    let _ = unsafe { libc::pwrite64(file, zeros.as_ptr().cast(), zeros.len(), 0) };
}

/// Writes, as far as the disk has room.
///
/// # Safety
/// As for `write` of the C library.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn write(
    file: c_int,
    buffer: *const c_void,
    length: size_t,
) -> ssize_t {
    let length = match refusal(
        "a write",
        |odds| odds.writing,
        |world| refuse_write(world, length),
    ) {
        Some(FullDiskEffect::Fails) => return no_room() as ssize_t,
        Some(FullDiskEffect::Lies) => return length as ssize_t,
        Some(FullDiskEffect::Takes(count)) => count,
        None => length,
    };
    // Safety: the caller's arguments are those of the system call.
    unsafe { libc::syscall(libc::SYS_write, file, buffer, length) as ssize_t }
}

/// Opens a file; a new one needs room. The standard library always passes the mode, which is an
/// argument like others on this system.
///
/// # Safety
/// As for `open64` of the C library.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    if flags & libc::O_CREAT != 0
        && refusal(
            "creating a file",
            |odds| odds.making,
            |_| FullDiskEffect::Fails,
        )
        .is_some()
    {
        return no_room();
    }
    // Safety: the caller's arguments are those of the system call.
    unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) as c_int }
}

/// Creates a folder, if the disk has room.
///
/// # Safety
/// As for `mkdir` of the C library.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    if refusal(
        "creating a folder",
        |odds| odds.making,
        |_| FullDiskEffect::Fails,
    )
    .is_some()
    {
        return no_room();
    }
    // Safety: the caller's arguments are those of the system call.
    unsafe { libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, path, mode) as c_int }
}

/// Syncs a file or a folder. If that fails, the content of the file is lost.
///
/// # Safety
/// As for `fsync` of the C library.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fsync(file: c_int) -> c_int {
    let size = fullness().and_then(|_| size_of_file(file));
    let what = if size.is_some() {
        "a file's sync"
    } else {
        "a folder's sync"
    };
    let refused = refusal(
        what,
        |odds| odds.syncing,
        |world| fail_without(world, Mutation::UnnoticedSyncs),
    );
    if let (Some(size), Some(_)) = (size, &refused) {
        lose_content(file, size);
    }
    match refused {
        Some(FullDiskEffect::Fails) => no_room(),
        Some(_) => 0,
        // Safety: the caller's argument is that of the system call.
        None => unsafe { libc::syscall(libc::SYS_fsync, file) as c_int },
    }
}
