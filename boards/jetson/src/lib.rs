//! NVIDIA Jetson: which one this is, its power mode, and whether heat or current hold its clocks down.
//!
//! JetPack 4 (Nano, TX2, Xavier), 5 (Xavier, Orin), 6 (Orin) and 7 (Thor). Cores, clocks and threads are
//! [`vitlet_board::Cpus`]: the power mode also switches cores off and limits their clocks, which shows there. Sources:
//! NVIDIA's Jetson Linux Developer Guide, "Platform Power and Performance"; the device trees' bindings
//! (arm/tegra.yaml).
#![no_std]
#![forbid(unsafe_code)]

use core::ops::ControlFlow;

use vitlet_board::{Files, Reasons, Text, Throttling, compatible, cpu_cooling, each_line, model, number, text};

/// A Jetson.
#[derive(Clone, Debug, PartialEq)]
pub struct Board {
    /// As its device tree says it: `NVIDIA Jetson Nano Developer Kit`.
    pub name: Text,
    /// `Tegra X1`, `Tegra X2`, `Xavier`, `Orin` or `Thor`.
    pub soc: &'static str,
    /// Jetson Linux as it calls itself, `35.4.1`; None where the board runs another system.
    pub jetson_linux: Option<Text>,
}

impl Board {
    /// None where this is no Jetson.
    pub fn identify(files: &impl Files) -> Option<Self> {
        let soc = compatible(files, |name| match name {
            "nvidia,tegra210" => Some("Tegra X1"),
            "nvidia,tegra186" => Some("Tegra X2"),
            "nvidia,tegra194" => Some("Xavier"),
            "nvidia,tegra234" => Some("Orin"),
            "nvidia,tegra264" => Some("Thor"),
            _ => None,
        })?;
        Some(Self { name: model(files)?, soc, jetson_linux: release(files) })
    }
}

/// `# R35 (release), REVISION: 4.1, GCID: ...` is 35.4.1.
fn release(files: &impl Files) -> Option<Text> {
    let line = text(files, format_args!("/etc/nv_tegra_release"))?;
    let major = line.strip_prefix("# R")?.split(' ').next()?;
    let minor = line.split_once("REVISION: ")?.1.split(',').next()?;
    let mut release = Text::try_from(major).ok()?;
    release.push('.').ok()?;
    release.push_str(minor.trim()).ok()?;
    Some(release)
}

/// The power mode that `nvpmodel -m` has set.
#[derive(Clone, Debug, PartialEq)]
pub struct PowerMode {
    /// Its number; the meaning differs from board to board.
    pub id: u32,
    /// `MAXN`, `15W`, ...; None where /etc/nvpmodel.conf does not name it.
    pub name: Option<Text>,
}

impl PowerMode {
    /// None where nvpmodel has never run.
    pub fn read(files: &impl Files) -> Option<Self> {
        // `pmode:0002`, followed on some releases by a fan mode.
        let status = text(files, format_args!("/var/lib/nvpmodel/status"))?;
        let id = status.split_whitespace().find_map(|word| word.strip_prefix("pmode:"))?.parse().ok()?;
        let name = each_line(files, "/etc/nvpmodel.conf", |line| match named(line) {
            Some((number, name)) if number == id => ControlFlow::Break(Text::try_from(name).ok()),
            _ => ControlFlow::Continue(()),
        });
        Some(Self { id, name: name.flatten() })
    }
}

/// `< POWER_MODEL ID=2 NAME=MODE_15W >` is (2, `MODE_15W`).
fn named(line: &str) -> Option<(u32, &str)> {
    let words = line.strip_prefix('<')?.trim().strip_prefix("POWER_MODEL")?;
    let value = |key: &str| words.split_whitespace().find_map(|word| word.strip_prefix(key));
    Some((value("ID=")?.parse().ok()?, value("NAME=")?))
}

/// What holds the clocks down: the kernel against the heat, or (Orin and Thor) the power supply's limits.
pub fn throttling(files: &impl Files) -> Throttling {
    let mut now = Reasons::new();
    if cpu_cooling(files) {
        // There is room: it is the only one.
        let _ = now.push("temperature");
    }
    let events = over_current_events(files).unwrap_or(0);
    let since_boot = if events > 0 { Reasons::from_iter(["over-current or under-voltage"]) } else { Reasons::new() };
    Throttling { now, since_boot, events }
}

/// Over-current and under-voltage events since the board started: the counters of the hwmon device `soctherm_oc`, which
/// Orin and Thor have.
fn over_current_events(files: &impl Files) -> Option<u64> {
    let is_soctherm =
        |n: &usize| text(files, format_args!("/sys/class/hwmon/hwmon{n}/name")).is_some_and(|t| t == "soctherm_oc");
    let device = (0..16).find(is_soctherm)?;
    let count = |alarm: u32| number::<u64>(files, format_args!("/sys/class/hwmon/hwmon{device}/oc{alarm}_event_cnt"));
    Some((1..=3).filter_map(count).sum())
}
