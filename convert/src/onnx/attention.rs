//! Multi-head attention: `softmax(scale * Q K^T) V`, whichever way queries, keys, values and heads are split, permuted and
//! scaled. What a chain of reshapes and transposes does is found by moving indices through it.

use crate::network::Linear;
use crate::onnx::graph::ValueId;
use crate::onnx::patterns::{Moved, Normed, picked, rows_of};
use crate::onnx::vit::{Found, Walk};

/// An attention, without the projection after it.
#[derive(Debug)]
pub(crate) struct Attention {
    /// What queries, keys and values are computed from.
    pub input: ValueId,
    /// Rows `[3][heads][head_dim]`.
    pub qkv: Linear,
    pub qk_norm: Option<(Normed, Normed)>,
    pub heads: usize,
    pub head_dim: usize,
    pub scale: f32,
    /// Element `[head][channel]` that stands at each place of the output.
    pub columns: Vec<usize>,
}

/// Axes of queries, keys or values as a matrix product takes them.
#[derive(Clone, Copy)]
enum Order {
    /// `[head][token][channel]`
    TokenChannel,
    /// `[head][channel][token]`
    ChannelToken,
}

/// Queries, keys or values: rows of a linear layer, and a norm over each head's.
struct Part {
    input: ValueId,
    rows: Linear,
    norm: Option<Normed>,
}

impl Attention {
    /// The attention that ends in `value`, `[tokens, heads * head_dim]`.
    pub(crate) fn find(walk: &Walk<'_>, value: ValueId) -> Found<Self> {
        let (graph, tokens) = (walk.graph, walk.tokens);
        let expected = "attention over all tokens is expected before this branch's last linear layer";
        let ends = |at: ValueId| graph.stop(graph.strip(at), expected);
        let Some(out) = graph.moved(value) else { return ends(value) };
        let Some((product, _)) = graph.producer(out.root).filter(|(n, _)| n.op == "MatMul") else {
            return ends(out.root);
        };
        let (Some(probabilities), Some(values)) = (product.input(0), product.input(1)) else { return ends(out.root) };
        let Some(&[ref outer @ .., rows, head_dim]) = graph.shape(out.root) else { return ends(out.root) };
        let heads: usize = outer.iter().product();
        if rows != tokens || graph.dense(out.root).is_some() {
            return graph.stop(out.root, format!("attention over {rows} of {tokens} tokens"));
        }

        let Some((node, _)) = graph.producer(without_nan_guard(walk, probabilities)).filter(|(n, _)| n.op == "Softmax")
        else {
            return ends(probabilities);
        };
        let rank = graph.shape(node.outputs[0]).map_or(0, <[usize]>::len) as i64;
        let axis = node.int("axis").unwrap_or(if graph.opset < 13 { 1 } else { -1 });
        let (Some(scores), true) = (node.input(0), axis == -1 || axis == rank - 1) else {
            return ends(node.outputs[0]);
        };
        let (scores, mut scale) = unscaled(walk, scores)?;
        let Some((product, _)) = graph.producer(scores).filter(|(n, _)| n.op == "MatMul") else { return ends(scores) };
        let (Some(queries), Some(keys)) = (product.input(0), product.input(1)) else { return ends(scores) };

        let size = (heads, head_dim);
        let (q, q_scale) = part(walk, queries, size, Order::TokenChannel)?;
        let (k, k_scale) = part(walk, keys, size, Order::ChannelToken)?;
        let (v, v_scale) = part(walk, values, size, Order::TokenChannel)?;
        scale *= q_scale * k_scale;
        if v_scale * out.scale != 1.0 || v.norm.is_some() {
            return graph.stop(out.root, "scaled or normalized values are not run");
        }
        for part in [&k, &v] {
            if graph.strip(part.input) != graph.strip(q.input) {
                return graph
                    .stop(graph.strip(part.input), "queries, keys and values are computed from different tokens");
            }
        }
        let qk_norm = match (q.norm, k.norm) {
            (Some(q), Some(k)) => Some((q, k)),
            (None, None) => None,
            _ => return graph.stop(out.root, "a norm on the queries or keys alone is not run"),
        };
        let Some(columns) = columns(&out, size, tokens) else {
            return graph.stop(value, "the heads' outputs are not put side by side, token by token");
        };
        let qkv = Linear::stack(&[q.rows, k.rows, v.rows]);
        Ok(Self { input: q.input, qkv, qk_norm, heads, head_dim, scale: exact_scale(scale, head_dim), columns })
    }
}

