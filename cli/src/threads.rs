//! How many threads to use and where: the big cores of a big.LITTLE chip, within what the system lets this process
//! have.

use std::num::NonZero;
use std::thread::available_parallelism;

use vitlet_board::{Cpus, MOST_THREADS, Plan};

use crate::board::system;

/// The number of threads, `asked` for or by default one for each big core. Where `asked` does not need the small cores,
/// this process keeps off them from now on.
pub fn plan(asked: Option<usize>) -> usize {
    let cpus = Cpus::read(&system);
    let plan = cpus.plan();
    if plan.pin && asked.is_none_or(|threads| threads <= plan.cpus.len()) {
        keep_to(&plan);
    }
    let available = available_parallelism().map_or(1, NonZero::get);
    let fast = if cpus.online().is_empty() { available } else { plan.threads };
    asked.unwrap_or(fast.min(available).min(MOST_THREADS))
}

/// Threads that this one starts inherit it. A process that has been kept to other cores already (taskset, containers)
/// stays there.
#[cfg(target_os = "linux")]
fn keep_to(plan: &Plan) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let mut both = CpuSet::new();
    plan.cpus.iter().filter(|&cpu| allowed.is_set(cpu)).for_each(|cpu| both.set(cpu));
    if both.count() > 0 {
        // Without it the scheduler decides: slower, not wrong.
        let _ = sched_setaffinity(None, &both);
    }
}

#[cfg(not(target_os = "linux"))]
fn keep_to(_: &Plan) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_some_threads_and_a_wish_is_granted() {
        assert!((1..=MOST_THREADS).contains(&plan(None)));
        assert_eq!(plan(Some(13)), 13);
    }
}
