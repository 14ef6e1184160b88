//! The memory that pictures may take, all threads of the program together. A decoder takes its share before it
//! allocates, and waits where the others leave too little; the picture keeps the share of its pixels until it is
//! dropped.
//!
//! Nobody may wait for a share while it holds another picture: the two could wait for each other. Threads that decode
//! hand a picture on before they take the next.

use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

/// Bytes, unless the system leaves less.
const MOST: u64 = 1 << 30;

/// Bytes that all pictures together may take, and bytes that are taken.
struct Budget {
    limit: u64,
    taken: Mutex<u64>,
    returned: Condvar,
}

impl Budget {
    fn new(limit: u64) -> Self {
        Self { limit, taken: Mutex::new(0), returned: Condvar::new() }
    }

    /// The process's.
    fn of_process() -> &'static Self {
        static BUDGET: OnceLock<Budget> = OnceLock::new();
        BUDGET.get_or_init(|| Self::new(system::memory().map_or(MOST, |bytes| (bytes / 2).min(MOST))))
    }

    /// Waits until `bytes` are free. More than the limit count as all of it.
    fn take(&'static self, bytes: u64) -> Share {
        let bytes = bytes.min(self.limit);
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |taken: &mut u64| *taken > self.limit - bytes;
        let mut taken = self.returned.wait_while(taken, full).unwrap_or_else(PoisonError::into_inner);
        *taken += bytes;
        Share { budget: self, bytes }
    }
}

/// Part of the budget; dropping it returns it.
pub struct Share {
    budget: &'static Budget,
    bytes: u64,
}

impl Share {
    /// Keeps `bytes` and returns the rest.
    pub fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        *self.budget.taken.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes - bytes;
        self.bytes = bytes;
        self.budget.returned.notify_all();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// Bytes that decoding may take: 1 GiB, and half of the memory that the system leaves to this process.
pub fn limit() -> u64 {
    Budget::of_process().limit
}

/// Takes `bytes`, at most [`limit`], from the memory for the process's pictures; waits until they are free.
pub fn take(bytes: u64) -> Share {
    Budget::of_process().take(bytes)
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;
    use std::path::Path;

    use rustix::process::{Resource, getrlimit};

    /// Bytes of the machine's memory, of this process's address space (`ulimit -v`) or of its control group, whichever
    /// is least.
    pub fn memory() -> Option<u64> {
        let machine = rustix::system::sysinfo();
        let machine = machine.totalram as u64 * u64::from(machine.mem_unit);
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let group = of_groups(Path::new("/sys/fs/cgroup"), &groups);
        [Some(machine), getrlimit(Resource::As).current, group].into_iter().flatten().min()
    }

    /// The least `memory.max` of the group that `groups` (`/proc/self/cgroup`) names in version 2's tree at `root`, and
    /// of those above it.
    pub(super) fn of_groups(root: &Path, groups: &str) -> Option<u64> {
        let name = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let limit = |group: &Path| fs::read_to_string(root.join(group).join("memory.max")).ok()?.trim().parse().ok();
        Path::new(name).ancestors().filter_map(limit).min()
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub fn memory() -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn threads_take_no_more_than_there_is() {
        let budget: &'static Budget = Box::leak(Box::new(Budget::new(100)));
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        let decode = |bytes: u64| {
            let mut share = budget.take(bytes);
            most.fetch_max(now.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
            std::thread::yield_now();
            now.fetch_sub(bytes, Ordering::SeqCst);
            share.shrink(bytes / 2);
        };
        std::thread::scope(|scope| {
            for bytes in [100, 60, 40, 33, 34, 1, 0] {
                scope.spawn(move || (0..200).for_each(|_| decode(bytes)));
            }
        });
        assert!((60..=100).contains(&most.into_inner()));
        assert_eq!(*budget.taken.lock().unwrap(), 0);
    }

    #[test]
    fn shares_shrink_and_never_exceed_the_limit() {
        let budget: &'static Budget = Box::leak(Box::new(Budget::new(100)));
        let taken = || *budget.taken.lock().unwrap();
        let mut share = budget.take(1000);
        assert_eq!(taken(), 100);
        share.shrink(30);
        share.shrink(50);
        assert_eq!(taken(), 30);
        let other = budget.take(70);
        assert_eq!(taken(), 100);
        drop((share, other));
        assert_eq!(taken(), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_least_limit_of_a_group_and_those_above_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("user/session");
        std::fs::create_dir_all(&group).unwrap();
        let of = |groups: &str| system::of_groups(root.path(), groups);
        let write = |folder: &std::path::Path, text: &str| std::fs::write(folder.join("memory.max"), text).unwrap();
        assert_eq!(of("0::/user/session\n"), None);
        write(&group, "max\n");
        assert_eq!(of("0::/user/session\n"), None);
        write(root.path(), "3000\n");
        assert_eq!((of("4:memory:/old\n0::/\n"), of("0::/user/session\n")), (Some(3000), Some(3000)));
        write(&group, "2000\n");
        assert_eq!((of("0::/user/session\n"), of("0::/user\n"), of("1:cpu:/\n")), (Some(2000), Some(3000), None));
    }
}
