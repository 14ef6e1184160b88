//! ViT-5 (Wang et al. 2026, "ViT-5: Vision Transformers for the Mid-2020s"): a state dict alone, as its authors' code
//! saves it. The names tell the network, the shapes its sizes.
//!
//! Queries and keys are rotated in pairs of channels: of the patches by row and column, of the registers by their place
//! in a square. In the source, the two channels of a pair are neighbours. The engine has them half a head apart
//! (docs/numerics.md), so the rows of q and k and the weights of their norms change places. Registers stand behind the
//! patches in the source and before them here: attention does not know an order.

use serde_json::{Map, json};
use vitlet::config::Vit;
use vitlet::{Config, Family, Positions, Resampling};

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::json::Object;
use crate::network::{Block, Embedding, Linear, Mlp, Network, Norm, Rotation, Source, Tail};
use crate::options::Options;
use crate::{position, preprocess};

/// The authors' names, with width and depth.
const NAMES: [(&str, usize, usize); 4] =
    [("vit5_small", 384, 12), ("vit5_base", 768, 12), ("vit5_large", 1024, 24), ("vit5_xlarge", 1152, 28)];

/// What the rotations' frequencies are powers of, where a checkpoint does not have them: of patches and of registers.
const THETA: [f64; 2] = [10_000.0, 100.0];

/// Buffers with those frequencies, in every block.
const FREQUENCIES: [&str; 2] = ["attn.rope.freqs", "attn.rope_reg.freqs"];

/// No length of a ViT-5 is larger: the engine takes at most as many tokens.
const MOST: usize = 1 << 16;

/// What asks for a tensor, in errors.
const ASKER: &str = "ViT-5";

/// Whether a checkpoint is to be read as a ViT-5: `--arch` says so, or its tensors do, which are norms without biases,
/// gammas, and registers. Names may have a prefix.
pub(crate) fn is_meant(checkpoint: &Checkpoint, options: &Options) -> bool {
    let has = |end: &str| checkpoint.names().any(|name| name.ends_with(end));
    let all = ["reg_token", "blocks.0.gamma_1", "blocks.0.norm1.weight", "blocks.0.attn.q_norm.weight"];
    let looks = all.into_iter().all(has) && !["blocks.0.norm1.bias", "blocks.0.attn.q_norm.bias"].into_iter().any(has);
    looks || options.arch.as_ref().is_some_and(|name| name.starts_with("vit5"))
}

