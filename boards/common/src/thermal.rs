//! Heat, and its effect on the clocks. Linux kernel, Documentation/driver-api/thermal/sysfs-api.

use crate::files::{Files, number, text};

/// Zones and cooling devices beyond these are not looked at; an Orin has 10 and about 20.
const MOST: usize = 40;

/// Why clocks are held down, in words.
pub type Reasons = heapless::Vec<&'static str, 8>;

/// What holds the clocks down.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Throttling {
    /// At this moment.
    pub now: Reasons,
    /// At some time since the board started.
    pub since_boot: Reasons,
    /// How often, where the board counts: more of them after a measurement than before make it worthless.
    pub events: u64,
}

/// The temperature of the hottest zone with `cpu` in its name, in thousandths of a degree Celsius.
pub fn cpu_temperature(files: &impl Files) -> Option<i32> {
    let temperature = |zone: usize| {
        let name = text(files, format_args!("/sys/class/thermal/thermal_zone{zone}/type"))?;
        // `CPU-therm` on JetPack 4, `cpu-thermal` elsewhere. Other zones mislead: the Nano's PMIC-Die says 100 degrees
        // always.
        names_cpu(&name).then(|| number(files, format_args!("/sys/class/thermal/thermal_zone{zone}/temp")))?
    };
    (0..MOST).filter_map(temperature).max()
}

/// Whether a cooling device of the CPU is at work: the kernel holds the clock down (or fills in idle time) against the
/// heat.
pub fn cpu_cooling(files: &impl Files) -> bool {
    let at_work = |device: usize| {
        let name = text(files, format_args!("/sys/class/thermal/cooling_device{device}/type"))?;
        // `thermal-cpufreq-0`, `cpufreq-cpu0`, `cpu-throttle-alert`; but `cpu-hot-surface-alert` only says that the
        // case is warm.
        let slows_down = names_cpu(&name) && !name.contains("hot-surface");
        let state: i64 = number(files, format_args!("/sys/class/thermal/cooling_device{device}/cur_state"))?;
        Some(slows_down && state > 0)
    };
    (0..MOST).filter_map(at_work).any(|at_work| at_work)
}

fn names_cpu(name: &str) -> bool {
    name.as_bytes().windows(3).any(|letters| letters.eq_ignore_ascii_case(b"cpu"))
}
