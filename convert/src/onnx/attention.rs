//! Multi-head attention: `softmax(scale * Q K^T) V`, whichever way queries, keys, values and heads are split, permuted
//! and scaled. What a chain of reshapes and transposes does is found by moving indices through it.

use crate::network::Layer;
use crate::onnx::graph::{Node, ValueId};
use crate::onnx::patterns::{Moved, Normed, picked};
use crate::onnx::vit::{Found, Walk};

/// An attention, without the projection after it.
#[derive(Debug)]
pub(crate) struct Attention {
    /// What queries, keys and values are computed from.
    pub input: ValueId,
    /// Rows `[3][heads][head_dim]`.
    pub qkv: Layer,
    pub qk_norm: Option<(Normed, Normed)>,
    pub heads: usize,
    pub head_dim: usize,
    pub scale: f32,
    /// Element `[head][channel]` that stands at each place of the output.
    pub columns: Vec<usize>,
}

/// The axes of queries, keys, values or the output where attention reads or writes them.
#[derive(Clone, Copy)]
enum Order {
    /// `[head][token][channel]`
    HeadTokenChannel,
    /// `[head][channel][token]`
    HeadChannelToken,
    /// `[token][head][channel]`
    TokenHeadChannel,
}

/// What attention has in all its spellings.
struct Core {
    /// Queries, keys and values.
    operands: [(ValueId, Order); 3],
    scale: f64,
    heads: usize,
    head_dim: usize,
    /// The axes of its output.
    order: Order,
}

/// Queries, keys or values: rows of a linear layer, and a norm over each head's.
struct Part {
    input: ValueId,
    rows: Layer,
    norm: Option<Normed>,
}

impl Attention {
    /// The attention that ends in `value`, `[tokens, heads * head_dim]`.
    pub(crate) fn find(walk: &Walk<'_>, value: ValueId) -> Found<Self> {
        let (graph, tokens) = (walk.graph, walk.tokens);
        let expected = "attention over all tokens is expected before this branch's last linear layer";
        let ends = |at: ValueId| graph.stop(graph.strip(at), expected);
        let Some(out) = graph.moved(value) else { return ends(value) };
        let core = match graph.producer(out.root) {
            Some((node, 0)) if node.op == "Attention" => fused(walk, node, out.root)?,
            Some((node, _)) if node.op == "MatMul" => written_out(walk, node, out.root, expected)?,
            _ => return ends(out.root),
        };
        let size = (core.heads, core.head_dim);
        let [(q, q_scale), (k, k_scale), (v, v_scale)] = {
            let [q, k, v] = core.operands;
            [part(walk, q, size)?, part(walk, k, size)?, part(walk, v, size)?]
        };
        let scale = core.scale * q_scale * k_scale;
        if v_scale * out.scale != 1.0 || v.norm.is_some() {
            return graph.stop(out.root, "scaled or normalized values are not supported");
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
            _ => return graph.stop(out.root, "a norm on the queries or keys alone is not supported"),
        };
        let Some(columns) = columns(&out, size, tokens, core.order) else {
            return graph.stop(value, "the heads' outputs are not put side by side, token by token");
        };
        let qkv = Layer::stack(vec![q.rows, k.rows, v.rows]);
        let (heads, head_dim) = size;
        Ok(Self { input: q.input, qkv, qk_norm, heads, head_dim, scale: exact_scale(scale, head_dim), columns })
    }
}

impl Order {
    /// The element of channel `i` of `[head][channel]` of a token.
    fn place(self, (token, i): (usize, usize), (heads, head_dim): (usize, usize), tokens: usize) -> usize {
        match self {
            Self::HeadTokenChannel => (i / head_dim * tokens + token) * head_dim + i % head_dim,
            Self::HeadChannelToken => i * tokens + token,
            Self::TokenHeadChannel => token * heads * head_dim + i,
        }
    }

    /// The reverse of [`Self::place`]: token and channel of an element.
    fn token_and_channel(self, at: usize, (heads, head_dim): (usize, usize), tokens: usize) -> (usize, usize) {
        match self {
            Self::HeadTokenChannel => {
                let (head, rest) = (at / (tokens * head_dim), at % (tokens * head_dim));
                (rest / head_dim, head * head_dim + rest % head_dim)
            }
            Self::HeadChannelToken => (at % tokens, at / tokens),
            Self::TokenHeadChannel => (at / (heads * head_dim), at % (heads * head_dim)),
        }
    }
}

/// Two matrix products around a softmax. `product` is the second; it makes `output`.
fn written_out(walk: &Walk<'_>, product: &Node, output: ValueId, expected: &str) -> Found<Core> {
    let (graph, tokens) = (walk.graph, walk.tokens);
    let ends = |at: ValueId| graph.stop(graph.strip(at), expected);
    let (Some(probabilities), Some(values)) = (product.input(0), product.input(1)) else { return ends(output) };
    let Some(&[ref outer @ .., rows, head_dim]) = graph.shape(output) else { return ends(output) };
    if rows != tokens || graph.dense(output).is_some() {
        return graph.stop(output, format!("attention over {rows} of {tokens} tokens"));
    }
    let Some(scores) = graph.softmax(without_nan_guard(walk, probabilities)) else { return ends(probabilities) };
    let (scores, scale) = unscaled(walk, scores)?;
    let Some((product, _)) = graph.producer(scores).filter(|(n, _)| n.op == "MatMul") else { return ends(scores) };
    let (Some(queries), Some(keys)) = (product.input(0), product.input(1)) else { return ends(scores) };
    Ok(Core {
        operands: [
            (queries, Order::HeadTokenChannel),
            (keys, Order::HeadChannelToken),
            (values, Order::HeadTokenChannel),
        ],
        scale,
        heads: outer.iter().product(),
        head_dim,
        order: Order::HeadTokenChannel,
    })
}

