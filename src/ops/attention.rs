//! Queries, keys and values of all tokens, and attention over them: int8 models attend in int8, the others in f32.
//!
//! Keys and values are packed as the weights of a matrix are, so that both products of attention run on the
//! same kernels as the linear layers. dp is the head's width padded to 16, T the tokens, T16 = T padded to 16.

use core::ops::Range;

use crate::arena::Arena;
use crate::config::{Attention, Config, Family, Precision};
use crate::error::Error;
use crate::kernels::Kernels;
use crate::kernels::attention::RelativeBias;
use crate::kernels::attention::float::{AttendF32, PackF32, attend_f32_scratch};
use crate::kernels::attention::int8::{AttendI8, PackKv, PackQ, PackV, attend_i8_scratch};
use crate::kernels::attention::talking::{TalkingF32, TalkingHeads, TalkingI8, talking_scratch};
use crate::lanes::{F32x16, I8x16x4, I32x16, U8x16, pad16};
use crate::parallel::{Chunks, Either, Executor, Split, for_each};
use crate::profile::{Laps, Profile, Stage};

/// q, k and v of all tokens.
pub(crate) enum Cache<'a> {
    Int8(Int8Cache<'a>),
    Float(FloatCache<'a>),
}

/// Codes, and what the scales belong to: q and k to a token and head, v to a channel.
pub(crate) struct Int8Cache<'a> {
    /// `[T, heads * dp / 16]`, u8 with zero point 128.
    q_codes: &'a mut [U8x16],
    /// `[T, heads]`.
    q_scale: &'a mut [f32],
    /// `[T16 / 16, heads, dp / 4]`.
    k_codes: &'a mut [I8x16x4],
    /// `[T16 / 16, heads]`.
    k_scale: &'a mut [F32x16],
    /// `[T16 / 16, heads]`.
    k_sums: &'a mut [I32x16],
    /// v before it is quantized, `[T, heads * dp / 16]`.
    v: &'a mut [F32x16],
    /// `[heads, dp / 16, T16 / 4]`.
    v_codes: &'a mut [I8x16x4],
    /// `[heads, dp / 16]`.
    v_scale: &'a mut [F32x16],
    /// `[heads, dp / 16]`.
    v_sums: &'a mut [I32x16],
}

/// f32 throughout.
pub(crate) struct FloatCache<'a> {
    /// `[T, heads * dp / 16]`.
    q: &'a mut [F32x16],
    /// `[T16 / 16, heads, dp]`: one chunk is one channel of sixteen tokens.
    k: &'a mut [F32x16],
    /// `[T, heads * dp / 16]`.
    v: &'a mut [F32x16],
}

/// The part of a cache that belongs to one block of tokens.
pub(crate) type CacheBlock<'a> = Either<Int8Block<'a>, FloatBlock<'a>>;
type Int8Block<'a> = ((&'a mut [U8x16], &'a mut [f32]), (KeyBlock<'a>, &'a mut [F32x16]));
type KeyBlock<'a> = (&'a mut [I8x16x4], (&'a mut [F32x16], &'a mut [I32x16]));
type FloatBlock<'a> = (&'a mut [F32x16], (&'a mut [F32x16], &'a mut [F32x16]));

/// Which queries attend to what.
pub(crate) struct Queries {
    /// Their tokens.
    pub(crate) rows: Range<usize>,
    /// Tokens with keys and values.
    pub(crate) tokens: usize,
}

/// What happens to scores beside the softmax.
pub(crate) enum Mixing<'a> {
    None,
    /// A bias by relative position is added.
    Relative(RelativeBias<'a>),
    /// Heads are mixed before and after the softmax.
    Heads(TalkingHeads<'a>),
}

/// One worker's memory for attention over a block of rows.
pub(crate) struct AttentionScratch<'w> {
    /// Scores of the rows of a tile.
    scores: &'w mut [F32x16],
    /// Their softmax in 8 bits; empty in f32 attention.
    p: &'w mut [U8x16],
    /// Their queries, paired; empty in f32 attention.
    q: &'w mut [U8x16],
}

impl<'w> AttentionScratch<'w> {
    pub(crate) fn carve(c: &Config, arena: &mut Arena<'w>) -> Self {
        let (mut scores, p, q) = match c.precision {
            _ if c.heads() == 0 => (0, 0, 0),
            Precision::Int8 => {
                let need = attend_i8_scratch(c.tokens(), pad16(c.head_dim()));
                (need.scores, need.p, need.q)
            }
            Precision::F16 | Precision::F32 => (attend_f32_scratch(c.tokens()), 0, 0),
        };
        if cfg!(feature = "cait") && matches!(c.family, Family::Cait(_)) {
            scores = talking_scratch(c.tokens(), c.heads());
        }
        Self { scores: arena.take(scores), p: arena.take(p), q: arena.take(q) }
    }
}

impl<'a> Cache<'a> {
    pub(crate) fn carve(c: &Config, arena: &mut Arena<'a>) -> Self {
        let width = c.attention_width() / 16;
        let (tokens, token_blocks) = (c.tokens(), pad16(c.tokens()) / 16);
        let head = pad16(c.head_dim());
        match c.precision {
            Precision::Int8 => Self::Int8(Int8Cache {
                q_codes: arena.take(tokens * width),
                q_scale: arena.take(tokens * c.heads()),
                k_codes: arena.take(token_blocks * c.heads() * head / 4),
                k_scale: arena.take(token_blocks * c.heads()),
                k_sums: arena.take(token_blocks * c.heads()),
                v: arena.take(tokens * width),
                v_codes: arena.take(width * token_blocks * 4),
                v_scale: arena.take(width),
                v_sums: arena.take(width),
            }),
            Precision::F16 | Precision::F32 => Self::Float(FloatCache {
                q: arena.take(tokens * width),
                k: arena.take(token_blocks * c.heads() * head),
                v: arena.take(tokens * width),
            }),
        }
    }

