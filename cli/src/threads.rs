//! How many threads to use: the big cores of a big.LITTLE chip, within what the system lets this process have.

use std::fs;
use std::num::NonZero;
use std::thread::available_parallelism;

/// More threads than this share one picture badly.
const MOST: usize = 8;

/// The default for `--threads`.
pub fn default_threads() -> usize {
    let available = available_parallelism().map_or(1, NonZero::get);
    big_cores(&capacities()).unwrap_or(available).min(available).min(MOST)
}

/// Each core's speed relative to the fastest, 1024 at most, as Linux tells it on ARM; empty elsewhere.
fn capacities() -> Vec<u32> {
    let Ok(cores) = fs::read_dir("/sys/devices/system/cpu") else {
        return Vec::new();
    };
    let capacity = |core: fs::DirEntry| fs::read_to_string(core.path().join("cpu_capacity")).ok()?.trim().parse().ok();
    cores.flatten().filter_map(capacity).collect()
}

/// Cores at least half as fast as the fastest: a slower one would hold the others up at every barrier.
fn big_cores(capacities: &[u32]) -> Option<usize> {
    let fastest = *capacities.iter().max()?;
    Some(capacities.iter().filter(|&&c| c * 2 >= fastest).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn big_cores_of_known_chips() {
        assert_eq!(big_cores(&[]), None);
        assert_eq!(big_cores(&[1024; 4]), Some(4), "Raspberry Pi 5");
        assert_eq!(big_cores(&[374, 374, 374, 374, 1024, 1024, 1024, 1024]), Some(4), "RK3588");
        assert_eq!(big_cores(&[250, 250, 250, 250, 760, 760, 760, 1024]), Some(4), "three kinds of cores");
        assert!((1..=MOST).contains(&default_threads()));
    }
}
