//! Attention: queries of some tokens over keys and values of others. int8 models attend in int8, the others in f32.
//!
//! Keys and values are packed as the weights of a matrix are, so that both products of attention run on the
//! same kernels as the linear layers. dp is the head's width padded to 16, T the tokens with keys and values, T16 = T
//! padded to 16, Q the tokens with queries.

use core::ops::Range;

use crate::arena::Arena;
use crate::config::{Attention, Precision};
use crate::error::Error;
use crate::kernels::Kernels;
use crate::kernels::attention::RelativeBias;
use crate::kernels::attention::float::{AttendF32, PackKvF32, attend_f32_scratch};
use crate::kernels::attention::int8::{AttendI8, PackKv, PackQ, PackV, attend_i8_scratch};
use crate::kernels::attention::talking::{TalkingF32, TalkingHeads, TalkingI8, talking_scratch};
use crate::lanes::{F32x16, I8x16x4, I32x16, U8x16, pad16};
use crate::parallel::{Chunks, Either, Executor, Split, for_each};
use crate::profile::{Laps, Profile, Stage};

/// Queries, ready for attention.
pub(crate) enum Queries<'a> {
    Int8 {
        /// `[Q, heads * dp / 16]`, u8 with zero point 128.
        codes: &'a mut [U8x16],
        /// `[Q, heads]`.
        scale: &'a mut [f32],
    },
    /// `[Q, heads * dp / 16]`.
    Float(&'a mut [F32x16]),
}

/// Some queries, to be packed.
pub(crate) type QueriesBlock<'a> = Either<(&'a mut [U8x16], &'a mut [f32]), &'a mut [F32x16]>;

/// Some queries, packed.
pub(crate) enum QueryRows<'a> {
    Int8 { codes: &'a [U8x16], scale: &'a [f32] },
    Float(&'a [F32x16]),
}

/// Keys and values, ready for attention.
pub(crate) struct KeysValues<'a> {
    /// T, of which there are keys and values.
    tokens: usize,
    values: Values<'a>,
}

enum Values<'a> {
    Int8(Int8Values<'a>),
    Float {
        /// `[T16 / 16, heads, dp]`: one chunk is one channel of sixteen tokens.
        k: &'a mut [F32x16],
        /// `[T, heads * dp / 16]`.
        v: &'a mut [F32x16],
    },
}

/// Codes, and what the scales belong to: k to a token and head, v to a channel.
struct Int8Values<'a> {
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

/// Keys and values of one block of tokens, to be packed.
pub(crate) type KeysValuesBlock<'a> = Either<Int8Block<'a>, (&'a mut [F32x16], &'a mut [F32x16])>;
type Int8Block<'a> = (KeysBlock<'a>, &'a mut [F32x16]);
type KeysBlock<'a> = (&'a mut [I8x16x4], (&'a mut [F32x16], &'a mut [I32x16]));

/// What happens to scores beside the softmax.
pub(crate) enum ScoreChange<'a> {
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
    /// For keys and values of `tokens` tokens; `mixes_heads` as [`ScoreChange::Heads`] does.
    pub(crate) fn carve(
        a: &Attention,
        precision: Precision,
        tokens: usize,
        mixes_heads: bool,
        arena: &mut Arena<'w>,
    ) -> Self {
        let (mut scores, p, q) = match precision {
            _ if a.heads == 0 => (0, 0, 0),
            Precision::Int8 => {
                let need = attend_i8_scratch(tokens, pad16(a.head_dim));
                (need.scores, need.p, need.q)
            }
            Precision::F16 | Precision::F32 => (attend_f32_scratch(tokens), 0, 0),
        };
        if mixes_heads {
            scores = talking_scratch(tokens, a.heads);
        }
        Self { scores: arena.take(scores), p: arena.take(p), q: arena.take(q) }
    }
}

/// `heads * dp / 16`.
fn width(a: &Attention) -> usize {
    a.heads * (pad16(a.head_dim) / 16)
}

