//! The parts of a network of transformer blocks.

use crate::config::{Activation, Config, Family};
use crate::kernels::attention::RelativeBias;
use crate::kernels::attention::talking::TalkingHeads;
use crate::networks::xcit::Local;
use crate::ops::attention::ScoreChange;
use crate::parts::{Axis, Branch, InFile, Scope, Storage, Walk};
use crate::profile::Stage;

/// Convolutions of XCiT's stem at most. The last one, the patch embedding, is not among them.
const STEM: [&str; 3] = ["stem.0", "stem.1", "stem.2"];

/// What turns pictures into tokens.
#[derive(Clone, Debug, Default)]
pub struct Embedding<M: Storage> {
    /// XCiT's convolutions before the last one, which is `patch`. Inputs of the first are `[channel][dy][dx]`, inputs
    /// of the others and of `patch` after them are `[dy][dx][channel]`.
    pub stem: [Option<M::Linear>; STEM.len()],
    /// The patch convolution as a matrix: outputs `[dim]`, inputs `[channel][dy][dx]`.
    pub patch: M::Linear,
    /// Position embedding of the patches, `[patches, dim]`.
    pub positions: Option<M::Vectors>,
    /// DINOv3's and ViT-5's.
    pub rotation: Option<Rotation<M>>,
    /// Class, distillation and register tokens with their position embedding added, `[prefix_tokens, dim]`.
    pub prefix: M::Vectors,
    /// On the embedded tokens, `[dim]`.
    pub norm_pre: Option<M::Norm>,
}

/// Rotary position embedding: by which angle each pair of q's and k's channels is rotated,
/// `[rotated_tokens, head_dim / 2]` each.
#[derive(Clone, Debug, Default)]
pub struct Rotation<M: Storage> {
    /// Cosines of the angles.
    pub cos: M::Vectors,
    /// Their sines.
    pub sin: M::Vectors,
}

impl Copy for Rotation<InFile<'_>> {}

impl<M: Storage> Embedding<M> {
    /// # Errors
    /// The walk's.
    pub fn walk<W: Walk<Storage = M>>(&mut self, c: &Config, w: &mut W) -> Result<(), W::Error> {
        let layers = c.stem_layers();
        // Each convolution reads 3 x 3 pixels of what the one before it made.
        let inputs = |i: usize| match i.checked_sub(1) {
            Some(before) => Axis::padded(9, c.stem_channels(before)),
            None if layers > 0 => Axis::dense(27),
            None => Axis::dense(c.patch_len()),
        };
        w.enter(Scope::Network);
        for (i, (name, layer)) in STEM.iter().zip(&mut self.stem).enumerate().take(layers) {
            let (height, width) = c.stem_size(i);
            w.rows(Stage::PatchEmbed, height * width);
            w.linear(name, Axis::dense(c.stem_channels(i)), inputs(i), layer.get_or_insert_default())?;
        }
        let (height, width) = if c.stages().is_empty() { c.grid() } else { c.stage_grid(0) };
        w.rows(Stage::PatchEmbed, height * width);
        w.linear("patch_embd", Axis::dense(c.embedding_dim()), inputs(layers), &mut self.patch)?;
        if c.has_positions() {
            let (rows, columns) = c.table_grid();
            w.table("pos_embd", rows * columns, c.dim, self.positions.get_or_insert_default())?;
        }
        let rotated = c.rotated_tokens();
        if rotated > 0 {
            let rotation = self.rotation.get_or_insert_default();
            w.trained(false);
            w.table("rope_cos", rotated, c.head_dim() / 2, &mut rotation.cos)?;
            w.table("rope_sin", rotated, c.head_dim() / 2, &mut rotation.sin)?;
            w.trained(true);
        }
        if c.prefix_tokens() > 0 {
            w.table("prefix_embd", c.prefix_tokens(), c.dim, &mut self.prefix)?;
        }
        if c.norm_pre() {
            w.norm("norm_pre", c.embedding_dim(), self.norm_pre.get_or_insert_default())?;
        }
        Ok(())
    }
}

/// One transformer block. Both branches read a norm of the stream, or the stream itself where there is none.
#[derive(Clone, Debug, Default)]
pub struct Block<M: Storage> {
    /// Before the attention, `[dim]`.
    pub norm1: Option<M::Norm>,
    /// Outputs `[3][heads][head_dim]` (q, k, v), inputs `[dim]`.
    pub qkv: M::Linear,
    /// Norms of q and of k over one head, `[head_dim]`.
    pub qk_norm: Option<(M::Norm, M::Norm)>,
    /// BEiT's relative position tables, `[heads, relative_len]`.
    pub bias: Option<M::Vectors>,
    /// XCiT's factors on the scores between channels, `[heads]`.
    pub temperature: Option<M::Vectors>,
    /// CaiT's.
    pub talking: Option<Talking<M>>,
    /// Outputs `[dim]`, inputs `[heads][head_dim]`.
    pub proj: M::Linear,
    /// LayerScale of the attention branch, `[dim]`.
    pub gamma1: Option<M::Vectors>,
    /// XCiT's class attention: the norm that is the patches' branch, with the same LayerScale, `[dim]`.
    pub patches_norm: Option<M::Norm>,
    /// XCiT's branch between these two.
    pub local: Option<Local<M>>,
    /// XCiT's class attention: a norm of the stream itself before the MLP, which then has none of its own, `[dim]`.
    pub stream_norm: Option<M::Norm>,
    /// The second branch.
    pub mlp: Mlp<M>,
}

