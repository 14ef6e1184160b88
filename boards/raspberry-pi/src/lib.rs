//! Raspberry Pi: which one this is, and whether its firmware holds the clocks down.
//!
//! For 64-bit systems on the boards with a BCM2837, BCM2711 or BCM2712: Pi 3, Zero 2 W, 4, 400, 5, 500 and the Compute
//! Modules. Cores, clocks and threads are [`vitlet_board::Cpus`]; on bare metal [`Throttled`] reads the answer to the
//! mailbox's [`GET_THROTTLED`].
#![no_std]
#![forbid(unsafe_code)]

use vitlet_board::{Files, Reasons, Text, Throttling, compatible, hexadecimal, model, number, text};

/// The tag of the VideoCore mailbox's property interface that answers [`Throttled`]'s bits (one u32; send 0xffff to
/// clear nothing).
pub const GET_THROTTLED: u32 = 0x0003_0046;

/// A Raspberry Pi.
#[derive(Clone, Debug, PartialEq)]
pub struct Board {
    /// As its device tree says it: `Raspberry Pi 4 Model B Rev 1.4`.
    pub name: Text,
    /// `BCM2837` (Pi 3, Zero 2 W), `BCM2711` (Pi 4, 400) or `BCM2712` (Pi 5, 500).
    pub soc: &'static str,
}

impl Board {
    /// None where this is no Raspberry Pi with 64-bit cores.
    pub fn identify(files: &impl Files) -> Option<Self> {
        let soc = compatible(files, |name| match name {
            "brcm,bcm2837" | "brcm,bcm2710" => Some("BCM2837"),
            "brcm,bcm2711" => Some("BCM2711"),
            "brcm,bcm2712" => Some("BCM2712"),
            _ => None,
        })?;
        compatible(files, |name| name.starts_with("raspberrypi,").then_some(()))?;
        Some(Self { name: model(files)?, soc })
    }
}

/// The bits of `vcgencmd get_throttled` and of the mailbox's [`GET_THROTTLED`] (Raspberry Pi documentation,
/// "vcgencmd").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttled(pub u32);

/// Bit, and its meaning; 16 bits further up, the same since the board started.
const BITS: [(u32, &str); 4] = [
    (0, "under-voltage: the power supply or its cable is too weak"),
    (1, "clock capped"),
    (2, "throttled"),
    (3, "soft temperature limit"),
];

impl Throttled {
    /// From sysfs, where the kernel has it; see [`Throttled::parse`] for where it has not.
    ///
    /// Raspberry Pi OS's kernel shows the firmware's bits as a hexadecimal number. Newer ones, and every kernel on some
    /// Pi 5s, only have the hwmon device `rpi_volt` with an alarm for under-voltage.
    pub fn read(files: &impl Files) -> Option<Self> {
        let firmware = ["soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware", "soc@107c000000:firmware"];
        let bits = |node| hexadecimal(files, format_args!("/sys/devices/platform/{node}/get_throttled"));
        firmware.into_iter().find_map(bits).map(|bits| Self(bits as u32))
    }

    /// From what `vcgencmd get_throttled` prints: `throttled=0x50000`.
    pub fn parse(line: &str) -> Option<Self> {
        let digits = line.trim().strip_prefix("throttled=0x")?;
        u32::from_str_radix(digits, 16).ok().map(Self)
    }

    /// In words.
    pub fn throttling(self) -> Throttling {
        let reasons = |shift: u32| -> Reasons {
            BITS.iter().filter(|(bit, _)| self.0 >> (bit + shift) & 1 == 1).map(|&(_, reason)| reason).collect()
        };
        Throttling { now: reasons(0), since_boot: reasons(16), events: 0 }
    }
}

/// Whether the supply has been too weak since it was last asked: the alarm of the hwmon device `rpi_volt`. None without
/// one.
pub fn under_voltage(files: &impl Files) -> Option<bool> {
    let is_rpi_volt =
        |n: &usize| text(files, format_args!("/sys/class/hwmon/hwmon{n}/name")).is_some_and(|t| t == "rpi_volt");
    let device = (0..16).find(is_rpi_volt)?;
    number(files, format_args!("/sys/class/hwmon/hwmon{device}/in0_lcrit_alarm")).map(|alarm: u32| alarm != 0)
}
