//! The board of a measurement: its kind, and whether heat, power supply or governor spoil the numbers.
//! On machines without a device tree (PCs, virtual machines) there is nothing to say.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::process::Command;

use serde::Serialize;
use vitlet_board::{Cpus, Files, Throttling, cpu_cooling, cpu_temperature};
use vitlet_jetson as jetson;
use vitlet_raspberry_pi as raspberry_pi;

use crate::output::{NAME, Out, QUIET};

/// Clocks that differ by less, relative to the higher one, are equal: counters jitter.
const CLOCK_TOLERANCE: f64 = 0.02;

/// Reads this machine's own files.
pub fn system(path: &str, offset: u64, buffer: &mut [u8]) -> Option<usize> {
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(offset)).ok()?;
    file.read(buffer).ok()
}

/// What does not change while something is measured.
#[derive(Serialize)]
pub struct Board {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    soc: Option<&'static str>,
    /// Jetson Linux's release.
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    cores: Vec<Cores>,
    /// Cores that the power mode has switched off.
    #[serde(skip_serializing_if = "is_zero")]
    offline: usize,
    /// cpufreq's, of the CPUs that an inference uses; several where they differ.
    governor: Vec<String>,
    /// nvpmodel's.
    #[serde(skip_serializing_if = "Option::is_none")]
    power_mode: Option<String>,
    /// What the governor may choose at most, where that is less than the hardware can.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_mhz: Option<u32>,
    #[serde(skip)]
    maker: Maker,
}

/// Whose board it is: its firmware tells what throttles it.
enum Maker {
    RaspberryPi,
    Jetson,
    Other,
}

/// Equal cores.
#[derive(Serialize)]
struct Cores {
    core: String,
    cpus: String,
    count: usize,
    most_mhz: Option<u32>,
}

/// What may change.
#[derive(Clone, Serialize)]
pub struct State {
    /// The lowest and the highest clock of the CPUs that an inference uses; null without cpufreq.
    mhz: Option<[u32; 2]>,
    celsius: Option<f64>,
    /// Null where the board does not tell.
    throttled: Option<Vec<&'static str>>,
    throttled_since_boot: Vec<&'static str>,
    #[serde(skip)]
    events: u64,
}

impl State {
    /// The temperature of the CPU.
    pub fn celsius(&self) -> Option<f64> {
        self.celsius
    }

    /// A board of which only the temperature is known.
    #[cfg(test)]
    pub fn at(celsius: f64) -> Self {
        Self { mhz: None, celsius: Some(celsius), throttled: None, throttled_since_boot: Vec::new(), events: 0 }
    }
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl Board {
    /// The board's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `None` if the machine does not name its kind.
    pub fn identify(files: &impl Files) -> Option<Self> {
        let cpus = Cpus::read(files);
        let clusters = cpus.clusters();
        let cores = clusters.iter().map(|c| Cores {
            core: c.core.map_or("unknown core".to_string(), |core| core.to_string()),
            cpus: c.cpus.to_string(),
            count: c.cpus.len(),
            most_mhz: c.most_khz.map(|khz| khz / 1000),
        });
        let mut governor: Vec<String> = Vec::new();
        let mut limit_mhz = None;
        for clock in used(&cpus).filter_map(|cpu| cpu.clock.as_ref()) {
            if !governor.iter().any(|known| *known == *clock.governor) {
                governor.push(clock.governor.to_string());
            }
            if clock.limit_khz < clock.most_khz {
                limit_mhz = Some(clock.limit_khz / 1000);
            }
        }
        let mut board = Self {
            name: String::new(),
            soc: None,
            system: None,
            cores: cores.collect(),
            offline: cpus.present.saturating_sub(cpus.online().len()),
            governor,
            power_mode: None,
            limit_mhz,
            maker: Maker::Other,
        };
        if let Some(pi) = raspberry_pi::Board::identify(files) {
            board.name = pi.name.to_string();
            board.soc = Some(pi.soc);
            board.maker = Maker::RaspberryPi;
        } else if let Some(jetson) = jetson::Board::identify(files) {
            board.name = jetson.name.to_string();
            board.soc = Some(jetson.soc);
            board.system = jetson.jetson_linux.map(|release| format!("Jetson Linux {release}"));
            board.power_mode = jetson::PowerMode::read(files)
                .map(|mode| mode.name.map_or_else(|| format!("{}", mode.id), |name| name.to_string()));
            board.maker = Maker::Jetson;
        } else {
            board.name = vitlet_board::model(files)?.to_string();
        }
        Some(board)
    }

    /// Clock, temperature and throttling at this moment.
    pub fn state(&self, files: &impl Files) -> State {
        let cpus = Cpus::read(files);
        let mhz = || used(&cpus).filter_map(|cpu| cpu.clock.as_ref()).map(|clock| clock.now_khz / 1000);
        let throttling = match self.maker {
            Maker::RaspberryPi => raspberry_pi_throttling(files),
            Maker::Jetson => Some(jetson::throttling(files)),
            Maker::Other => cpu_cooling(files).then(|| reason("temperature")),
        };
        State {
            mhz: mhz().min().zip(mhz().max()).map(|(low, high)| [low, high]),
            celsius: cpu_temperature(files).map(|milli| f64::from(milli) / 1e3),
            throttled: throttling.as_ref().map(|t| t.now.to_vec()),
            throttled_since_boot: throttling.as_ref().map_or(Vec::new(), |t| t.since_boot.to_vec()),
            events: throttling.map_or(0, |t| t.events),
        }
    }

    /// Why numbers that were measured between two states cannot be trusted, one sentence each.
    pub fn warnings(&self, before: &State, after: &State) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut now: Vec<&str> = [before, after].iter().flat_map(|s| s.throttled.iter().flatten().copied()).collect();
        now.extend(after.throttled_since_boot.iter().filter(|r| !before.throttled_since_boot.contains(r)));
        if after.events > before.events && now.is_empty() {
            now.extend(&after.throttled_since_boot);
        }
        now.sort_unstable();
        now.dedup();
        if !now.is_empty() {
            warnings.push(format!("the board held its clock down ({})", now.join("; ")));
        }
        if let Some(governor) = self.governor.iter().find(|governor| *governor != "performance") {
            let cure = match self.maker {
                Maker::Jetson => "sudo jetson_clocks",
                _ => "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
            };
            warnings.push(format!("governor {governor} moves the clock: {cure}"));
        }
        if let (Some(before), Some(after)) = (before.mhz, after.mhz)
            && before.iter().zip(after).any(|(&b, a)| f64::from(b.abs_diff(a)) > CLOCK_TOLERANCE * f64::from(b.max(a)))
        {
            warnings.push(format!("the clock changed: {} before, {} after", range(before), range(after)));
        }
        if let Some(limit) = self.limit_mhz {
            let by = self.power_mode.as_ref().map_or(String::new(), |mode| format!(" (power mode {mode})"));
            warnings.push(format!("the clock may not go above {limit} MHz, less than the hardware can{by}"));
        }
        warnings
    }