/// CaiT's two mixings of heads, before and after the softmax: a matrix `[heads, heads]` and a bias `[heads]` each.
#[derive(Clone, Debug, Default)]
pub struct Talking<M: Storage> {
    /// Of the logits.
    pub logits: M::Vectors,
    /// See `logits`.
    pub logits_bias: M::Vectors,
    /// Of the weights.
    pub weights: M::Vectors,
    /// See `weights`.
    pub weights_bias: M::Vectors,
}

impl<'a> Block<InFile<'a>> {
    /// What its attention does to scores beside the softmax.
    pub(super) fn score_change(&self, c: &Config) -> ScoreChange<'a> {
        match (self.bias, &self.talking) {
            (Some(tables), _) => ScoreChange::Relative(RelativeBias { tables, grid: c.grid() }),
            (None, Some(talking)) if cfg!(feature = "cait") => {
                let &Talking { logits, logits_bias, weights, weights_bias } = talking;
                ScoreChange::Heads(TalkingHeads { logits, logits_bias, weights, weights_bias })
            }
            (None, _) => ScoreChange::None,
        }
    }
}

/// The residual branch without attention.
#[derive(Clone, Debug, Default)]
pub struct Mlp<M: Storage> {
    /// Before it, `[dim]`.
    pub norm: Option<M::Norm>,
    /// Outputs `[hidden]`, or `[gate: hidden][up: hidden]` for SwiGLU; inputs `[dim]`.
    pub up: M::Linear,
    /// Outputs `[dim]`, inputs `[hidden]`.
    pub down: M::Linear,
    /// LayerScale, `[dim]`.
    pub gamma: Option<M::Vectors>,
}

/// Names of attention's matrices.
pub const ATTENTION: [&str; 2] = ["attn_qkv", "attn_out"];
/// Names of the MLP's matrices.
pub const MLP: [&str; 2] = ["ffn_up", "ffn_down"];
/// The norm before the second branch, or of the stream there.
const NORM2: &str = "norm2";

impl<M: Storage> Block<M> {
    /// Through block `i`.
    ///
    /// # Errors
    /// The walk's.
    pub fn walk<W: Walk<Storage = M>>(&mut self, c: &Config, i: usize, w: &mut W) -> Result<(), W::Error> {
        let (stream, heads) = (Axis::dense(c.dim), Axis::padded(c.heads(), c.head_dim()));
        let is_class = i >= c.depth;
        let is_xcit = cfg!(feature = "xcit") && matches!(c.family, Family::Xcit(_));
        let (cross, carries) = (is_xcit && !is_class, is_xcit && is_class);
        let talks = cfg!(feature = "cait") && matches!(c.family, Family::Cait(_)) && !is_class;
        // The class token comes after the blocks of CaiT's and XCiT's patches.
        let (queries, keys) = match c.family {
            Family::Cait(_) | Family::Xcit(_) if !is_class => (c.patches(), c.patches()),
            _ if is_class => (1, c.tokens()),
            _ => (c.tokens(), c.tokens()),
        };
        w.enter(Scope::Block(i));
        if c.block_norm() {
            w.norm("norm1", c.dim, self.norm1.get_or_insert_default())?;
        }
        w.rows(Stage::Qkv, queries);
        w.linear(ATTENTION[0], Axis::padded(3 * c.heads(), c.head_dim()), stream, &mut self.qkv)?;
        let pairs = if cross { c.patches() * c.head_dim() } else { queries * keys } as u64;
        let width = heads.elements() as u64;
        w.multiply_adds(Stage::Qkv, (keys - queries) as u64 * 2 * width * c.dim as u64);
        w.multiply_adds(Stage::Attention, pairs * 2 * width);
        if c.qk_norm() {
            let (q, k) = self.qk_norm.get_or_insert_default();
            w.norm("attn_q_norm", c.head_dim(), q)?;
            w.norm("attn_k_norm", c.head_dim(), k)?;
        }
        if matches!(c.family, Family::Beit(_)) {
            w.table("attn_bias", c.heads(), c.relative_len(), self.bias.get_or_insert_default())?;
        }
        if cross {
            w.vector("attn_temperature", c.heads(), self.temperature.get_or_insert_default())?;
        }
        if talks {
            let talking = self.talking.get_or_insert_default();
            w.table("heads_logits.weight", c.heads(), c.heads(), &mut talking.logits)?;
            w.vector("heads_logits.bias", c.heads(), &mut talking.logits_bias)?;
            w.table("heads_weights.weight", c.heads(), c.heads(), &mut talking.weights)?;
            w.vector("heads_weights.bias", c.heads(), &mut talking.weights_bias)?;
            // Both mix the heads of every pair.
            w.multiply_adds(Stage::Attention, pairs * 2 * (c.heads() * c.heads()) as u64);
        }
        w.rows(Stage::Projection, queries);
        let end = Branch { block: i, branch: 0 };
        w.branch_end(ATTENTION[1], end, c.dim, heads, &mut self.proj, self.gamma1.as_ref())?;
        w.gamma(c, "gamma1", c.dim, &mut self.gamma1)?;
        if carries {
            // The same norm as before the attention.
            w.trained(false);
            w.norm("patches_norm", c.dim, self.patches_norm.get_or_insert_default())?;
            w.trained(true);
        }
        if cross {
            self.local.get_or_insert_default().walk(c, w)?;
        }
        // A parallel ViT has one norm and one gamma for both branches.
        w.trained(!matches!(c.family, Family::ParallelVit(_)));
        if carries {
            w.norm(NORM2, c.dim, self.stream_norm.get_or_insert_default())?;
        }
        if c.block_norm() && !carries {
            self.mlp.walk_norm(c.dim, w)?;
        }
        w.trained(true);
        self.mlp.walk(c, i, (c.dim, c.hidden), queries, w)
    }
}

