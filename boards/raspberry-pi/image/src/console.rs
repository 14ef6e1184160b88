//! The console: a PL011 UART at 115,200 baud, 8N1.

use core::fmt::{self, Write};
use core::ptr::NonNull;

use arm_pl011_uart::{DataBits, LineConfig, PL011Registers, Parity, StopBits, Uart};
use safe_mmio::UniqueMmioPointer;

use crate::board::Board;

/// Set by config.txt: `init_uart_clock`, 48 MHz unless it says otherwise.
const UART_CLOCK_HZ: u32 = 48_000_000;

/// Connects the UART to pins 8 and 10 of the header and sets its speed; on the Pi 5 the firmware's debug output has
/// done so.
pub fn init(board: Board) {
    let Some(gpio) = board.gpio() else { return };
    let select = (gpio + 4) as *mut u32;
    // SAFETY: GPFSEL1 of this board, mapped as Device memory; only core 0 runs.
    unsafe {
        // GPIO14 and GPIO15, three bits each: 0b100 is ALT0, TXD0 and RXD0.
        let others = select.read_volatile() & !(0o77 << 12);
        select.write_volatile(others | 0o44 << 12);
    }
    let line = LineConfig { data_bits: DataBits::Bits8, parity: Parity::None, stop_bits: StopBits::One };
    // 115,200 baud divide 48 MHz, so this cannot fail.
    let _ = uart(board).enable(line, 115_200, UART_CLOCK_HZ);
}

/// Where text goes to. Several at once only mix their bytes.
pub fn console() -> Console {
    Console(uart(Board::current()))
}

fn uart(board: Board) -> Uart<'static> {
    let registers = NonNull::new(board.uart() as *mut PL011Registers);
    // SAFETY: the registers of this board's PL011, mapped as Device memory for good. Two drivers of it at once (a core
    // that faults while another prints) write whole words to a FIFO; nothing is read and changed.
    let registers = unsafe { UniqueMmioPointer::new(registers.unwrap_or(NonNull::dangling())) };
    Uart::new(registers)
}

/// The UART, with the line ends that terminals want.
pub struct Console(Uart<'static>);

impl Console {
    fn put(&mut self, byte: u8) {
        while self.0.is_tx_fifo_full() {
            core::hint::spin_loop();
        }
        self.0.write_word(byte);
    }

    /// Waits until the last bit is on the wire.
    pub fn flush(&mut self) {
        while self.0.is_busy() {
            core::hint::spin_loop();
        }
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put(b'\r');
            }
            self.put(byte);
        }
        Ok(())
    }
}

/// Prints a line on the console.
macro_rules! println {
    ($($argument:tt)*) => {{
        use core::fmt::Write;
        // A Console takes every text.
        let _ = writeln!($crate::console::console(), $($argument)*);
    }};
}
pub(crate) use println;
