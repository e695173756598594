//! Memory and connections of this process, as reported by Linux.

use std::collections::HashSet;
use std::fs;

/// A megabyte in `/metrics`.
const MEGABYTE: f64 = 1024.0 * 1024.0;

/// The memory of this process, in bytes (`proc_pid_status(5)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessMemory {
    /// `RssAnon`: resident anonymous memory, which is heap and stacks.
    pub(crate) anonymous: u64,
    /// `RssFile` and `RssShmem`: resident memory of files: the program, its libraries and the
    /// embedded state.
    pub(crate) files: u64,
    /// `VmData`: the private memory that was allocated, resident or not.
    pub(crate) allocated: u64,
    /// `VmExe` and `VmLib`: the size of the program and its libraries.
    pub(crate) code: u64,
}

impl ProcessMemory {
    /// The current values; zero where the kernel does not report one.
    pub(crate) fn now() -> ProcessMemory {
        ProcessMemory::read(&fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    fn read(status: &str) -> ProcessMemory {
        let field = |name: &str| {
            let value = status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kilobytes = value
                .and_then(|value| value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
            kilobytes.unwrap_or_default() * 1024
        };
        ProcessMemory {
            anonymous: field("RssAnon"),
            files: field("RssFile") + field("RssShmem"),
            allocated: field("VmData"),
            code: field("VmExe") + field("VmLib"),
        }
    }

    /// All resident memory in bytes: anonymous memory and that of files.
    pub(crate) fn resident(&self) -> u64 {
        self.anonymous + self.files
    }
}

/// Bytes as megabytes, rounded to three decimals.
pub(crate) fn megabytes(bytes: u64) -> f64 {
    (bytes as f64 / MEGABYTE * 1000.0).round() / 1000.0
}

/// The number of established TCP connections of this process.
pub(crate) fn connections() -> usize {
    let sockets = sockets();
    let of_table =
        |table: &str| established(&fs::read_to_string(table).unwrap_or_default(), &sockets);
    of_table("/proc/self/net/tcp") + of_table("/proc/self/net/tcp6")
}

/// The inodes of the sockets of this process.
fn sockets() -> HashSet<String> {
    let Ok(files) = fs::read_dir("/proc/self/fd") else {
        return HashSet::new();
    };
    let inode = |file: fs::DirEntry| {
        let target = fs::read_link(file.path()).ok()?;
        Some(
            target
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')?
                .to_owned(),
        )
    };
    files.flatten().filter_map(inode).collect()
}

/// The number of these sockets that are established according to a table of the kernel
/// (`proc_pid_net(5)`: the fourth column is the state, the tenth the inode).
fn established(table: &str, sockets: &HashSet<String>) -> usize {
    const ESTABLISHED: &str = "01";
    let is_ours = |line: &&str| {
        let mut columns = line.split_whitespace().skip(3);
        columns.next() == Some(ESTABLISHED)
            && columns.nth(5).is_some_and(|inode| sockets.contains(inode))
    };
    table.lines().filter(is_ours).count()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn memory_is_read_from_the_kernel() {
        let status = "Name:\tx\nVmData:\t   300 kB\nVmExe:\t 20 kB\nVmLib:\t5 kB\nRssAnon:\t 100 kB\nRssFile:\t 30 kB\nRssShmem:\t 1 kB\n";
        let kilo = |kilobytes: u64| kilobytes * 1024;
        assert_eq!(
            ProcessMemory::read(status),
            ProcessMemory {
                anonymous: kilo(100),
                files: kilo(31),
                allocated: kilo(300),
                code: kilo(25)
            }
        );
        assert_eq!(
            ProcessMemory::read("VmData:\tmuch\n"),
            ProcessMemory::default()
        );
        let now = ProcessMemory::now();
        assert!(
            now.anonymous > 0 && now.files > 0 && now.allocated > 0 && now.code > 0,
            "{now:?}"
        );
        assert_eq!(megabytes(5_694_026), 5.43);
    }

    #[test]
    fn only_established_sockets_of_the_process_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0\n\
                     1: 0100007F:1F90 0100007F:D2B4 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0 20 4 30 10 -1\n\
                     2: 0100007F:D2B4 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0 20 4 30 10 -1\n";
        let sockets = ["11", "12"].map(str::to_owned).into();
        assert_eq!(established(table, &sockets), 1);
    }

    #[test]
    fn the_sockets_of_a_connection_are_found_in_the_kernels_tables() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_far, _) = listener.accept().unwrap();
        let inode = fs::metadata(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&near)
        ))
        .map(|of| std::os::unix::fs::MetadataExt::ino(&of));
        let inode = inode.unwrap().to_string();
        assert!(sockets().contains(&inode));
        let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
        assert_eq!(established(&table, &[inode].into()), 1);
    }
}
