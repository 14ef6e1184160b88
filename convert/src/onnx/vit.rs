//! From a graph to a plain Vision Transformer: embedding, blocks, head, each found by its dataflow from the one before.
//!
//! ```text
//! picture -> patch convolution -> tokens with prefix and positions -> [LayerNorm]
//!   -> depth times: x + gamma_1 * proj(attention(LayerNorm(x))), x + gamma_2 * down(act(up(LayerNorm(x))))
//!   -> [LayerNorm] -> pooling -> [LayerNorm] -> [head]
//! ```
//!
//! Where a network leaves that path, the node where it does is named.

use vitlet::config;
use vitlet::{Activation, Config, Family, Pooling, Scores};

use crate::network::{self, Block, Embedding, Layer, Network, Rotation};
use crate::onnx::attention::Attention;
use crate::onnx::graph::{Graph, NodeId, ValueId};
use crate::onnx::patterns::{Dense, Normed, picked};
use crate::onnx::{BlockTaps, BranchTaps};

/// Where the structure ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stop {
    /// Name and operator.
    pub node: String,
    pub why: String,
}

pub(crate) type Found<T> = Result<T, Stop>;

/// What was recognized.
#[derive(Debug)]
pub(crate) struct Vit {
    pub network: Network,
    pub taps: Vec<BlockTaps>,
    pub announcements: Vec<String>,
    /// Mean and standard deviation that the graph itself applies to pixels in [0, 1].
    pub normalization: Option<([f64; 3], [f64; 3])>,
}

impl Graph {
    /// The structure ended at the node that makes `value`.
    pub(crate) fn stop<T>(&self, value: ValueId, why: impl Into<String>) -> Found<T> {
        match self.values[value].producer {
            Some((node, _)) => self.stop_at(node, why),
            None => Err(Stop { node: self.values[value].name.clone(), why: why.into() }),
        }
    }

    pub(crate) fn stop_at<T>(&self, node: NodeId, why: impl Into<String>) -> Found<T> {
        let node = &self.nodes[node];
        Err(Stop { node: format!("{} ({})", node.name, node.op), why: why.into() })
    }
}

/// The residual stream on its way through the blocks, and the sizes on which the blocks must agree.
pub(crate) struct Walk<'g> {
    pub graph: &'g Graph,
    pub tokens: usize,
    pub dim: usize,
    /// `None` before the first norm.
    norms: Option<Norms>,
    /// The stream, stripped.
    x: ValueId,
}

/// What all norms must have in common.
#[derive(Clone, Copy, PartialEq)]
struct Norms {
    epsilon: f32,
    /// Whether they take the mean out (LayerNorm) or not (RMSNorm).
    centered: bool,
}

