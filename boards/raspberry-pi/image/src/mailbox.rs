//! The property mailbox of the VideoCore firmware: the ARM clock, the temperature, and what holds the clock down.
//!
//! A message lies in memory, its address goes through the mailbox, the answer comes in the same place. Source: the
//! Raspberry Pi firmware's wiki, "Mailbox property interface".

use vitlet_raspberry_pi::{GET_THROTTLED, Throttled};

use crate::board::Board;
use crate::cores::clean_and_invalidate;
use crate::timer;

/// The property channel.
const CHANNEL: u32 = 8;
const ARM_CLOCK: u32 = 3;
const MESSAGE_WORDS: usize = 9;

/// A message, alone in its cache line, so that nothing else is lost when the line is invalidated.
#[repr(C, align(64))]
struct Message([u32; MESSAGE_WORDS]);

/// The mailbox, and the message that travels.
pub struct Mailbox {
    base: *mut u32,
    message: Message,
}

/// Word offsets of the registers.
const READ: usize = 0;
const STATUS: usize = 6;
const WRITE: usize = 8;
const FULL: u32 = 1 << 31;
const EMPTY: u32 = 1 << 30;

impl Mailbox {
    /// The board's mailbox; `None` if it does not look like one.
    pub fn new(board: Board) -> Option<Self> {
        let base = board.mailbox() as *mut u32;
        let mailbox = Self { base, message: Message([0; MESSAGE_WORDS]) };
        // All ones is what nothing answers with.
        (mailbox.read(STATUS) != u32::MAX).then_some(mailbox)
    }

    /// The highest clock that the firmware allows the ARM cores.
    pub fn max_arm_clock_hz(&mut self) -> Option<u32> {
        self.second(0x0003_0004, [ARM_CLOCK, 0, 0])
    }

    /// Sets the clock of the ARM cores; returns the clock that the firmware set.
    pub fn set_arm_clock_hz(&mut self, hz: u32) -> Option<u32> {
        self.second(0x0003_8002, [ARM_CLOCK, hz, 0])
    }

    /// The chip's temperature in thousandths of a degree Celsius.
    pub fn temperature(&mut self) -> Option<u32> {
        self.second(0x0003_0006, [0, 0, 0])
    }

    /// Why the clock is held down, now and since the board started.
    pub fn throttled(&mut self) -> Option<Throttled> {
        self.call(GET_THROTTLED, [0xffff, 0, 0]).map(|[bits, _]| Throttled(bits))
    }

    /// Answers that repeat the number that was asked about; their value is never 0.
    fn second(&mut self, tag: u32, arguments: [u32; 3]) -> Option<u32> {
        self.call(tag, arguments).map(|[_, value]| value).filter(|&value| value != 0)
    }

    /// One tag with three words of arguments; returns the first two words of the answer.
    fn call(&mut self, tag: u32, [a, b, c]: [u32; 3]) -> Option<[u32; 2]> {
        // Size, request; tag, bytes for its values, request, values; end.
        let size = size_of::<[u32; MESSAGE_WORDS]>() as u32;
        self.message.0 = [size, 0, tag, 12, 0, a, b, c, 0];
        clean_and_invalidate(&self.message);
        // Where the VideoCore sees the first GiB of RAM, past its caches.
        let address = self.message.0.as_ptr().addr() as u32 | 0xc000_0000;
        self.exchange(address | CHANNEL)?;
        clean_and_invalidate(&self.message);
        let [_, response, _, _, _, first, second, ..] = self.message.0;
        (response == 0x8000_0000).then_some([first, second])
    }

    fn exchange(&self, word: u32) -> Option<()> {
        timer::wait_until(|| self.read(STATUS) & FULL == 0)?;
        // SAFETY: the mailbox's write register, mapped as Device memory.
        unsafe { self.base.add(WRITE).write_volatile(word) };
        timer::wait_until(|| self.read(STATUS) & EMPTY == 0 && self.read(READ) == word)
    }

    fn read(&self, register: usize) -> u32 {
        // SAFETY: a register of the mailbox, mapped as Device memory.
        unsafe { self.base.add(register).read_volatile() }
    }
}
