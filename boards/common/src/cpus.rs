//! The CPUs that are online, their clocks, and which of them an inference should use.
//! Linux kernel, Documentation/ABI/testing/sysfs-devices-system-cpu and admin-guide/pm/cpufreq.

use core::fmt;
use core::ops::ControlFlow;

use crate::core_id::Core;
use crate::files::{Files, Text, each_line, hexadecimal, number, parse_hexadecimal, text};

/// CPUs beyond these are ignored; Jetson Thor has 14.
pub const MOST_CPUS: usize = 64;

/// More threads than this share one picture badly.
pub const MOST_THREADS: usize = 8;

/// One CPU that is online.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cpu {
    /// Its number in Linux.
    pub number: usize,
    /// Which core it is; None where neither sysfs nor procfs tells (not ARM).
    pub core: Option<Core>,
    /// Speed relative to the fastest core of the chip, 1024 at most; None where Linux does not know.
    pub capacity: Option<u32>,
    /// Absent without cpufreq.
    pub clock: Option<Clock>,
}

/// A CPU's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Clock {
    /// The clock according to cpufreq, in kHz. On a Raspberry Pi this is the requested clock: the firmware throttles
    /// without telling cpufreq.
    pub now_khz: u32,
    /// What the governor may choose at most, in kHz: less than the hardware's where a power mode or a user limits it.
    pub limit_khz: u32,
    /// What the hardware can, in kHz.
    pub most_khz: u32,
    /// Who chooses: `performance`, `ondemand`, `schedutil`, ...
    pub governor: Text,
}

/// The CPUs that are online, in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cpus {
    online: heapless::Vec<Cpu, MOST_CPUS>,
    /// Online or not.
    pub present: usize,
}

/// Equal cores.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Which cores; None where unknown.
    pub core: Option<Core>,
    /// Their CPUs.
    pub cpus: CpuSet,
    /// The clock at most, in kHz; None without cpufreq.
    pub most_khz: Option<u32>,
}

/// How an inference should use the CPUs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// The fast cores.
    pub cpus: CpuSet,
    /// One a core, [`MOST_THREADS`] at most.
    pub threads: usize,
    /// Whether the threads should be kept to `cpus`, because there are slower ones: those would hold the others up at
    /// every barrier.
    pub pin: bool,
}

/// CPU numbers below [`MOST_CPUS`]; shown as Linux does, `0-3,6`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(u64);

impl Cpus {
    /// Reads what sysfs and procfs say. Empty where they are absent.
    pub fn read(files: &impl Files) -> Self {
        let list =
            |which| text(files, format_args!("/sys/devices/system/cpu/{which}")).map(|list| CpuSet::parse(&list));
        let Some(online) = list("online") else {
            return Self::default();
        };
        let mut cpus = Self { online: online.iter().map(|number| cpu(files, number)).collect(), present: 0 };
        cpus.present = list("present").map_or(cpus.online.len(), |present| present.len());
        if cpus.online.iter().any(|cpu| cpu.core.is_none()) {
            cpus.read_cpuinfo(files);
        }
        cpus
    }