/// Reads a checkpoint that [`is_meant`] as one.
///
/// # Errors
/// Another architecture than `--arch` names, missing or further tensors, and what the engine does not support.
pub(crate) fn read(mut checkpoint: Checkpoint, options: &Options) -> Result<Source, Error> {
    let mut announcements = Vec::new();
    checkpoint.describe(ASKER);
    let depth = checkpoint.names().filter(|name| name.ends_with(".gamma_1")).count();
    let anchors = vec!["patch_embed.proj.weight".to_owned(), format!("blocks.{}.", depth.saturating_sub(1))];
    checkpoint.unwrap(&[anchors], &options.ignore, &mut announcements)?;
    let shape = Shape::of(&checkpoint, depth)?;
    let name = shape.name(options)?;
    shape.check_classes(options)?;
    let network = network(&mut checkpoint, &shape, options, &mut announcements)?;
    crate::checkpoint::announce_left_out(checkpoint.finish(&options.ignore)?, &mut announcements);
    let c = &network.config;
    announcements.push(format!(
        "the network is a ViT-5, as its tensors say: {}, places 0 to {} for the rotations; pictures are prepared as its \
         authors evaluate it",
        shape.shown(),
        shape.side - 1
    ));
    let preparation = json!({"crop_pct": 1.0, "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]});
    let preparation = Object::new(ASKER, "", preparation.as_object().cloned().unwrap_or_else(Map::new));
    let preprocess = preprocess::timm(&preparation, (c.image_height, c.image_width), options, &mut announcements)?;
    Ok(Source {
        network,
        preprocess,
        labels: None,
        name: name.to_owned(),
        license: None,
        url: None,
        folded_gammas: None,
        announcements,
    })
}

/// What the shapes of the tensors say.
struct Shape {
    dim: usize,
    depth: usize,
    head_dim: usize,
    hidden: usize,
    patch: usize,
    /// Patches along each edge of the pictures that it was trained on.
    side: usize,
    registers: usize,
    /// 0 without a head.
    classes: usize,
}

impl Shape {
    fn of(checkpoint: &Checkpoint, depth: usize) -> Result<Self, Error> {
        let of = |name: &str, axis: usize| {
            let why = || Error::tensor(name, format!("missing, or of another shape than {ASKER}'s"));
            let len = checkpoint.shape(name).and_then(|shape| shape.get(axis)).copied();
            // A file may state any length for a tensor without elements.
            len.filter(|n| (1..=MOST).contains(n)).ok_or_else(why)
        };
        let root = |name: &str, n: usize| {
            let why = || Error::tensor(name, format!("{n} rows; {ASKER} has a square number of them"));
            Some(n.isqrt()).filter(|side| side * side == n).ok_or_else(why)
        };
        let registers = of("reg_token", 1)?;
        root("reg_token", registers)?;
        let shape = Self {
            dim: of("patch_embed.proj.weight", 0)?,
            depth,
            head_dim: of("blocks.0.attn.q_norm.weight", 0)?,
            hidden: of("blocks.0.mlp.fc1.weight", 0)?,
            patch: of("patch_embed.proj.weight", 2)?,
            side: root("pos_embed", of("pos_embed", 1)?)?,
            registers,
            classes: of("head.weight", 0).unwrap_or(0),
        };
        if !shape.dim.is_multiple_of(shape.head_dim) {
            let why = format!("{} channels of a head do not divide {} channels", shape.head_dim, shape.dim);
            return Err(Error::tensor("blocks.0.attn.q_norm.weight", why));
        }
        Ok(shape)
    }

    /// In words.
    fn shown(&self) -> String {
        let Self { dim, depth, patch, .. } = self;
        let (heads, edge) = (dim / self.head_dim, self.side * patch);
        format!("{depth} blocks, {dim} wide, {heads} heads, patch {patch}, {edge}x{edge} pixels")
    }

    /// The authors' name for networks of these sizes, or else only that it is a ViT-5.
    ///
    /// # Errors
    /// `--arch` names another.
    fn name(&self, options: &Options) -> Result<&'static str, Error> {
        let fits = |&&(_, dim, depth): &&(&str, usize, usize)| (dim, depth) == (self.dim, self.depth);
        let own = NAMES.iter().find(fits).map(|(name, ..)| *name);
        let Some(given) = options.arch.as_deref() else { return Ok(own.unwrap_or("vit5")) };
        let fail = |why: String| Err(Error::new(format!("--arch {given}"), why));
        let known = || NAMES.map(|(name, ..)| name).join(", ");
        match NAMES.iter().find(|(name, ..)| *name == given) {
            None => fail(format!("the weights are those of a ViT-5; there are {}", known())),
            Some((name, ..)) if own == Some(*name) => Ok(name),
            Some((_, dim, depth)) => {
                let theirs = own.map_or(String::new(), |name| format!(", as {name} has"));
                fail(format!("it has {depth} blocks, {dim} wide, but the weights have {}{theirs}", self.shown()))
            }
        }
    }

    /// # Errors
    /// `--num-classes` is another number than the head has.
    fn check_classes(&self, options: &Options) -> Result<(), Error> {
        match options.num_classes {
            Some(given) if options.head.is_none() && given != self.classes => {
                let why = format!("{given}, but the head of the weights has {}", self.classes);
                Err(Error::new("--num-classes", why))
            }
            _ => Ok(()),
        }
    }

    fn config(&self, options: &Options) -> Config {
        let edge = self.side * self.patch;
        let (image_height, image_width) = options.image_size.unwrap_or((edge, edge));
        let vit = Vit {
            attention: crate::config::attention(self.dim / self.head_dim, self.head_dim),
            qk_norm: true,
            prefix_tokens: 1 + self.registers,
            ..Vit::EMPTY
        };
        Config {
            image_height,
            image_width,
            patch_height: self.patch,
            patch_width: self.patch,
            dim: self.dim,
            depth: self.depth,
            hidden: self.hidden,
            // As the authors' training takes a checkpoint to pictures of another size.
            positions: Positions::Resampled { rule: Resampling::Bicubic, grid: None },
            norm_eps: 1e-6,
            norm: true,
            classes: self.classes,
            ..Config::of(Family::Vit5(vit))
        }
    }
}

fn network(
    checkpoint: &mut Checkpoint,
    shape: &Shape,
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Network, Error> {
    let mut config = shape.config(options);
    crate::config::check_size(&config)?;
    let (dim, native) = (config.dim, (shape.side * shape.patch, shape.side * shape.patch));
    let patch = checkpoint.patch("patch_embed.proj", dim, (shape.patch, shape.patch), true)?;
    let prefix =
        [checkpoint.take("cls_token", &[1, 1, dim])?, checkpoint.take("reg_token", &[1, shape.registers, dim])?];
    let chosen = options.image_size.is_some();
    let positions = position::take(checkpoint, "pos_embed", &mut config, chosen, native, &mut [], announcements)?;
    let [of_patches, of_registers] = frequencies(checkpoint, shape, announcements)?;
    let rotation = rotation(shape, config.grid(), &of_patches, &of_registers);
    let rope = if config.positions == Positions::Fixed { Vec::new() } else { of_patches };
    let blocks = (0..shape.depth).map(|i| block(checkpoint, &config, i)).collect::<Result<_, _>>()?;
    let norm = Some(norm(checkpoint, "norm", dim)?);
    let head = match &options.head {
        Some(path) => {
            ["head.weight", "head.bias"].into_iter().for_each(|name| checkpoint.drop_tensor(name));
            Some(crate::head::replace(path, &mut config, announcements)?)
        }
        None if config.classes == 0 => None,
        None => Some(checkpoint.linear("head", config.classes, dim, true)?),
    };
    Ok(Network {
        embedding: Embedding {
            patch,
            positions: Some(positions),
            rotation: Some(rotation),
            prefix: prefix.concat(),
            ..Embedding::default()
        },
        rope,
        blocks,
        tail: Tail { norm, head, ..Tail::default() },
        ..Network::new(config)
    })
}

fn block(checkpoint: &mut Checkpoint, c: &Config, i: usize) -> Result<Block, Error> {
    let at = |name: &str| format!("blocks.{i}.{name}");
    let (dim, head_dim) = (c.dim, c.head_dim());
    let mut head_norm = |name: &str| -> Result<Norm, Error> {
        let norm = norm(checkpoint, &at(name), head_dim)?;
        Ok(Norm { weight: halves(head_dim).map(|from| norm.weight[from]).collect(), ..norm })
    };
    let qk_norm = Some((head_norm("attn.q_norm")?, head_norm("attn.k_norm")?));
    let mut qkv = checkpoint.linear(&at("attn.qkv"), 3 * dim, dim, false)?;
    qkv.change(move |qkv| part_pairs(qkv, head_dim));
    Ok(Block {
        norm1: Some(norm(checkpoint, &at("norm1"), dim)?),
        qkv,
        qk_norm,
        proj: checkpoint.linear(&at("attn.proj"), dim, dim, true)?,
        gamma1: Some(checkpoint.gamma(&at("gamma_1"), dim)?),
        mlp: Mlp {
            norm: Some(norm(checkpoint, &at("norm2"), dim)?),
            up: checkpoint.linear(&at("mlp.fc1"), c.hidden, dim, true)?,
            down: checkpoint.linear(&at("mlp.fc2"), dim, c.hidden, true)?,
            gamma: Some(checkpoint.gamma(&at("gamma_2"), dim)?),
        },
        ..Block::default()
    })
}

/// RMSNorm's weight. Its bias is zero.
fn norm(checkpoint: &mut Checkpoint, name: &str, n: usize) -> Result<Norm, Error> {
    Ok(Norm { weight: checkpoint.take(&format!("{name}.weight"), &[n])?, bias: vec![0.0; n] })
}

/// The channels of a head, first those that are first of a pair: where each comes from.
fn halves(head_dim: usize) -> impl Iterator<Item = usize> {
    (0..2).flat_map(move |of_pair| (of_pair..head_dim).step_by(2))
}

/// Puts the rows of every head of q and k, whose pairs are neighbours, half a head apart.
fn part_pairs(qkv: &mut Linear, head_dim: usize) {
    let (head, k) = (head_dim * qkv.k, qkv.k);
    let q_and_k = 2 * qkv.weight.len() / 3;
    let mut before = Vec::with_capacity(head);
    for rows in qkv.weight[..q_and_k].chunks_exact_mut(head) {
        before.clear();
        before.extend_from_slice(rows);
        for (to, from) in rows.chunks_exact_mut(k).zip(halves(head_dim)) {
            to.copy_from_slice(&before[from * k..][..k]);
        }
    }
}

/// By which angle each pair is turned from one place to the next: of patches and of registers, `[head_dim / 4]`.
fn frequencies(
    checkpoint: &mut Checkpoint,
    shape: &Shape,
    announcements: &mut Vec<String>,
) -> Result<[Vec<f32>; 2], Error> {
    let count = shape.head_dim / 4;
    let mut of_both = [Vec::new(), Vec::new()];
    for ((buffer, theta), of) in FREQUENCIES.into_iter().zip(THETA).zip(&mut of_both) {
        if !checkpoint.has(&format!("blocks.0.{buffer}")) {
            announcements.push(format!("no {buffer} in the checkpoint: frequencies are powers of {theta}, as ViT-5's"));
            of.extend((0..count).map(|i| libm::pow(theta, -(i as f64) / count as f64) as f32));
            continue;
        }
        for i in 0..shape.depth {
            let name = format!("blocks.{i}.{buffer}");
            let own = checkpoint.take(&name, &[count])?;
            if own.iter().any(|f| f.abs() > 1.0) {
                return Err(Error::tensor(&name, "frequencies above 1 are not supported"));
            }
            if i > 0 && own != *of {
                return Err(Error::tensor(&name, "differs from that of block 0; vitlet has one for all blocks"));
            }
            *of = own;
        }
    }
    Ok(of_both)
}

/// The rotations of all tokens but the class token: registers in their square, patches in `grid`.
fn rotation(shape: &Shape, grid: position::Grid, of_patches: &[f32], of_registers: &[f32]) -> Rotation {
    let square = |side: usize| (side, side);
    let (registers, row) = (square(shape.registers.isqrt()), shape.head_dim / 2);
    let rows = shape.registers + grid.0 * grid.1;
    let (mut cos, mut sin) = (vec![0.0; rows * row], vec![0.0; rows * row]);
    let (cos_ahead, cos_after) = cos.split_at_mut(shape.registers * row);
    let (sin_ahead, sin_after) = sin.split_at_mut(shape.registers * row);
    let turn = vitlet::positions::stretched_rotations;
    turn(registers, registers, of_registers.iter().copied(), row, cos_ahead, sin_ahead);
    turn(grid, square(shape.side), of_patches.iter().copied(), row, cos_after, sin_after);
    Rotation { cos, sin }
}
