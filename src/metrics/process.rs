//! What Linux knows about this process, for the standard `process_*` families.

use std::fs;

/// One look at `/proc/self`; what cannot be read is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    /// User and system time in seconds, to a hundredth.
    pub(super) cpu_seconds: Option<f64>,
    /// Resident bytes.
    pub(super) resident_bytes: Option<u64>,
    /// Mapped bytes.
    pub(super) virtual_bytes: Option<u64>,
    /// Open file descriptors.
    pub(super) open_fds: Option<u64>,
    /// Their soft limit.
    pub(super) max_fds: Option<u64>,
    /// Threads.
    pub(super) threads: Option<u64>,
}

impl Process {
    /// Reads `/proc/self` now.
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |name| number_after(&status, name).map(|kib| kib.saturating_mul(1024));
        Self {
            cpu_seconds: fs::read_to_string("/proc/self/stat")
                .ok()
                .and_then(|stat| cpu_seconds(&stat)),
            resident_bytes: kib("VmRSS:"),
            virtual_bytes: kib("VmSize:"),
            // The directory being read is one of them.
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|fds| fds.count().saturating_sub(1) as u64),
            max_fds: fs::read_to_string("/proc/self/limits")
                .ok()
                .and_then(|limits| number_after(&limits, "Max open files")),
            threads: number_after(&status, "Threads:"),
        }
    }
}

/// The first number behind `name` at the start of a line.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// `utime` and `stime` of `/proc/self/stat`. The kernel reports them in hundredths of a second to programs,
/// whatever its own clock (`USER_HZ`). The second field, the name, may hold blanks and parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_hostile_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 3 0 5 6 7 8";
        assert_eq!(cpu_seconds(stat), Some(1.75));
        for broken in ["", "7 (x", "7 (x) S 1 2", "7 (x) S 1 7 7 0 -1 4 1 0 0 0 a b"] {
            assert_eq!(cpu_seconds(broken), None, "{broken}");
        }
    }

    #[test]
    fn numbers_are_read_by_name() {
        let limits =
            "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024       4096     files\n";
        assert_eq!(number_after(limits, "Max open files"), Some(1024));
        assert_eq!(
            number_after("Max open files  unlimited unlimited files", "Max open files"),
            None
        );
        assert_eq!(number_after("VmRSS:\t  123 kB", "VmSize:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_all_of_them() {
        let process = Process::read();
        assert!(process.cpu_seconds.is_some());
        assert!(process.resident_bytes > Some(100_000) && process.virtual_bytes >= process.resident_bytes);
        assert!(
            process.threads >= Some(1) && process.open_fds >= Some(3) && process.max_fds >= process.open_fds
        );
    }
}