/// One operator `Attention` of operator set 23 or later, whose heads are an axis of their own (`[1, heads, tokens,
/// head_dim]`) or stand side by side (`[1, tokens, heads * head_dim]`).
fn fused(walk: &Walk<'_>, node: &Node, output: ValueId) -> Found<Core> {
    let (graph, tokens) = (walk.graph, walk.tokens);
    let refuse = |why: &str| graph.stop(output, format!("attention with {why} is not supported"));
    let set = |name: &str| node.int(name).unwrap_or(0) != 0;
    if set("is_causal") {
        return refuse("a causal mask (is_causal)");
    }
    if node.float("softcap").unwrap_or(0.0) != 0.0 {
        return refuse("capped scores (softcap)");
    }
    // Inputs 4 and 5 are keys and values of earlier tokens, 6 is how many of them count; outputs 1 and 2 are those of
    // later ones.
    if (4..7).any(|at| node.input(at).is_some()) {
        return refuse("a cache of keys and values (past_key, past_value, nonpad_kv_seqlen)");
    }
    if let Some(mask) = node.input(3)
        && !adds_nothing(walk, mask)
    {
        return refuse("a bias or a mask");
    }
    let (Some(q), Some(k), Some(v)) = (node.input(0), node.input(1), node.input(2)) else {
        return graph.stop(output, "queries, keys and values are expected");
    };
    let own_heads = |name: &str| node.int(name).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let shapes = [q, k, v].map(|v| graph.shape(v));
    let [Some(query), Some(key), Some(value)] = shapes else {
        return graph.stop(output, "the shapes of queries, keys and values are not known");
    };
    let (order, heads, width) = match (query, own_heads("q_num_heads")) {
        (&[1, heads, _, width], _) => (Order::HeadTokenChannel, heads, width),
        (&[1, _, width], Some(heads)) if width.is_multiple_of(heads) => (Order::TokenHeadChannel, heads, width / heads),
        _ => return graph.stop(output, format!("queries {query:?}; one picture, and a count of heads, are expected")),
    };
    if key != query || value != query {
        return graph
            .stop(output, format!("queries {query:?}, keys {key:?} and values {value:?} have different shapes"));
    }
    let rows = query[query.len() - 2];
    if rows != tokens {
        return graph.stop(output, format!("attention over {rows} of {tokens} tokens"));
    }
    let scale = node.float("scale").map_or_else(|| (width as f64).sqrt().recip(), f64::from);
    Ok(Core { operands: [q, k, v].map(|v| (v, order)), scale, heads, head_dim: width, order })
}

/// Whether a mask changes no score: zeros to add, or true everywhere.
fn adds_nothing(walk: &Walk<'_>, mask: ValueId) -> bool {
    match (walk.graph.read_floats(mask), walk.graph.ints(mask)) {
        (Some(bias), _) => bias.data.iter().all(|x| *x == 0.0),
        (_, Some(kept)) => kept.data.iter().all(|x| *x != 0),
        _ => false,
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
            if graph.float_shape(mask).is_none() || !adds_nothing(walk, mask) {
                return graph.stop(value, "a bias or a mask on attention is not supported");
            }
            value = graph.strip(input);
        } else {
            return Ok((value, scale));
        }
    }
}

/// `1 / sqrt(head_dim)` as every other importer has it, where the graph says that in its own roundings.
fn exact_scale(scale: f64, head_dim: usize) -> f32 {
    let standard = crate::config::attention_scale(head_dim);
    // Two f16 roundings of its square root make 1e-3.
    if (scale / f64::from(standard) - 1.0).abs() < 1e-3 { standard } else { scale as f32 }
}

fn part(walk: &Walk<'_>, (value, order): (ValueId, Order), size: (usize, usize)) -> Found<(Part, f64)> {
    let (heads, head_dim) = size;
    let (graph, tokens) = (walk.graph, walk.tokens);
    let expected = "queries, keys and values of a linear layer are expected, without a rotary embedding";
    let Some(Moved { mut root, mut index, mut scale }) = graph.moved(value) else {
        return graph.stop(graph.strip(value), expected);
    };
    let place = |token: usize, i: usize| order.place((token, i), size, tokens);
    let norm = graph.normed(root).filter(|n| n.n == head_dim && graph.dense(root).is_none());
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
        Some(rows) => Ok((Part { input: dense.input, rows: graph.rows_of(&dense, &rows), norm }, scale)),
        None => graph.stop(value, format!("attention is not over all {tokens} tokens, head by head")),
    }
}

/// The element `[head][channel]` at each place of the output `[tokens, heads * head_dim]`.
fn columns(out: &Moved, size: (usize, usize), tokens: usize, order: Order) -> Option<Vec<usize>> {
    let (index, width) = (&out.index.data, size.0 * size.1);
    if index.len() != tokens * width {
        return None;
    }
    let at = |place: usize| order.token_and_channel(index[place] as usize, size, tokens);
    let columns: Vec<usize> = (0..width).map(|c| at(c).1).collect();
    let fits = |place: usize| at(place) == (place / width, columns[place % width]);
    let mut sorted = columns.clone();
    sorted.sort_unstable();
    let every = sorted.into_iter().eq(0..width);
    (every && (0..index.len()).all(fits)).then_some(columns)
}