impl<'a> Queries<'a> {
    /// Of `tokens` tokens.
    pub(crate) fn carve(a: &Attention, precision: Precision, tokens: usize, arena: &mut Arena<'a>) -> Self {
        match precision {
            Precision::Int8 => Self::Int8 { codes: arena.take(tokens * width(a)), scale: arena.take(tokens * a.heads) },
            Precision::F16 | Precision::F32 => Self::Float(arena.take(tokens * width(a))),
        }
    }

    /// The first `rows` in blocks of `block`, and empty blocks behind them.
    pub(crate) fn blocks<'s>(
        &'s mut self,
        a: &Attention,
        rows: usize,
        block: usize,
    ) -> impl Split<Piece = QueriesBlock<'s>> {
        let (width, heads) = (width(a), a.heads);
        match self {
            Self::Int8 { codes, scale } => Either::Left((
                Chunks::new(&mut codes[..rows * width], block * width).then_empty(),
                Chunks::new(&mut scale[..rows * heads], block * heads).then_empty(),
            )),
            Self::Float(q) => Either::Right(Chunks::new(&mut q[..rows * width], block * width).then_empty()),
        }
    }

    /// Some of them.
    pub(crate) fn rows(&self, a: &Attention, rows: Range<usize>) -> QueryRows<'_> {
        let (width, heads) = (width(a), a.heads);
        let values = rows.start * width..rows.end * width;
        match self {
            Self::Int8 { codes, scale } => {
                QueryRows::Int8 { codes: &codes[values], scale: &scale[rows.start * heads..rows.end * heads] }
            }
            Self::Float(q) => QueryRows::Float(&q[values]),
        }
    }
}

impl QueriesBlock<'_> {
    /// Whether there are none in the block.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Either::Left((codes, _)) => codes.is_empty(),
            Either::Right(q) => q.is_empty(),
        }
    }

    /// Packs q of rows of `stride` chunks that begin with it, `[heads * dp / 16]`.
    pub(crate) fn pack(&mut self, kernels: Kernels, a: &Attention, q: &[F32x16], stride: usize) {
        let (width, heads, dp) = (width(a), a.heads, pad16(a.head_dim));
        match self {
            Either::Left((codes, scale)) => {
                let rows = codes.len() / width;
                kernels.run(PackQ { q, stride, rows, heads, dp, codes, scale });
            }
            Either::Right(out) => {
                for (out, q) in out.chunks_exact_mut(width).zip(q.chunks(stride)) {
                    out.copy_from_slice(&q[..width]);
                }
            }
        }
    }
}

impl<'a> KeysValues<'a> {
    /// Of at most `tokens` tokens.
    pub(crate) fn carve(a: &Attention, precision: Precision, tokens: usize, arena: &mut Arena<'a>) -> Self {
        let (width, token_blocks, dp) = (width(a), pad16(tokens) / 16, pad16(a.head_dim));
        let values = match precision {
            Precision::Int8 => Values::Int8(Int8Values {
                k_codes: arena.take(token_blocks * a.heads * dp / 4),
                k_scale: arena.take(token_blocks * a.heads),
                k_sums: arena.take(token_blocks * a.heads),
                v: arena.take(tokens * width),
                v_codes: arena.take(width * token_blocks * 4),
                v_scale: arena.take(width),
                v_sums: arena.take(width),
            }),
            Precision::F16 | Precision::F32 => {
                Values::Float { k: arena.take(token_blocks * a.heads * dp), v: arena.take(tokens * width) }
            }
        };
        Self { tokens, values }
    }

