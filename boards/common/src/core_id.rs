//! Which core a CPU is, from its main ID register.

use core::fmt;

/// `MIDR_EL1`, which names a core (Arm Architecture Reference Manual, D24.2.122).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    /// Bits 31:24; 0x41 is Arm, 0x4e NVIDIA.
    pub implementer: u8,
    /// Bits 15:4.
    pub part: u16,
}

/// Implementer, part, name, and multiply-adds of int8 per cycle that the core's vector units have at most (int8 kernels
/// of this project; the cores' software optimization guides). The numbers only rank the cores of one chip.
const KNOWN: &[(u8, u16, &str, u32)] = &[
    (0x41, 0xd03, "Cortex-A53", 4),
    (0x41, 0xd05, "Cortex-A55", 16),
    (0x41, 0xd07, "Cortex-A57", 8),
    (0x41, 0xd08, "Cortex-A72", 8),
    (0x41, 0xd09, "Cortex-A73", 8),
    (0x41, 0xd0b, "Cortex-A76", 32),
    (0x41, 0xd0c, "Neoverse N1", 32),
    (0x41, 0xd40, "Neoverse V1", 64),
    (0x41, 0xd41, "Cortex-A78", 32),
    (0x41, 0xd42, "Cortex-A78AE", 32),
    (0x41, 0xd49, "Neoverse N2", 64),
    (0x41, 0xd4f, "Neoverse V2", 64),
    (0x41, 0xd83, "Neoverse V3AE", 64),
    (0x4e, 0x003, "Denver 2", 4),
    (0x4e, 0x004, "Carmel", 8),
];

impl Core {
    /// From the register's value.
    pub const fn from_midr(midr: u64) -> Self {
        Self { implementer: (midr >> 24) as u8, part: (midr >> 4) as u16 & 0xfff }
    }

    /// The core's name, if this crate knows it.
    pub fn name(self) -> Option<&'static str> {
        self.known().map(|known| known.2)
    }

    /// int8 multiply-adds per cycle at most; None for an unknown core.
    pub fn macs_per_cycle(self) -> Option<u32> {
        self.known().map(|known| known.3)
    }

    fn known(self) -> Option<&'static (u8, u16, &'static str, u32)> {
        KNOWN.iter().find(|known| (known.0, known.1) == (self.implementer, self.part))
    }
}

impl fmt::Display for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "core {:#04x}/{:#05x}", self.implementer, self.part),
        }
    }
}