/// Recognizes a network.
///
/// # Errors
/// The node at which it is not a plain ViT.
pub(crate) fn recognize(graph: &Graph) -> Found<Vit> {
    let stem = graph.stem()?;
    let tokens = stem.prefix_tokens + stem.grid.0 * stem.grid.1;
    let mut walk = Walk { graph, tokens, dim: stem.patch.n, norms: None, x: graph.strip(stem.tokens) };

    let norm_pre = walk.norm_pre()?;
    let (mut blocks, mut taps): (Vec<Block>, Vec<BlockTaps>) = (Vec::new(), Vec::new());
    let mut hyper: Option<Hyper> = None;
    while let Some(add) = walk.next_residual()? {
        let (block, own, tap) = walk.block(add)?;
        if *hyper.get_or_insert(own) != own {
            return graph.stop_at(add, format!("{own:?} after blocks with {:?}", hyper.unwrap_or(own)));
        }
        blocks.push(block);
        taps.push(tap);
    }
    let Some(hyper) = hyper else {
        return graph.stop(walk.x, "tokens without a residual branch after them");
    };
    let mut announcements = Vec::new();
    let tail = walk.tail(stem.prefix_tokens, &mut announcements)?;
    let patch = (stem.patch_size.0, stem.patch_size.1);
    let norms = walk.norms.unwrap_or(Norms { epsilon: 0.0, centered: true });
    let family = config::Vit {
        attention: config::Attention { heads: hyper.heads, head_dim: hyper.head_dim, scale: hyper.scale },
        qk_norm: blocks.iter().any(|b| b.qk_norm.is_some()),
        prefix_tokens: stem.prefix_tokens,
        norm_pre: norm_pre.is_some(),
        block_norm: true,
    };
    let config = Config {
        image_height: stem.grid.0 * patch.0,
        image_width: stem.grid.1 * patch.1,
        patch_height: patch.0,
        patch_width: patch.1,
        dim: walk.dim,
        depth: blocks.len(),
        hidden: hyper.hidden,
        // The graph does not say how they are resampled.
        positions: vitlet::Positions::Fixed,
        norm_eps: norms.epsilon,
        norm: tail.norm.is_some(),
        fc_norm: tail.fc_norm.is_some(),
        activation: hyper.activation,
        pooling: tail.pooling,
        classes: tail.head.as_ref().map_or(0, |h| h.n),
        scores: tail.scores,
        ..Config::of(if norms.centered { Family::Vit(family) } else { Family::Vit5(family) })
    };
    let norm = |n: &Normed| graph.norm(n);
    let (patch, positions, prefix) = (stem.patch, Some(stem.positions), stem.prefix);
    let (last_norm, fc_norm) = (tail.norm.as_ref().map(norm), tail.fc_norm.as_ref().map(norm));
    let norm_pre = norm_pre.as_ref().map(norm);
    let rotation = (!norms.centered).then(|| {
        announcements.push("its norms are RMSNorm: it runs as a ViT-5 whose tokens are not rotated".to_owned());
        // An angle of zero.
        let len = config.rotated_tokens() * (config.head_dim() / 2);
        Rotation { cos: vec![1.0; len], sin: vec![0.0; len] }
    });
    let network = Network {
        embedding: Embedding { patch, positions, rotation, prefix, norm_pre, ..Embedding::default() },
        blocks,
        tail: network::Tail { norm: last_norm, fc_norm, head: tail.head, ..network::Tail::default() },
        ..Network::new(config)
    };
    Ok(Vit { network, taps, announcements, normalization: stem.normalization })
}

/// What every block must have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Hyper {
    heads: usize,
    head_dim: usize,
    scale: f32,
    hidden: usize,
    activation: Activation,
    qk_norm: bool,
    layerscale: bool,
}

/// What is added to the stream: `gamma * linear(input)`.
struct Branch {
    linear: Layer,
    input: ValueId,
    gamma: Option<Vec<f32>>,
    names: BranchTaps,
}