    /// The cache in blocks of `rows` tokens, a multiple of 16.
    pub(crate) fn blocks<'s>(&'s mut self, c: &Config, rows: usize) -> impl Split<Piece = CacheBlock<'s>> {
        let width = c.attention_width() / 16;
        let keys = rows / 16 * c.heads();
        let head = pad16(c.head_dim());
        match self {
            Self::Int8(cache) => {
                let q = (Chunks::new(cache.q_codes, rows * width), Chunks::new(cache.q_scale, rows * c.heads()));
                let k_of = (Chunks::new(cache.k_scale, keys), Chunks::new(cache.k_sums, keys));
                let k = (Chunks::new(cache.k_codes, keys * head / 4), k_of);
                Either::Left((q, (k, Chunks::new(cache.v, rows * width))))
            }
            Self::Float(cache) => {
                let k_and_v = (Chunks::new(cache.k, keys * head), Chunks::new(cache.v, rows * width));
                Either::Right((Chunks::new(cache.q, rows * width), k_and_v))
            }
        }
    }

    /// v by channel over all tokens, head by head, once every block is packed.
    pub(crate) fn pack_values(
        &mut self,
        k: Kernels,
        c: &Config,
        tokens: usize,
        executor: &dyn Executor,
        workers: Chunks<'_, u8>,
        profile: Option<&Profile<'_>>,
    ) -> Result<(), Error> {
        let Self::Int8(cache) = self else { return Ok(()) };
        let dp = pad16(c.head_dim());
        let (heads, v) = (c.heads(), &*cache.v);
        let v_of = (Chunks::new(cache.v_scale, dp / 16), Chunks::new(cache.v_sums, dp / 16));
        let codes = Chunks::new(cache.v_codes, dp / 16 * pad16(tokens) / 4);
        for_each(executor, workers, (codes, v_of), |_, head, (v_codes, (v_scale, v_sums))| {
            let mut laps = Laps::start(profile);
            k.run(PackV { v, tokens, heads, dp, head, v_codes, v_scale, v_sums });
            laps.end(Stage::Pack);
        })
    }

    /// The heads' outputs `[rows, heads * dp / 16]`.
    pub(crate) fn attend(
        &self,
        k: Kernels,
        c: &Config,
        queries: Queries,
        mixing: Mixing<'_>,
        scratch: &mut AttentionScratch<'_>,
        out: &mut [F32x16],
    ) {
        let Some(&Attention { heads, head_dim, scale: attention_scale }) = c.family.attention() else { return };
        let dp = pad16(head_dim);
        let Queries { tokens, rows } = queries;
        let (first, rows) = (rows.start, rows.len());
        let bias = if let Mixing::Relative(bias) = mixing { Some(bias) } else { None };
        let talking = match mixing {
            Mixing::Heads(talking) => Some(talking),
            _ => None,
        };
        let width = c.attention_width() / 16;
        let AttentionScratch { scores, p, q } = scratch;
        match self {
            Self::Int8(cache) => {
                let attend = AttendI8 {
                    first,
                    rows,
                    q_codes: &cache.q_codes[first * width..][..rows * width],
                    q_scale: &cache.q_scale[first * heads..][..rows * heads],
                    k_codes: cache.k_codes,
                    k_scale: cache.k_scale,
                    k_sums: cache.k_sums,
                    v_codes: cache.v_codes,
                    v_scale: cache.v_scale,
                    v_sums: cache.v_sums,
                    heads,
                    dp,
                    tokens,
                    attention_scale,
                    bias,
                    scores,
                    p,
                    q,
                    out,
                };
                match talking {
                    None => k.run(attend),
                    Some(talking) => k.run(TalkingI8 { attend, talking }),
                }
            }
            Self::Float(cache) => {
                let attend = AttendF32 {
                    first,
                    rows,
                    q: &cache.q[first * width..][..rows * width],
                    k: cache.k,
                    v: cache.v,
                    heads,
                    dp,
                    tokens,
                    attention_scale,
                    bias,
                    scores,
                    out,
                };
                match talking {
                    None => k.run(attend),
                    Some(talking) => k.run(TalkingF32 { attend, talking }),
                }
            }
        }
    }
}

impl CacheBlock<'_> {
    /// Packs rows of q | k | v, `[tokens, 3 * heads * dp / 16]`; q if it is needed.
    pub(crate) fn pack(&mut self, kernels: Kernels, c: &Config, qkv: &[F32x16], needs_q: bool) {
        let (heads, dp) = (c.heads(), pad16(c.head_dim()));
        let rows = qkv.len() / (3 * c.attention_width() / 16);
        match self {
            Either::Left(((codes, scale), ((k_codes, (k_scale, k_sums)), v))) => {
                if needs_q {
                    kernels.run(PackQ { qkv, rows, heads, dp, codes, scale });
                }
                kernels.run(PackKv { qkv, rows, heads, dp, k_codes, k_scale, k_sums, v });
            }
            Either::Right((q, (k, v))) => kernels.run(PackF32 { qkv, rows, heads, dp, q, k, v }),
        }
    }
}