    /// The cores as /proc/cpuinfo names them, for kernels before 4.8 and containers without sysfs' identification
    /// registers.
    fn read_cpuinfo(&mut self, files: &impl Files) {
        let (mut number, mut implementer) = (None, None);
        let _: Option<()> = each_line(files, "/proc/cpuinfo", |line| {
            let Some((key, value)) = line.split_once(':').map(|(key, value)| (key.trim(), value.trim())) else {
                return ControlFlow::Continue(());
            };
            match key {
                "processor" => number = value.parse().ok(),
                "CPU implementer" => implementer = parse_hexadecimal(value),
                "CPU part" => {
                    let core = implementer.zip(parse_hexadecimal(value));
                    let core = core.map(|(who, part)| Core { implementer: who as u8, part: part as u16 & 0xfff });
                    self.online.iter_mut().filter(|cpu| Some(cpu.number) == number).for_each(|cpu| cpu.core = core);
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
    }

    /// The CPUs that are online.
    pub fn online(&self) -> &[Cpu] {
        &self.online
    }

    /// Equal cores together, in the order of their first CPU.
    pub fn clusters(&self) -> heapless::Vec<Cluster, 8> {
        let mut clusters: heapless::Vec<Cluster, 8> = heapless::Vec::new();
        for cpu in &self.online {
            let most_khz = cpu.clock.as_ref().map(|clock| clock.most_khz);
            let cpus = CpuSet::from_iter([cpu.number]);
            match clusters.iter_mut().find(|c| (c.core, c.most_khz) == (cpu.core, most_khz)) {
                Some(cluster) => cluster.cpus.0 |= cpus.0,
                // No chip has more kinds of cores than there is room for; one that had would lose the last.
                None => drop(clusters.push(Cluster { core: cpu.core, cpus, most_khz })),
            }
        }
        clusters
    }

    /// The cores that are at least half as fast as the fastest.
    pub fn plan(&self) -> Plan {
        let fastest = self.online.iter().map(speed).max().unwrap_or(0);
        let cpus: CpuSet = self.online.iter().filter(|cpu| 2 * speed(cpu) >= fastest).map(|cpu| cpu.number).collect();
        Plan { cpus, threads: cpus.len().clamp(1, MOST_THREADS), pin: cpus.len() < self.online.len() }
    }
}

/// A number to compare CPUs of one chip by.
fn speed(cpu: &Cpu) -> u64 {
    match (cpu.capacity, cpu.core.and_then(Core::macs_per_cycle), &cpu.clock) {
        (Some(capacity), ..) => u64::from(capacity),
        (None, macs, clock) => {
            u64::from(macs.unwrap_or(1)) * u64::from(clock.as_ref().map_or(1, |clock| clock.most_khz))
        }
    }
}

fn cpu(files: &impl Files, number: usize) -> Cpu {
    let midr = hexadecimal(files, format_args!("/sys/devices/system/cpu/cpu{number}/regs/identification/midr_el1"));
    Cpu {
        number,
        core: midr.map(Core::from_midr),
        capacity: self::number(files, format_args!("/sys/devices/system/cpu/cpu{number}/cpu_capacity")),
        clock: clock(files, number),
    }
}

fn clock(files: &impl Files, cpu: usize) -> Option<Clock> {
    let khz = |name| number(files, format_args!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/{name}"));
    Some(Clock {
        now_khz: khz("scaling_cur_freq")?,
        limit_khz: khz("scaling_max_freq")?,
        most_khz: khz("cpuinfo_max_freq")?,
        governor: text(files, format_args!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"))?,
    })
}

impl CpuSet {
    /// From Linux's form, `0-3,6`; anything that is no number, or too large, is left out.
    pub fn parse(list: &str) -> Self {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            Some(first..=usize::min(last, MOST_CPUS - 1))
        };
        list.split(',').filter_map(range).flatten().collect()
    }

    /// The numbers, the smallest first.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..MOST_CPUS).filter(move |&cpu| self.contains(cpu))
    }

    /// How many.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this CPU is one of them.
    pub fn contains(self, cpu: usize) -> bool {
        cpu < MOST_CPUS && self.0 >> cpu & 1 == 1
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> Self {
        Self(cpus.into_iter().filter(|&cpu| cpu < MOST_CPUS).fold(0, |set, cpu| set | 1 << cpu))
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut cpu, mut separator) = (0, "");
        while cpu < MOST_CPUS {
            let run = (cpu..MOST_CPUS).take_while(|&cpu| self.contains(cpu)).count();
            match run {
                0 => {}
                1 => write!(f, "{separator}{cpu}")?,
                _ => write!(f, "{separator}{cpu}-{}", cpu + run - 1)?,
            }
            if run > 0 {
                separator = ",";
            }
            cpu += run + 1;
        }
        Ok(())
    }
}