    /// Two lines: the board, and its state before and after.
    pub fn print(&self, out: &mut Out, before: &State, after: &State) -> std::io::Result<()> {
        let mut facts: Vec<String> = self.soc.iter().map(|soc| (*soc).to_string()).collect();
        for Cores { core, count, most_mhz, .. } in &self.cores {
            let clock = most_mhz.map_or(String::new(), |mhz| format!(" at most {mhz} MHz"));
            facts.push(format!("{count} x {core}{clock}"));
        }
        if self.offline > 0 {
            facts.push(format!("{} cores switched off", self.offline));
        }
        if !self.governor.is_empty() {
            facts.push(format!("governor {}", self.governor.join(" and ")));
        }
        facts.extend(self.power_mode.iter().map(|mode| format!("power mode {mode}")));
        facts.extend(self.system.clone());
        writeln!(out, "{NAME}{}{NAME:#}  {}", self.name, facts.join(", "))?;
        writeln!(out, "  {QUIET}before{QUIET:#}  {before}")?;
        writeln!(out, "  {QUIET}after{QUIET:#}   {after}")
    }
}

/// The CPUs that an inference uses.
fn used(cpus: &Cpus) -> impl Iterator<Item = &vitlet_board::Cpu> {
    let fast = cpus.plan().cpus;
    cpus.online().iter().filter(move |cpu| fast.contains(cpu.number))
}

/// From sysfs; where the kernel has not got the firmware's bits, from the `vcgencmd` that Raspberry Pi OS brings, and
/// at least the supply's alarm.
fn raspberry_pi_throttling(files: &impl Files) -> Option<Throttling> {
    let asked = || {
        let answer = Command::new("vcgencmd").arg("get_throttled").output().ok()?;
        raspberry_pi::Throttled::parse(&String::from_utf8_lossy(&answer.stdout))
    };
    let bits = raspberry_pi::Throttled::read(files).or_else(asked);
    bits.map(raspberry_pi::Throttled::throttling).or_else(|| match raspberry_pi::under_voltage(files)? {
        true => Some(reason("under-voltage")),
        false => None,
    })
}

fn reason(why: &'static str) -> Throttling {
    Throttling { now: [why].into_iter().collect(), ..Throttling::default() }
}

fn range([low, high]: [u32; 2]) -> String {
    if low == high { format!("{low} MHz") } else { format!("{low} to {high} MHz") }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts: Vec<String> = self.mhz.map(range).into_iter().collect();
        parts.extend(self.celsius.map(|celsius| format!("{celsius:.1} °C")));
        parts.push(match &self.throttled {
            None => "throttling unknown".to_string(),
            Some(now) if now.is_empty() => "not throttled".to_string(),
            Some(now) => format!("throttled: {}", now.join("; ")),
        });
        if !self.throttled_since_boot.is_empty() {
            parts.push(format!("since it started: {}", self.throttled_since_boot.join("; ")));
        }
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests;
