//! The f16 tile: M rows of activations by N blocks of 16 output channels, multiplied in f16, for CPUs that do twice as
//! many multiplications in f16 as in f32.
//!
//! ```text
//! acc[m][n][c] = sum over blocks of (sum over i in the block of a[m][i] * w[n][i * step][c])
//! ```
//!
//! Within a block of [`BLOCK`] inputs the sum is an f16 that starts at 0: fused multiply-add, i in order. The sums of
//! the blocks are widened and added in f32, in order. The callers keep |a| below 2 (a power of two taken out of each
//! row) and |w| too, so a block's sum is below 4 * BLOCK: nothing overflows, and what underflows is 2^-24 of the row's
//! greatest value.
//!
//! | file | tile (rows x channels) | how | peak, MAC per cycle |
//! |---|---|---|---|
//! | `neon_fp16` | 4 x 16 | `fmla.8h` by element: one load brings 8 activations | 16 on A76 |
//!
//! What does not belong here: the arithmetic of CPUs without f16 (`linear` widens the weights to f32).

#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_fp16;

/// Inputs that are summed in f16 before the sum is widened, a multiple of 16. docs/numerics.md says what that costs.
#[cfg(any(test, target_arch = "aarch64"))]
pub(crate) const BLOCK: usize = 64;

/// Rows of a tile that keeps all accumulators in registers.
pub(crate) const TILE_ROWS: usize = 4;