impl<M: Storage> Mlp<M> {
    /// Through the norm before it.
    pub(crate) fn walk_norm<W: Walk<Storage = M>>(&mut self, dim: usize, w: &mut W) -> Result<(), W::Error> {
        w.norm(NORM2, dim, self.norm.get_or_insert_default())
    }

    /// Through the MLP of block `i`, after its norm: `dim` and `hidden` wide, for `rows` tokens.
    ///
    /// # Errors
    /// The walk's.
    pub(crate) fn walk<W: Walk<Storage = M>>(
        &mut self,
        c: &Config,
        i: usize,
        (dim, hidden): (usize, usize),
        rows: usize,
        w: &mut W,
    ) -> Result<(), W::Error> {
        let halves = if c.activation == Activation::SwiGlu { 2 } else { 1 };
        w.rows(Stage::MlpUp, rows);
        w.linear(MLP[0], Axis::padded(halves, hidden), Axis::dense(dim), &mut self.up)?;
        w.rows(Stage::MlpDown, rows);
        let end = Branch { block: i, branch: 1 };
        w.branch_end(MLP[1], end, dim, Axis::padded(1, hidden), &mut self.down, self.gamma.as_ref())?;
        w.trained(!matches!(c.family, Family::ParallelVit(_)));
        w.gamma(c, "gamma2", dim, &mut self.gamma)?;
        w.trained(true);
        Ok(())
    }
}

/// What turns tokens into logits.
#[derive(Clone, Debug, Default)]
pub struct Tail<M: Storage> {
    /// On the tokens after the last block, `[dim]`; in ResMLP factors and offsets alone.
    pub norm: Option<M::Norm>,
    /// On the pooled features, `[dim]`.
    pub fc_norm: Option<M::Norm>,
    /// On the features before they enter the head, whose columns are divided by it, `[parts][dim]`. Balancing sets it;
    /// no source has it.
    pub head_factor: Option<M::Vectors>,
    /// Outputs `[classes]`, inputs `[parts][dim]`.
    pub head: Option<M::Linear>,
}

impl<M: Storage> Tail<M> {
    /// # Errors
    /// The walk's.
    pub fn walk<W: Walk<Storage = M>>(&mut self, c: &Config, w: &mut W) -> Result<(), W::Error> {
        w.enter(Scope::Network);
        if c.norm {
            w.norm("norm", c.dim, self.norm.get_or_insert_default())?;
        }
        if c.fc_norm {
            w.norm("fc_norm", c.dim, self.fc_norm.get_or_insert_default())?;
        }
        if c.head_factors {
            w.trained(false);
            w.table("head.factor", c.parts(), c.dim, self.head_factor.get_or_insert_default())?;
            w.trained(true);
        }
        if c.classes > 0 {
            w.rows(Stage::Head, 1);
            let features = Axis::padded(c.parts(), c.dim);
            w.linear("head", Axis::dense(c.classes), features, self.head.get_or_insert_default())?;
        }
        Ok(())
    }
}