    /// To be packed anew for `tokens` tokens, in blocks of `rows`, a multiple of 16.
    pub(crate) fn blocks<'s>(
        &'s mut self,
        a: &Attention,
        tokens: usize,
        rows: usize,
    ) -> impl Split<Piece = KeysValuesBlock<'s>> {
        self.tokens = tokens;
        let (width, keys, dp) = (width(a), rows / 16 * a.heads, pad16(a.head_dim));
        match &mut self.values {
            Values::Int8(kv) => {
                let k_of = (Chunks::new(kv.k_scale, keys), Chunks::new(kv.k_sums, keys));
                let k = (Chunks::new(kv.k_codes, keys * dp / 4), k_of);
                Either::Left((k, Chunks::new(&mut kv.v[..tokens * width], rows * width)))
            }
            Values::Float { k, v } => {
                Either::Right((Chunks::new(k, keys * dp), Chunks::new(&mut v[..tokens * width], rows * width)))
            }
        }
    }

    /// v by channel over all tokens, head by head, once every block is packed.
    pub(crate) fn pack_values(
        &mut self,
        k: Kernels,
        a: &Attention,
        executor: &dyn Executor,
        workers: Chunks<'_, u8>,
        profile: Option<&Profile<'_>>,
    ) -> Result<(), Error> {
        let Self { tokens, values: Values::Int8(kv) } = self else { return Ok(()) };
        let (tokens, heads, dp, v) = (*tokens, a.heads, pad16(a.head_dim), &*kv.v);
        let v_of = (Chunks::new(kv.v_scale, dp / 16), Chunks::new(kv.v_sums, dp / 16));
        let codes = Chunks::new(kv.v_codes, dp / 16 * pad16(tokens) / 4);
        for_each(executor, workers, (codes, v_of), |_, head, (v_codes, (v_scale, v_sums))| {
            let mut laps = Laps::start(profile);
            k.run(PackV { v, tokens, heads, dp, head, v_codes, v_scale, v_sums });
            laps.end(Stage::Pack);
        })
    }

    /// The heads' outputs `[rows, heads * dp / 16]` for queries of the tokens from `first` on.
    pub(crate) fn attend(
        &self,
        k: Kernels,
        a: &Attention,
        (first, queries): (usize, QueryRows<'_>),
        change: ScoreChange<'_>,
        scratch: &mut AttentionScratch<'_>,
        out: &mut [F32x16],
    ) {
        let &Attention { heads, head_dim, scale: attention_scale } = a;
        let (rows, dp) = (out.len() / width(a), pad16(head_dim));
        let bias = if let ScoreChange::Relative(bias) = change { Some(bias) } else { None };
        let talking = if let ScoreChange::Heads(talking) = change { Some(talking) } else { None };
        let AttentionScratch { scores, p, q } = scratch;
        let tokens = self.tokens;
        match (&self.values, queries) {
            (Values::Int8(kv), QueryRows::Int8 { codes: q_codes, scale: q_scale }) => {
                let attend = AttendI8 {
                    first,
                    rows,
                    q_codes,
                    q_scale,
                    k_codes: kv.k_codes,
                    k_scale: kv.k_scale,
                    k_sums: kv.k_sums,
                    v_codes: kv.v_codes,
                    v_scale: kv.v_scale,
                    v_sums: kv.v_sums,
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
                    Some(talking) if cfg!(feature = "cait") => k.run(TalkingI8 { attend, talking }),
                    _ => k.run(attend),
                }
            }
            (Values::Float { k: keys, v }, QueryRows::Float(q)) => {
                let attend =
                    AttendF32 { first, rows, q, k: keys, v, heads, dp, tokens, attention_scale, bias, scores, out };
                match talking {
                    Some(talking) if cfg!(feature = "cait") => k.run(TalkingF32 { attend, talking }),
                    _ => k.run(attend),
                }
            }
            (Values::Int8(_), QueryRows::Float(_)) | (Values::Float { .. }, QueryRows::Int8 { .. }) => {
                debug_assert!(false, "queries and keys differ in precision");
            }
        }
    }
}

impl KeysValuesBlock<'_> {
    /// Packs k and v of rows of `stride` chunks that begin with them, `[2, heads * dp / 16]`.
    pub(crate) fn pack(&mut self, kernels: Kernels, a: &Attention, kv: &[F32x16], stride: usize) {
        let (width, heads, dp) = (width(a), a.heads, pad16(a.head_dim));
        match self {
            Either::Left(((k_codes, (k_scale, k_sums)), v)) => {
                let rows = v.len() / width;
                kernels.run(PackKv { kv, stride, rows, heads, dp, k_codes, k_scale, k_sums, v });
            }
            Either::Right((k, v)) => {
                let rows = v.len() / width;
                kernels.run(PackKvF32 { kv, stride, rows, heads, dp, k, v });
            }
        }
    }
}
