//! What Linux knows about this process, for the standard `process_*` families. What cannot be read is none.

use std::fs;

/// User and system time in seconds, to a hundredth.
pub(super) fn cpu_seconds() -> Option<f64> {
    stat_cpu_seconds(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// Resident bytes.
pub(super) fn resident_bytes() -> Option<u64> {
    status("VmRSS:").map(|kib| kib.saturating_mul(1024))
}

/// Mapped bytes.
pub(super) fn virtual_bytes() -> Option<u64> {
    status("VmSize:").map(|kib| kib.saturating_mul(1024))
}

/// Threads.
pub(super) fn threads() -> Option<u64> {
    status("Threads:")
}

/// Open file descriptors. The directory being read is one of them and not counted.
pub(super) fn open_fds() -> Option<u64> {
    fs::read_dir("/proc/self/fd")
        .ok()
        .map(|fds| fds.count().saturating_sub(1) as u64)
}

/// Soft limit of open file descriptors.
pub(super) fn max_fds() -> Option<u64> {
    number_after(&fs::read_to_string("/proc/self/limits").ok()?, "Max open files")
}

fn status(name: &str) -> Option<u64> {
    number_after(&fs::read_to_string("/proc/self/status").ok()?, name)
}

/// The first number behind `name` at the start of a line.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// `utime` and `stime` of `/proc/self/stat`. The kernel reports them in hundredths of a second to programs,
/// whatever its own clock (`USER_HZ`). The second field, the name, may hold blanks and parentheses.
fn stat_cpu_seconds(stat: &str) -> Option<f64> {
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
        assert_eq!(stat_cpu_seconds(stat), Some(1.75));
        for broken in ["", "7 (x", "7 (x) S 1 2", "7 (x) S 1 7 7 0 -1 4 1 0 0 0 a b"] {
            assert_eq!(stat_cpu_seconds(broken), None, "{broken}");
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
        assert!(cpu_seconds().is_some() && threads() >= Some(1));
        assert!(resident_bytes() > Some(100_000) && virtual_bytes() >= resident_bytes());
        assert!(open_fds() >= Some(3) && max_fds() >= open_fds());
    }
}