/// PyTorch's export of scaled_dot_product_attention may put 0 for rows that are masked out altogether.
fn without_nan_guard(walk: &Walk<'_>, value: ValueId) -> ValueId {
    let graph = walk.graph;
    let value = graph.strip(value);
    let guarded = || {
        let (node, _) = graph.producer(value).filter(|(n, _)| n.op == "Where")?;
        let (test, _) = graph.producer(node.input(0)?).filter(|(n, _)| n.op == "IsNaN")?;
        let kept = graph.strip(node.input(2)?);
        (graph.strip(test.input(0)?) == kept && graph.number(node.input(1)?)? == 0.0).then_some(kept)
    };
    guarded().unwrap_or(value)
}

/// The product under a softmax, and the number that it is multiplied by.
fn unscaled(walk: &Walk<'_>, value: ValueId) -> Found<(ValueId, f64)> {
    let graph = walk.graph;
    let (mut value, mut scale) = (graph.strip(value), 1.0);
    loop {
        if let Some((input, factor)) = graph.times_number(value) {
            scale *= factor;
            value = graph.strip(input);
        } else if let Some((input, mask)) = graph.with_constant(value, "Add") {
            if graph.floats(mask).is_none_or(|m| m.data.iter().any(|x| *x != 0.0)) {
                return graph.stop(value, "a bias or a mask on attention is not run");
            }
            value = graph.strip(input);
        } else {
            return Ok((value, scale));
        }
    }
}

/// `1 / sqrt(head_dim)` as every other importer has it, where the graph says that in its own roundings.
fn exact_scale(scale: f64, head_dim: usize) -> f32 {
    let standard = crate::attention_scale(head_dim);
    // Two f16 roundings of its square root make 1e-3.
    if (scale / f64::from(standard) - 1.0).abs() < 1e-3 { standard } else { scale as f32 }
}

fn part(walk: &Walk<'_>, value: ValueId, (heads, head_dim): (usize, usize), order: Order) -> Found<(Part, f64)> {
    let (graph, tokens) = (walk.graph, walk.tokens);
    let expected = "queries, keys and values of a linear layer are expected";
    let Some(Moved { mut root, mut index, mut scale }) = graph.moved(value) else {
        return graph.stop(graph.strip(value), expected);
    };
    let place = |token: usize, i: usize| match order {
        Order::TokenChannel => (i / head_dim * tokens + token) * head_dim + i % head_dim,
        Order::ChannelToken => i * tokens + token,
    };
    let norm = graph.layer_norm(root).filter(|n| n.n == head_dim && graph.dense(root).is_none());
    if let Some(norm) = &norm {
        let Some(before) = graph.moved(norm.input) else { return graph.stop(root, expected) };
        let count = heads * head_dim;
        let channels_stay = (0..tokens * count).all(|j| {
            let at = place(j / count, j % count);
            index.data.get(at).is_some_and(|x| *x as usize % head_dim == j % head_dim)
        });
        let composed: Option<Vec<u32>> =
            index.data.iter().map(|i| before.index.data.get(*i as usize).copied()).collect();
        let (Some(data), true) = (composed, channels_stay && before.scale == 1.0) else {
            return graph.stop(root, "a norm over something else than each head's channels");
        };
        (root, scale) = (before.root, scale * before.scale);
        index.data = data;
    }
    let Some(dense) = graph.dense(root) else { return graph.stop(root, expected) };
    match picked(&index.data, (tokens, dense.n), heads * head_dim, place) {
        Some(rows) => {
            let rows = rows_of(&graph.linear(&dense), &rows);
            Ok((Part { input: dense.input, rows, norm }, scale))
        }
        None => graph.stop(value, format!("attention is not over all {tokens} tokens, head by head")),
    }
}

/// The element `[head][channel]` at each place of the output `[tokens, heads * head_dim]`.
fn columns(out: &Moved, (heads, head_dim): (usize, usize), tokens: usize) -> Option<Vec<usize>> {
    let (index, width) = (&out.index.data, heads * head_dim);
    if index.len() != tokens * width {
        return None;
    }
    let column = |place: usize| {
        let (head, rest) = (index[place] as usize / (tokens * head_dim), index[place] as usize % (tokens * head_dim));
        (head * head_dim + rest % head_dim, rest / head_dim)
    };
    let columns: Vec<usize> = (0..width).map(|c| column(c).0).collect();
    let fits = |(place, (own, token)): (usize, (usize, usize))| token == place / width && own == columns[place % width];
    let mut sorted = columns.clone();
    sorted.sort_unstable();
    let every = sorted.into_iter().eq(0..width);
    (every && (0..index.len()).map(|p| (p, column(p))).all(fits)).then_some(columns)
}
