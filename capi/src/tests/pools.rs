//! Pools: their threads have the requested properties.

use super::*;

/// A pool with these options, stopped again; what `look` sees in between.
fn with<T>(options: &vitlet_pool_options, look: impl FnOnce(*mut vitlet_pool) -> T) -> Result<T, (Status, String)> {
    let (mut pool, mut error) = (null_mut(), stale());
    // SAFETY: the pool is stopped once.
    unsafe {
        match vitlet_pool_start(options, &mut pool, &mut error) {
            Status::Ok => {
                let seen = look(pool);
                vitlet_pool_stop(pool);
                Ok(seen)
            }
            status => Err((status, text(&error).into())),
        }
    }
}

fn refused(options: vitlet_pool_options) -> Option<Status> {
    with(&options, |_| ()).err().map(|(status, _)| status)
}

/// The threads that a pool's executor is known to have.
fn threads(pool: *mut vitlet_pool) -> u32 {
    let executor = vitlet_pool_executor(pool);
    let of = |threads| open(&vitlet_options { executor, threads, ..NO_OPTIONS });
    (1..=256).find(|&threads| of(threads).is_ok()).unwrap()
}

#[test]
fn zeros_start_a_thread_for_each_cpu() {
    let expected = std::thread::available_parallelism().unwrap().get().min(256);
    assert_eq!(with(&NO_POOL_OPTIONS, threads), Ok(expected as u32));
    assert_eq!(refused(vitlet_pool_options { threads: 257, ..NO_POOL_OPTIONS }), Some(Status::Value));
    for stack_bytes in [1, (128 << 10) - 1] {
        let options = vitlet_pool_options { stack_bytes, threads: 2, ..NO_POOL_OPTIONS };
        assert_eq!(refused(options), Some(Status::Value), "{stack_bytes}");
    }
    assert_eq!(refused(vitlet_pool_options { cpu_count: 1, ..NO_POOL_OPTIONS }), Some(Status::Null));
}

#[test]
fn a_small_stack_and_no_spinning_give_the_same_results() {
    let pixels: Vec<u8> = (0..70 * 50).map(|i| (i * 7) as u8).collect();
    let expected = run(&open(&NO_OPTIONS).unwrap(), &gray(&pixels, 70, 50));
    let options = vitlet_pool_options { threads: 4, stack_bytes: 128 << 10, spin_microseconds: 1, ..NO_POOL_OPTIONS };
    let got = with(&options, |pool| {
        let opened = open(&vitlet_options { executor: vitlet_pool_executor(pool), ..NO_OPTIONS }).unwrap();
        (0..20).map(|_| run(&opened, &gray(&pixels, 70, 50))).collect::<Vec<_>>()
    });
    assert_eq!(got, Ok(vec![expected; 20]));
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    use super::*;

    /// A line of /proc about each thread of this process with that name, which a thread gives to itself when it begins.
    fn lines(name: &str, file: &str, start: &str) -> Vec<String> {
        let begun = std::time::Instant::now();
        loop {
            let found = lines_now(name, file, start);
            if !found.is_empty() || begun.elapsed().as_secs() > 30 {
                return found;
            }
            std::thread::yield_now();
        }
    }

    fn lines_now(name: &str, file: &str, start: &str) -> Vec<String> {
        let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        let named = tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|n| n.trim() == name));
        let line = |text: String| text.lines().find_map(|l| l.strip_prefix(start)).unwrap_or(&text).trim().into();
        named.map(|task| line(fs::read_to_string(task.join(file)).unwrap())).collect()
    }

    /// The first CPU that this process may use.
    fn a_cpu() -> u32 {
        let list = fs::read_to_string("/proc/thread-self/status").unwrap();
        let list = list.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
        list.split([',', '-']).next().unwrap().parse().unwrap()
    }

    #[test]
    fn helpers_have_their_name_and_their_cpus() {
        let cpus = [a_cpu()];
        let name = c"frames";
        let options = vitlet_pool_options {
            threads: 2,
            name: name.as_ptr(),
            cpus: cpus.as_ptr(),
            cpu_count: 1,
            ..NO_POOL_OPTIONS
        };
        let seen = with(&options, |_| lines("frames-1", "status", "Cpus_allowed_list:"));
        assert_eq!(seen, Ok(vec![std::format!("{}", cpus[0])]));
        assert_eq!(with(&vitlet_pool_options { threads: 0, ..options }, threads), Ok(1), "one for each CPU");
        // No machine has them.
        for (cpu, status) in [(1023, Status::Threads), (1024, Status::Value), (u32::MAX, Status::Value)] {
            let cpus = [cpu];
            let (got, words) = with(&vitlet_pool_options { cpus: cpus.as_ptr(), ..options }, |_| ()).unwrap_err();
            assert_eq!(got, status);
            assert!(words.starts_with("cpus: "), "{words}");
        }
    }

    #[test]
    fn helpers_have_the_priority_that_the_system_gives() {
        let name = c"urgent";
        let options = vitlet_pool_options { threads: 2, priority: 7, name: name.as_ptr(), ..NO_POOL_OPTIONS };
        // 40 of the numbers: rt_priority, and 41: the policy, counted from 1 (man 5 proc); two are before the state.
        let policy = |line: &String| line.rsplit(") ").next().unwrap().split(' ').nth(41 - 3).map(String::from);
        match with(&options, |_| lines("urgent-1", "stat", "").iter().filter_map(policy).collect::<Vec<_>>()) {
            Ok(policies) => assert_eq!(policies, ["1"], "SCHED_FIFO"),
            Err((status, words)) => {
                assert_eq!(status, Status::Threads);
                assert!(words.starts_with("priority: ") && words.ends_with("error 1)"), "{words}");
            }
        }
        assert_eq!(refused(vitlet_pool_options { priority: 100, ..options }), Some(Status::Value));
    }
}