impl Walk<'_> {
    /// A norm between the embedding and the first block.
    fn norm_pre(&mut self) -> Found<Option<Normed>> {
        if !self.residuals(self.x).is_empty() {
            return Ok(None);
        }
        let of_x = |value: &ValueId| self.graph.normed(*value).is_some_and(|n| self.graph.strip(n.input) == self.x);
        let outputs = self.graph.nodes.iter().flat_map(|n| n.outputs.iter().copied());
        let found = outputs.filter(of_x).find(|v| !self.residuals(self.graph.strip(*v)).is_empty());
        match (found, self.graph.uses(self.x).first()) {
            (Some(value), _) => {
                self.x = self.graph.strip(value);
                let normed = self.graph.normed(value);
                normed.map(|n| self.like_others(n)).transpose()
            }
            (None, Some((node, _))) => self.graph.stop_at(*node, "no residual branch starts at the tokens"),
            (None, None) => self.graph.stop(self.x, "nothing reads the tokens"),
        }
    }

    /// Additions of something computed to `x`: where, and what.
    fn residuals(&self, x: ValueId) -> Vec<(NodeId, ValueId)> {
        let graph = self.graph;
        let other = |(id, alias): (NodeId, ValueId)| {
            let node = &graph.nodes[id];
            let (a, b) = (node.input(0)?, node.input(1)?);
            let other = if a == alias { b } else { a };
            (node.op == "Add" && !graph.is_constant(other)).then_some((id, other))
        };
        graph.uses(x).into_iter().filter_map(other).collect()
    }

    fn next_residual(&self) -> Found<Option<NodeId>> {
        match self.residuals(self.x)[..] {
            [] => Ok(None),
            [(add, _)] => Ok(Some(add)),
            [_, (second, _), ..] => self.graph.stop_at(second, "a second branch is added to the same tokens"),
        }
    }

    /// One block; afterwards the stream is its output.
    fn block(&mut self, add: NodeId) -> Found<(Block, Hyper, BlockTaps)> {
        let attention_branch = self.branch(add)?;
        let x = self.x;
        let attention = Attention::find(self, attention_branch.input)?;
        let norm1 = self.norm_of(attention.input, x)?;
        if let Some((q, k)) = &attention.qk_norm {
            self.like_others(*q)?;
            self.like_others(*k)?;
        }
        let proj = permuted(attention_branch.linear, &attention.columns);
        self.x = self.graph.nodes[add].outputs[0];

        let Some(add) = self.next_residual()? else {
            return self.graph.stop(self.x, "no MLP after this attention");
        };
        let mlp_branch = self.branch(add)?;
        let mlp = self.mlp(mlp_branch.input)?;
        let norm2 = self.norm_of(mlp.input, self.x)?;
        self.x = self.graph.nodes[add].outputs[0];

        let layerscale = attention_branch.gamma.is_some() || mlp_branch.gamma.is_some();
        let (hidden, dim) = (mlp_branch.linear.k, self.dim);
        // A branch without one beside a branch with one.
        let gamma = |g: Option<Vec<f32>>| if layerscale { g.or_else(|| Some(vec![1.0; dim])) } else { None };
        let hyper = Hyper {
            heads: attention.heads,
            head_dim: attention.head_dim,
            scale: attention.scale,
            hidden,
            activation: mlp.activation,
            qk_norm: attention.qk_norm.is_some(),
            layerscale,
        };
        let block = Block {
            norm1: Some(self.graph.norm(&norm1)),
            qkv: attention.qkv,
            qk_norm: attention.qk_norm.map(|(q, k)| (self.graph.norm(&q), self.graph.norm(&k))),
            proj,
            gamma1: gamma(attention_branch.gamma),
            mlp: network::Mlp {
                norm: Some(self.graph.norm(&norm2)),
                up: mlp.up,
                down: mlp_branch.linear,
                gamma: gamma(mlp_branch.gamma),
            },
            ..Block::default()
        };
        Ok((block, hyper, BlockTaps { attention: attention_branch.names, mlp: mlp_branch.names }))
    }

    /// What `add` adds to the stream.
    fn branch(&self, add: NodeId) -> Found<Branch> {
        let graph = self.graph;
        let Some((_, value)) = self.residuals(self.x).into_iter().find(|(id, _)| *id == add) else {
            return graph.stop_at(add, "no residual branch");
        };
        let name = |v: ValueId| graph.values[v].name.clone();
        let names = BranchTaps { branch: name(value), stream: name(graph.nodes[add].outputs[0]) };
        let stripped = graph.strip(value);
        let scaled = graph.with_constant(stripped, "Mul").filter(|_| graph.dense(stripped).is_none());
        let (output, gamma) = match scaled {
            None => (value, None),
            Some((output, factor)) => match (graph.vector(factor, self.dim), graph.number(factor)) {
                (Some(gamma), _) => (output, Some(gamma.to_vec())),
                // One number for all channels.
                (None, Some(gamma)) => (output, Some(vec![gamma as f32; self.dim])),
                _ => return graph.stop(stripped, format!("a factor that is no LayerScale of {} channels", self.dim)),
            },
        };
        match graph.dense(output) {
            Some(dense) if dense.n == self.dim => {
                Ok(Branch { linear: graph.linear(&dense), input: dense.input, gamma, names })
            }
            Some(dense) => graph.stop(graph.strip(output), format!("a branch of {} channels on {}", dense.n, self.dim)),
            None => graph.stop(graph.strip(output), "a residual branch that does not end in a linear layer"),
        }
    }

    /// The norm that a branch starts with, on the stream `x`.
    pub(crate) fn norm_of(&mut self, value: ValueId, x: ValueId) -> Found<Normed> {
        match self.graph.normed(value) {
            Some(normed) if self.graph.strip(normed.input) == self.graph.strip(x) => self.like_others(normed),
            Some(normed) => self.graph.stop(self.graph.strip(normed.input), "a norm on something else than the tokens"),
            None => self.graph.stop(self.graph.strip(value), "a LayerNorm or an RMSNorm on the tokens is expected"),
        }
    }

    fn like_others(&mut self, normed: Normed) -> Found<Normed> {
        let own = Norms { epsilon: normed.epsilon, centered: normed.centered };
        let others = *self.norms.get_or_insert(own);
        if others == own {
            return Ok(normed);
        }
        let why = match others.centered == own.centered {
            true => format!("its epsilon is {:e}, that of the other norms {:e}", own.epsilon, others.epsilon),
            false => "LayerNorm and RMSNorm in one network are not supported".to_owned(),
        };
        self.graph.stop(normed.input, why)
    }

    fn mlp(&self, value: ValueId) -> Found<Mlp> {
        let graph = self.graph;
        let Some((activation, roots)) = graph.activation(value) else {
            let why = "GELU (by erf, by tanh, or quick) or SwiGLU is expected before this branch's last linear layer";
            return graph.stop(graph.strip(value), why);
        };
        let mut parts = Vec::new();
        for root in roots {
            parts.push(self.rows_of_layer(root)?);
        }
        let input = parts[0].0;
        if let Some((other, _)) = parts.iter().find(|(i, _)| graph.strip(*i) != graph.strip(input)) {
            return graph.stop(*other, "gate and twin read different tokens");
        }
        let layers: Vec<Layer> = parts.into_iter().map(|(_, linear)| linear).collect();
        Ok(Mlp { activation, input, up: Layer::stack(layers) })
    }

    /// A value `[tokens, n]` that is a linear layer's output, or some of its channels: the layer's input, and those
    /// rows.
    fn rows_of_layer(&self, value: ValueId) -> Found<(ValueId, Layer)> {
        let graph = self.graph;
        let Some((moved, dense)) = graph.moved(value).and_then(|m| graph.dense(m.root).map(|d| (m, d))) else {
            return graph.stop(value, "a linear layer is expected before the activation");
        };
        let n = moved.index.data.len() / self.tokens;
        let picked = picked(&moved.index.data, (self.tokens, dense.n), n, |token, i| token * n + i);
        match picked {
            Some(rows) if moved.scale == 1.0 => Ok((dense.input, graph.rows_of(&dense, &rows))),
            _ => graph.stop(value, "channels of different tokens are mixed"),
        }
    }
}

