//! Lanes: the chunks in which numbers stand in files and in memory, sixteen side by side.
//!
//! Plain data, beneath everything else. What computes with them is in `kernels`; `bytes` takes them for bytes and back.

/// Every tensor of a file and every buffer starts at a multiple of this, in bytes.
pub const ALIGNMENT: usize = 64;

/// Version of the model file's format that this crate writes and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// `n` rounded up to a multiple of 16.
pub const fn pad16(n: usize) -> usize {
    n.div_ceil(16) * 16
}

/// Sixteen f32, 64-byte aligned: the unit in which every f32 buffer and parameter vector is stored, zero-padded.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub struct F32x16(pub [f32; 16]);

/// Sixteen i32, 64-byte aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct I32x16(pub [i32; 16]);

/// Sixteen f16 bit patterns, 32-byte aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct F16x16(pub [u16; 16]);

/// 16 output channels by 4 inputs of int8 weights, `[channel][k]`: one 512-bit VNNI operand, four SDOT operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct I8x16x4(pub [i8; 64]);

/// Sixteen 8-bit activation codes of one row, 16-byte aligned. The stored byte is the u8 code xor
/// `Isa::CODE_XOR`, so that each instruction set finds the signedness that its dot product takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct U8x16(pub [u8; 16]);

/// Channels that a mask keeps. This and what calls it is out of line, since the walks over all tensors are inlined in
/// many places.
#[inline(never)]
pub(crate) fn channels(mask: &[[u8; 2]]) -> usize {
    mask.as_flattened().iter().map(|byte| byte.count_ones() as usize).sum()
}
