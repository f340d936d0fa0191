//! What the machine grants: processors, memory, a terminal.

use std::fs;
use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};

/// What the machine grants this process.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Processors it may use, cgroup quotas counted.
    pub cpus: NonZeroUsize,
    /// Bytes it may use, if its cgroup says.
    pub memory_limit: Option<u64>,
    /// Whether standard output is a terminal.
    pub terminal: bool,
}

impl Machine {
    /// Asks the machine.
    #[must_use]
    pub fn detect() -> Self {
        Self {
            cpus: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            memory_limit: memory_limit(Path::new("/")),
            terminal: std::io::stdout().is_terminal(),
        }
    }
}

/// The memory limit of this process's cgroup and those above it: version 2, else version 1, else none.
///
/// `root` is `/` except in tests.
fn memory_limit(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let group = |matches: fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            matches(controllers).then(|| fields.next().unwrap_or_default())
        })
    };
    let unified = root.join("sys/fs/cgroup");
    let v2 = least(&unified, group(str::is_empty).unwrap_or_default(), "memory.max");
    v2.or_else(|| {
        let path = group(|controllers| controllers.split(',').any(|c| c == "memory")).unwrap_or_default();
        least(&unified.join("memory"), path, "memory.limit_in_bytes")
    })
}

/// The least limit in `file` from `mount/group` up to `mount`. Version 1 writes a huge number for "none".
fn least(mount: &Path, group: &str, file: &str) -> Option<u64> {
    let inside: PathBuf = Path::new(group)
        .components()
        .filter(|c| matches!(c, Component::Normal(_)))
        .collect();
    inside
        .ancestors()
        .filter_map(|path| {
            fs::read_to_string(mount.join(path).join(file))
                .ok()?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .filter(|bytes| (1..1 << 60).contains(bytes))
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        memory_limit(root.path())
    }

    #[test]
    fn the_memory_limit_is_read_from_either_version() {
        let v1_huge = "9223372036854771712\n";
        for (files, wanted) in [
            (&[][..], None),
            (
                &[
                    ("proc/self/cgroup", "0::/\n"),
                    ("sys/fs/cgroup/memory.max", "max\n"),
                ],
                None,
            ),
            (
                &[
                    ("proc/self/cgroup", "0::/\n"),
                    ("sys/fs/cgroup/memory.max", "268435456\n"),
                ],
                Some(268_435_456),
            ),
            (
                &[
                    ("proc/self/cgroup", "0::/pod/app\n"),
                    ("sys/fs/cgroup/pod/app/memory.max", "max\n"),
                    ("sys/fs/cgroup/pod/memory.max", "1000\n"),
                    ("sys/fs/cgroup/memory.max", "2000\n"),
                ],
                Some(1000),
            ),
            (
                &[
                    ("proc/self/cgroup", "0::/../elsewhere\n"),
                    ("sys/fs/cgroup/memory.max", "3000\n"),
                ],
                Some(3000),
            ),
            (
                &[
                    ("proc/self/cgroup", "9:cpu:/x\n5:memory:/docker/abc\n0::/x\n"),
                    ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "4096\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", v1_huge),
                ],
                Some(4096),
            ),
            (
                &[
                    ("proc/self/cgroup", "5:memory:/docker/abc\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "8192\n"),
                ],
                Some(8192),
            ),
            (&[("sys/fs/cgroup/memory/memory.limit_in_bytes", v1_huge)], None),
            (
                &[
                    ("proc/self/cgroup", "garbage"),
                    ("sys/fs/cgroup/memory.max", "-1"),
                ],
                None,
            ),
        ] {
            assert_eq!(limit(files), wanted, "{files:?}");
        }
    }
}