struct Mlp {
    activation: Activation,
    input: ValueId,
    up: Layer,
}

/// The layer for an input whose element `columns[i]` is its own input `i`.
fn permuted(mut layer: Layer, columns: &[usize]) -> Layer {
    if columns.iter().copied().eq(0..layer.k) {
        return layer;
    }
    let columns = columns.to_vec();
    layer.change(move |linear| {
        let mut before = Vec::with_capacity(linear.k);
        for row in linear.weight.chunks_exact_mut(linear.k) {
            before.clear();
            before.extend_from_slice(row);
            columns.iter().zip(&before).for_each(|(column, x)| row[*column] = *x);
        }
    });
    layer
}

/// What follows the blocks.
struct Tail {
    norm: Option<Normed>,
    fc_norm: Option<Normed>,
    pooling: Pooling,
    head: Option<Layer>,
    scores: Scores,
}

/// Vectors read from the tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pick {
    Token(usize),
    /// The mean of all tokens from this one on.
    MeanFrom(usize),
}

impl Walk<'_> {
    fn tail(&mut self, prefix: usize, announcements: &mut Vec<String>) -> Found<Tail> {
        let graph = self.graph;
        let is_row = |v: &&ValueId| matches!(graph.shape(**v), Some(&[1, _]));
        let output = graph.outputs.iter().find(is_row).or(graph.outputs.first());
        let Some(&output) = output else { return graph.stop(self.x, "the graph has no output") };
        let mut value = graph.strip(output);
        let mut scores = Scores::Softmax;
        if let Some((node, _)) = graph.producer(value).filter(|(n, _)| matches!(&*n.op, "Softmax" | "Sigmoid")) {
            announcements.push(format!("the file ends in {}: the values before it are the logits", node.op));
            scores = if node.op == "Sigmoid" { Scores::Sigmoid } else { Scores::Softmax };
            value = graph.strip(node.input(0).unwrap_or(value));
        }

        let heads: Vec<_> = match (graph.dense(value), self.mean_of_two(value)) {
            (Some(head), _) => vec![head],
            (None, Some((first, second))) => vec![first, second],
            (None, None) => vec![],
        };
        let mut feature = heads.first().map_or(value, |h| h.input);
        let fc_norm =
            graph.normed(feature).filter(|n| graph.shape(n.input).is_some_and(|s| s.iter().product::<usize>() == n.n));
        if let Some(normed) = fc_norm {
            self.like_others(normed)?;
            feature = normed.input;
        }
        let mut picks = self.picks(feature)?;
        if let Some(second) = heads.get(1) {
            picks.extend(self.picks(second.input)?);
        }
        let tokens = picks[0].1;
        if let Some((_, other)) = picks.iter().find(|(_, t)| graph.strip(*t) != graph.strip(tokens)) {
            return graph.stop(*other, "pooling reads two different sets of tokens");
        }
        let norm = if graph.strip(tokens) == graph.strip(self.x) { None } else { Some(self.norm_of(tokens, self.x)?) };
        let kinds: Vec<Pick> = picks.iter().map(|p| p.0).collect();
        let pooling = match kinds[..] {
            [Pick::Token(0)] => Pooling::Cls,
            [Pick::MeanFrom(first)] if first == prefix => Pooling::Avg,
            [Pick::MeanFrom(0)] => Pooling::All,
            [Pick::Token(0), Pick::MeanFrom(first)] if first == prefix => Pooling::ClsAvg,
            [Pick::Token(0), Pick::Token(1)] => Pooling::ClsDist,
            _ => return graph.stop(feature, format!("pooling over {kinds:?} is not supported")),
        };
        let mut layers: Vec<Layer> = heads.iter().map(|h| graph.linear(h)).collect();
        let head = match (layers.pop(), layers.pop()) {
            (Some(second), Some(first)) => Some(crate::head::mean(first, second)),
            (one, _) => one,
        };
        if let Some(head) = head.as_ref().filter(|h| h.k != kinds.len() * self.dim) {
            return graph.stop(value, format!("a head over {} features, of {}", head.k, kinds.len() * self.dim));
        }
        Ok(Tail { norm, fc_norm, pooling, head, scores })
    }

    /// Half the sum of two heads.
    fn mean_of_two(&self, value: ValueId) -> Option<(Dense, Dense)> {
        let graph = self.graph;
        let (sum, half) = graph.times_number(value)?;
        let (node, _) = graph.producer(graph.strip(sum)).filter(|(n, _)| n.op == "Add")?;
        Some((graph.dense(node.input(0)?)?, graph.dense(node.input(1)?)?)).filter(|_| half == 0.5)
    }

    /// The vectors that `value` consists of, each with the tokens that it is read from.
    fn picks(&self, value: ValueId) -> Found<Vec<(Pick, ValueId)>> {
        let graph = self.graph;
        let value = graph.strip(value);
        if let Some((node, _)) = graph.producer(value).filter(|(n, _)| n.op == "Concat") {
            let parts: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
            return parts.into_iter().map(|p| self.picks(p)).collect::<Found<Vec<_>>>().map(|p| p.concat());
        }
        let mean =
            graph.mean_of(value).filter(|(input, axis)| graph.shape(*input).is_some_and(|s| axis + 2 == s.len()));
        let rows = self.consecutive_rows(mean.map_or(value, |(input, _)| input));
        match (mean, rows) {
            (Some(_), Some((root, first, count))) if first + count == self.tokens => {
                Ok(vec![(Pick::MeanFrom(first), root)])
            }
            (None, Some((root, first, 1))) => Ok(vec![(Pick::Token(first), root)]),
            // All tokens, without a head: the features are the first of them.
            (None, Some((root, 0, count))) if count == self.tokens => Ok(vec![(Pick::Token(0), root)]),
            _ => graph.stop(value, "neither a token nor the mean of the tokens"),
        }
    }

    /// Whole tokens in their order: the tokens, the first, and how many.
    fn consecutive_rows(&self, value: ValueId) -> Option<(ValueId, usize, usize)> {
        let moved = self.graph.moved(value)?;
        let first = *moved.index.data.first()?;
        let in_order = moved.index.data.iter().enumerate().all(|(i, x)| *x as usize == first as usize + i);
        let whole = |n: usize| n.is_multiple_of(self.dim).then_some(n / self.dim);
        let rows = (whole(first as usize)?, whole(moved.index.data.len())?);
        let all = self.graph.shape(moved.root)?.iter().product::<usize>() == self.tokens * self.dim;
        (in_order && all && moved.scale == 1.0).then_some((moved.root, rows.0, rows.1))
    }
}
