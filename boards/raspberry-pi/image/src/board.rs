//! Which Pi this is, by its cores, and where its peripherals are. One image for all: the boards differ in little else.
//!
//! Sources: BCM2835 ARM Peripherals; BCM2711 ARM Peripherals (low peripheral mode); for the Pi 5, whose peripherals
//! have no public manual, Linux's bcm2712.dtsi.

use aarch64_cpu::registers::{MIDR_EL1, Readable};

/// The boards that this image knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// Raspberry Pi 3 or Zero 2 W: BCM2837, four Cortex-A53.
    Pi3,
    /// Raspberry Pi 4: BCM2711, four Cortex-A72.
    Pi4,
    /// Raspberry Pi 5: BCM2712, four Cortex-A76.
    Pi5,
}

impl Board {
    /// By the main ID register of this core. Any other core is taken for a Pi 5's, the newest.
    pub fn current() -> Self {
        match MIDR_EL1.read(MIDR_EL1::PartNum) {
            0xd03 => Self::Pi3,
            0xd08 => Self::Pi4,
            _ => Self::Pi5,
        }
    }

    /// Name and cores.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pi3 => "Raspberry Pi 3 (BCM2837, 4 x Cortex-A53)",
            Self::Pi4 => "Raspberry Pi 4 (BCM2711, 4 x Cortex-A72)",
            Self::Pi5 => "Raspberry Pi 5 (BCM2712, 4 x Cortex-A76)",
        }
    }

    /// The PL011 UART of the console: UART0 on pins 8 and 10, on the Pi 5 the debug UART (UART10) on its own connector.
    pub fn uart(self) -> usize {
        match self {
            Self::Pi3 => 0x3f20_1000,
            Self::Pi4 => 0xfe20_1000,
            Self::Pi5 => 0x10_7d00_1000,
        }
    }

    /// The GPIO block, where this image has to connect the UART to its pins. On the Pi 5 the firmware has.
    pub fn gpio(self) -> Option<usize> {
        match self {
            Self::Pi3 => Some(0x3f20_0000),
            Self::Pi4 => Some(0xfe20_0000),
            Self::Pi5 => None,
        }
    }

    /// The mailbox to the VideoCore.
    pub fn mailbox(self) -> usize {
        match self {
            Self::Pi3 => 0x3f00_b880,
            Self::Pi4 => 0xfe00_b880,
            Self::Pi5 => 0x10_7c01_3880,
        }
    }

    /// How a secondary core is started: through the spin table of the firmware's boot code, or, on the Pi 5, by PSCI.
    pub fn has_spin_table(self) -> bool {
        self != Self::Pi5
    }
}
